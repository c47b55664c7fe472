"""Changes as text, for people to read."""

from __future__ import annotations

from pathlib import Path

from drover.git.command import SETTINGS, Place, operator_environment
from drover.git.commit import take_tree
from drover.git.repo import Repo

# Nothing of the repository's or the operator's configuration runs: no textconv, no external diff.
_PLAIN = ("diff-tree", "-r", "-p", "--no-ext-diff", "--no-textconv", "--no-color", "-M", "--stat", "--patch")


async def patch_between(repo: Repo, old: str, new: str) -> str:
    """What changed from one commit or tree to another, a summary first; empty when nothing did."""
    place = await repo.objects_place()
    done = await place.git(*_PLAIN, old, new, "--", timeout_s=600)
    return done.stdout.decode("utf-8", "replace")


async def patch_of_worktree(repo: Repo, worktree: Path, *, base: str, scratch: Path) -> str:
    """What a clone holds that ``base`` does not, whether committed there or not."""
    taken = await take_tree(repo, worktree, base=base, scratch=scratch)
    return await patch_between(repo, base, taken.tree)


async def operator_name(root: Path) -> str | None:
    """git's user.name as the operator has it for this repository; None when it is not set."""
    place = Place(root, operator_environment(), SETTINGS)
    return await place.line("config", "user.name", ok=(0, 1)) or None

"""Clones that were made ahead: brought to another commit in place, and told apart from those that are stale."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from drover.git.changes import changes_between
from drover.git.command import Place, our_environment
from drover.git.durable import on_disk
from drover.git.include import list_included
from drover.git.repo import Repo


async def bring_to(repo: Repo, clone: Path, *, old: str, new: str, branch: str) -> None:
    """A clone in which only set-up commands have run, from one commit to another: HEAD on ``branch``, index, files.

    Costs what differs, not what there is. What the set-up left beside git's files stays. Raises GitError when it
    has changed a file that differs; the clone is then of no use any more.
    """
    place = Place(clone, our_environment()).using(GIT_DIR=clone / ".git", GIT_WORK_TREE=clone)
    if old != new:
        attributes = repo.git_dir / "info" / "attributes"
        await place.using(f"core.attributesFile={attributes}").git("read-tree", "-m", "-u", old, new, timeout_s=1800)
    await place.git("update-ref", "-m", "drover: base of this attempt", f"refs/heads/{branch}", new)
    await place.git("symbolic-ref", "HEAD", f"refs/heads/{branch}")
    others = await place.git("for-each-ref", "--format=delete %(refname)", "refs/heads")
    gone = [line for line in others.stdout.splitlines() if line != f"delete refs/heads/{branch}".encode()]
    if gone:
        await place.git("update-ref", "--stdin", stdin=b"\n".join(gone) + b"\n")


async def names_changed(repo: Repo, old: str, new: str) -> set[str]:
    """The names, without their directories, of the files that differ between two commits."""
    if old == new:
        return set()
    changes = await changes_between(await repo.objects_place(), old, new)
    return {os.fsdecode(change.path.rpartition(b"/")[2]) for change in changes}


async def mark_of_included(repo: Repo, clone: Path) -> str:
    """Another one whenever a file of the operator's that clones get has changed; empty where none is listed."""
    paths = await list_included(repo, beside=clone)
    return await on_disk(_mark, repo.root, paths) if paths else ""


def _mark(root: Path, paths: list[bytes]) -> str:
    mark = hashlib.sha256()
    for path in paths:
        try:
            found = (root / os.fsdecode(path)).lstat()
        except OSError:
            continue
        mark.update(b"%s\0%d\0%d\0" % (path, found.st_size, found.st_mtime_ns))
    return mark.hexdigest()

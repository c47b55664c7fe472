"""The operator's checkouts of the repository: which there are, where their HEAD is, and the lock on their index."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from drover.domain.ids import new_token
from drover.domain.models import Frozen
from drover.git.command import Place
from drover.git.durable import on_disk, sync_path
from drover.git.overlap import Blocked, operation_names
from drover.git.repo import Repo

LOCK_TEXT = "held by drover, which is updating this checkout\n"


class Checkout(Frozen):
    """A checkout of the operator's: its top directory, and git's own directory for it."""

    path: Path
    git_dir: Path


def checkout_place(repo: Repo, checkout: Checkout, index: str, marker: str) -> Place:
    """For git in a checkout with an index of drover's own, by its file name."""
    place = repo.operators_place(checkout.path)
    return place.using(GIT_INDEX_FILE=checkout.git_dir / index, DROVER_MARKER=marker)


async def list_checkouts(repo: Repo, ref: str) -> tuple[Checkout, ...] | Blocked:
    """Every checkout that is on the branch; Blocked when one is in the middle of something with it."""
    on_branch = []
    listing = await _read_worktrees(repo)
    for git_dir in await on_disk(git_dirs, repo):
        if operation_names(git_dir, ref):
            where = listing[git_dir].path if git_dir in listing else git_dir
            return Blocked(why=f"a rebase or bisect of {ref.removeprefix('refs/heads/')} is under way in {where}")
        if git_dir not in listing or listing[git_dir].head != ref:
            continue
        path = listing[git_dir].path
        if path.is_dir():
            on_branch.append(Checkout(path=path, git_dir=git_dir))
        elif (git_dir / "locked").exists():
            return Blocked(why=f"the branch is checked out at {path}, which is away")
    return tuple(on_branch)


def git_dirs(repo: Repo) -> list[Path]:
    """git's own directory of every checkout, the main one first."""
    linked = repo.git_dir / "worktrees"
    return [repo.git_dir, *(sorted(path for path in linked.iterdir()) if linked.is_dir() else [])]


class _Listed(NamedTuple):
    path: Path
    head: str | None  # the ref HEAD names


async def _read_worktrees(repo: Repo) -> dict[Path, _Listed]:
    """Every checkout by git's own directory for it. A bare repository with linked checkouts has no main one."""
    by_path = {}
    for git_dir in (await on_disk(git_dirs, repo))[1:]:
        if (link := git_dir / "gitdir").is_file():
            by_path[link.read_bytes().rstrip(b"\n").removesuffix(b"/.git")] = git_dir
    if not by_path and repo.checkout_dir == repo.git_dir:
        return {repo.git_dir: _Listed(repo.root, await repo.head_ref(repo.git_dir))}  # as nearly always: the only one
    found = {}
    done = await repo.refs_place.git("worktree", "list", "--porcelain", "-z")
    for number, block in enumerate(done.stdout.split(b"\0\0")):
        fields = dict(line.partition(b" ")[::2] for line in block.split(b"\0"))
        if b"worktree" not in fields or b"bare" in fields:
            continue
        git_dir = repo.git_dir if number == 0 else by_path.get(fields[b"worktree"], Path())
        # With a git directory elsewhere git takes that directory for the main checkout.
        path = repo.root if git_dir == repo.checkout_dir else Path(os.fsdecode(fields[b"worktree"]))
        found[git_dir] = _Listed(path, os.fsdecode(fields[b"branch"]) if b"branch" in fields else None)
    return found


# ---------------------------------------------------------------- the lock on the index


def take_lock(checkout: Checkout) -> bool:
    """Lock the checkout's index against every other git; False when somebody has it.

    The file is linked into place with its text in it: a lock of ours is known as ours at any moment.
    """
    if holds_lock(checkout):
        return True
    draft = checkout.git_dir / f"drover-lock.{new_token()}"
    draft.write_text(LOCK_TEXT)
    sync_path(draft)  # a power cut leaves the name without the text, and then nobody would know whose it is
    try:
        (checkout.git_dir / "index.lock").hardlink_to(draft)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def holds_lock(checkout: Checkout) -> bool:
    """Whether the index is locked by drover."""
    try:
        return (checkout.git_dir / "index.lock").read_text() == LOCK_TEXT
    except (FileNotFoundError, UnicodeDecodeError):
        return False


def release(checkout: Checkout) -> None:
    """Give the checkout back: drover's own files in its git directory go, the lock on the index last."""
    for leftover in checkout.git_dir.glob("drover-*"):
        leftover.unlink(missing_ok=True)
    if holds_lock(checkout):
        (checkout.git_dir / "index.lock").unlink()


def copy_index(checkout: Checkout) -> None:
    """A private copy, ``drover-index``, to look at and to make the next index from.

    With its time: git takes an entry as new as the index for possibly edited, and a younger copy would hide that.
    """
    copy = checkout.git_dir / "drover-index"
    for leftover in (copy, copy.with_name("drover-index.lock")):
        leftover.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        shutil.copy2(checkout.git_dir / "index", copy)


def put_index(checkout: Checkout) -> None:
    """The private copy becomes the checkout's index. Under the lock."""
    draft = checkout.git_dir / "drover-index"
    sync_path(draft)
    draft.replace(checkout.git_dir / "index")
    sync_path(checkout.git_dir)

"""Moves checkouts from one commit to the next: their files and index, or nothing of them.

The order is files, index, branch, and drover holds the checkout's ``index.lock`` from before the
first look to after the last write, so that no commit, add or switch of the operator can come in
between. Killed at any point, a checkout has its branch at the old commit with some of the new
content as edits or staged changes: nothing looks reverted, and a commit made of it would revert
nothing. (The other order, branch first, shows the landing as reversed until the files follow.)

What is under way stands in a record on the disk before the first file is written. Where a record is
found, :func:`settle` finishes: the branch contains the new commit, then all was written and only
the locks go; or it does not, then the files and index entries that are drover's are put back. Only
what is exactly drover's own is put back, so an edit made after a crash stays.
"""

from __future__ import annotations

import os
from pathlib import Path

from drover.domain.models import Frozen
from drover.git.changes import GITLINK, SYMLINK, Change
from drover.git.checkouts import Checkout, checkout_place, copy_index, holds_lock, put_index, release
from drover.git.durable import on_disk, remove_durably, sync_path, write_durably
from drover.git.overlap import Blocked, find_operation, find_overlap
from drover.git.put_back import roll_back
from drover.git.repo import Repo


class Record(Frozen):
    """An update under way: ``ref`` goes from ``old`` to ``new``, and with it the files of these checkouts."""

    ref: str
    old: str
    new: str
    checkouts: tuple[Checkout, ...]


def record_path(repo: Repo) -> Path:
    """Where the record of the update under way is; there is at most one."""
    return repo.state_dir / "publish.json"


def read_record(repo: Repo) -> Record | None:
    """The update that was under way when drover was killed, if one was."""
    path = record_path(repo)
    return Record.model_validate_json(path.read_text()) if path.is_file() else None


def write_record(repo: Repo, record: Record) -> None:
    """To the disk, before the first file is written."""
    write_durably(record_path(repo), record.model_dump_json())


def erase_record(repo: Repo) -> None:
    """The update is complete, or all of it is taken back."""
    remove_durably(record_path(repo))


# ---------------------------------------------------------------- the way there


async def look(repo: Repo, checkout: Checkout, touched: list[Change], old: str, marker: str) -> Blocked | None:
    """Why the checkout cannot be updated now. Leaves a fresh copy of its index as ``drover-index``."""
    operation = find_operation(checkout.git_dir)
    if operation is not None:
        return Blocked(why=f"{operation} is under way in {checkout.path}")
    if not holds_lock(checkout) and (checkout.git_dir / "index.lock").exists():
        return Blocked(why=f"another git is at work in {checkout.path} (index.lock is there)")
    await on_disk(copy_index, checkout)
    return await find_overlap(checkout_place(repo, checkout, "drover-index", marker), checkout.path, touched, old)


async def write(repo: Repo, checkout: Checkout, touched: list[Change], old: str, new: str, marker: str) -> None:
    """Write the new files, then the new index. After :func:`look`, and under the lock."""
    place = checkout_place(repo, checkout, "drover-index", marker)
    await place.git("read-tree", "-m", "-u", old, new, timeout_s=600)
    await on_disk(_sync_files, checkout, touched)
    await on_disk(put_index, checkout)


def _sync_files(checkout: Checkout, touched: list[Change]) -> None:
    """The branch will be on the disk: its files have to be there before it, or a power cut empties them."""
    for change in touched:
        if not change.is_gone and change.new_mode not in (GITLINK, SYMLINK):
            sync_path(checkout.path / os.fsdecode(change.path))


async def settle(repo: Repo, record: Record, touched: list[Change], marker: str) -> Blocked | None:
    """Bring an update to its end, whichever end its branch says. None when nothing of it is left to do."""
    tip = (await repo.read_refs([record.ref]))[record.ref]
    done = tip is not None and await repo.is_ancestor(record.new, tip)
    for checkout in record.checkouts:
        if not checkout.git_dir.is_dir() or not checkout.path.is_dir():
            continue
        complete = done and await repo.head_ref(checkout.git_dir) == record.ref
        if not complete and await _is_left(repo, checkout, record, done):
            blocked = await roll_back(repo, checkout, touched, marker)
            if blocked is not None:
                return blocked
        await on_disk(release, checkout)
    await on_disk(erase_record, repo)
    return None


async def _is_left(repo: Repo, checkout: Checkout, record: Record, done: bool) -> bool:
    """Whether the checkout is as the update left it, rather than taken on by the operator since."""
    if not done and holds_lock(checkout):
        return True
    place = repo.refs_place.using(GIT_DIR=checkout.git_dir)
    return await place.line("rev-parse", "-q", "--verify", "HEAD", ok=(0, 1, 128)) == record.old

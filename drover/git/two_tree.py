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
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path

from anyio import to_thread

from drover.domain.ids import new_token
from drover.domain.models import Frozen
from drover.git.changes import ABSENT, GITLINK, SYMLINK, Change
from drover.git.command import Place, join0, split0
from drover.git.durable import remove_durably, sync_path, write_durably
from drover.git.overlap import Blocked, find_operation, find_overlap
from drover.git.repo import Repo

LOCK_TEXT = "held by drover, which is updating this checkout\n"


class Checkout(Frozen):
    """A checkout of the operator's: its top directory, and git's own directory for it."""

    path: Path
    git_dir: Path


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


def checkout_place(repo: Repo, checkout: Checkout, index: str, marker: str) -> Place:
    """For git in a checkout with an index of drover's own, by its file name."""
    place = repo.operators_place(checkout.path)
    return place.using(GIT_INDEX_FILE=checkout.git_dir / index, DROVER_MARKER=marker)


# ---------------------------------------------------------------- the lock


def take_lock(checkout: Checkout) -> bool:
    """Lock the checkout's index against every other git; False when somebody has it.

    The file is linked into place with its text in it: a lock of ours is known as ours at any moment.
    """
    if holds_lock(checkout):
        return True
    draft = checkout.git_dir / f"drover-lock.{new_token()}"
    draft.write_text(LOCK_TEXT)
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
    """Give the checkout back: drover's own files in its git directory go, the lock last."""
    for leftover in checkout.git_dir.glob("drover-*"):
        leftover.unlink(missing_ok=True)
    if holds_lock(checkout):
        (checkout.git_dir / "index.lock").unlink()


# ---------------------------------------------------------------- the way there


async def look(repo: Repo, checkout: Checkout, touched: list[Change], old: str, marker: str) -> Blocked | None:
    """Why the checkout cannot be updated now. Leaves a fresh copy of its index, refreshed, as ``drover-index``."""
    operation = find_operation(checkout.git_dir)
    if operation is not None:
        return Blocked(why=f"{operation} is under way in {checkout.path}")
    if not holds_lock(checkout) and (checkout.git_dir / "index.lock").exists():
        return Blocked(why=f"another git is at work in {checkout.path} (index.lock is there)")
    await to_thread.run_sync(_copy_index, checkout)
    return await find_overlap(checkout_place(repo, checkout, "drover-index", marker), checkout.path, touched, old)


async def write(repo: Repo, checkout: Checkout, touched: list[Change], old: str, new: str, marker: str) -> None:
    """Write the new files, then the new index. After :func:`look`, and under the lock."""
    place = checkout_place(repo, checkout, "drover-index", marker)
    await place.git("read-tree", "-m", "-u", old, new, timeout_s=600)
    await to_thread.run_sync(_sync_files, checkout, touched)
    await to_thread.run_sync(_put_index, checkout)


def _copy_index(checkout: Checkout) -> None:
    """With its time: git takes an entry as new as the index for possibly edited, and a younger copy would hide that."""
    copy = checkout.git_dir / "drover-index"
    for leftover in (copy, copy.with_name("drover-index.lock")):
        leftover.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        shutil.copy2(checkout.git_dir / "index", copy)


def _put_index(checkout: Checkout) -> None:
    draft = checkout.git_dir / "drover-index"
    sync_path(draft)
    draft.replace(checkout.git_dir / "index")
    sync_path(checkout.git_dir)


def _sync_files(checkout: Checkout, touched: list[Change]) -> None:
    """The branch will be on the disk: its files have to be there before it, or a power cut empties them."""
    for change in touched:
        if not change.is_gone and change.new_mode not in (GITLINK, SYMLINK):
            sync_path(checkout.path / os.fsdecode(change.path))


# ---------------------------------------------------------------- the way back


async def roll_back(repo: Repo, checkout: Checkout, touched: list[Change], marker: str) -> Blocked | None:
    """Put back the files and index entries of an update that did not come to its end.

    A path is put back when its index entry is the update's old or new one and its file is exactly
    what the update wrote, or the beginning of it. Anything else there is the operator's and stays.
    """
    if not take_lock(checkout):
        return Blocked(why=f"another git is at work in {checkout.path} (index.lock is there)")
    await to_thread.run_sync(_copy_index, checkout)
    index = checkout_place(repo, checkout, "drover-index", marker)
    entries = await _read_entries(index)
    ours = [change for change in touched if GITLINK not in (change.old_mode, change.new_mode)]
    kept = [change for change in ours if entries.get(change.path) == _entry(change.old_mode, change.old)]
    others = [change for change in ours if entries.get(change.path) != _entry(change.old_mode, change.old)]
    swapped = [change for change in others if entries.get(change.path) == _entry(change.new_mode, change.new)]
    await _restore_files(repo, checkout, [*kept, *swapped], marker)
    if swapped:
        await index.git("update-index", "-z", "--index-info", stdin=_index_info(swapped, old=True))
        await index.git("update-index", "-q", "--refresh", ok=(0, 1))
        await to_thread.run_sync(_put_index, checkout)
    return None


async def _read_entries(place: Place) -> dict[bytes, tuple[str, str] | None]:
    """Path → mode and object, for every entry that git does not look away from."""
    entries: dict[bytes, tuple[str, str] | None] = {}
    for item in split0((await place.git("ls-files", "-s", "-v", "-z")).stdout):
        head, _, path = item.partition(b"\t")
        tag, *words = head.decode().split(" ")
        if tag == "H":
            entries[path] = (words[0], words[1])
        else:
            entries[path] = ("", "")
    return entries


def _entry(mode: str, oid: str) -> tuple[str, str] | None:
    return None if mode == ABSENT else (mode, oid)


def _index_info(changes: list[Change], *, old: bool) -> bytes:
    """Input for ``update-index --index-info`` that makes one side of these changes; mode 0 removes."""
    lines = (
        (f"{change.old_mode} {change.old}" if old else f"{change.new_mode} {change.new}").encode() + b"\t" + change.path
        for change in changes
    )
    return join0(list(lines))


async def _restore_files(repo: Repo, checkout: Checkout, changes: list[Change], marker: str) -> None:
    old_place = checkout_place(repo, checkout, "drover-old", marker)
    new_place = checkout_place(repo, checkout, "drover-new", marker)
    untouched = await _matching(old_place, [change for change in changes if not change.is_new], old=True)
    written = await _matching(new_place, [change for change in changes if not change.is_gone], old=False)
    back = []
    for change in changes:
        path = checkout.path / os.fsdecode(change.path)
        here = path.is_symlink() or path.is_file()
        if change.path in untouched or (change.is_new and not here):
            continue
        if not here or change.path in written or await _is_beginning(new_place, path, change):
            back.append(change)
    await to_thread.run_sync(_clear_way, checkout, back)
    paths = [change.path for change in back if not change.is_new and _is_free(checkout, change.path)]
    await old_place.git("checkout-index", "-f", "-q", "-z", "--stdin", stdin=join0(paths))


async def _matching(place: Place, changes: list[Change], *, old: bool) -> set[bytes]:
    """The paths whose file is what one side of the change says."""
    await to_thread.run_sync(partial(Path(place.env["GIT_INDEX_FILE"]).unlink, missing_ok=True))
    await place.git("update-index", "-z", "--index-info", stdin=_index_info(changes, old=old))
    await place.git("update-index", "-q", "--refresh", ok=(0, 1))
    done = await place.git("diff-files", "--name-only", "-z", "--ignore-submodules=dirty")
    return {change.path for change in changes} - set(split0(done.stdout))


async def _is_beginning(place: Place, path: Path, change: Change) -> bool:
    """Whether a file holds the first part of the new content: git was killed while it wrote it."""
    if change.is_gone or SYMLINK in (change.new_mode, *_link_mode(path)):
        return False
    done = await place.git("cat-file", "--filters", f"--path={os.fsdecode(change.path)}", change.new)
    return done.stdout.startswith(await to_thread.run_sync(path.read_bytes))


def _link_mode(path: Path) -> tuple[str, ...]:
    return (SYMLINK,) if path.is_symlink() else ()


def _clear_way(checkout: Checkout, changes: list[Change]) -> None:
    """Remove what was written where nothing was, and the directories that this leaves empty."""
    for change in changes:
        if change.is_new:
            path = checkout.path / os.fsdecode(change.path)
            path.unlink(missing_ok=True)
            for parent in path.parents:
                if parent == checkout.path:
                    break
                with suppress(OSError):  # not empty
                    parent.rmdir()


def _is_free(checkout: Checkout, path: bytes) -> bool:
    """Whether git may write there: it would clear away a directory, or a file where it wants a directory."""
    place = checkout.path / os.fsdecode(path)
    if place.is_dir() and not place.is_symlink():
        return False
    parents = [parent for parent in place.parents if checkout.path in parent.parents]
    return all(parent.is_dir() and not parent.is_symlink() for parent in parents if os.path.lexists(parent))


async def settle(repo: Repo, record: Record, touched: list[Change], marker: str) -> Blocked | None:
    """Bring an update to its end, whichever end its branch says. None when nothing of it is left to do."""
    tip = (await repo.read_refs([record.ref]))[record.ref]
    done = tip is not None and await repo.is_ancestor(record.new, tip)
    for checkout in record.checkouts:
        if not checkout.git_dir.is_dir() or not checkout.path.is_dir():
            continue
        complete = done and await read_head(repo, checkout) == record.ref
        if not complete and await _is_left(repo, checkout, record, done):
            blocked = await roll_back(repo, checkout, touched, marker)
            if blocked is not None:
                return blocked
        await to_thread.run_sync(release, checkout)
    await to_thread.run_sync(erase_record, repo)
    return None


async def _is_left(repo: Repo, checkout: Checkout, record: Record, done: bool) -> bool:
    """Whether the checkout is as the update left it, rather than taken on by the operator since."""
    if not done and holds_lock(checkout):
        return True
    place = repo.refs_place.using(GIT_DIR=checkout.git_dir)
    return await place.line("rev-parse", "-q", "--verify", "HEAD", ok=(0, 1, 128)) == record.old


async def read_head(repo: Repo, checkout: Checkout) -> str | None:
    """The ref that HEAD of a checkout names; None when it is detached."""
    place = repo.refs_place.using(GIT_DIR=checkout.git_dir)
    return await place.line("symbolic-ref", "-q", "HEAD", ok=(0, 1)) or None

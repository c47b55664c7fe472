"""Puts back the files and index entries that an update of a checkout wrote before it was stopped."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path

from drover.git.changes import ABSENT, GITLINK, SYMLINK, Change
from drover.git.checkouts import Checkout, checkout_place, copy_index, put_index, take_lock
from drover.git.command import Place, join0, split0
from drover.git.durable import on_disk
from drover.git.overlap import Blocked
from drover.git.repo import Repo


async def roll_back(repo: Repo, checkout: Checkout, touched: list[Change], marker: str) -> Blocked | None:
    """Put back the files and index entries of an update that did not come to its end.

    A path is put back when its index entry is the update's old or new one and its file is exactly
    what the update wrote, or the beginning of it. Anything else there is the operator's and stays.
    """
    if not take_lock(checkout):
        return Blocked(why=f"another git is at work in {checkout.path} (index.lock is there)")
    await on_disk(copy_index, checkout)
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
        await on_disk(put_index, checkout)
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
    await on_disk(_clear_way, checkout, back)
    paths = [change.path for change in back if not change.is_new and _is_free(checkout, change.path)]
    await old_place.git("checkout-index", "-f", "-q", "-z", "--stdin", stdin=join0(paths))


async def _matching(place: Place, changes: list[Change], *, old: bool) -> set[bytes]:
    """The paths whose file is what one side of the change says."""
    await on_disk(partial(Path(place.env["GIT_INDEX_FILE"]).unlink, missing_ok=True))
    await place.git("update-index", "-z", "--index-info", stdin=_index_info(changes, old=old))
    await place.git("update-index", "-q", "--refresh", ok=(0, 1))
    done = await place.git("diff-files", "--name-only", "-z", "--ignore-submodules=dirty")
    return {change.path for change in changes} - set(split0(done.stdout))


async def _is_beginning(place: Place, path: Path, change: Change) -> bool:
    """Whether a file holds the first part of the new content: git was killed while it wrote it."""
    if change.is_gone or SYMLINK in (change.new_mode, *_link_mode(path)):
        return False
    done = await place.git("cat-file", "--filters", f"--path={os.fsdecode(change.path)}", change.new)
    return done.stdout.startswith(await on_disk(path.read_bytes))


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

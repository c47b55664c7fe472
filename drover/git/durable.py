"""Forces to the disk what git leaves to the kernel.

git fsyncs a ref's file and then renames it into place without an fsync of the directory, and by
default does not fsync loose objects at all: after a power cut a ref may have gone back, or name an
object that is empty. An object that exists already is never fsynced again by git, whoever wrote it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar, TypeVarTuple, Unpack

from drover.domain.errors import DiskFull, says_disk_full
from drover.process.threads import in_thread

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

_FULL_FSYNC = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: plain fsync leaves the data in the drive's cache


async def on_disk(function: Callable[[Unpack[Arguments]], Result], *args: *Arguments) -> Result:
    """Do work with files in a thread, to its end. Raises DiskFull when that is why it failed."""
    try:
        return await in_thread(function, *args)
    except OSError as error:
        if says_disk_full(error):
            raise DiskFull(f"no space left on the disk for {error.filename or 'a file'}") from error
        raise


_SYNCFS = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)  # Linux only


def sync_path(path: Path) -> None:
    """Force a regular file or a directory to the disk; one that has gone is left out."""
    with suppress(FileNotFoundError, NotADirectoryError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if _FULL_FSYNC is not None:
                fcntl.fcntl(handle, _FULL_FSYNC)
            else:
                os.fsync(handle)
        finally:
            os.close(handle)


Anchors = set[tuple[Path, int]]
"""Directories (and their inodes) whose own names are known to be on the disk: theirs need not be forced again."""


def sync_objects(objects: Path, oids: Iterable[str], anchors: Anchors) -> int:
    """Force the loose ones of these objects, and their directories; how many there were.

    Objects in packs are left out: git syncs a pack when it writes it.
    """
    directories = set()
    count = 0
    for oid in oids:
        path = objects / oid[:2] / oid[2:]
        if path.exists():
            sync_path(path)
            directories.add(path.parent)
            count += 1
    _sync_names(directories, objects, anchors)
    return count


def sync_refs(git_dir: Path, refs: Iterable[str], anchors: Anchors) -> None:
    """Force the renames that moved these refs: every directory from a ref's own up to one that is anchored."""
    _sync_names({(git_dir / ref).parent for ref in refs}, git_dir, anchors)
    sync_path(git_dir / "reftable")


def _sync_names(directories: set[Path], top: Path, anchors: Anchors) -> None:
    """Force these directories, and those above them up to ``top`` in which a name may be new."""
    left, anchored = set(directories), Anchors()
    while left:
        directory = max(left, key=lambda path: len(path.parts))
        left.remove(directory)
        try:
            anchor = (directory, directory.stat().st_ino)
        except (FileNotFoundError, NotADirectoryError):
            anchor = None  # it was removed, and that is a change of the one above it
        if anchor is not None:
            sync_path(directory)
            anchored.add(anchor)
        if anchor not in anchors and directory != top:
            left.add(directory.parent)
    anchors |= anchored


def sync_filesystem(path: Path) -> None:
    """Force everything written so far to the filesystem that holds ``path`` to the disk.

    For a directory of many files: one call instead of an fsync of each. Without it a power cut leaves
    a clone that was made a moment ago with all of its names and none of its content.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        if _SYNCFS is None:
            os.sync()
        elif _SYNCFS(handle) != 0:
            raise OSError(ctypes.get_errno(), f"{path} could not be forced to the disk")
    finally:
        os.close(handle)


def write_durably(path: Path, text: str) -> None:
    """Write a small file so that it is there wholly or not at all, also after a power cut."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(text)
    sync_path(draft)
    draft.replace(path)
    sync_path(path.parent)


def remove_durably(path: Path) -> None:
    """Remove a file so that it does not come back after a power cut."""
    path.unlink(missing_ok=True)
    sync_path(path.parent)

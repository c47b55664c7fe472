"""Copies into a new clone what git does not carry: files that are ignored and listed in ``.worktreeinclude``."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path

from drover.git.command import shown, split0
from drover.git.durable import on_disk
from drover.git.repo import Repo

LIST = ".worktreeinclude"
_FICLONE = 0x40049409  # Linux: share the blocks of another file until one of them is written to


async def copy_included(repo: Repo, clone: Path) -> tuple[str, ...]:
    """Copy the operator's files that are both ignored and listed (in gitignore's syntax); their paths.

    Links are copied as links, a file that the clone has stays. The directory of the checkout that
    holds the clone itself is left out. Without a list, or with nothing that matches, nothing is done.
    """
    if not await on_disk((repo.root / LIST).is_file):
        return ()
    place = repo.operators_place()
    others = ("ls-files", "--others", "--ignored", "-z")
    ignored = await place.git(*others, *await repo.exclude_options(), timeout_s=600)
    listed = await place.git(*others, f"--exclude-from={LIST}", timeout_s=600)
    own = _first_directory(repo.root, clone)
    paths = sorted(set(split0(ignored.stdout)) & set(split0(listed.stdout)))
    wanted = [path for path in paths if not path.endswith(b"/") and not (own and path.startswith(own))]
    return await on_disk(_copy_all, repo.root, clone, wanted)


def _first_directory(root: Path, clone: Path) -> bytes:
    """``.drover/`` for a clone below ``.drover``; empty when the clone is not in the checkout."""
    inside = clone.is_relative_to(root)
    return os.fsencode(clone.relative_to(root).parts[0]) + b"/" if inside else b""


def _copy_all(root: Path, clone: Path, paths: list[bytes]) -> tuple[str, ...]:
    copied = []
    for path in paths:
        target = clone / os.fsdecode(path)
        with suppress(FileExistsError, NotADirectoryError, FileNotFoundError):  # the clone's own stays; or it has gone
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(root / os.fsdecode(path), target)
            copied.append(shown(path))
    return tuple(copied)


def _copy(source: Path, target: Path) -> None:
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    with source.open("rb") as old, target.open("xb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError:  # another file system, or one that cannot share
            shutil.copyfileobj(old, new)
    shutil.copystat(source, target)

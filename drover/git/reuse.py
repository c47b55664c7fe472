"""Kept directories: those of landed tasks become the clones of later ones.

A checkout of a large repository costs seconds, one that is there already milliseconds. What a clone was kept
with is not trusted: its ``.git`` goes at once, and before it is used again every file whose stat is not what
drover's own index knows is written anew, and everything else, ignored or not, is removed.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from functools import partial
from pathlib import Path

from drover.domain.errors import GitError
from drover.domain.ids import new_token
from drover.git.command import Place, split0
from drover.git.durable import on_disk
from drover.git.removing import remove_tree
from drover.git.repo import Repo


async def keep(path: Path, scratch: Path, pool: Path, most: int) -> bool:
    """Put a clone into the pool instead of removing it, with the index that drover reads it with.

    False, and nothing changed, when there is no such index or the pool holds ``most`` already. Nobody may
    work in the clone any more, and nothing in it may be needed.
    """
    return await on_disk(partial(_keep, path, scratch, pool, most))


async def freshen(repo: Repo, place: Place, base: str, tree: str) -> None:
    """Make the files in ``place`` exactly those of ``tree``, by its index, which is drover's own. Raises GitError.

    ``base`` is the commit that ``tree`` is of or was made from. For trees without submodules: git does not look
    into the directory of one.
    """
    top = Path(place.env["GIT_WORK_TREE"])
    if tree == base:
        names = sorted((await repo.layout(base)).directories)
    else:
        done = await place.git("ls-tree", "-r", "-d", "-z", "--name-only", "--full-tree", tree)
        names = split0(done.stdout)
    directories = [top, *(top / os.fsdecode(name) for name in names)]
    await on_disk(partial(_open_up, directories))
    await place.git("read-tree", "--reset", "-u", tree, timeout_s=600)
    others = await place.git("ls-files", "--others", "--directory", "-z", timeout_s=600)
    await on_disk(partial(_clear, top, split0(others.stdout), directories))


async def drop(pools: Path, *, but: Path | None = None) -> int:
    """Remove every pool in a directory, with what is kept in it; of the pool ``but`` only what killed calls left."""
    return await on_disk(partial(_drop, pools, but))


def _keep(path: Path, scratch: Path, pool: Path, most: int) -> bool:
    if path.is_symlink() or not path.is_dir() or not (scratch / "index").is_file():
        return False
    pool.mkdir(exist_ok=True, parents=True, mode=0o700)
    if len(_kept(pool)) >= most:
        return False
    entry = pool / f".{new_token()}"
    entry.mkdir()
    (scratch / "index").replace(entry / "index")
    path.rename(entry / "files")
    own = entry / "files" / ".git"
    if own.is_symlink() or own.is_file():
        own.unlink()
    elif own.exists():
        remove_tree(own)
    entry.rename(pool / entry.name.removeprefix("."))
    return True


def _kept(pool: Path) -> list[Path]:
    return sorted(entry for entry in pool.iterdir() if not entry.name.startswith(".")) if pool.is_dir() else []


def take(pool: Path, draft: Path) -> Path | None:
    """Move a kept directory to ``draft``, which is not there yet; its index, or None when the pool is empty."""
    for entry in _kept(pool):
        mine = draft.with_name(f"{draft.name}w")  # a draft's name, too: should we be killed, it is cleared as one
        with suppress(FileNotFoundError):  # somebody else took it
            entry.rename(mine)
            (mine / "files").rename(draft)
            return mine / "index"
    return None


def _open_up(directories: list[Path]) -> None:
    """What is a directory in the tree can be written into, whatever was made of it."""
    for directory in directories:
        with suppress(FileNotFoundError, NotADirectoryError):
            mode = directory.lstat().st_mode
            if stat.S_ISDIR(mode) and (mode & 0o7000 or mode & 0o700 != 0o700):
                directory.chmod(mode & 0o777 | 0o700)


def _remove(top: Path, names: list[bytes]) -> None:
    for name in names:
        path = top / os.fsdecode(name.rstrip(b"/"))
        if path == top / ".git":
            continue
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)


def _clear(top: Path, strangers: list[bytes], directories: list[Path]) -> None:
    _remove(top, strangers)
    _check(directories)


def _check(directories: list[Path]) -> None:
    """git looks away from anything called .git: a repository that was put into a directory of the tree."""
    for directory in directories[1:]:
        inner = directory / ".git"
        if inner.is_symlink() or inner.is_file():
            inner.unlink()
        elif inner.exists():
            remove_tree(inner)
        if directory.is_symlink() or not directory.is_dir():
            raise GitError(f"{directory} is no directory")


def _drop(pools: Path, but: Path | None) -> int:
    going = [pool for pool in pools.iterdir() if pool != but] if pools.is_dir() else []
    if but is not None and but.is_dir():
        going += [entry for entry in but.iterdir() if entry.name.startswith(".")]
    for path in going:
        remove_tree(path)
    return len(going)

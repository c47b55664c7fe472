"""Copies into a new clone what git does not carry: files that are ignored and listed in ``.worktreeinclude``."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path

from drover.git.command import Place, join0, our_environment, shown, split0
from drover.git.durable import on_disk
from drover.git.repo import Repo

LIST = ".worktreeinclude"
_FICLONE = 0x40049409  # Linux: share the blocks of another file until one of them is written to


async def copy_included(repo: Repo, clone: Path) -> tuple[str, ...]:
    """Copy the operator's files that are both ignored and listed (in gitignore's syntax); their paths.

    Only what the clone's own rules ignore too: an operator's rule that is not committed yet would
    make a secret a file of the task's result. Links are copied as links, and none in the clone is
    followed. A file that the clone has stays. Without a list, or with nothing that matches, nothing is done.
    """
    wanted = await list_included(repo, beside=clone)
    wanted = await on_disk(_without_links, clone, wanted)
    if not wanted:
        return ()
    ignored = await _ignored_in(repo, clone, wanted)
    return await on_disk(_copy_all, repo.root, clone, ignored)


async def _ignored_in(repo: Repo, clone: Path, paths: list[bytes]) -> list[bytes]:
    in_the_clone = f"--exclude-from={repo.git_dir / 'info' / 'exclude'}"  # it has a copy of that one
    files = [option for option in await repo.exclude_options() if option.startswith("--exclude-from=")]
    own = next((o.removeprefix("--exclude-from=") for o in files if o != in_the_clone), os.devnull)
    # check-ignore refuses literal pathspecs; "./" keeps a name from being read as anything but a name.
    place = Place(clone, our_environment()).using(
        f"core.excludesFile={own}", GIT_DIR=clone / ".git", GIT_WORK_TREE=clone, GIT_LITERAL_PATHSPECS="0"
    )
    names = join0([b"./" + path for path in paths])
    done = await place.git("check-ignore", "-z", "--stdin", stdin=names, ok=(0, 1), timeout_s=600)
    return [name.removeprefix(b"./") for name in split0(done.stdout)]


async def list_included(repo: Repo, *, beside: Path | None = None) -> list[bytes]:
    """The operator's files that are ignored and listed, in order; none of the top directory that holds ``beside``.

    Empty, and next to free, where there is no list.
    """
    if not await on_disk((repo.root / LIST).is_file):
        return []
    place = repo.operators_place()
    others = ("ls-files", "--others", "--ignored", "-z")
    ignored = await place.git(*others, *await repo.exclude_options(), timeout_s=600)
    listed = await place.git(*others, f"--exclude-from={LIST}", timeout_s=600)
    own = _first_directory(repo.root, beside) if beside else b""
    paths = sorted(set(split0(ignored.stdout)) & set(split0(listed.stdout)))
    return [path for path in paths if not path.endswith(b"/") and not (own and path.startswith(own))]


def _first_directory(root: Path, clone: Path) -> bytes:
    """``.drover/`` for a clone below ``.drover``; empty when the clone is not in the checkout."""
    inside = clone.is_relative_to(root)
    return os.fsencode(clone.relative_to(root).parts[0]) + b"/" if inside else b""


def _without_links(clone: Path, paths: list[bytes]) -> list[bytes]:
    """Those that lead through no symbolic link of the clone: such a copy would be made wherever it leads."""
    linked: dict[Path, bool] = {clone: False}

    def is_linked(directory: Path) -> bool:
        if directory not in linked:
            linked[directory] = is_linked(directory.parent) or directory.is_symlink()
        return linked[directory]

    return [path for path in paths if not is_linked((clone / os.fsdecode(path)).parent)]


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

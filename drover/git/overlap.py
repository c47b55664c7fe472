"""What of the operator's own stands in the way of an update of their checkout."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from drover.domain.models import Frozen
from drover.git.changes import Change, parse_raw
from drover.git.command import Place, shown, split0
from drover.git.durable import on_disk

_OPERATIONS = {
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase or am",
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "BISECT_LOG": "a bisect",
    "sequencer": "a sequence of picks",
}


class Blocked(Frozen):
    """The update has to wait; nothing was changed. ``paths`` are the operator's that are in the way, if any are."""

    why: str
    paths: tuple[str, ...] = ()


def find_operation(git_dir: Path) -> str | None:
    """The operation under way in a checkout, in words; ``git_dir`` is the checkout's own."""
    return next((words for name, words in _OPERATIONS.items() if (git_dir / name).exists()), None)


def operation_names(git_dir: Path, ref: str) -> bool:
    """Whether an operation with a detached HEAD will come back to this branch: a rebase or bisect of it."""
    branch = ref.removeprefix("refs/heads/")
    files = ("rebase-merge/head-name", "rebase-apply/head-name", "rebase-merge/update-refs", "BISECT_START")
    for name in files:
        path = git_dir / name
        if path.is_file() and {ref, branch} & set(path.read_text(errors="replace").split()):
            return True
    return False


async def find_overlap(place: Place, checkout: Path, touched: list[Change], old: str) -> Blocked | None:
    """Why these changes cannot be made in a checkout of ``old``; None when they can.

    ``place`` names a private, fresh copy of the checkout's index, which may be refreshed here. In the
    way are: a touched path that is staged, edited, unmerged or marked to be looked away from, and
    any file, ignored or not, where the update has to put one.
    """
    hidden, assumed, unmerged = await _read_flags(place)
    if unmerged:
        return Blocked(why="your checkout has unmerged paths", paths=_texts(unmerged))
    staged = {change.path for change in parse_raw(await _raw(place, "diff-index", "--cached", old))}
    # A path hidden by a sparse checkout has no file; with one, somebody edits what git looks away from.
    looked_away = assumed | {path for path in hidden if _exists(checkout / os.fsdecode(path))}
    paths = [change.path for change in touched]
    edited = await _list_edited(place)
    if overlapping(edited, paths):  # or only touched, with its content as it was
        await place.git("update-index", "-q", "--refresh", "--unmerged", ok=(0, 1), timeout_s=600)
        edited = await _list_edited(place)
    dirty = overlapping(staged | edited | looked_away, paths)
    if dirty:
        return Blocked(why=f"your checkout has changes in {_some(dirty)}", paths=_texts(dirty))
    strangers = await on_disk(_find_strangers, checkout, touched, hidden)
    if strangers:
        return Blocked(why=f"files that git does not track are in the way: {_some(strangers)}", paths=_texts(strangers))
    return None


def overlapping(dirty: set[bytes], touched: list[bytes]) -> list[bytes]:
    """The dirty paths that are a touched path, lie below one, or are a directory of one; in order."""
    exact = set(touched)
    above = {parent for path in touched for parent in _parents(path)}
    return sorted(
        path for path in dirty if path in exact or path in above or any(parent in exact for parent in _parents(path))
    )


async def _raw(place: Place, *argv: str) -> bytes:
    # ``dirty``: a submodule counts by its commit; git status is not run inside of it.
    done = await place.git(*argv[:1], "--raw", "-z", "--no-renames", "--ignore-submodules=dirty", *argv[1:])
    return done.stdout


async def _list_edited(place: Place) -> set[bytes]:
    return {change.path for change in parse_raw(await _raw(place, "diff-files"))}


async def _read_flags(place: Place) -> tuple[set[bytes], set[bytes], set[bytes]]:
    """Paths that are hidden from the checkout or assumed unchanged; those of them assumed unchanged; unmerged ones."""
    hidden, assumed, unmerged = set(), set(), set()
    for entry in split0((await place.git("ls-files", "-v", "-z")).stdout):
        tag, path = entry[:1], entry[2:]
        if tag == b"M":
            unmerged.add(path)
        elif tag in b"S" or tag.islower():
            hidden.add(path)
            if tag.islower():
                assumed.add(path)
    return hidden, assumed, unmerged


def _find_strangers(checkout: Path, touched: list[Change], hidden: set[bytes]) -> list[bytes]:
    leaving = {change.path for change in touched if not change.is_new}
    found: set[bytes] = set()
    for change in touched:
        if change.is_new and change.path not in hidden:
            found.update(_in_the_way(checkout, change.path, leaving))
    return sorted(found)


def _in_the_way(checkout: Path, path: bytes, leaving: set[bytes]) -> Iterator[bytes]:
    """What is where a new file has to go, other than files that leave in the same update."""
    for part in (*reversed(list(_parents(path))), path):
        try:
            mode = (checkout / os.fsdecode(part)).lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(mode):
            if part not in leaving:
                yield part
            return
    for top, directories, files in os.walk(checkout / os.fsdecode(path)):
        links = [name for name in directories if (Path(top) / name).is_symlink()]
        for name in (*files, *links):
            inner = os.fsencode((Path(top) / name).relative_to(checkout))
            if inner not in leaving:
                yield inner


def _parents(path: bytes) -> Iterator[bytes]:
    """``a/b/c`` → ``a/b``, ``a``."""
    while b"/" in path:
        path = path.rsplit(b"/", 1)[0]
        yield path


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _texts(paths: set[bytes] | list[bytes]) -> tuple[str, ...]:
    return tuple(shown(path) for path in sorted(paths))


def _some(paths: list[bytes]) -> str:
    names = ", ".join(shown(path) for path in paths[:3])
    return names if len(paths) <= 3 else f"{names} and {len(paths) - 3} more"

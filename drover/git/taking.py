"""Takes a few plain files into a tree without git: an attempt's result is nearly always just that."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from drover.git.loose import write_loose
from drover.git.merging import write_tree
from drover.git.trees import TREE, Entry, NotLoose, Trees

MOST_FILES = 64
MOST_BYTES = 1024 * 1024  # of each
# Nothing that any system would read as another name, as .git, or as a file of git's own.
_PART = rb"[A-Za-z0-9_-](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?"
_PLAIN = re.compile(_PART + rb"(?:/" + _PART + rb")*")
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Taker:
    """Takes files of ``worktree`` on top of a tree."""

    def __init__(self, trees: Trees, objects: Path, object_format: str, worktree: Path) -> None:
        self._trees = trees
        self._objects = objects
        self._format = object_format
        self._worktree = worktree

    def take(self, base: str, paths: Sequence[bytes]) -> str:
        """The tree of ``base`` with these files as they are, among the objects now; as ``git update-index`` takes them.

        Raises NotLoose when one is no plain file under a plain name, or only git can read what is there already.
        """
        if not 0 < len(paths) <= MOST_FILES or not all(map(_PLAIN.fullmatch, paths)):
            raise NotLoose
        files = {tuple(path.split(b"/")): self._blob(path) for path in paths}
        return self._tree(base, files)

    def _tree(self, base: str | None, files: dict[tuple[bytes, ...], Entry]) -> str:
        known = self._trees.entries(base) if base else {}
        entries, below = dict(known), dict[bytes, dict[tuple[bytes, ...], Entry]]()
        for (name, *rest), entry in files.items():
            here = known.get(name)
            if here is not None and (here.mode == TREE) is not bool(rest):
                raise NotLoose  # a file where a directory was, or the other way round
            if rest:
                below.setdefault(name, {})[tuple(rest)] = entry
            elif here is None or here.mode.startswith("100"):
                entries[name] = entry
            else:
                raise NotLoose
        for name, inner in below.items():
            entries[name] = Entry(TREE, self._tree(known[name].oid if name in known else None, inner))
        return write_tree(self._objects, self._format, entries, like=(base, known) if base else None)

    def _blob(self, path: bytes) -> Entry:
        """What a file holds; through no link."""
        *directories, name = path.split(b"/")
        here = os.open(self._worktree, _OPEN | os.O_DIRECTORY)
        try:
            for directory in directories:
                above, here = here, os.open(directory, _OPEN | os.O_DIRECTORY, dir_fd=here)
                os.close(above)
            file = os.open(name, _OPEN, dir_fd=here)
        except OSError as error:
            raise NotLoose from error
        finally:
            os.close(here)
        with os.fdopen(file, "rb") as opened:
            about = os.fstat(file)
            if not stat.S_ISREG(about.st_mode) or about.st_size > MOST_BYTES:
                raise NotLoose
            content = opened.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise NotLoose
        mode = "100755" if about.st_mode & stat.S_IXUSR else "100644"
        return Entry(mode, write_loose(self._objects, "blob", content, self._format))

"""Reads trees from their files: what differs between two, and what is new with one. A git for each costs milliseconds.

What drover or an operator has committed lately is in files of its own (loose), until a `git gc` packs it.
Whatever is not there, or not as plain as that, is left to git.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from drover.git.changes import ABSENT, GITLINK, Change

TREE = "040000"
_ENTRIES_KEPT = 100_000  # of trees read lately, all in all
_ENTRY = {
    "sha1": re.compile(rb"([0-7]+) ([^\0]+)\0(.{20})", re.DOTALL),
    "sha256": re.compile(rb"([0-7]+) ([^\0]+)\0(.{32})", re.DOTALL),
}
_COMMIT = re.compile(rb"tree ([0-9a-f]{40,64})\n")


class NotLoose(Exception):
    """Only git can say."""


class Entry(NamedTuple):
    """What a tree says of a name. ``mode`` has six digits."""

    mode: str
    oid: str


Entries = dict[bytes, Entry]
"""A tree, by name. Nobody may change it."""

_NONE: Entries = {}


class Trees:
    """The trees of a repository. Safe in several threads: what is kept never changes."""

    def __init__(self, objects: Path, object_format: str) -> None:
        self._objects = os.fspath(objects)
        self._entry = _ENTRY[object_format]
        self._zero = "0" * (64 if object_format == "sha256" else 40)
        self._kept: dict[str, Entries] = {}
        self._room = _ENTRIES_KEPT

    def tree_of(self, oid: str) -> str:
        """The tree of a commit; a tree is its own. Raises NotLoose."""
        if oid in self._kept:
            return oid
        kind, content = self._read(oid)
        if kind == b"tree":
            return oid
        match = _COMMIT.match(content)
        if kind != b"commit" or match is None:
            raise NotLoose
        return match[1].decode()

    def changes(self, old: str, new: str) -> list[Change]:
        """Every path that differs between two trees, ordered by path, as ``diff-tree -r`` tells it. Raises NotLoose."""
        return sorted(self._differing(b"", self.entries(old), self.entries(new), None))

    def new_objects(self, old: str, new: str) -> list[str]:
        """The trees (``new`` itself, too) and blobs that ``old`` has not at the same path. Raises NotLoose."""
        if old == new:
            return []
        found = [new]
        changes = list(self._differing(b"", self.entries(old), self.entries(new), found))
        return found + [c.new for c in changes if not c.is_gone and c.new_mode != GITLINK and c.new != c.old]

    def _differing(self, at: bytes, old: Entries, new: Entries, trees: list[str] | None) -> Iterator[Change]:
        """``trees`` gets the ids of those below that are new."""
        for name in {name for name, _ in old.items() ^ new.items()}:
            before, after = old.get(name), new.get(name)
            below = [self.entries(entry.oid) if entry and entry.mode == TREE else _NONE for entry in (before, after)]
            if after and after.mode == TREE and trees is not None:
                trees.append(after.oid)
            yield from self._differing(at + name + b"/", below[0], below[1], trees)
            before, after = (entry if entry and entry.mode != TREE else None for entry in (before, after))
            if before or after:
                was, now = before or Entry(ABSENT, self._zero), after or Entry(ABSENT, self._zero)
                yield Change(at + name, was.mode, now.mode, was.oid, now.oid)

    def entries(self, oid: str) -> Entries:
        """What a tree says. Raises NotLoose."""
        if (known := self._kept.get(oid)) is not None:
            return known
        kind, content = self._read(oid)
        entries = self._entry.findall(content)
        if kind != b"tree" or sum(len(mode) + len(name) + len(id) + 2 for mode, name, id in entries) != len(content):
            raise NotLoose
        found = {name: Entry(_canonical(mode), id.hex()) for mode, name, id in entries}
        self._room -= len(found) + 1
        if self._room < 0:
            self._kept, self._room = {}, _ENTRIES_KEPT
        self._kept[oid] = found
        return found

    def _read(self, oid: str) -> tuple[bytes, bytes]:
        """An object's kind and content."""
        try:
            with open(f"{self._objects}/{oid[:2]}/{oid[2:]}", "rb", buffering=0) as file:  # noqa: PTH123 - dozens in a life
                data = zlib.decompress(file.read())
        except (OSError, zlib.error) as error:
            raise NotLoose from error
        head, _, content = data.partition(b"\0")
        kind, _, size = head.partition(b" ")
        if size != b"%d" % len(content):
            raise NotLoose
        return kind, content


def _canonical(mode: bytes) -> str:
    """As git shows it: of a file's permissions only whether its owner may execute it."""
    number = int(mode, 8)
    if number & 0o170000 == 0o100000:
        return "100755" if number & 0o100 else "100644"
    return f"{number:06o}"

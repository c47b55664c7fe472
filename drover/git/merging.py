"""Merges trees that have nothing to be asked about: each entry was changed on one side at most.

A git for it costs more than all else in a landing. Where somebody has removed a file git looks for renames, also of
whole directories, and a change of both sides has to be looked into: all that is left to git.
"""

from __future__ import annotations

from pathlib import Path

from drover.git.loose import object_id, write_loose
from drover.git.trees import TREE, Entries, Entry, NotLoose, Trees

_NONE: Entries = {}


def merge_plainly(trees: Trees, objects: Path, object_format: str, *, base: str, ours: str, theirs: str) -> str:
    """The tree that comes of the changes from ``base`` to ``ours`` and to ``theirs``, among the objects now.

    It is what ``git merge-tree --merge-base`` comes to. Raises NotLoose where only git can say.
    """
    if any(change.is_gone for side in (ours, theirs) for change in trees.changes(base, side)):
        raise NotLoose
    return _Merge(trees, objects, object_format).of(trees.entries(base), ours, theirs)


class _Merge:
    def __init__(self, trees: Trees, objects: Path, object_format: str) -> None:
        self._trees = trees
        self._objects = objects
        self._format = object_format

    def of(self, base: Entries, ours: str, theirs: str) -> str:
        mine, others = self._trees.entries(ours), self._trees.entries(theirs)
        merged = dict(mine)
        for name in {name for name, _ in base.items() ^ others.items()}:
            merged[name] = self._entry(base.get(name), mine.get(name), others.get(name))
        return write_tree(self._objects, self._format, merged, like=(ours, mine))

    def _entry(self, base: Entry | None, mine: Entry | None, other: Entry | None) -> Entry:
        """``other`` is not ``base``."""
        if other is None:
            raise NotLoose
        if mine in (base, other):
            return other
        if mine is None or not mine.mode == other.mode == TREE or (base and base.mode != TREE):
            raise NotLoose
        below = self._trees.entries(base.oid) if base else _NONE
        return Entry(TREE, self.of(below, mine.oid, other.oid))


def write_tree(objects: Path, object_format: str, entries: Entries, *, like: tuple[str, Entries] | None) -> str:
    """The id of a tree with these entries, among the objects now. Raises NotLoose.

    ``like`` is the tree it was made from: one that git would not have written so is left to git.
    """
    if like is not None:
        oid, known = like
        if entries == known:
            return oid
        if object_id("tree", _encode(known), object_format) != oid:
            raise NotLoose
    return write_loose(objects, "tree", _encode(entries), object_format)


def _encode(entries: Entries) -> bytes:
    """In git's order, in which the name of a directory ends with a slash."""
    ordered = sorted(entries.items(), key=lambda item: item[0] + b"/" if item[1].mode == TREE else item[0])
    return b"".join(
        b"%b %b\0%b" % (entry.mode.lstrip("0").encode(), name, bytes.fromhex(entry.oid)) for name, entry in ordered
    )

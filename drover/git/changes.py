"""What differs between two trees, or between a tree, an index and files."""

from __future__ import annotations

from typing import NamedTuple

from drover.git.command import Place, split0

ABSENT = "000000"
GITLINK = "160000"
SYMLINK = "120000"


class Change(NamedTuple):
    """One path that differs. A mode of ``000000`` says the path is absent on that side."""

    path: bytes
    old_mode: str
    new_mode: str
    old: str
    new: str

    @property
    def is_new(self) -> bool:
        return self.old_mode == ABSENT

    @property
    def is_gone(self) -> bool:
        return self.new_mode == ABSENT


def parse_raw(data: bytes) -> list[Change]:
    """Read ``--raw -z`` output made without rename detection."""
    items = split0(data)
    changes = []
    for head, path in zip(items[::2], items[1::2], strict=True):
        old_mode, new_mode, old, new, _status = head[1:].decode().split(" ")
        changes.append(Change(path, old_mode, new_mode, old, new))
    return changes


async def changes_between(place: Place, old: str, new: str) -> list[Change]:
    """Every path that differs between two trees or commits, ordered by path."""
    done = await place.git("diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", old, new)
    return parse_raw(done.stdout)

"""What is known of commits for good: drover made them, so nobody has to be asked who their parents are."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

KEPT = 4096
STEPS = 512  # of a walk back; whoever is further away is asked of git


class Made(NamedTuple):
    """A commit's tree and parents, and the last paragraph of its message: trailers are nowhere else."""

    tree: str
    parents: tuple[str, ...]
    trailers: str = ""


class Layout(NamedTuple):
    """What of a whole tree matters to every task on it."""

    gitlinks: tuple[bytes, ...]  # where it has submodules
    attributes: bool  # whether it has a .gitattributes anywhere
    directories: frozenset[bytes]  # without the topmost


class Ancestry:
    """Facts that no later commit can change. Losing them costs git commands."""

    def __init__(self) -> None:
        self._made: dict[str, Made] = {}
        self._contained: set[tuple[str, str]] = set()

    def made(self, commit: str) -> Made | None:
        return self._made.get(commit)

    def note_made(self, commit: str, tree: str, parents: tuple[str, ...], message: str) -> None:
        if len(self._made) >= KEPT:
            self._made.clear()
        self._made[commit] = Made(tree, parents, message.rstrip().rpartition("\n\n")[2])

    def nothing_says(self, words: str, tip: str, since: str) -> bool:
        """Whether all from ``since`` to ``tip`` was made here, in one line, and no trailer of it says that."""
        for _ in range(STEPS):
            if tip == since:
                return True
            made = self._made.get(tip)
            if made is None or len(made.parents) != 1 or words in made.trailers:
                return False
            tip = made.parents[0]
        return False

    def fork(self, ours: str, theirs: str) -> str | None:
        """The parent of ``theirs`` if it is their only merge base: from ``ours`` to it all was made here, in one line.

        None when that is not known.
        """
        made = self._made.get(theirs)
        if made is None or len(made.parents) != 1:
            return None
        base, tip = made.parents[0], ours
        for _ in range(STEPS):
            if tip == base:
                return base
            made = self._made.get(tip)
            if made is None or len(made.parents) != 1 or tip == theirs:
                return None
            tip = made.parents[0]
        return None

    def note_contains(self, commit: str, ancestor: str) -> None:
        if len(self._contained) >= KEPT:
            self._contained.clear()
        self._contained.add((ancestor, commit))

    def contains(self, commit: str, ancestor: str) -> bool | None:
        """Whether ``commit`` has ``ancestor`` in its history; a commit has itself. None when that is not known."""
        if commit == ancestor or (ancestor, commit) in self._contained or self._reaches(commit, ancestor):
            return True
        if (commit, ancestor) in self._contained or self._reaches(ancestor, commit):
            return False  # the other way round, and no history goes in a circle
        return None

    def _reaches(self, commit: str, ancestor: str) -> bool:
        """By the parents of commits that were made here."""
        seen, left = {commit}, deque([commit])
        for _ in range(STEPS):
            if not left:
                return False
            for parent in self._made.get(left.popleft(), Made("", ())).parents:
                if parent == ancestor:
                    return True
                if parent not in seen:
                    seen.add(parent)
                    left.append(parent)
        return False

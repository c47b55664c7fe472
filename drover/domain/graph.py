"""Laws of the blocker graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def find_cycle(blocked_by: Mapping[str, Iterable[str]], start: str) -> tuple[str, ...] | None:
    """A path ``start → … → start`` along blockers, or None. ``blocked_by`` may be partial."""
    path: list[str] = [start]
    iterators = [iter(blocked_by.get(start, ()))]
    seen: set[str] = set()
    while iterators:
        for blocker in iterators[-1]:
            if blocker == start:
                return (*path, start)
            if blocker not in seen:
                seen.add(blocker)
                path.append(blocker)
                iterators.append(iter(blocked_by.get(blocker, ())))
                break
        else:
            iterators.pop()
            path.pop()
    return None

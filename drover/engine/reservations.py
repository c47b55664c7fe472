"""Who resolves a conflict in which paths: so that a resolution is not overtaken by the next landing.

Without it, several tasks that edit one place resolve at the same time, one wins, and the others' turns
were for nothing. A task that met a conflict reserves its paths; those that also reserve them prepare one
after the other, and others that touch them land after it. Everybody else lands as ever. Kept in this process
only: losing it costs turns, never work.
"""

from __future__ import annotations

from collections.abc import Collection

import anyio

PATIENCE_S = 15 * 60.0  # after which a landing no longer waits for somebody else's resolution


class Reservations:
    """Reserved paths by task, oldest first."""

    def __init__(self) -> None:
        self._held: dict[str, frozenset[str]] = {}
        self._released = anyio.Event()

    def take(self, task_id: str, paths: Collection[str]) -> None:
        """Reserve more paths; the task keeps the place in line it has."""
        self._held[task_id] = self._held.get(task_id, frozenset()) | frozenset(paths)

    def release(self, task_id: str) -> None:
        """The task has landed, or does not go on now."""
        if self._held.pop(task_id, None) is not None:
            self._released.set()
            self._released = anyio.Event()

    def paths_of(self, task_id: str) -> frozenset[str]:
        return self._held.get(task_id, frozenset())

    async def wait_turn(self, task_id: str, paths: Collection[str]) -> None:
        """Until nobody before this task reserves any of the paths, or patience has run out."""
        with anyio.move_on_after(PATIENCE_S):
            while self._before(task_id, frozenset(paths)):
                await self._released.wait()

    def _before(self, task_id: str, paths: frozenset[str]) -> bool:
        for holder, held in self._held.items():
            if holder == task_id:
                return False
            if held & paths:
                return True
        return False

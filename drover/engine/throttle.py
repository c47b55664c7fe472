"""How many claims a run holds at the same time, by what its agents' providers say and by the memory there is."""

from __future__ import annotations

import logging

import anyio

from drover.domain.concurrency import Concurrency
from drover.domain.errors import DiskFull, StoreUnavailable
from drover.domain.verdicts import Outcome, Parked, Verdict
from drover.engine.tools import Tools

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 5.0  # the safety net behind the bell
MIB = 1 << 20


class Throttle:
    """Slots for claims. Safe within one event loop: nothing is awaited between looking and taking."""

    def __init__(self, tools: Tools, workers: int) -> None:
        table = tools.settings.backpressure
        self._tools = tools
        self._table = table
        self._concurrency = Concurrency.of(workers)
        if table.enabled:
            self._concurrency = Concurrency.of(
                workers, start=table.initial_concurrency, floor=table.min_concurrency, ceiling=table.max_concurrency
            )
        self._why = "so it began" if self._concurrency.throttled else ""
        self._at_work = 0
        self._shortage = ""
        self._moved = anyio.Event()
        self._told: tuple[int | None, str] = (None, "")

    # ------------------------------------------------------------ slots

    def enter(self) -> bool:
        """Take a slot, if there is one."""
        if self._at_work >= self._concurrency.limit:
            return False
        self._at_work += 1
        return True

    def leave(self) -> None:
        """Give the slot back."""
        self._at_work -= 1
        self.ring()

    def ring(self) -> None:
        """Let those that wait for a slot look again."""
        self._moved.set()
        self._moved = anyio.Event()

    async def wait(self) -> None:
        """Until there may be a slot."""
        with anyio.move_on_after(LOOK_AGAIN_S):
            await self._moved.wait()

    # ------------------------------------------------------------ what is heard

    def heard(self, verdict: Verdict, *, begun_at: int, worked: bool) -> None:
        """What became of a claim that was begun then; ``worked``: its agent ended well in it."""
        if not self._table.enabled:
            return
        before = self._concurrency
        reason = verdict.reason if isinstance(verdict, Parked) else ""
        if reason == Outcome.RATE_LIMITED:
            self._concurrency = before.refused(begun_at=begun_at, now=self._tools.clock.now())
        elif reason == Outcome.OVERLOADED:
            self._concurrency = before.overloaded()
        elif worked:
            self._concurrency = before.succeeded()
        if self._concurrency.limit < before.limit:
            self._why = verdict.detail if isinstance(verdict, Parked) and verdict.detail else reason
        if self._concurrency.limit != before.limit:
            self.ring()

    def find_memory_shortage(self) -> str | None:
        """What to tell a person when there is too little memory for one more agent; None when there is enough.

        The caller has a slot already, so that one claim at work is its own.
        """
        table = self._table
        self._shortage = ""
        if not table.enabled or not table.memory_aware_enabled:
            return None
        free = self._tools.available_memory() // MIB
        floor = table.memory_critical_mb
        if free < table.memory_threshold_mb and self._at_work > 1:
            floor += table.worker_rss_limit_mb
        if free >= floor:
            return None
        self._shortage = f"{free}M of memory available, too little for one more agent ([backpressure])"
        return f"no new task starts: {self._shortage}"

    # ------------------------------------------------------------ what is told

    async def tell(self) -> None:
        """Record how many may be at work, and why not more, whenever that has changed."""
        before, state = self._told, self._state()
        if state == before:
            return
        self._told = state  # before anything is awaited: others tell at the same time
        limit, why = state
        try:
            await self._tools.store.workers.note_throttle(self._tools.run_id, limit, why)
        except (StoreUnavailable, DiskFull) as trouble:
            self._told = before
            log.warning("%s", trouble.message)
            return
        if limit is not None and (before[0] is None or limit < before[0]):
            log.warning("%d of %d workers: %s", limit, self._concurrency.ceiling, why)

    def _state(self) -> tuple[int | None, str]:
        if self._shortage:
            return min(self._concurrency.limit, self._at_work - 1), self._shortage  # without the one that looked
        if self._concurrency.throttled:
            return self._concurrency.limit, self._why
        return None, ""

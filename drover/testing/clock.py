"""A clock that stands still until it is told to move."""

from __future__ import annotations

import anyio
import anyio.lowlevel


class FakeClock:
    """A :class:`drover.domain.clock.Clock` in the test's hands. Nothing passes by itself."""

    def __init__(self, now: int = 1_700_000_000_000, boottime: int = 1_000_000) -> None:
        self._now = now
        self._boottime = boottime
        self._sleepers: dict[anyio.Event, int] = {}  # until which boottime each of them sleeps

    def now(self) -> int:
        """Unix milliseconds."""
        return self._now

    def boottime(self) -> int:
        """Milliseconds since a start that never was."""
        return self._boottime

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been moved on that far."""
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        woken = anyio.Event()
        self._sleepers[woken] = self._boottime + round(seconds * 1000)
        try:
            await woken.wait()
        finally:
            self._sleepers.pop(woken, None)

    @property
    def sleepers(self) -> int:
        """How many wait for this clock now."""
        return len(self._sleepers)

    def advance(self, seconds: float) -> None:
        """Let that much time pass, and wake those whose time has come."""
        milliseconds = round(seconds * 1000)
        self._now += milliseconds
        self._boottime += milliseconds
        for woken, until in list(self._sleepers.items()):
            if until <= self._boottime:
                del self._sleepers[woken]
                woken.set()

    def set_wall(self, now: int) -> None:
        """Set the wall clock, as an operator or NTP does: no time passes by it."""
        self._now = now

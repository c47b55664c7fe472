"""The one clock: everything that asks for the time or waits for it goes through a ``Clock``."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

import anyio


class Clock(Protocol):
    """Two readings and a wait. Tests bring their own."""

    def now(self) -> int:
        """Wall clock, unix milliseconds: what people see and what ``due_at`` is compared with."""
        ...

    def boottime(self) -> int:
        """Milliseconds since this machine started, counting the time it was suspended.

        Never steps when the wall clock is set, so leases on one host are measured with it.
        """
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""
        ...


class SystemClock:
    """The machine's own clocks."""

    # macOS has no CLOCK_BOOTTIME; its CLOCK_MONOTONIC_RAW counts suspended time.
    _boot = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC_RAW", time.CLOCK_MONOTONIC))

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def boottime(self) -> int:
        return time.clock_gettime_ns(self._boot) // 1_000_000

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


def rfc3339(at: int | None) -> str | None:
    """Unix milliseconds as an RFC 3339 UTC string, as every ``--json`` output shows times."""
    if at is None:
        return None
    moment = datetime.fromtimestamp(at / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

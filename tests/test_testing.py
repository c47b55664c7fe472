"""What drover gives to those who test with it."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from drover.testing import FakeClock

pytestmark = pytest.mark.anyio


async def test_a_fake_clock_wakes_those_whose_time_has_come() -> None:
    clock, woken = FakeClock(), list[float]()

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    async with anyio.create_task_group() as group:
        for seconds in (3, 1, 2):
            group.start_soon(sleep, seconds)
        while clock.sleepers < 3:
            await checkpoint()
        clock.advance(2)
        while clock.sleepers > 1 or len(woken) < 2:
            await checkpoint()
        assert sorted(woken) == [1, 2]
        clock.advance(1)
    assert sorted(woken) == [1, 2, 3]


async def test_a_fake_clock_that_is_set_lets_no_time_pass() -> None:
    clock = FakeClock(now=5_000, boottime=100)
    clock.set_wall(9_000)
    assert (clock.now(), clock.boottime()) == (9_000, 100)
    clock.advance(1.5)
    assert (clock.now(), clock.boottime()) == (10_500, 1_600)


async def test_a_sleeper_that_is_cancelled_is_forgotten() -> None:
    clock = FakeClock()
    with anyio.move_on_after(0.01):
        await clock.sleep(60)
    assert clock.sleepers == 0
    await clock.sleep(0)

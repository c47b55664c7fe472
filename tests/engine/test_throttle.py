"""Fewer at the same time while a provider refuses or memory is short; nothing fails of it, and it comes back."""

from __future__ import annotations

import heapq
import random
import sys
from dataclasses import replace
from itertools import count
from math import ceil

import anyio
import pytest

from drover.app.drover import Drover
from drover.app.host import workers_of
from drover.domain.models import AgentReport, Claim, Event, Worker
from drover.domain.states import State
from drover.domain.verdicts import Completed, Outcome
from drover.engine import limits
from drover.engine.steps import Run
from drover.engine.throttle import Throttle
from drover.engine.tools import Tools
from drover.testing import FakeClock
from tests.engine.places import Site
from tests.store.scenes import land

pytestmark = pytest.mark.anyio

MIB = 1 << 20


# ---------------------------------------------------------------- a minute of refusals, by the clock of the test


class Night:
    """100 tasks of 30 s and 8 workers on real claims, limits and slots; only agents and time are made up.

    From ``outage[0]`` to ``outage[1]`` (ms) the provider refuses: whoever is at work then is refused at once,
    whoever begins then a second later. What had been done is not done again.
    """

    def __init__(self, drover: Drover, tools: Tools, clock: FakeClock, workers: list[Worker]) -> None:
        self.drover, self.tools, self.clock, self.workers = drover, tools, clock, workers
        self.throttle = Throttle(tools, len(workers))
        self.began = clock.now()
        self.outage = (self.began + 45_000, self.began + 105_000)
        self.left: dict[str, int] = {}  # ms of work that a task still needs
        self.under_way: list[tuple[int, int, Claim, int, bool]] = []
        self.numbers = count()
        self.most: list[tuple[int, int]] = []  # time, how many were at work

    async def live(self) -> float:
        while True:
            await self.start()
            self.most.append((self.clock.now() - self.began, len(self.under_way)))
            moments = [self.under_way[0][0]] if self.under_way else []
            moments += [t.due_at for t in await self.drover.tasks() if (t.due_at or 0) > self.clock.now()]
            if not moments:
                return (self.clock.now() - self.began) / 1000
            self.clock.advance(max(0, min(moments) - self.clock.now()) / 1000)
            while self.under_way and self.under_way[0][0] <= self.clock.now():
                await self.end(*heapq.heappop(self.under_way)[2:])

    async def start(self) -> None:
        while self.throttle.enter():
            claim = await self.drover.store.claims.claim(self.workers[0], agent="claude")
            if claim is None:
                self.throttle.leave()
                return
            now, (first, last) = self.clock.now(), self.outage
            needs = self.left.get(claim.task_id, 30_000)
            end, refused_at = now + needs, None
            if now < first < end:
                refused_at, self.left[claim.task_id] = first, end - first
            elif first <= now < last:
                refused_at, self.left[claim.task_id] = now + 1000, needs
            heapq.heappush(self.under_way, (refused_at or end, next(self.numbers), claim, now, refused_at is not None))

    async def end(self, claim: Claim, begun_at: int, refused: bool) -> None:
        claims = self.drover.store.claims
        if refused:
            report = AgentReport(outcome=Outcome.RATE_LIMITED, reason="429 too many requests")
            await claims.report(claim, report)
            verdict = await limits.wait_out(Run(claim, self.tools, {}), report)
            self.throttle.heard(verdict, begun_at=begun_at, worked=False)
            await claims.settle(claim, verdict)
        else:
            done = Completed(landed=await land(self.drover.store, claim))
            self.throttle.heard(done, begun_at=begun_at, worked=True)
            await claims.settle(claim, done)
        await self.throttle.tell()
        self.throttle.leave()


@pytest.mark.parametrize("seed", [7, pytest.param(9, marks=pytest.mark.slow), pytest.param(15, marks=pytest.mark.slow)])
async def test_a_minute_of_refusals_costs_little_more_than_the_minute(site: Site, seed: int) -> None:
    clock = FakeClock()
    async with site.open(clock=clock) as drover:
        for number in range(100):
            await drover.add(f"Task {number}", agent="claude")
        run = await drover._asked(8, None, (), None)
        tools = replace(await drover.tools(run_id=run.id), rng=random.Random(seed))
        workers = workers_of(run, tools.host)
        await drover.store.workers.start_run(run, workers)
        night = Night(drover, tools, clock, workers)
        seconds = await night.live()
        tasks = await drover.tasks()
        told = [e.data for e in [e async for e in drover.events(types=["run.throttled", "run.recovered"])]]
    assert {(t.state, t.failures, t.attempt) for t in tasks} == {(State.COMPLETED, 0, 1)}
    assert seconds <= 1.1 * (60 + ceil(100 / 8) * 30)
    assert [data["concurrency"] for data in told] == [4, None]  # halved once, and back
    assert max(number for at, number in night.most if 46_000 <= at < 120_000) == 4  # until one has ended well
    assert night.most[-1][0] > 120_000
    assert max(number for at, number in night.most if at >= 120_000) == 8


async def test_refusals_of_real_agents_halve_a_run_that_then_recovers(site: Site) -> None:
    # Four at a time until the provider has refused; from then on it answers two at a time.
    site.says(
        'test "$1" = --version && echo 2.1.330 && exit 0\n'
        "read input\n"
        f"echo $DROVER_TASK_ID >> {site.top}/starts\n"
        f"if test $(wc -l < {site.top}/starts) -le 4; then\n"
        f"until test $(wc -l < {site.top}/starts) -ge 4; do sleep 0.02; done\n"
        'echo \'{"type":"result","is_error":true,"api_error_status":429,"result":"too many requests"}\'; exit 1; fi\n'
        'echo x > $DROVER_TASK_ID.txt; echo \'{"type":"result","is_error":false,"result":"Done."}\''
    )
    given = {"agents.claude.path": str(site.agent), "backpressure.rate_limit_backoff": "100ms"}
    async with site.open(**given) as drover:
        for number in range(8):
            await drover.add(f"Task {number}", agent="claude")
        report = await drover.run(workers=4)
        told = [e async for e in drover.events(types=["run.throttled", "run.recovered"])]
        tasks = await drover.tasks()
        assert (await drover.status()).notes == ()
    assert len(report.completed) == 8
    assert {task.failures for task in tasks} == {0}
    assert [(e.type, e.data["concurrency"]) for e in told] == [("run.throttled", 2), ("run.recovered", None)]
    assert "2 of 4 at work: " in told[0].data["detail"]


# ---------------------------------------------------------------- memory


async def throttle_with(drover: Drover, available: list[int], workers: int = 4) -> Throttle:
    tools = replace(await drover.tools(run_id="run-x"), available_memory=lambda: available[0] * MIB)
    return Throttle(tools, workers)


async def test_nothing_starts_below_the_critical_floor_and_only_one_below_the_other(site: Site) -> None:
    available = [511]
    async with site.open() as drover:
        throttle = await throttle_with(drover, available)
        assert throttle.enter()
        assert "511M of memory available" in (throttle.find_memory_shortage() or "")
        available[0] = 900
        assert throttle.find_memory_shortage() is None  # it would be the only one
        assert throttle.enter()
        assert "900M" in (throttle.find_memory_shortage() or "")
        available[0] = 1024
        assert throttle.find_memory_shortage() is None


async def test_a_shortage_of_memory_is_told_with_how_many_are_at_work(site: Site) -> None:
    async with site.open() as drover:
        run = await drover._asked(4, None, (), None)
        tools = replace(await drover.tools(run_id=run.id), available_memory=lambda: 100 * MIB)
        await drover.store.workers.start_run(run, [])
        throttle = Throttle(tools, 4)
        assert throttle.enter()
        assert throttle.find_memory_shortage() is not None
        await throttle.tell()
        (note,) = (await drover.status()).notes
    assert note.startswith("throttled: 0 of 4 workers since ")
    assert "100M of memory available" in note


async def test_what_one_agent_is_expected_to_use_is_left_for_it(site: Site) -> None:
    available = [5000]
    table = {"backpressure.memory_threshold_mb": 8000, "backpressure.worker_rss_limit_mb": 4000}
    async with site.open(**table) as drover:
        throttle = await throttle_with(drover, available)
        assert throttle.enter()
        assert throttle.enter()
        assert throttle.find_memory_shortage() is None
        available[0] = 4500
        assert throttle.find_memory_shortage() is not None


@pytest.mark.parametrize("switch", ["backpressure.enabled", "backpressure.memory_aware_enabled"])
async def test_memory_is_not_looked_at_when_that_is_off(site: Site, switch: str) -> None:
    async with site.open(**{switch: False}) as drover:
        throttle = await throttle_with(drover, [0])
        assert throttle.enter()
        assert throttle.find_memory_shortage() is None


async def test_a_slot_is_for_one_and_the_next_hears_of_it_when_it_is_free(site: Site) -> None:
    async with site.open(**{"backpressure.initial_concurrency": 1}) as drover:
        throttle = await throttle_with(drover, [9000], workers=2)
        assert throttle.enter()
        assert not throttle.enter()
        with anyio.fail_after(2):
            async with anyio.create_task_group() as group:
                group.start_soon(throttle.wait)
                await anyio.wait_all_tasks_blocked()
                throttle.leave()
        assert throttle.enter()


async def test_an_agent_that_takes_too_much_memory_fails_as_that_and_its_neighbour_lands(site: Site) -> None:
    site.says(
        "cat > prompt; if grep -q Greedy prompt; then\n"
        f"{sys.executable} -c \"import time; held = b'x' * (150 << 20); time.sleep(600)\"\nfi\n"
        f"until test -e {site.top}/over; do sleep 0.05; done; mv prompt $DROVER_TASK_ID.txt"
    )
    given = {"worker.memory_limit": "100M", "max_attempts": 1}
    async with site.open(**given) as drover:
        modest, greedy = await drover.add("Modest"), await drover.add("Greedy")

        def on_event(event: Event) -> None:
            if event.type == "task.failed":
                (site.top / "over").touch()

        report = await drover.run(workers=2, on_event=on_event)
        error = (await drover.task(greedy.id)).error
    assert report.completed == (modest.id,)
    assert report.failed == (greedy.id,)
    assert error is not None
    assert error.error_class == Outcome.MEMORY
    assert "DROVER_WORKER_MEMORY_LIMIT" in error.what_to_do

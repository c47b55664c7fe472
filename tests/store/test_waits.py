"""Tasks that wait for a time: what holds at the very moment, and what is left of a wait that is over."""

from __future__ import annotations

import pytest

from drover.domain.budget import Budget
from drover.domain.models import AgentReport, Task, Usage
from drover.domain.states import State
from drover.domain.verdicts import Parked, Released
from drover.store import Store
from drover.testing import FakeClock

from .scenes import add, complete, hire, start, take

pytestmark = pytest.mark.anyio
HOUR = 3_600_000


async def parked(store: Store, until: int, reason: str = "rate_limited", **columns: object) -> Task:
    claim = await take(store, await add(store, **columns))
    return await store.claims.settle(claim, Parked(reason=reason, detail="for a while", until=until))


def wait_of(task: Task) -> tuple[State, str | None, str | None, int | None]:
    return task.state, task.reason, task.detail, task.due_at


async def test_what_is_due_at_this_very_moment_waits_no_more(store: Store, clock: FakeClock) -> None:
    epic = await store.epics.add("An epic")
    due = clock.now() + HOUR
    task = await parked(store, due, epic_id=epic.id)
    for scope in ({"epic_id": epic.id}, {"task_ids": [task.id]}, {}):
        for choice in ("ready", "to_plan"):
            outlook = await store.tasks.outlook(choice=choice, **scope)
            assert (outlook.ready, outlook.due_at, outlook.person) == (0, due, 0)
    clock.advance(HOUR / 1000)
    for scope in ({"epic_id": epic.id}, {"task_ids": [task.id]}, {}):
        for choice in ("ready", "to_plan"):
            outlook = await store.tasks.outlook(choice=choice, **scope)
            assert (outlook.ready, outlook.due_at, outlook.person) == (1, None, 0)
    assert (await store.claims.claim(await hire(store))) is not None


async def test_who_asks_a_person_waits_for_no_time_within_its_epic(store: Store) -> None:
    epic = await store.epics.add("An epic")
    claim = await take(store, await add(store, epic_id=epic.id))
    await store.claims.settle(claim, Parked(reason="question", detail="Which?"))
    for scope in ({"epic_id": epic.id}, {}):
        outlook = await store.tasks.outlook(**scope)
        assert (outlook.ready, outlook.due_at, outlook.person) == (0, None, 1)


async def test_nothing_is_left_of_a_limit_that_was_lifted(store: Store, clock: FakeClock) -> None:
    await store.limits.note("claude", clock.now() + HOUR, reason="usage_limit", detail="used up")
    task = await add(store)
    assert await store.claims.claim(await hire(store), agent="claude") is None
    clock.advance(1)
    assert await store.limits.lift("claude", default="claude") == 1
    now = await store.tasks.get(task.id)
    assert wait_of(now) == (State.QUEUED, None, None, None)
    assert now.updated_at == clock.now()


async def test_nothing_is_left_of_a_wait_for_an_epics_budget(store: Store, clock: FakeClock) -> None:
    task = await add(store, epic_id=(await store.epics.add("Dear")).id)
    other = await add(store, epic_id=task.epic_id)
    budget = Budget(epic=1_000_000, estimate=1_000_000)
    held = await store.claims.claim(await hire(store), agent="claude", budget=budget)
    assert held is not None
    assert await store.claims.claim(await hire(store), agent="claude", budget=budget) is None
    waiting = await store.tasks.get(other.id)
    assert (waiting.reason, waiting.due_at is not None) == ("budget", True)
    clock.advance(1)
    assert await store.spending.wake() == 1
    now = await store.tasks.get(other.id)
    assert wait_of(now) == (State.QUEUED, None, None, None)
    assert now.updated_at == clock.now()


async def test_a_restored_store_gives_a_task_back_behind_the_fence_that_git_knows(
    store: Store, clock: FakeClock
) -> None:
    claim = await take(store, await add(store))
    clock.advance(1)
    rings = store.bell.rings
    assert await store.claims.catch_up(claim, 7)
    assert store.bell.rings > rings
    now = await store.tasks.get(claim.task_id)
    assert (now.state, now.fence, now.claimed_by, now.updated_at) == (State.QUEUED, 7, None, clock.now())
    [attempt] = await store.claims.attempts(claim.task_id)
    assert (attempt.outcome, attempt.ended_at) == ("interrupted", clock.now())
    told = [event for event in await store.events.page() if event.type == "task.rescued"]
    assert [event.data["fence"] for event in told] == [7]
    assert not await store.claims.catch_up(claim, 9), "it is not this one's any more"
    again = await take(store)
    assert again.fence == 8
    assert again.first_port == claim.first_port, "the ports of the first were free again"
    assert not await store.claims.catch_up(again, 8), "there is nothing to catch up with"
    assert await store.claims.holds(again)


async def test_what_was_used_in_the_dark_is_counted_once_with_all_that_it_says(store: Store) -> None:
    claim = await take(store, await add(store))
    await start(store, claim)
    await store.claims.settle(claim, Released())
    assert await store.usage.uncounted("here") == [(claim.task_id, claim.fence)]
    used = AgentReport(outcome="done", usage=Usage(input_tokens=3, output_tokens=4, cost_usd=0.25, turns=2, model="m"))
    assert await store.usage.count(claim.task_id, claim.fence, used)
    assert not await store.usage.count(claim.task_id, claim.fence, used)
    [attempt] = await store.claims.attempts(claim.task_id)
    assert attempt.usage == used.usage
    total = await store.usage.total()
    assert (total.input_tokens, total.output_tokens, total.cost_usd) == (3, 4, 0.25)
    assert await store.usage.uncounted("here") == []


async def test_a_counter_that_fell_or_rose_too_far_is_seen(store: Store) -> None:
    blocker = await add(store)
    task = await add(store, blocked_by=[blocker])
    await store.database.write(lambda tx: tx.all("lower_dependents", blocker_id=blocker.id))
    assert await store.tasks.miscounted() == [(task.id, 0, 1)]
    await store.tasks.recount([task.id])
    assert await store.tasks.miscounted() == []
    await complete(store, blocker)
    await store.database.write(lambda tx: tx.all("raise_dependents", blocker_id=blocker.id))
    assert await store.tasks.miscounted() == [(task.id, 1, 0)]
    await store.tasks.recount([task.id])
    assert await store.tasks.miscounted() == []

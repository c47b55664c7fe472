"""Limits of an agent's account: who waits for them, and who does not have to."""

from __future__ import annotations

import pytest

from drover.domain.models import AgentReport, Claim, Task
from drover.domain.states import State
from drover.domain.verdicts import Released
from drover.store import Store
from drover.testing import FakeClock

from .conftest import Place
from .scenes import add, hire, take

pytestmark = pytest.mark.anyio

HOUR = 3_600_000


async def limit(store: Store, clock: FakeClock, agent: str = "claude", ms: int = HOUR) -> int:
    until = clock.now() + ms
    await store.limits.note(agent, until, reason="usage_limit", detail="used up")
    return until


async def claim(store: Store, **scope: object) -> Claim | None:
    return await store.claims.claim(await hire(store), agent="claude", **scope)  # type: ignore[arg-type]


async def now_of(store: Store, task: Task) -> Task:
    return await store.tasks.get(task.id)


async def test_no_task_of_a_limited_agent_is_begun(store: Store, clock: FakeClock) -> None:
    first, second = await add(store), await add(store, agent="claude")
    until = await limit(store, clock)
    assert await claim(store) is None
    for task in (await now_of(store, first), await now_of(store, second)):
        assert (task.state, task.reason, task.detail) == (State.WAITING, "usage_limit", "used up")
        assert task.due_at is not None
        assert until <= task.due_at <= until + 30_000
        assert (task.attempt, task.failures, task.interruptions) == (1, 0, 0)
        assert await store.claims.attempts(task.id) == []


async def test_tasks_of_other_agents_go_on(store: Store, clock: FakeClock) -> None:
    await add(store, priority=5)
    other = await add(store, agent="codex")
    await limit(store, clock)
    taken = await claim(store)
    assert taken is not None
    assert taken.task_id == other.id


async def test_a_limit_is_waited_out_after_a_restart_too(place: Place, clock: FakeClock) -> None:
    async with place.open() as store:
        await limit(store, clock)
    async with place.open() as store:
        task = await add(store)
        assert await claim(store) is None
        clock.advance((HOUR + 30_001) / 1000)
        taken = await claim(store)
        assert taken is not None
        assert taken.task_id == task.id
        assert await store.limits.standing() == []


async def test_those_that_wait_do_not_all_wake_at_once(store: Store, clock: FakeClock) -> None:
    tasks = [await add(store) for _ in range(12)]
    await limit(store, clock)
    assert await claim(store) is None
    assert len({(await now_of(store, task)).due_at for task in tasks}) > 6


async def test_what_is_to_land_does_not_wait_for_its_agent(store: Store, clock: FakeClock) -> None:
    task = await add(store)
    held = await take(store, task)
    done = AgentReport(outcome="done")
    await store.claims.complete_step(held, "let_agent_work", done.model_dump_json(), started_at=0, report=done)
    await store.claims.settle(held, Released())
    await limit(store, clock)
    taken = await claim(store)
    assert taken is not None
    assert taken.task_id == task.id


async def test_a_shorter_limit_does_not_end_a_longer_one(store: Store, clock: FakeClock) -> None:
    until = await limit(store, clock)
    await limit(store, clock, ms=1000)
    assert [one.until for one in await store.limits.standing()] == [until]
    later = await limit(store, clock, ms=2 * HOUR)
    assert [one.until for one in await store.limits.standing()] == [later]


async def test_a_lifted_limit_holds_nobody_back(store: Store, clock: FakeClock) -> None:
    await limit(store, clock)
    assert await store.limits.lift("claude") == 0
    assert await store.limits.lift("claude") is None
    await add(store)
    assert await claim(store) is not None


async def test_who_waited_for_a_lifted_limit_goes_on_and_nobody_else(store: Store, clock: FakeClock) -> None:
    unnamed, named, other = await add(store), await add(store, agent="claude"), await add(store, agent="codex")
    await limit(store, clock)
    await limit(store, clock, "codex")
    assert await claim(store) is None
    rung = store.bell.rings
    assert await store.limits.lift("claude", default="claude", operator="olive") == 2
    assert store.bell.rings > rung
    states = [(await now_of(store, task)).state for task in (unnamed, named, other)]
    assert states == [State.QUEUED, State.QUEUED, State.WAITING]
    [told] = [e for e in await store.events.page() if e.type == "agent.lifted"]
    assert told.data == {"agent": "claude", "tasks": 2, "by": "olive"}


async def test_another_agent_stands_in_while_an_account_is_used_up(store: Store, clock: FakeClock) -> None:
    for _ in range(3):
        await add(store)
    until = await limit(store, clock)
    await limit(store, clock, "codex")
    taken = await claim(store, fallback=("codex", "qwen"))
    assert taken is not None and taken.agent == "qwen"
    clock.advance((until - clock.now()) / 1000 + 1)
    again = await claim(store, fallback=("codex", "qwen"))
    assert again is not None and again.agent == "claude"


async def test_nobody_stands_in_for_an_agent_that_only_asks_too_often(store: Store, clock: FakeClock) -> None:
    task = await add(store)
    await store.limits.note("claude", clock.now() + HOUR, reason="rate_limited", detail="slow down")
    assert await claim(store, fallback=("codex",)) is None
    assert (await now_of(store, task)).reason == "rate_limited"


async def test_where_all_are_used_up_the_first_to_come_back_decides(store: Store, clock: FakeClock) -> None:
    task = await add(store)
    await limit(store, clock, "claude", 3 * HOUR)
    until = await limit(store, clock, "codex", HOUR)
    assert await claim(store, fallback=("codex",)) is None
    due_at = (await now_of(store, task)).due_at
    assert due_at is not None and until <= due_at <= until + 30_000


async def test_more_tasks_than_are_parked_at_once_all_wait(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drover.store.claims.PARKED_AT_ONCE", 3)
    tasks = [await add(store) for _ in range(7)]
    await limit(store, clock)
    rung = store.bell.rings
    for _ in range(3):
        assert await claim(store) is None
    assert store.bell.rings >= rung + 3  # each time the worker was told to look again
    assert {(await now_of(store, task)).state for task in tasks} == {State.WAITING}


async def test_a_claim_within_an_epic_or_a_list_waits_too(store: Store, clock: FakeClock) -> None:
    epic = await store.epics.add("An epic")
    in_epic, listed = await add(store, epic_id=epic.id), await add(store)
    await limit(store, clock)
    assert await claim(store, epic_id=epic.id) is None
    assert (await now_of(store, in_epic)).state is State.WAITING
    assert (await now_of(store, listed)).state is State.QUEUED
    assert await claim(store, task_ids=[listed.id]) is None
    assert (await now_of(store, listed)).state is State.WAITING

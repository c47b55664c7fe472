"""Claim, lease, fence: who may write a task, for how long, and what each ending leaves behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from drover.domain.errors import LeaseLost, StoreError
from drover.domain.models import AgentReport, Claim, ProcessIdentity, Task, Usage
from drover.domain.states import State, Status
from drover.domain.verdicts import Completed, Failed, Outcome, Parked, Released, Retry, Stopped, Verdict
from drover.store import Store
from drover.testing import FakeClock
from tests.proof.plugin import Tally
from tests.store.conftest import LEASE_MS, Place
from tests.store.scenes import add, complete, hire, hire_many, land, landing_of, plain, start, take

pytestmark = pytest.mark.anyio


async def step(store: Store, claim: Claim, name: str = "verify", report: AgentReport | None = None) -> None:
    await store.claims.complete_step(claim, name, '{"a": 1}', started_at=1, report=report)


# ------------------------------------------------------------ taking


async def test_the_best_task_is_the_most_urgent_and_then_the_oldest(store: Store) -> None:
    low = await add(store, "low", priority=-1)
    first, second = await add(store, "first"), await add(store, "second")
    high = await add(store, "high", priority=5)
    assert [(await take(store)).task_id for _ in range(4)] == [high.id, first.id, second.id, low.id]
    assert await store.claims.claim(await hire(store)) is None


async def test_a_claim_can_be_asked_of_an_epic(store: Store) -> None:
    epic = await store.epics.add("E")
    await add(store, priority=9)
    inside = await add(store, epic_id=epic.id)
    claim = await store.claims.claim(await hire(store), epic_id=epic.id)
    assert claim is not None and (claim.task_id, claim.fence) == (inside.id, 1)
    assert await store.claims.claim(await hire(store), epic_id=epic.id) is None


async def test_a_claim_among_some_tasks_takes_the_best_of_them(store: Store) -> None:
    low, high, _other = await add(store), await add(store, priority=2), await add(store, priority=9)
    blocked = await add(store, priority=8, blocked_by=[low])
    ids = [low.id, high.id, blocked.id, "task-none"]
    worker = await hire(store)
    first, second = await store.claims.claim(worker, task_ids=ids), await store.claims.claim(worker, task_ids=ids)
    assert first is not None and second is not None
    assert [first.task_id, second.task_id] == [high.id, low.id]
    assert await store.claims.claim(worker, task_ids=ids) is None


async def test_a_claim_says_who_holds_what_until_when(store: Store, clock: FakeClock) -> None:
    task = await add(store, labels=("x",))
    worker = await hire(store, host="there")
    claim = await take(store, worker=worker)
    assert (claim.fence, claim.worker_id, claim.lease_until) == (1, worker.id, clock.boottime() + LEASE_MS)
    assert plain(claim.task) == plain(await store.tasks.get(task.id))
    assert (claim.task.status, claim.task.claimed_by, claim.task.labels) == (Status.CLAIMED, worker.id, ("x",))
    (held,) = await store.claims.running()
    assert (held.task_id, held.fence, held.attempt, held.worker) == (
        task.id,
        1,
        1,
        worker.model_copy(update={"started_at": 0}),
    )
    (attempt,) = await store.claims.attempts(task.id)
    assert (attempt.worker_id, attempt.host, attempt.pid, attempt.ended_at) == (
        worker.id,
        "there",
        worker.process.pid,
        None,
    )


async def test_a_worker_nobody_knows_can_claim_nothing(store: Store) -> None:
    task = await add(store)
    worker = (await hire(store)).model_copy(update={"id": "stranger"})
    with pytest.raises(StoreError):
        await store.claims.claim(worker)
    assert (await store.tasks.get(task.id)).status is Status.READY


async def test_what_waits_for_a_time_can_be_claimed_when_it_has_come(store: Store, clock: FakeClock) -> None:
    task = await add(store)
    await store.claims.settle(await take(store), Parked(reason="rate_limit", detail="later", until=clock.now() + 1_000))
    assert await store.claims.claim(await hire(store)) is None
    assert (await store.tasks.outlook()).due_at == clock.now() + 1_000
    clock.advance(1)
    assert (await store.tasks.get(task.id)).status is Status.READY
    claim = await take(store)
    assert (claim.task.reason, claim.task.detail, claim.task.due_at, claim.fence) == (None, None, None, 2)


async def test_those_that_were_woken_with_the_claimed_one_are_announced(store: Store, clock: FakeClock) -> None:
    for _ in range(2):
        await add(store)
        await store.claims.settle(await take(store), Parked(reason="later", until=clock.now() + 1_000))
    clock.advance(1)
    ticket = store.bell.ticket()
    await take(store)
    assert store.bell.rings > ticket


async def test_what_a_claim_records_is_its_own(store: Store, clock: FakeClock) -> None:
    """The executions of a task before are left as they were."""
    task = await add(store)
    first = await take(store, task)
    await start(store, first, session_id="s1")
    await store.claims.report(first, AgentReport(outcome="failed", usage=Usage(turns=3)))
    await store.claims.settle(first, Released())
    before = (await store.claims.attempts(task.id))[0]
    assert before.usage.turns == 3
    clock.advance(1)
    second = await take(store, task)
    await start(store, second, session_id="s2", agent="codex")
    await store.claims.note_session(second, "s3")
    await store.claims.renew(second, alive_at=99)
    await store.claims.report(second, AgentReport(outcome="done"))
    await store.claims.settle(second, Released())
    assert (await store.claims.attempts(task.id))[0] == before


async def test_every_claim_raises_the_fence(store: Store) -> None:
    task = await add(store)
    fences = []
    for _ in range(4):
        claim = await take(store, task)
        fences.append(claim.fence)
        await store.claims.settle(claim, Released())
    assert fences == [1, 2, 3, 4]


# ------------------------------------------------------------ holding


async def test_a_lease_is_renewed_while_it_lasts(store: Store, clock: FakeClock) -> None:
    await add(store)
    claim = await take(store)
    clock.advance(LEASE_MS / 1000 - 1)
    assert await store.claims.renew(claim, alive_at=77) == clock.boottime() + LEASE_MS
    clock.advance(2)
    assert await store.claims.holds(claim)
    assert (await store.claims.running())[0].alive_at == 77


@pytest.mark.suite("T12")
async def test_renewal_never_revives_a_lease(store: Store, clock: FakeClock) -> None:
    await add(store)
    claim = await take(store)
    clock.advance(LEASE_MS / 1000)
    for refused in (store.claims.renew(claim), step(store, claim), start(store, claim)):
        with pytest.raises(LeaseLost, match="is no longer held"):
            await refused
    assert not await store.claims.holds(claim)
    assert await store.claims.expired() == [claim.task_id]
    assert await store.claims.recall(claim) == {}
    assert (await store.tasks.get(claim.task_id)).executions == 0


@pytest.mark.suite("T13")
async def test_the_wall_clock_has_no_say_in_leases(store: Store, clock: FakeClock, tally: Tally) -> None:
    await add(store)
    claim = await take(store)
    for jump in (-86_400_000, 7_200_000, 86_400_000):
        clock.set_wall(clock.now() + jump)
        assert await store.claims.expired() == []
        await store.claims.renew(claim)
        tally(points=1)


async def test_a_lease_that_ended_can_still_be_settled_by_its_holder_alone(store: Store, clock: FakeClock) -> None:
    await add(store)
    claim = await take(store)
    clock.advance(LEASE_MS)
    assert (await store.claims.settle(claim, Released())).state is State.QUEUED


async def test_the_agent_is_recorded_before_it_may_act(store: Store) -> None:
    task = await add(store)
    claim = await take(store)
    await start(store, claim, session_id="s1", resumed="continued")
    assert (await store.tasks.get(task.id)).status is Status.IN_PROGRESS
    (attempt,) = await store.claims.attempts(task.id)
    recorded = (
        attempt.agent,
        attempt.process,
        attempt.marker,
        attempt.session_id,
        attempt.resumed,
        attempt.log,
        attempt.base,
    )
    assert recorded == ("claude", "boot:7:7", "m", "s1", "continued", "l", "b")
    await store.claims.note_session(claim, "s2")
    await start(store, claim, process=ProcessIdentity(boot_id="boot", pid=8, started=8))
    assert (await store.claims.attempts(task.id))[0].session_id == "s2"
    assert (await store.tasks.get(task.id)).executions == 2


async def test_a_step_is_completed_once_and_recalled_by_the_next_claim(store: Store) -> None:
    task = await add(store)
    claim = await take(store)
    report = AgentReport(outcome="done", session_id="s", usage=Usage(input_tokens=3, output_tokens=4, cost_usd=0.25))
    await step(store, claim, "let_agent_work", report)
    with pytest.raises(StoreError):
        await store.claims.complete_step(claim, "let_agent_work", '{"a": 2}', started_at=NOW)
    await store.claims.settle(claim, Released())
    second = await take(store, task)
    recalled = await store.claims.recall(second)
    assert {name: (r.result, r.fence) for name, r in recalled.items()} == {"let_agent_work": ('{"a": 1}', claim.fence)}
    assert [s.name for s in await store.claims.steps(task.id, 1)] == ["let_agent_work"]
    attempt = (await store.claims.attempts(task.id))[0]
    assert (attempt.outcome, attempt.session_id, attempt.usage.tokens, attempt.usage.cost_usd) == (
        "interrupted",
        "s",
        7,
        0.25,
    )
    used = await store.usage.total()
    assert (used.tokens, used.cost_usd) == (7, 0.25)


async def test_a_failed_attempts_steps_are_not_recalled_by_the_next(store: Store, clock: FakeClock) -> None:
    task = await add(store)
    claim = await take(store)
    await step(store, claim)
    await store.claims.settle(claim, Retry(error_class=Outcome.FAILED, message="no", until=clock.now()))
    assert await store.claims.recall(await take(store, task)) == {}


async def test_a_completed_step_renews_the_lease(store: Store, clock: FakeClock) -> None:
    await add(store)
    claim = await take(store)
    clock.advance(LEASE_MS / 1000 - 1)
    await step(store, claim)
    clock.advance(LEASE_MS / 1000 - 1)
    assert await store.claims.holds(claim)


# ------------------------------------------------------------ zombies

Act = Callable[[Store, Claim], Awaitable[Any]]
FENCED: dict[str, Act] = {
    "renew": lambda s, c: s.claims.renew(c),
    "start_agent": start,
    "complete_step": step,
    "settle completed": lambda s, c: s.claims.settle(c, Completed(landed=landing_of(c))),
    "settle failed": lambda s, c: s.claims.settle(c, Failed(error_class=Outcome.FAILED, message="no")),
    "settle released": lambda s, c: s.claims.settle(c, Released()),
    "intend": lambda s, c: s.landings.intend(c, target="main", old="o", commit="zombie", tree="t"),
    "landed": lambda s, c: s.landings.landed(c, landing_of(c, "zombie")),
}
UNFENCED: dict[str, Act] = {
    "report": lambda s, c: s.claims.report(c, AgentReport(outcome="done", usage=Usage(input_tokens=5))),
    "note_session": lambda s, c: s.claims.note_session(c, "zombie"),
    "abandon": lambda s, c: s.landings.abandon(c),
}


async def overtaken(store: Store, how: str) -> tuple[Claim, Task]:
    """A claim that is not its holder's any more, and the task as the world sees it."""
    task = await add(store)
    old = await take(store, task)
    if how == "cancelled":
        return old, (await store.tasks.cancel(task.id))[0]
    if how == "reset":
        return old, await store.tasks.reset(task.id)
    (held,) = [h for h in await store.claims.running() if h.task_id == task.id]
    assert await store.claims.rescue(held, dead=True)
    if how == "landed by another":
        await complete(store, task)
    elif how == "taken by another":
        await take(store, task)
    elif how == "taken by the same worker":
        await take(store, task, held.worker)
    return old, await store.tasks.get(task.id)


OVERTAKEN = ["cancelled", "reset", "rescued", "taken by another", "taken by the same worker", "landed by another"]


@pytest.mark.suite("T12")
@pytest.mark.parametrize("how", OVERTAKEN)
async def test_a_zombie_cannot_write(store: Store, how: str, tally: Tally) -> None:
    old, _ = await overtaken(store, how)
    before = await everything(store, old.task_id)
    for name, act in FENCED.items():
        with pytest.raises(LeaseLost):
            await act(store, old)
            pytest.fail(f"{name} was accepted from a zombie")
        assert await everything(store, old.task_id) == before, name
        tally(points=1)
    assert not await store.claims.holds(old)


@pytest.mark.suite("T12")
@pytest.mark.parametrize("how", OVERTAKEN)
async def test_what_a_zombie_tells_of_itself_moves_nothing(store: Store, how: str, tally: Tally) -> None:
    old, task = await overtaken(store, how)
    outcomes = [(a.fence, a.outcome) for a in await store.claims.attempts(task.id)]
    for act in UNFENCED.values():
        await act(store, old)
    assert plain(await store.tasks.get(task.id)) == plain(task)
    attempts = await store.claims.attempts(task.id)
    assert [(a.fence, a.outcome) for a in attempts] == outcomes
    assert [a.usage.input_tokens for a in attempts] == [5, *[0] * (len(attempts) - 1)]
    tally(points=len(UNFENCED))


async def everything(store: Store, task_id: str) -> dict[str, Any]:
    return {
        "task": plain(await store.tasks.get(task_id)),
        "attempts": await store.claims.attempts(task_id),
        "steps": await store.claims.steps(task_id, 1),
        "landings": await store.landings.of_task(task_id),
        "events": await store.events.page(),
    }


# ------------------------------------------------------------ taking back


async def test_a_claim_is_taken_back_when_its_lease_has_ended(store: Store, clock: FakeClock) -> None:
    task = await add(store)
    await take(store)
    (held,) = await store.claims.running()
    clock.advance(LEASE_MS / 1000 - 0.001)
    assert not await store.claims.rescue(held, dead=False)
    assert await store.claims.expired() == []
    clock.advance(0.001)
    assert await store.claims.expired() == [task.id]
    assert await store.claims.rescue(held, dead=False)
    rescued = await store.tasks.get(task.id)
    assert (rescued.state, rescued.attempt, rescued.interruptions, rescued.claimed_by) == (State.QUEUED, 1, 1, None)
    (attempt,) = await store.claims.attempts(task.id)
    assert (attempt.outcome, attempt.ended_at) == ("fenced", clock.now())
    event = (await store.events.page())[-1]
    assert (event.type, event.data["cause"]) == ("task.rescued", "lease ended")


async def test_a_claim_of_the_dead_is_taken_back_at_once_and_only_once(store: Store) -> None:
    await add(store)
    await take(store)
    (held,) = await store.claims.running()
    assert await store.claims.rescue(held, dead=True)
    assert not await store.claims.rescue(held, dead=True)


async def test_a_rescuer_that_looked_too_long_ago_takes_nothing(store: Store, clock: FakeClock) -> None:
    task = await add(store)
    claim = await take(store)
    (held,) = await store.claims.running()
    await store.claims.settle(claim, Released())
    again = await take(store, task)
    clock.advance(LEASE_MS)
    assert not await store.claims.rescue(held, dead=True)
    assert (await store.tasks.get(task.id)).fence == again.fence
    done = await add(store)
    await complete(store, done)
    assert not await store.claims.rescue(held._replace(task_id=done.id), dead=True)
    assert (await store.tasks.get(done.id)).state is State.COMPLETED


# ------------------------------------------------------------ closing

NOW = FakeClock().now()
ERROR = {"error_class": "failed", "message": "it broke", "what_to_do": "look"}
UNCHANGED = {
    "state": "queued", "reason": None, "detail": None, "due_at": None, "attempt": 1, "failures": 0, "conflicts": 0,
    "troubles": 0, "interruptions": 0, "error": None, "claimed_by": None, "executing": False, "completed_at": None,
}  # fmt: skip
_broken = {"error_class": Outcome.FAILED, "message": "it broke", "advice": "look"}
SETTLED: dict[str, tuple[Verdict, dict[str, Any], str | None]] = {
    "released": (Released(), {"interruptions": 1}, "interrupted"),
    "parked until a time": (
        Parked(reason="rate_limit", detail="d", until=NOW + 5),
        {"state": "waiting", "reason": "rate_limit", "detail": "d", "due_at": NOW + 5}, "done",
    ),
    "parked for an event": (
        Parked(reason="question"), {"state": "waiting", "reason": "question", "detail": ""}, "done",
    ),
    "parked by trouble": (
        Parked(reason="internal", until=NOW + 5),
        {"state": "waiting", "reason": "internal", "detail": "", "due_at": NOW + 5, "troubles": 1}, "done",
    ),
    "retried later": (
        Retry(**_broken, until=NOW + 5),
        {"state": "waiting", "reason": "backoff", "due_at": NOW + 5, "attempt": 2, "failures": 1, "error": ERROR},
        "failed",
    ),
    "retried at once": (Retry(**_broken, until=NOW), {"attempt": 2, "failures": 1, "error": ERROR}, "failed"),
    "retried for a conflict": (
        Retry(**_broken | {"error_class": Outcome.CONFLICT}, until=NOW, charge="conflict"),
        {"attempt": 2, "conflicts": 1, "error": ERROR | {"error_class": "conflict"}}, "conflict",
    ),
    "retried for nothing": (Retry(**_broken, until=NOW, charge="nothing"), {"attempt": 2, "error": ERROR}, "failed"),
    "failed": (Failed(**_broken), {"state": "failed", "failures": 1, "error": ERROR}, "failed"),
    "cancelled": (Stopped(order="cancel"), {"state": "cancelled"}, "cancelled"),
    "paused": (Stopped(order="pause"), {"state": "paused"}, "cancelled"),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTLED)
async def test_each_verdict_leaves_its_columns(store: Store, clock: FakeClock, name: str) -> None:
    verdict, changes, outcome = SETTLED[name]
    task = await add(store)
    claim = await take(store)
    await start(store, claim)
    await store.claims.report(claim, AgentReport(outcome="done"))
    settled = await store.claims.settle(claim, verdict)
    found = settled.model_dump(mode="json")
    assert {column: found[column] for column in UNCHANGED} == UNCHANGED | changes
    assert plain(await store.tasks.get(task.id)) == plain(settled)
    (attempt,) = await store.claims.attempts(task.id)
    assert (attempt.outcome, attempt.ended_at) == (outcome, clock.now())
    with pytest.raises(LeaseLost):
        await store.claims.settle(claim, Stopped(order="cancel", reason="another verdict"))


@pytest.mark.suite("T7")
async def test_what_was_kept_and_not_answered_is_found_when_it_is_asked_for_again(store: Store) -> None:
    """Every write of a claim, asked twice as after a lost answer, comes to what it came to the first time."""
    task = await add(store)
    worker = await hire(store)
    claim = await take(store, task, worker)
    found = await store.claims.find_held(worker)
    assert found is not None and found.model_dump() == claim.model_dump()
    landed = landing_of(claim)
    for _ in range(2):
        await start(store, claim)
        await step(store, claim, "let_agent_work", AgentReport(outcome="done", usage=Usage(input_tokens=3)))
        await store.landings.landed(claim, landed)
    assert [(await store.claims.settle(claim, Completed(landed=landed))).state for _ in range(2)] == ["completed"] * 2
    assert await store.claims.find_held(worker) is None
    after = await store.tasks.get(task.id)
    assert (after.executions, after.fence) == (1, 1)
    told = Counter(e.type for e in await store.events.page())
    assert set(told.values()) == {1} and "step.completed" in told and "task.started" in told
    for verdict in (
        Failed(**_broken),
        Retry(**_broken, until=NOW + 1),
        Parked(reason="question", detail="what?"),
    ):
        claim = await take(store, await add(store), worker)
        first, second = [await store.claims.settle(claim, verdict) for _ in range(2)]
        assert (first.failures, first.state, first.attempt) == (second.failures, second.state, second.attempt)
        assert len([e for e in await store.events.page(task_id=claim.task_id) if e.type != "task.ready"]) == 3


async def test_completing_leaves_what_landed(store: Store, clock: FakeClock) -> None:
    task = await add(store)
    for _ in range(2):
        await store.claims.settle(await take(store, task), Retry(error_class=Outcome.FAILED, message="no", until=NOW))
    claim = await take(store, task)
    landed = await land(store, claim)
    done = await store.claims.settle(claim, Completed(landed=landed))
    assert (done.state, done.landed_commit, done.landed_at, done.completed_at) == ("completed", landed.commit, NOW, NOW)
    assert (done.error, done.attempt, done.failures) == (None, 3, 2)
    assert [r.state for r in await store.landings.of_task(task.id)] == ["published"]
    assert (await store.claims.attempts(task.id))[-1].outcome is None


async def test_what_has_not_landed_cannot_be_completed(store: Store) -> None:
    task = await add(store)
    claim = await take(store)
    with pytest.raises(StoreError):
        await store.claims.settle(claim, Completed(landed=landing_of(claim)))
    assert await store.claims.holds(claim)
    assert (await store.tasks.get(task.id)).state is State.RUNNING


async def test_what_has_landed_is_not_attempted_again(store: Store, clock: FakeClock) -> None:
    task = await add(store)
    claim = await take(store)
    await land(store, claim)
    settled = await store.claims.settle(claim, Retry(error_class=Outcome.FAILED, message="no", until=NOW))
    assert (settled.attempt, settled.failures, settled.landed_at) == (1, 1, NOW)
    again = await take(store, task)
    assert (again.task.attempt, again.fence) == (1, 2)


async def test_troubles_in_a_row_are_counted_and_forgotten_after_anything_else(store: Store) -> None:
    task = await add(store)
    for n in (1, 2):
        settled = await store.claims.settle(await take(store, task), Parked(reason="internal", until=NOW))
        assert settled.troubles == n
    assert (await store.claims.settle(await take(store, task), Released())).troubles == 0


async def test_a_verdict_is_told_with_its_reason(store: Store) -> None:
    await add(store, "the title")
    await store.claims.settle(await take(store), Failed(**_broken))
    event = (await store.events.page())[-1]
    assert event.type == "task.failed"
    assert event.data == {"title": "the title", "error_class": "failed", "message": "it broke", "advice": "look"}


@pytest.mark.suite("T12")
async def test_a_zombie_that_slept_through_its_lease_finds_the_others_work_untouched(
    place: Place, tally: Tally
) -> None:
    """The holder stands still past its lease in one process; another process takes over, lands and completes."""
    async with place.open() as mine, place.open() as others:
        task = await add(mine)
        claim = await take(mine)
        await step(mine, claim, "prepare_worktree")
        place.clock.advance(LEASE_MS)
        (held,) = await others.claims.running()
        assert await others.claims.rescue(held, dead=False)
        second = await take(others, task)
        assert set(await others.claims.recall(second)) == {"prepare_worktree"}
        done = await others.claims.settle(second, Completed(landed=await land(others, second)))
        for act in FENCED.values():
            with pytest.raises(LeaseLost):
                await act(mine, claim)
        assert plain(await mine.tasks.get(task.id)) == plain(done)
    tally(points=len(FENCED))


async def test_workers_of_one_run_claim_different_tasks(store: Store) -> None:
    tasks = [await add(store) for _ in range(3)]
    workers = await hire_many(store, 3)
    claims = [await store.claims.claim(w) for w in workers]
    assert {c.task_id for c in claims if c} == {t.id for t in tasks}

"""Cancel, retry, reset: what an operator changes from outside a claim."""

from __future__ import annotations

import pytest

from drover.domain.errors import LeaseLost, WrongState
from drover.domain.models import Task
from drover.domain.states import State
from drover.domain.verdicts import Failed, Outcome, Parked, Retry, Stopped
from drover.store import Store
from drover.testing import FakeClock
from tests.store.scenes import add, complete, take

pytestmark = pytest.mark.anyio


async def bring(store: Store, clock: FakeClock, state: State) -> Task:
    """A task in that state."""
    task = await add(store)
    now = clock.now()
    match state:
        case State.RUNNING:
            await take(store, task)
        case State.WAITING:
            await store.claims.settle(await take(store, task), Parked(reason="later", until=now + 1_000))
        case State.PAUSED:
            await store.claims.settle(await take(store, task), Stopped(order="pause"))
        case State.FAILED:
            await store.claims.settle(await take(store, task), Failed(error_class=Outcome.FAILED, message="no"))
        case State.CANCELLED:
            await store.tasks.cancel(task.id)
        case State.COMPLETED:
            await complete(store, task)
    found = await store.tasks.get(task.id)
    assert found.state is state
    return found


@pytest.mark.parametrize("state", State)
async def test_every_unfinished_task_can_be_cancelled_and_no_other(
    store: Store, clock: FakeClock, state: State
) -> None:
    task = await bring(store, clock, state)
    if state in (State.COMPLETED, State.FAILED, State.CANCELLED):
        with pytest.raises(WrongState, match=f"is {state}"):
            await store.tasks.cancel(task.id)
        assert (await store.tasks.get(task.id)).state is state
    else:
        (cancelled,) = await store.tasks.cancel(task.id, reason="no need", operator="olive")
        assert (cancelled.state, cancelled.claimed_by, cancelled.due_at, cancelled.reason) == (
            State.CANCELLED,
            None,
            None,
            None,
        )
        event = (await store.events.page())[-1]
        assert (event.type, event.data) == ("task.cancelled", {"reason": "no need", "by": "olive"})


async def test_cancelling_what_runs_ends_the_claim(store: Store, clock: FakeClock) -> None:
    task = await add(store)
    claim = await take(store)
    await store.tasks.cancel(task.id, reason="no need")
    with pytest.raises(LeaseLost):
        await store.claims.renew(claim)
    assert not await store.claims.holds(claim)
    assert await store.claims.running() == []
    (attempt,) = await store.claims.attempts(task.id)
    assert (attempt.outcome, attempt.error, attempt.ended_at) == ("cancelled", "no need", clock.now())


@pytest.mark.parametrize("state", State)
async def test_a_reset_goes_back_to_the_start_from_any_state(store: Store, clock: FakeClock, state: State) -> None:
    task = await bring(store, clock, state)
    reset = await store.tasks.reset(task.id, fresh=True, operator="olive")
    assert (reset.state, reset.attempt, reset.first_attempt, reset.failures, reset.error) == (
        State.QUEUED, task.attempt + 1, task.attempt + 1, 0, None,
    )  # fmt: skip
    assert (reset.fresh, reset.due_at, reset.claimed_by, reset.landed_at) == (True, None, None, None)
    claim = await take(store, task)
    assert claim.fence == task.fence + 1
    assert await store.tasks.miscounted() == []


async def test_a_new_generation_owes_nothing_to_the_one_before(store: Store, clock: FakeClock) -> None:
    task = await add(store)
    conflict = Retry(error_class=Outcome.CONFLICT, message="no", until=clock.now(), charge="conflict")
    await store.claims.settle(await take(store, task), conflict)
    await store.claims.settle(await take(store, task), Parked(reason="question", detail="which one?"))
    reset = await store.tasks.reset(task.id)
    assert (reset.conflicts, reset.reason, reset.detail, reset.error) == (0, None, None, None)


async def test_a_reset_of_what_runs_ends_the_claim(store: Store) -> None:
    task = await add(store)
    claim = await take(store)
    await store.tasks.reset(task.id)
    with pytest.raises(LeaseLost):
        await store.claims.renew(claim)
    assert (await store.claims.attempts(task.id))[0].outcome == "reset"
    second = await take(store, task)
    assert (second.fence, second.task.attempt) == (2, 2)


async def test_a_reset_honours_blockers(store: Store) -> None:
    blocker = await add(store)
    task = await add(store, blocked_by=[blocker])
    await store.tasks.cancel(task.id)
    assert (await store.tasks.reset(task.id)).open_blockers == 1


@pytest.mark.parametrize("state", [s for s in State if s not in (State.FAILED, State.CANCELLED)])
async def test_only_the_dead_are_retried(store: Store, clock: FakeClock, state: State) -> None:
    task = await bring(store, clock, state)
    with pytest.raises(WrongState, match="not failed or cancelled"):
        await store.tasks.retry(task.id, max_attempts=3, force=True)
    assert (await store.tasks.get(task.id)).state is state


async def test_a_retry_needs_force_when_the_attempts_are_used_up(store: Store, clock: FakeClock) -> None:
    task = await add(store)
    for _ in range(2):
        await store.claims.settle(
            await take(store, task), Retry(error_class=Outcome.FAILED, message="no", until=clock.now())
        )
    await store.claims.settle(await take(store, task), Failed(error_class=Outcome.FAILED, message="no"))
    with pytest.raises(WrongState, match="used up its attempts"):
        await store.tasks.retry(task.id, max_attempts=3)
    (retried,) = await store.tasks.retry(task.id, max_attempts=3, force=True)
    assert (retried.state, retried.attempt, retried.first_attempt, retried.failures) == (State.QUEUED, 4, 4, 0)


async def test_a_tasks_own_limit_of_attempts_wins(store: Store) -> None:
    task = await add(store, max_attempts=1)
    await store.claims.settle(await take(store), Failed(error_class=Outcome.FAILED, message="no"))
    with pytest.raises(WrongState, match="used up"):
        await store.tasks.retry(task.id, max_attempts=9)


async def test_a_cancelled_task_is_retried_without_force(store: Store) -> None:
    task = await add(store)
    await store.tasks.cancel(task.id)
    (retried,) = await store.tasks.retry(task.id, max_attempts=1)
    assert retried.state is State.QUEUED

"""Who waits for whom: blockers, circles, what stands behind the dead, sub-tasks."""

from __future__ import annotations

import pytest

from drover.domain.errors import CycleError, LeaseLost, NotFound, UsageError, WrongState
from drover.domain.models import NewTask
from drover.domain.states import State, Status
from drover.domain.verdicts import Completed, Failed, Outcome
from drover.store import Store
from tests.store.scenes import add, complete, hire, land, take

pytestmark = pytest.mark.anyio


async def status(store: Store, task_id: str) -> Status:
    return (await store.tasks.get(task_id)).status


async def test_a_task_becomes_ready_with_the_last_of_its_blockers(store: Store) -> None:
    a, b = await add(store, "a"), await add(store, "b")
    c = await add(store, "c", blocked_by=[a, b])
    assert (c.blocked_by, c.open_blockers, c.status) == (tuple(sorted([a.id, b.id])), 2, Status.BLOCKED)
    assert (await store.tasks.get(a.id)).blocks == (c.id,)
    await complete(store, a)
    assert await status(store, c.id) is Status.BLOCKED
    await complete(store, b)
    assert await status(store, c.id) is Status.READY
    ready = [e for e in await store.events.page() if e.type == "task.ready"]
    assert [(e.task_id, e.data["after"]) for e in ready] == [(c.id, b.id)]


async def test_dependents_are_freed_by_the_landing_and_not_by_the_settling(store: Store) -> None:
    a = await add(store)
    c = await add(store, blocked_by=[a])
    await land(store, await take(store, a))
    assert await status(store, c.id) is Status.READY
    assert (await take(store)).task_id == c.id


async def test_a_task_behind_blockers_that_are_done_is_ready_at_once(store: Store) -> None:
    a = await add(store)
    await complete(store, a)
    assert (await add(store, blocked_by=[a])).status is Status.READY


async def test_blockers_can_be_named_twice_and_count_once(store: Store) -> None:
    a = await add(store)
    c = await add(store, blocked_by=[a, a])
    assert (await store.tasks.block(c.id, [a.id, a.id])).open_blockers == 1
    assert (await store.tasks.unblock(c.id, [a.id, a.id])).open_blockers == 0


async def test_blockers_are_added_and_taken_away_later(store: Store) -> None:
    a, c = await add(store), await add(store)
    assert (await store.tasks.block(c.id, [a.id])).status is Status.BLOCKED
    freed = await store.tasks.unblock(c.id, [a.id])
    assert (freed.status, freed.blocked_by) == (Status.READY, ())
    with pytest.raises(NotFound, match=f"{c.id} is not blocked by {a.id}"):
        await store.tasks.unblock(c.id, [a.id])


async def test_resolving_drops_the_blockers_that_are_left_and_says_so(store: Store) -> None:
    done, open_ = await add(store), await add(store)
    await complete(store, done)
    c = await add(store, blocked_by=[done, open_])
    resolved = await store.tasks.resolve(c.id, note="not needed", operator="olive")
    assert (resolved.status, resolved.blocked_by) == (Status.READY, (done.id,))
    event = (await store.events.page())[-1]
    assert (event.type, event.data) == ("task.resolved", {"dropped": [open_.id], "note": "not needed", "by": "olive"})
    with pytest.raises(WrongState, match="waits for no blocker"):
        await store.tasks.resolve(c.id)


async def test_blockers_come_before_the_work(store: Store) -> None:
    other, running, done = await add(store), await add(store), await add(store)
    await complete(store, done)
    await take(store, running)
    for task in (running, done):
        with pytest.raises(WrongState, match="blockers come before the work"):
            await store.tasks.block(task.id, [other.id])


async def test_a_circle_is_refused_with_its_path(store: Store) -> None:
    a = await add(store)
    b = await add(store, blocked_by=[a])
    c = await add(store, blocked_by=[b])
    with pytest.raises(CycleError) as caught:
        await store.tasks.block(a.id, [c.id])
    assert caught.value.path == (a.id, c.id, b.id, a.id)
    with pytest.raises(CycleError, match=f"{a.id} → {a.id}"):
        await store.tasks.block(a.id, [a.id])
    assert (await store.tasks.get(a.id)).blocked_by == ()
    assert await store.tasks.miscounted() == []


async def test_what_stands_behind_the_dead_is_stranded(store: Store) -> None:
    a = await add(store)
    b = await add(store, blocked_by=[a])
    c = await add(store, blocked_by=[b])
    free = await add(store)
    await store.claims.settle(await take(store, a), Failed(error_class=Outcome.FAILED, message="no"))
    assert set(await store.tasks.stranded()) == {b.id, c.id}
    assert [(await store.tasks.get(t.id)).stranded for t in (b, c, free)] == [True, True, False]
    await store.tasks.retry(a.id, max_attempts=1, force=True)
    assert await store.tasks.stranded() == []


async def test_what_landed_before_its_blocker_died_holds_nobody_up(store: Store) -> None:
    a = await add(store, "a")
    b = await add(store, "b", blocked_by=[a])
    await complete(store, a)
    await complete(store, b)
    alive = await add(store, "alive")
    c = await add(store, "c", blocked_by=[b, alive])
    await store.tasks.reset(a.id)
    await store.tasks.cancel(a.id)
    assert c.id not in await store.tasks.stranded()
    assert not (await store.tasks.get(c.id)).stranded


# ------------------------------------------------------------ sub-tasks


async def test_sub_tasks_come_one_after_the_other_and_before_their_parent(store: Store) -> None:
    parent = await add(store, "parent", agent="claude", max_attempts=2)
    one, two, three = [await add(store, f"{n}", parent_id=parent.id) for n in (1, 2, 3)]
    assert [t.id for t in (one, two, three)] == [f"{parent.id}.{n}" for n in (1, 2, 3)]
    assert (one.agent, one.max_attempts, one.sequence) == ("claude", 2, 1)
    order = []
    while claim := await store.claims.claim(await hire(store)):
        order.append(claim.task_id)
        assert (await store.claims.claim(await hire(store))) is None  # never two of them at a time
        await store.claims.settle(claim, Completed(landed=await land(store, claim)))
    assert order == [one.id, two.id, three.id, parent.id]


async def test_a_sub_task_put_in_between_comes_in_between(store: Store) -> None:
    parent = await add(store)
    await add(store, parent_id=parent.id, sequence=10)
    await add(store, parent_id=parent.id, sequence=30)
    middle = await add(store, parent_id=parent.id, sequence=20)
    assert middle.blocked_by == (f"{parent.id}.10",)
    assert middle.id in (await store.tasks.get(f"{parent.id}.30")).blocked_by
    assert await store.tasks.miscounted() == []


async def test_a_sub_task_put_before_one_that_runs_does_not_hold_it_up(store: Store) -> None:
    parent = await add(store)
    last = await add(store, parent_id=parent.id, sequence=30)
    await take(store, last)
    await add(store, parent_id=parent.id, sequence=20)
    assert (await store.tasks.get(last.id)).blocked_by == ()


async def test_a_sub_task_waits_for_what_its_parent_waits_for(store: Store) -> None:
    blocker = await add(store)
    parent = await add(store, blocked_by=[blocker])
    child = await add(store, parent_id=parent.id)
    assert (child.blocked_by, child.status) == ((blocker.id,), Status.BLOCKED)


async def test_a_number_that_is_taken_is_refused(store: Store) -> None:
    parent = await add(store)
    await add(store, parent_id=parent.id, sequence=4)
    with pytest.raises(WrongState, match=rf"{parent.id}\.4 exists already"):
        await add(store, parent_id=parent.id, sequence=4)
    assert (await add(store, parent_id=parent.id)).sequence == 5


async def test_sub_tasks_have_no_sub_tasks(store: Store) -> None:
    parent = await add(store)
    child = await add(store, parent_id=parent.id)
    with pytest.raises(UsageError, match="is a sub-task itself"):
        await add(store, parent_id=child.id)


async def test_sub_tasks_come_before_the_work_of_their_parent(store: Store) -> None:
    running, done = await add(store), await add(store)
    await complete(store, done)
    await take(store, running)
    for parent in (running, done):
        with pytest.raises(WrongState, match="sub-tasks come before it"):
            await add(store, parent_id=parent.id)


async def test_cancelling_a_parent_cancels_its_sub_tasks_that_have_not_landed(store: Store) -> None:
    parent = await add(store, "parent")
    done, landed, running, waiting, gone = [await add(store, parent_id=parent.id) for _ in range(5)]
    other = await add(store, "other", blocked_by=[waiting])
    await store.tasks.cancel(gone.id, reason="this one first")
    await complete(store, done)
    await land(store, await take(store, landed))
    claim = await take(store, running)
    cancelled = await store.tasks.cancel(parent.id, reason="no need", operator="olive")
    assert [t.id for t in cancelled] == [parent.id, running.id, waiting.id]
    assert {t.state for t in cancelled} == {State.CANCELLED}
    assert (await store.tasks.get(done.id)).state is State.COMPLETED
    assert (await store.tasks.get(landed.id)).landed_at is not None
    assert (await store.tasks.get(other.id)).stranded
    with pytest.raises(LeaseLost):
        await store.claims.renew(claim)
    assert (await store.claims.attempts(running.id))[0].outcome == "cancelled"
    told = [(e.task_id, e.data) for e in await store.events.page() if e.type == "task.cancelled"]
    assert told[1:] == [
        (parent.id, {"reason": "no need", "by": "olive"}),
        (running.id, {"reason": "no need", "by": "olive", "with": parent.id}),
        (waiting.id, {"reason": "no need", "by": "olive", "with": parent.id}),
    ]
    assert await store.tasks.miscounted() == []


async def test_a_cancelled_parent_that_is_retried_brings_its_cancelled_sub_tasks_back(store: Store) -> None:
    parent = await add(store, "parent")
    dropped, failed, one, two = [await add(store, parent_id=parent.id) for _ in range(4)]
    await store.tasks.cancel(dropped.id)
    for task in (failed, parent):
        await store.tasks.unblock(task.id, [dropped.id])  # it is not wanted any more, and the parent is
    await store.claims.settle(await take(store, failed), Failed(error_class=Outcome.FAILED, message="no"))
    await store.tasks.cancel(parent.id)
    retried = await store.tasks.retry(parent.id, max_attempts=3, fresh=True)
    assert [t.id for t in retried] == [parent.id, one.id, two.id]
    assert {(t.state, t.attempt, t.fresh) for t in retried} == {(State.QUEUED, 2, True)}
    assert (await store.tasks.get(dropped.id)).state is State.CANCELLED
    assert (await store.tasks.get(failed.id)).state is State.FAILED
    assert [e.task_id for e in await store.events.page() if e.type == "task.retried"] == [parent.id, one.id, two.id]


async def test_sub_tasks_have_the_settings_of_their_parent_but_for_their_own(store: Store) -> None:
    parent = await add(store, priority=7, agent="codex", test_command="make it", timeout_ms=5, max_attempts=2)
    child = await add(store, parent_id=parent.id, agent="claude")
    assert (child.priority, child.agent, child.test_command) == (7, "claude", "make it")
    assert (child.timeout_ms, child.max_attempts) == (5, 2)
    assert (await add(store, parent_id=parent.id, priority=9)).priority == 9


async def test_sub_tasks_follow_their_parent_into_another_epic_and_go_nowhere_alone(store: Store) -> None:
    epic, other = await store.epics.add("one"), await store.epics.add("two")
    parent = await add(store, epic_id=epic.id)
    child = await add(store, parent_id=parent.id, epic_id=epic.id)
    with pytest.raises(UsageError, match="belongs to the epic of"):
        await add(store, parent_id=parent.id, epic_id=other.id)
    with pytest.raises(UsageError, match="belongs to the epic of its parent"):
        await store.tasks.edit(child.id, {"epic_id": other.id})
    await store.tasks.edit(parent.id, {"epic_id": other.id})
    assert (await store.tasks.get(child.id)).epic_id == other.id


async def test_a_failed_sub_task_strands_those_after_it_and_its_parent(store: Store) -> None:
    parent = await add(store)
    one, two = await add(store, parent_id=parent.id), await add(store, parent_id=parent.id)
    claim = await take(store, one)
    await store.claims.settle(claim, Failed(error_class=Outcome.FAILED, message="no"))
    assert (await store.tasks.get(two.id)).stranded
    assert (await store.tasks.get(parent.id)).stranded
    assert (await store.tasks.outlook()).ready == 0


async def test_a_sub_task_that_was_resolved_away_from_its_parent_closes_no_circle(store: Store) -> None:
    parent = await add(store)
    first = await add(store, parent_id=parent.id)
    await store.tasks.resolve(parent.id)
    await store.tasks.block(first.id, [parent.id])  # it comes after its parent now
    with pytest.raises(CycleError):
        await add(store, parent_id=parent.id)


async def test_a_sub_task_belongs_to_its_parents_epic(store: Store) -> None:
    epic = await store.epics.add("E")
    parent = await add(store, epic_id=epic.id)
    assert (await add(store, parent_id=parent.id)).epic_id == epic.id


async def test_a_sub_task_may_not_wait_for_its_parent(store: Store) -> None:
    parent = await add(store)
    behind = await add(store, blocked_by=[parent])
    for blocker in (parent, behind):
        with pytest.raises(CycleError, match=rf"{parent.id}\.1 → .*{parent.id} → {parent.id}\.1"):
            await add(store, parent_id=parent.id, blocked_by=[blocker])
    assert (await store.tasks.get(parent.id)).blocked_by == ()
    assert await store.tasks.miscounted() == []


async def test_a_sub_task_put_in_between_may_not_wait_for_those_behind_it(store: Store) -> None:
    parent = await add(store)
    later = await add(store, parent_id=parent.id, sequence=30)
    with pytest.raises(CycleError):
        await add(store, parent_id=parent.id, sequence=10, blocked_by=[later])
    earlier = await add(store, parent_id=parent.id, sequence=5)
    await store.tasks.unblock(later.id, [earlier.id])
    await store.tasks.block(earlier.id, [later.id])
    with pytest.raises(CycleError):
        await add(store, parent_id=parent.id, sequence=10)


async def test_tasks_of_one_call_may_name_one_another(store: Store) -> None:
    parent = await add(store)
    one, two = await store.tasks.add_many(
        [NewTask(title="1", parent_id=parent.id), NewTask(title="2", blocked_by=(f"{parent.id}.1",))]
    )
    assert (one.blocks, two.blocked_by) == (tuple(sorted([parent.id, two.id])), (one.id,))
    assert (await store.tasks.get(parent.id)).state is State.QUEUED


async def test_counters_can_be_set_right_again(store: Store) -> None:
    a, landed = await add(store), await add(store)
    await complete(store, landed)
    b = await add(store, blocked_by=[a, landed])

    async def spoil(tx):
        await tx.all("raise_dependents", blocker_id=a.id)

    await store.database.write(spoil)
    assert await store.tasks.miscounted() == [(b.id, 2, 1)]
    await store.tasks.recount([b.id])
    assert await store.tasks.miscounted() == []

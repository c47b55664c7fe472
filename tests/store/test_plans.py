"""Plans: one in force a task, judged once, and no claim that passes a person by."""

from __future__ import annotations

import pytest

from drover.domain.errors import LeaseLost, NotFound, WrongState
from drover.domain.models import Claim, Task
from drover.domain.plans import Plan, PlanDraft, PlanStep
from drover.domain.states import State, Status
from drover.domain.verdicts import Planned, Released
from drover.store import Store
from drover.testing import FakeClock

from .scenes import add, complete, hire, start

pytestmark = pytest.mark.anyio
DRAFT = PlanDraft(summary="so", steps=(PlanStep(title="one"),))


async def claim(store: Store, choice: str = "to_plan", **scope: object) -> Claim | None:
    return await store.claims.claim(await hire(store), choice=choice, **scope)  # type: ignore[arg-type]


async def planned(store: Store, task: Task, approved_by: str | None = None) -> Plan:
    taken = await claim(store, task_ids=[task.id])
    assert taken is not None
    await store.claims.settle(taken, Planned(draft=DRAFT, approved_by=approved_by))
    plan = await store.plans.newest(task.id)
    assert plan is not None
    return plan


async def test_a_plan_waits_to_be_judged_and_nobody_builds_meanwhile(store: Store) -> None:
    task = await add(store)
    plan = await planned(store, task)
    now = await store.tasks.get(task.id)
    assert (now.state, now.reason, now.detail, now.plan) == (
        State.WAITING, "plan", f"{plan.id} waits to be judged", "pending"
    )  # fmt: skip
    assert now.needs_person
    assert (now.attempt, now.failures, now.interruptions) == (1, 0, 0)
    for choice in ("ready", "to_plan", "to_build"):
        assert await claim(store, choice) is None
    assert (await store.plans.approve(plan.id, by="olive")).decided_by == "olive"
    again = await store.plans.approve(plan.id, by="another")
    assert (again.state, again.decided_by) == ("approved", "olive")
    assert await claim(store, "to_plan") is None
    built = await claim(store, "to_build")
    assert built is not None and built.task_id == task.id


async def test_blocked_tasks_are_planned_and_not_built(store: Store) -> None:
    blocker = await add(store)
    task = await add(store, blocked_by=[blocker])
    plan = await planned(store, task, approved_by="drover")
    assert (plan.state, plan.decided_by) == ("approved", "drover")
    assert (await store.tasks.get(task.id)).status is Status.BLOCKED
    assert await claim(store, "to_build") is None
    await complete(store, blocker)
    assert await claim(store, "to_build") is not None


async def test_scopes_and_order_hold_for_both_choices(store: Store) -> None:
    epic = await store.epics.add("epic")
    low, high = await add(store), await add(store, priority=5)
    inside = await add(store, epic_id=epic.id)
    taken = await claim(store, epic_id=epic.id)
    assert taken is not None and taken.task_id == inside.id
    await store.claims.settle(taken, Planned(draft=DRAFT, approved_by="x"))
    taken = await claim(store)
    assert taken is not None and taken.task_id == high.id
    assert await claim(store, "to_build", task_ids=[low.id]) is None
    taken = await claim(store, "to_build", epic_id=epic.id)
    assert taken is not None and taken.task_id == inside.id


async def test_a_rejected_plan_goes_back_so_often_and_no_oftener(store: Store) -> None:
    task = await add(store)
    first = await planned(store, task)
    await store.plans.reject(first.id, "too long", max_refinements=1)
    now = await store.tasks.get(task.id)
    assert (now.status, now.plan) == (Status.READY, "rejected")
    assert (await store.plans.get(first.id)).feedback == "too long"
    second = await planned(store, task)
    assert (second.revision, second.parent_id) == (2, first.id)
    await store.plans.reject(second.id, "still", max_refinements=1)
    now = await store.tasks.get(task.id)
    assert (now.state, now.reason) == (State.WAITING, "plan")
    assert now.detail is not None and second.id in now.detail
    await store.plans.delete(second.id)
    assert (await store.tasks.get(task.id)).status is Status.READY
    assert (await store.tasks.get(task.id)).plan is None


async def test_a_plan_is_judged_once_and_not_for_a_task_that_is_over(store: Store) -> None:
    task, other = await add(store), await add(store)
    plan = await planned(store, task)
    await store.plans.reject(plan.id, "no", max_refinements=3)
    for judge in (store.plans.approve(plan.id), store.plans.reject(plan.id, "no", max_refinements=3)):
        with pytest.raises(WrongState, match="was rejected already"):
            await judge
    late = await planned(store, other)
    await store.tasks.cancel(other.id)
    with pytest.raises(WrongState, match="is cancelled"):
        await store.plans.approve(late.id)
    with pytest.raises(NotFound, match="no plan 'plan-none'"):
        await store.plans.get("plan-none")
    assert (await store.plans.get(late.id[:-1])).id in (late.id, plan.id)


async def test_one_that_is_carried_out_is_not_deleted(store: Store) -> None:
    task = await add(store)
    plan = await planned(store, task, approved_by="x")
    taken = await claim(store, "to_build")
    assert taken is not None
    assert (await store.plans.get(plan.id)).status == "executing"
    with pytest.raises(WrongState, match="being carried out"):
        await store.plans.delete(plan.id)
    await store.claims.settle(taken, Released())
    await store.plans.delete(plan.id)
    assert await store.plans.list_plans(task=task.id) == []


async def test_another_text_is_for_a_plan_that_is_not_judged(store: Store) -> None:
    plan = await planned(store, await add(store))
    text = DRAFT.model_copy(update={"summary": "otherwise"})
    assert (await store.plans.edit(plan.id, text)).draft == text
    await store.plans.approve(plan.id)
    with pytest.raises(WrongState):
        await store.plans.edit(plan.id, DRAFT)
    assert (await store.plans.get(plan.id)).draft == text
    told = [event.type for event in await store.events.page() if event.type.startswith(("plan.", "task.planned"))]
    assert told == ["task.planned", "plan.edited", "plan.approved"]


async def test_who_lost_the_claim_keeps_no_plan(store: Store) -> None:
    task = await add(store)
    taken = await claim(store)
    assert taken is not None
    (held,) = await store.claims.running()
    await store.claims.rescue(held, dead=True)
    with pytest.raises(LeaseLost):
        await store.claims.settle(taken, Planned(draft=DRAFT))
    assert await store.plans.newest(task.id) is None
    assert (await store.tasks.get(task.id)).plan is None


async def test_an_execution_remembers_that_it_planned(store: Store) -> None:
    await add(store)
    taken = await claim(store)
    assert taken is not None
    await store.plans.begin(taken)
    await start(store, taken)
    await store.claims.settle(taken, Planned(draft=DRAFT, approved_by="x"))
    built = await claim(store, "to_build")
    assert built is not None
    assert [a.purpose for a in await store.claims.attempts(taken.task_id)] == ["plan", "build"]


async def test_the_outlook_is_that_of_the_choice(store: Store, clock: FakeClock) -> None:
    one, blocked = await add(store), await add(store, blocked_by=[await add(store)])
    assert (await store.tasks.outlook(choice="to_plan")).ready == 3
    assert (await store.tasks.outlook(choice="to_build")).done
    await planned(store, one)
    outlook = await store.tasks.outlook(choice="to_plan")
    assert (outlook.ready, outlook.person) == (2, 1)
    await planned(store, blocked, approved_by="x")
    assert (await store.tasks.outlook(choice="to_build")).done
    assert (await store.tasks.outlook(choice="to_plan", task_ids=[blocked.id])).done


async def test_a_plan_is_found_by_its_id_without_the_kind_and_by_its_beginning(store: Store) -> None:
    plan = await planned(store, await add(store))
    for name in (plan.id, plan.id.removeprefix("plan-"), plan.id[:-1], plan.id[5:-1]):
        assert (await store.plans.get(name)).id == plan.id
    with pytest.raises(NotFound, match="no plan"):
        await store.plans.get("plan-0")

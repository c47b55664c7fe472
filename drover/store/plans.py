"""Plans: kept with the verdict of the execution that made them, judged once, carried out by a later claim."""

from __future__ import annotations

from drover.domain.clock import Clock
from drover.domain.errors import NotFound, StoreError, WrongState
from drover.domain.ids import new_id
from drover.domain.models import Claim, Task
from drover.domain.plans import Plan, PlanDraft
from drover.domain.states import TERMINAL
from drover.domain.verdicts import Planned
from drover.store.database import Database, Row, Transaction
from drover.store.events import tell
from drover.store.reading import get_task, resolve, resolve_epic

PLAN_WAIT = "plan"  # the reason of a task that waits for its plan to be judged


class Plans:
    """Verbs of a plan."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def begin(self, claim: Claim) -> None:
        """Record that this execution plans: later ones that build will not go on with its session."""

        async def verb(tx: Transaction) -> None:
            await tx.run("begin_planning", task_id=claim.task_id, fence=claim.fence)

        await self._database.write(verb)

    async def get(self, name: str) -> Plan:
        """The plan with this id or the only one that begins so."""

        async def verb(tx: Transaction) -> Plan:
            return await _get(tx, await _resolve(tx, name))

        return await self._database.read(verb)

    async def newest(self, task_id: str) -> Plan | None:
        """The plan that was made for the task last."""

        async def verb(tx: Transaction) -> Plan | None:
            return await newest(tx, task_id)

        return await self._database.read(verb)

    async def list_plans(self, *, task: str | None = None, epic: str | None = None) -> list[Plan]:
        """Plans in the order they were made, of one task or epic if given."""

        async def verb(tx: Transaction) -> list[Row]:
            task_id = await resolve(tx, task) if task else None
            epic_id = await resolve_epic(tx, epic) if epic else None
            return await tx.all("list_plans", task_id=task_id, epic_id=epic_id)

        return [plan_of(row) for row in await self._database.read(verb)]

    async def approve(self, name: str, *, by: str | None = None) -> Plan:
        """Free the plan's task to be built. Approving what is approved changes nothing."""

        async def verb(tx: Transaction) -> Plan:
            now = self._clock.now()
            plan = await _get(tx, await _resolve(tx, name))
            if plan.state == "approved":
                return plan
            task = await _judged(tx, plan, now)
            await tx.run("decide_plan", id=plan.id, state="approved", feedback="", decided_by=by, now=now)
            await tx.run("mark_planned", task_id=task.id, plan="approved", now=now)
            await tx.run("queue_planned", task_id=task.id)
            await _tell(tx, "plan.approved", now, task, plan.id, by=by)
            tx.ring()
            return await _get(tx, plan.id)

        return await self._database.write(verb)

    async def reject(self, name: str, feedback: str, *, max_refinements: int, by: str | None = None) -> Plan:
        """Send the plan back with what was wrong; the task is planned again, ``max_refinements`` times at most.

        After that the task goes on waiting: for another plan nobody asks by himself.
        """

        async def verb(tx: Transaction) -> Plan:
            now = self._clock.now()
            plan = await _get(tx, await _resolve(tx, name))
            task = await _judged(tx, plan, now)
            await tx.run("decide_plan", id=plan.id, state="rejected", feedback=feedback, decided_by=by, now=now)
            await tx.run("mark_planned", task_id=task.id, plan="rejected", now=now)
            if plan.revision <= max_refinements:
                await tx.run("queue_planned", task_id=task.id)
            else:
                detail = f"{plan.id} was rejected; delete it to have the task planned or built anew"
                await tx.run("describe_plan_wait", task_id=task.id, detail=detail)
            await _tell(tx, "plan.rejected", now, task, plan.id, by=by, feedback=feedback)
            tx.ring()
            return await _get(tx, plan.id)

        return await self._database.write(verb)

    async def edit(self, name: str, draft: PlanDraft, *, by: str | None = None) -> Plan:
        """Another text for a plan that is not judged yet."""

        async def verb(tx: Transaction) -> Plan:
            now = self._clock.now()
            plan = await _get(tx, await _resolve(tx, name))
            task = await _judged(tx, plan, now)
            if draft != plan.draft:
                await tx.run("rewrite_plan", id=plan.id, draft=draft.model_dump_json())
                await _tell(tx, "plan.edited", now, task, plan.id, by=by)
            return await _get(tx, plan.id)

        return await self._database.write(verb)

    async def delete(self, name: str, *, by: str | None = None) -> Plan:
        """Forget the plan; a task whose newest it was is as one that was never planned."""

        async def verb(tx: Transaction) -> Plan:
            now = self._clock.now()
            plan = await _get(tx, await _resolve(tx, name))
            task = await get_task(tx, plan.task_id, now)
            if plan.status == "executing":
                raise WrongState(f"{plan.id} is being carried out", hint=f"drover cancel {task.id} stops that")
            last = await newest(tx, task.id)
            await tx.run("delete_plan", id=plan.id)
            if last is not None and last.id == plan.id:
                await tx.run("mark_planned", task_id=task.id, plan=None, now=now)
                await tx.run("queue_planned", task_id=task.id)
            await _tell(tx, "plan.deleted", now, task, plan.id, by=by)
            tx.ring()
            return plan

        return await self._database.write(verb)


async def keep(tx: Transaction, claim: Claim, verdict: Planned, now: int) -> str:
    """Within the transaction that settles the claim: the verdict's plan, and its id."""
    before = await newest(tx, claim.task_id)
    state = "approved" if verdict.approved_by is not None else "pending"
    for length in range(4, 12):
        id = new_id("plan", length)
        added = await tx.run(
            "add_plan",
            id=id,
            task_id=claim.task_id,
            revision=before.revision + 1 if before else 1,
            parent_id=before.id if before else None,
            state=state,
            draft=verdict.draft.model_dump_json(),
            decided_at=now if verdict.approved_by is not None else None,
            decided_by=verdict.approved_by,
            now=now,
        )
        if added == 1:
            await tx.run("mark_planned", task_id=claim.task_id, plan=state, now=now)
            return id
    raise StoreError("no free plan id was found")


async def newest(tx: Transaction, task_id: str) -> Plan | None:
    """Within a transaction: the plan that was made for the task last."""
    row = await tx.one("find_newest_plan", task_id=task_id)
    return plan_of(row) if row is not None else None


def plan_of(row: Row) -> Plan:
    """A row of ``plans`` with its task's title and state."""
    values = {name: value for name, value in row.items() if name in Plan.model_fields}
    return Plan.model_validate({**values, "draft": PlanDraft.model_validate_json(str(row["draft"]))})


async def _get(tx: Transaction, id: str) -> Plan:
    row = await tx.one("find_plan", id=id)
    if row is None:
        raise NotFound(f"no plan {id!r}", hint="drover plan list")
    return plan_of(row)


async def _resolve(tx: Transaction, name: str) -> str:
    if await tx.one("find_plan", id=name):
        return name
    for low in (name, f"plan-{name}"):
        rows = await tx.all("list_plan_ids_between", low=low, high=low + "~")
        if len(rows) == 1:
            return str(rows[0]["id"])
        if rows:
            raise NotFound(f"{name!r} could be {', '.join(str(r['id']) for r in rows)}", hint="type more of the id")
    raise NotFound(f"no plan {name!r}", hint="drover plan list")


async def _judged(tx: Transaction, plan: Plan, now: int) -> Task:
    """The task of a plan that may be judged now."""
    await tx.one("lock_task", id=plan.task_id)
    task = await get_task(tx, plan.task_id, now)
    if plan.state != "pending":
        raise WrongState(f"{plan.id} was {plan.state} already", hint=f"drover plan show {plan.id}")
    if task.state in TERMINAL:
        raise WrongState(f"{task.id} is {task.status}", hint=f"drover reset {task.id}")
    return task


async def _tell(tx: Transaction, type: str, now: int, task: Task, plan_id: str, **data: str | None) -> None:
    await tell(
        tx, type, now, task_id=task.id, epic_id=task.epic_id, data={"plan": plan_id, "title": task.title, **data}
    )

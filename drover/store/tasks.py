"""The backlog: adding tasks, the edges between them, and what an operator changes from outside a claim.

Every public method is one transaction: the change, its events, its wake-up.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from typing import Literal, NamedTuple

from drover.domain import graph
from drover.domain.clock import Clock
from drover.domain.errors import CycleError, NotFound, UsageError, WrongState
from drover.domain.models import NewTask, Task
from drover.domain.states import DEAD, TERMINAL, State, Status, status_of
from drover.store.adding import Adding
from drover.store.database import Database, Row, Transaction, Value
from drover.store.events import tell
from drover.store.reading import PAGE, all_edges, get_task, load_page, load_these, resolve, resolve_epic

FIRST_PAGE = 200
# The stored states that can read as a status.
_STORED: dict[Status, tuple[State, ...]] = {
    Status.READY: (State.QUEUED, State.WAITING),
    Status.BLOCKED: (State.QUEUED, State.WAITING),
    Status.WAITING: (State.WAITING,),
    Status.CLAIMED: (State.RUNNING,),
    Status.IN_PROGRESS: (State.RUNNING,),
    Status.PAUSED: (State.PAUSED,),
    Status.COMPLETED: (State.COMPLETED,),
    Status.FAILED: (State.FAILED,),
    Status.CANCELLED: (State.CANCELLED,),
}


# Which tasks a run is about: those that are ready, those to be planned, those whose plan was approved.
Choice = Literal["ready", "to_plan", "to_build"]


class Outlook(NamedTuple):
    """What is left to be done now: nothing, when all three are empty. Of a whole backlog, 1 stands for any number."""

    ready: int
    running: int
    due_at: int | None  # unix ms: when the next one that waits for a time is due
    person: int = 0  # those that wait for a person: an answer, a pause, the operator's checkout

    @property
    def done(self) -> bool:
        return not self.ready and not self.running and self.due_at is None


class Tasks:
    """Verbs of the backlog."""

    def __init__(self, database: Database, clock: Clock, rng: random.Random | None = None) -> None:
        self._database = database
        self._clock = clock
        self._adding = Adding(database, clock, rng)

    # ------------------------------------------------------------ reading

    async def get(self, name: str) -> Task:
        """The task with this id, or with the only id that begins so; :class:`NotFound` otherwise."""

        async def verb(tx: Transaction) -> Task:
            return await get_task(tx, await resolve(tx, name), self._clock.now())

        return await self._database.read(verb)

    async def list_tasks(
        self,
        *,
        statuses: Collection[Status] = (),
        epic_id: str | None = None,
        label: str | None = None,
        limit: int | None = None,
    ) -> list[Task]:
        """Tasks in the order they were added; filters that are empty let everything through."""

        found: list[Task] = []
        async for page in self.pages(statuses=statuses, epic_id=epic_id, label=label):
            found += page
            if limit is not None and len(found) >= limit:
                return found[:limit]
        return found

    async def pages(
        self, *, statuses: Collection[Status] = (), epic_id: str | None = None, label: str | None = None
    ) -> AsyncIterator[list[Task]]:
        """What :meth:`list_tasks` lists, a page at a time, so that the first comes at once. Each page is a reading."""
        states = json.dumps(sorted({s for status in statuses for s in _STORED[status]})) if statuses else None
        after: str | None = None
        size = FIRST_PAGE
        while True:

            async def verb(tx: Transaction, after: str | None = after, size: int = size) -> list[Task]:
                epic = await resolve_epic(tx, epic_id) if epic_id else None
                return await load_page(
                    tx, self._clock.now(), after=after, epic_id=epic, states=states, label=label, page=size
                )

            tasks = await self._database.read(verb)
            if chosen := [t for t in tasks if not statuses or t.status in statuses]:
                yield chosen
            if len(tasks) < size:
                return
            after, size = tasks[-1].id, PAGE

    async def counts(self, epic_id: str | None = None) -> dict[Status, int]:
        """How many tasks read as each status."""

        async def verb(tx: Transaction) -> dict[Status, int]:
            found: dict[Status, int] = dict.fromkeys(Status, 0)
            now = self._clock.now()
            if epic_id is None:
                row = await tx.one("count_tasks", now=now)
            else:
                row = await tx.one("count_tasks_of_epic", epic_id=epic_id, now=now)
            groups = {group: int(n or 0) for group, n in (row or {}).items()}
            if "total" in groups:
                groups["queued_blocked"] = groups.pop("total") - sum(groups.values())
            for group, n in groups.items():  # a state, then what else its status depends on
                state, *facts = group.split("_")
                status = status_of(
                    State(state),
                    open_blockers=int("blocked" in facts),
                    executing="executing" in facts,
                    due="due" in facts,
                )
                found[status] += n
            return found

        return await self._database.read(verb)

    async def outlook(
        self, *, epic_id: str | None = None, task_ids: Collection[str] = (), choice: Choice = "ready"
    ) -> Outlook:
        """What is left to be done in a scope, wherever it runs."""

        async def verb(tx: Transaction) -> Row | None:
            now = self._clock.now()
            ids = json.dumps(list(task_ids)) if task_ids else None
            if choice != "ready":
                return await tx.one(f"find_outlook_{choice}", now=now, epic_id=epic_id, ids=ids)
            if epic_id is None and ids is None:
                return await tx.one("find_outlook", now=now)
            return await tx.one("find_outlook_within", now=now, epic_id=epic_id, ids=ids)

        row = await self._database.read(verb)
        assert row is not None  # noqa: S101 - it has no FROM, or counts
        due_at = int(row["due_at"]) if row["due_at"] is not None else None
        return Outlook(int(row["ready"] or 0), int(row["running"] or 0), due_at, int(row["person"] or 0))

    async def stranded(self) -> list[str]:
        """Ids of unfinished tasks that stand behind a failed or cancelled one."""

        async def verb(tx: Transaction) -> list[str]:
            return [str(r["id"]) for r in await tx.all("list_stranded")]

        return await self._database.read(verb)

    async def miscounted(self) -> list[tuple[str, int, int]]:
        """Tasks whose blocker counter is not what its definition says: id, counter, count. Always empty."""

        async def verb(tx: Transaction) -> list[tuple[str, int, int]]:
            rows = await tx.all("list_miscounted")
            return [(str(r["id"]), int(r["open_blockers"] or 0), int(r["counted"] or 0)) for r in rows]

        return await self._database.read(verb)

    async def recount(self, ids: Collection[str]) -> None:
        """Set these tasks' blocker counters to what their definition says."""

        async def verb(tx: Transaction) -> None:
            await tx.one("lock_graph")
            for id in ids:
                await tx.run("recount_blockers", id=id)
            tx.ring()

        await self._database.write(verb)

    # ------------------------------------------------------------ adding

    async def add(self, new: NewTask, *, by: str | None = None) -> Task:
        """Add one task; the same ``key`` twice gives the same task. Unknown epic, parent or blocker: NotFound."""
        return (await self.add_many([new], by=by))[0]

    async def add_many(self, news: Sequence[NewTask], *, by: str | None = None) -> list[Task]:
        """Add all of them or none, in one transaction, in order; ``blocked_by`` may name keys of earlier ones."""
        return await self._adding.add_many(news, by=by)

    # ------------------------------------------------------------ the graph

    async def block(self, name: str, by: Iterable[str], *, operator: str | None = None) -> Task:
        """Let the task wait for more blockers; a cycle is refused with its path."""

        async def verb(tx: Transaction, task: Task, now: int) -> None:
            if task.state in (State.COMPLETED, State.RUNNING) or task.landed_at is not None:
                raise WrongState(f"{task.id} is {task.status}; blockers come before the work", hint=None)
            blockers = [await resolve(tx, b) for b in by]
            edges = await all_edges(tx)
            edges[task.id].extend(blockers)
            if cycle := graph.find_cycle(edges, task.id):
                raise CycleError(cycle)
            for blocker in dict.fromkeys(blockers):
                await tx.run("add_blocker", task_id=task.id, blocker_id=blocker, kind="asked", now=now)
            await tx.run("recount_blockers", id=task.id)
            await tell(
                tx,
                "task.blocked",
                now,
                task_id=task.id,
                epic_id=task.epic_id,
                data={"blocked_by": blockers, "by": operator},
            )

        return await self._change(name, verb, edges=True)

    async def unblock(self, name: str, by: Iterable[str], *, operator: str | None = None) -> Task:
        """Take blockers away; :class:`NotFound` for one it does not have."""

        async def verb(tx: Transaction, task: Task, now: int) -> None:
            for blocker in dict.fromkeys([await resolve(tx, b) for b in by]):
                if await tx.run("remove_blocker", task_id=task.id, blocker_id=blocker) != 1:
                    raise NotFound(f"{task.id} is not blocked by {blocker}", hint=f"drover info {task.id}")
            await tx.run("recount_blockers", id=task.id)
            await tell(tx, "task.unblocked", now, task_id=task.id, epic_id=task.epic_id, data={"by": operator})

        return await self._change(name, verb, edges=True)

    async def resolve(self, name: str, *, note: str = "", operator: str | None = None) -> Task:
        """Drop the task's remaining blockers, on record."""

        async def verb(tx: Transaction, task: Task, now: int) -> None:
            if task.open_blockers == 0:
                raise WrongState(f"{task.id} waits for no blocker", hint=f"drover info {task.id}")
            dropped = []
            for row in await tx.all("list_blockers_of_task", task_id=task.id):
                if row["landed_at"] is None:
                    dropped.append(str(row["blocker_id"]))
                    await tx.run("remove_blocker", task_id=task.id, blocker_id=row["blocker_id"])
            await tx.run("recount_blockers", id=task.id)
            await tell(
                tx,
                "task.resolved",
                now,
                task_id=task.id,
                epic_id=task.epic_id,
                data={"dropped": dropped, "note": note, "by": operator},
            )

        return await self._change(name, verb, edges=True)

    # ------------------------------------------------------------ the operator's hand

    async def edit(
        self, name: str, changes: dict[str, Value | tuple[str, ...]], *, operator: str | None = None
    ) -> Task:
        """Change columns of a task that is not running. ``labels`` is a tuple, everything else a column.

        :class:`UsageError` for a column that is not to be edited.
        """
        if unknown := sorted(set(changes) - {*_EDITABLE, "labels"}):
            raise UsageError(f"{', '.join(unknown)} cannot be edited", hint=f"one of {', '.join(_EDITABLE)}, labels")

        async def verb(tx: Transaction, task: Task, now: int) -> None:
            columns: dict[str, Value] = {column: getattr(task, column) for column in _EDITABLE}
            columns |= {k: v for k, v in changes.items() if not isinstance(v, tuple)}
            if columns["epic_id"] is not None:
                columns["epic_id"] = await resolve_epic(tx, str(columns["epic_id"]))
            if columns["epic_id"] != task.epic_id:
                if task.parent_id is not None:
                    raise UsageError(
                        f"{task.id} belongs to the epic of its parent",
                        hint=f"drover edit-task {task.parent_id} --epic …",
                    )
                await tx.run("move_subtasks", parent_id=task.id, epic_id=columns["epic_id"], now=now)
            if await tx.run("edit_task", id=task.id, now=now, **columns) != 1:
                raise WrongState(f"{task.id} is {task.status}", hint=f"drover cancel {task.id}, or wait for it")
            if isinstance(labels := changes.get("labels"), tuple):
                await tx.run("remove_labels", task_id=task.id)
                for label in dict.fromkeys(labels):
                    await tx.run("add_label", task_id=task.id, label=label)
            await tell(
                tx,
                "task.edited",
                now,
                task_id=task.id,
                epic_id=task.epic_id,
                data={"fields": sorted(changes), "by": operator},
            )

        return await self._change(name, verb)

    async def cancel(self, name: str, *, reason: str = "", operator: str | None = None) -> list[Task]:
        """Cancel an unfinished task and those of its sub-tasks that have not landed; all of these, the task first.

        A worker that holds one loses its claim by this and stops the agent.
        """

        async def verb(tx: Transaction, task: Task, now: int) -> list[str]:
            if task.state in TERMINAL:
                raise WrongState(f"{task.id} is {task.status}", hint=f"drover info {task.id}")
            if task.landed_at is not None:
                raise WrongState(f"{task.id} has landed already and only waits to be published", hint="drover status")
            open_ = [s for s in await _subtasks(tx, task, now) if s.state not in TERMINAL and s.landed_at is None]
            for one in (task, *open_):
                await self._cancel(tx, one, now, reason=reason, operator=operator, parent=task)
            return [one.id for one in open_]

        return await self._change_family(name, verb)

    async def _cancel(
        self, tx: Transaction, task: Task, now: int, *, reason: str, operator: str | None, parent: Task
    ) -> None:
        """``parent``: the task that was named."""
        await move_task(tx, task, State.CANCELLED, now)
        if task.state is State.RUNNING:
            await tx.run("end_attempt", task_id=task.id, fence=task.fence, outcome="cancelled", error=reason, now=now)
        data: dict[str, Value] = {"reason": reason, "by": operator}
        if task is not parent:
            data["with"] = parent.id
        await tell(tx, "task.cancelled", now, task_id=task.id, epic_id=task.epic_id, data=data)

    async def retry(
        self, name: str, *, max_attempts: int, force: bool = False, fresh: bool = False, operator: str | None = None
    ) -> list[Task]:
        """Failed or cancelled → eligible again. Without ``force`` only while attempts remain or it was cancelled.

        ``max_attempts`` is what holds for tasks that name none themselves.

        ``fresh``: its work in progress is not carried over (it stays on its snapshot ref). What has landed already
        does not land again: such a task goes on where it was.

        With a task that was cancelled come those of its sub-tasks that were, where it still waits for them; all of
        these, the task first.
        """

        async def verb(tx: Transaction, task: Task, now: int) -> list[str]:
            if task.state not in DEAD:
                raise WrongState(f"{task.id} is {task.status}, not failed or cancelled", hint=f"drover info {task.id}")
            used_up = task.state is State.FAILED and task.failures >= (task.max_attempts or max_attempts)
            if used_up and not force:
                raise WrongState(f"{task.id} has used up its attempts", hint=f"drover retry --force {task.id}")
            with_it: list[Task] = []
            if task.state is State.CANCELLED:
                subtasks = await _subtasks(tx, task, now)
                with_it = [s for s in subtasks if s.state is State.CANCELLED and s.id in task.blocked_by]
            for one in (task, *with_it):
                if one.landed_at is not None:
                    await move_task(tx, one, State.QUEUED, now, forgiven=True)
                else:
                    await self._start_over(tx, one, now, fresh=fresh)
                data: dict[str, Value] = {"by": operator, "fresh": fresh}
                await tell(tx, "task.retried", now, task_id=one.id, epic_id=one.epic_id, data=data)
            return [one.id for one in with_it]

        return await self._change_family(name, verb)

    async def reset(self, name: str, *, fresh: bool = False, operator: str | None = None) -> Task:
        """Back to the start from any state, honouring blockers; a landed task will land once more."""

        async def verb(tx: Transaction, task: Task, now: int) -> None:
            if task.state is State.RUNNING:
                await tx.run("end_attempt", task_id=task.id, fence=task.fence, outcome="reset", error=None, now=now)
            await self._start_over(tx, task, now, fresh=fresh)
            await tell(
                tx, "task.reset", now, task_id=task.id, epic_id=task.epic_id, data={"by": operator, "fresh": fresh}
            )

        return await self._change(name, verb, edges=True)

    async def _start_over(self, tx: Transaction, task: Task, now: int, *, fresh: bool) -> None:
        """A new generation: attempts are counted from here, and an earlier landing is no longer this one's."""
        if task.landed_at is not None:
            await tx.run("raise_dependents", blocker_id=task.id)
        await move_task(tx, task, State.QUEUED, now, attempt=task.attempt + 1, fresh=fresh)

    async def _change(
        self, name: str, verb: Callable[[Transaction, Task, int], Awaitable[None]], *, edges: bool = False
    ) -> Task:
        return await change_task(self._database, self._clock, name, verb, edges=edges)

    async def _change_family(
        self, name: str, verb: Callable[[Transaction, Task, int], Awaitable[list[str]]]
    ) -> list[Task]:
        """As :func:`change_task` with ``edges``, for a verb that tells which others it has changed; all of them."""

        async def whole(tx: Transaction) -> list[Task]:
            now = self._clock.now()
            task = await _hold(tx, name, now, edges=True)
            changed = [task.id, *await verb(tx, task, now)]
            tx.ring()
            return await load_these(tx, changed, now)

        return await self._database.write(whole)


_EDITABLE = (
    "title", "description", "epic_id", "type", "priority", "agent", "test_mode", "test_scope", "test_command",
    "timeout_ms", "max_attempts",
)  # fmt: skip


# ---------------------------------------------------------------- changes that other verbs of the store make, too


async def change_task(
    database: Database,
    clock: Clock,
    name: str,
    verb: Callable[[Transaction, Task, int], Awaitable[None]],
    *,
    edges: bool = False,
) -> Task:
    """Do ``verb`` to a task that nobody else changes meanwhile. ``edges``: nor anybody an edge or a landing."""

    async def whole(tx: Transaction) -> Task:
        now = clock.now()
        task = await _hold(tx, name, now, edges=edges)
        await verb(tx, task, now)
        tx.ring()
        return await get_task(tx, task.id, now)

    return await database.write(whole)


async def _hold(tx: Transaction, name: str, now: int, *, edges: bool) -> Task:
    if edges:
        await tx.one("lock_graph")
    id = await resolve(tx, name)
    await tx.one("lock_task", id=id)
    return await get_task(tx, id, now)


async def _subtasks(tx: Transaction, parent: Task, now: int) -> list[Task]:
    """In their order, and nobody else changes them meanwhile. Whether they are stranded is not looked for."""
    found = []
    for row in await tx.all("list_children", parent_id=parent.id):
        await tx.one("lock_task", id=row["id"])
        found.append(await get_task(tx, str(row["id"]), now, stranded=frozenset()))
    return found


async def move_task(
    tx: Transaction,
    task: Task,
    state: State,
    now: int,
    *,
    attempt: int | None = None,
    fresh: bool = False,
    forgiven: bool = False,
    reason: str | None = None,
    detail: str | None = None,
    due_at: int | None = None,
) -> None:
    """Change the task's state from outside of a claim; whoever holds it has lost it. ``attempt``: starts it over."""
    over = attempt is not None
    forgiven = forgiven or over
    error = None if forgiven else task.error
    moved = await tx.run(
        "move_task",
        id=task.id,
        fence=task.fence,
        was=task.state.value,
        state=state.value,
        reason=reason,
        detail=detail,
        due_at=due_at,
        fresh=int(fresh),
        attempt=attempt if attempt is not None else task.attempt,
        first_attempt=attempt if attempt is not None else task.first_attempt,
        failures=0 if forgiven else task.failures,
        conflicts=0 if forgiven else task.conflicts,
        error_class=error.error_class if error else None,
        error_message=error.message if error else None,
        error_advice=error.what_to_do if error else None,
        landed_commit=None if over else task.landed_commit,
        landed_at=None if over else task.landed_at,
        completed_at=None,
        now=now,
    )
    if moved != 1:
        raise WrongState(f"{task.id} changed meanwhile", hint="look again: drover info " + task.id)

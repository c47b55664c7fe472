"""The backlog: adding tasks, the edges between them, and what an operator changes from outside a claim.

Every public method is one transaction: the change, its events, its wake-up.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from typing import Literal, NamedTuple

from drover.domain import graph
from drover.domain.clock import Clock
from drover.domain.errors import CycleError, NotFound, StoreError, UsageError, WrongState
from drover.domain.ids import new_id
from drover.domain.models import NewTask, Task
from drover.domain.states import DEAD, TERMINAL, State, Status, status_of
from drover.store.database import Database, Row, Transaction, Value, clean
from drover.store.events import tell
from drover.store.rows import task_of

AT_ONCE = 8  # so many tasks are worth other statements than one
ID_TRIES_PER_LENGTH = 8
FIRST_PAGE, PAGE = 200, 5_000
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
        self._rng = rng

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
                return await _load_page(
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

        async def verb(tx: Transaction) -> list[Task]:
            now = self._clock.now()
            if any(new.parent_id for new in news):
                await tx.one("lock_graph")
            ids: list[str] = []
            keys: dict[str, str] = {}
            put_off = _PutOff([], [])
            for new in news:
                if new.parent_id is not None:
                    await put_off.write(tx, now)  # a sub-task's place is found by its parent's edges
                ids.append(await self._insert(tx, new, now, by, keys, put_off))
                if new.key is not None:
                    keys[new.key] = ids[-1]
            await put_off.write(tx, now)
            tx.ring()
            return await _load_these(tx, ids, now)

        async def at_once(tx: Transaction) -> list[Task]:
            now = self._clock.now()
            ids, edges = await self._insert_all(tx, news, now, by)
            tx.ring()
            return await _load_these(tx, ids, now, edges)

        if len(news) >= AT_ONCE and not any(new.parent_id for new in news):
            with suppress(_Taken):  # nothing was written
                return await self._database.write(at_once)
        return await self._database.write(verb)

    async def _insert_all(
        self, tx: Transaction, news: Sequence[NewTask], now: int, by: str | None
    ) -> tuple[list[str], _Edges | None]:
        """Tasks without parents, in one statement of each kind; their ids in order. Raises :class:`_Taken`.

        With their edges, when all of them are new: nothing else can stand behind them yet.
        """
        keys = await _ids_of_keys(tx, [new.key for new in news if new.key is not None])
        free = iter(await self._free_ids(tx, len(news)))
        names: dict[str, str] = {}
        ids, rows, labels, put_off = [], list[list[Value]](), list[tuple[str, str]](), _PutOff([], [])
        for new in news:
            if new.key is not None and new.key in keys:
                ids.append(keys[new.key])
                continue
            ids.append(id := next(free))
            if new.key is not None:
                keys[new.key] = id
            epic_id = await resolve_epic(tx, new.epic_id) if new.epic_id else None
            rows.append(_row_of(new, id, epic_id))
            labels += [(id, label) for label in dict.fromkeys(new.labels)]
            for name in dict.fromkeys(new.blocked_by):
                if name not in keys and name not in names:
                    names[name] = await resolve(tx, name)
            blockers = dict.fromkeys(keys.get(name) or names[name] for name in new.blocked_by)
            put_off.edges.extend((id, blocker) for blocker in blockers)
            put_off.ids.append(id)
        if await tx.run("add_tasks", tasks=json.dumps(rows), by=by, now=now) != len(rows):
            raise _Taken
        for id, label in labels:
            await tx.run("add_label", task_id=id, label=label)
        edges = _edges_of(labels, put_off.edges) if len(rows) == len(news) else None
        await put_off.write(tx, now)
        return ids, edges

    async def _free_ids(self, tx: Transaction, count: int) -> list[str]:
        """As many new ids, none of them taken now."""
        free: dict[str, None] = {}
        for length in range(4, 12):
            for _ in range(ID_TRIES_PER_LENGTH):
                drawn = {
                    id: None for _ in range(count - len(free)) if (id := new_id("task", length, self._rng)) not in free
                }
                taken = {str(row["id"]) for row in await tx.all("list_ids_among", ids=json.dumps(list(drawn)))}
                free |= {id: None for id in drawn if id not in taken}
                if len(free) == count:
                    return list(free)
        raise StoreError("no free task ids were found")

    async def _insert(
        self, tx: Transaction, new: NewTask, now: int, by: str | None, keys: Mapping[str, str], put_off: _PutOff
    ) -> str:
        if new.key is not None and (row := await tx.one("find_task_by_key", key=new.key)):
            return str(row["id"])
        blockers = dict.fromkeys([keys.get(name) or await resolve(tx, name) for name in new.blocked_by], "asked")
        epic_id = await resolve_epic(tx, new.epic_id) if new.epic_id else None
        parent, sequence, follower = None, None, None
        if new.parent_id is not None:
            parent_id = await resolve(tx, new.parent_id)
            await tx.one("lock_task", id=parent_id)
            parent = await get_task(tx, parent_id, now)
            sequence, before, follower = await _place_among(tx, parent, new.sequence)
            if epic_id not in (None, parent.epic_id):
                raise UsageError(
                    f"a sub-task belongs to the epic of {parent.id}: {parent.epic_id or 'none'}, not {epic_id}",
                    hint="leave --epic out",
                )
            epic_id = parent.epic_id
            # What the parent waits for cannot wait for it; a sub-task that was resolved away from it can.
            blockers |= dict.fromkeys([before] if before else [], "order")
            circles = [(blocker, parent.id) for blocker in blockers]
            blockers |= {b: "asked" for b in parent.blocked_by if not b.startswith(f"{parent.id}.")}
            circles += [(blocker, follower) for blocker in blockers if follower]
            await _refuse_circle(tx, f"{parent.id}.{sequence}", circles)
        columns: dict[str, Value] = {
            **new.model_dump(
                exclude={"labels", "blocked_by", "epic_id", "parent_id", "sequence", "allow_no_change", "input"}
            ),
            "allow_no_change": int(new.allow_no_change),
            "epic_id": epic_id,
            "parent_id": parent.id if parent else None,
            "sequence": sequence,
            "open_blockers": 0,
            "created_by": by,
            "now": now,
        }
        if parent is not None:
            columns |= {k: v for k, v in _inherited(parent).items() if not columns[k]}
        id, taken = await self._insert_with_id(tx, columns, f"{parent.id}.{sequence}" if parent else None)
        if taken:
            return id
        if new.input is not None:
            await tx.run("set_input", id=id, input=json.dumps(new.input))
        for label in dict.fromkeys(new.labels):
            await tx.run("add_label", task_id=id, label=label)
        if parent is None:
            put_off.edges.extend((id, blocker) for blocker in blockers)
            put_off.ids.append(id)
            return id
        for blocker, kind in blockers.items():
            await tx.run("add_blocker", task_id=id, blocker_id=blocker, kind=kind, now=now)
        if blockers:
            await tx.run("recount_blockers", id=id)
        if parent is not None:
            await tx.run("add_blocker", task_id=parent.id, blocker_id=id, kind="child", now=now)
            await tx.run("recount_blockers", id=parent.id)
        if follower is not None and await tx.run("add_blocker", task_id=follower, blocker_id=id, kind="order", now=now):
            await tx.run("recount_blockers", id=follower)
        await tell(tx, "task.created", now, task_id=id, epic_id=epic_id, data={"title": new.title, "by": by})
        return id

    async def _insert_with_id(self, tx: Transaction, columns: dict[str, Value], wanted: str | None) -> tuple[str, bool]:
        """The new task's id; or, and True, that of a task another process has added under this key meanwhile."""
        for length in range(4, 12):
            for _ in range(ID_TRIES_PER_LENGTH):
                id = wanted or new_id("task", length, self._rng)
                if await tx.run("add_task", id=id, **columns) == 1:
                    return id, False
                if columns["key"] is not None and (row := await tx.one("find_task_by_key", key=columns["key"])):
                    return str(row["id"]), True
                if wanted is not None:
                    raise WrongState(f"{wanted} exists already", hint=f"drover info {wanted}")
        raise StoreError("no free task id was found")

    # ------------------------------------------------------------ the graph

    async def block(self, name: str, by: Iterable[str], *, operator: str | None = None) -> Task:
        """Let the task wait for more blockers; a cycle is refused with its path."""

        async def verb(tx: Transaction, task: Task, now: int) -> None:
            if task.state in (State.COMPLETED, State.RUNNING) or task.landed_at is not None:
                raise WrongState(f"{task.id} is {task.status}; blockers come before the work", hint=None)
            blockers = [await resolve(tx, b) for b in by]
            edges = await _edges(tx)
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

    async def cancel(self, name: str, *, reason: str = "", operator: str | None = None) -> Task:
        """Cancel an unfinished task. A worker that holds it loses its claim by this and stops the agent."""

        async def verb(tx: Transaction, task: Task, now: int) -> None:
            if task.state in TERMINAL:
                raise WrongState(f"{task.id} is {task.status}", hint=f"drover info {task.id}")
            if task.landed_at is not None:
                raise WrongState(f"{task.id} has landed already and only waits to be published", hint="drover status")
            await move_task(tx, task, State.CANCELLED, now)
            if task.state is State.RUNNING:
                await tx.run(
                    "end_attempt", task_id=task.id, fence=task.fence, outcome="cancelled", error=reason, now=now
                )
            await tell(
                tx,
                "task.cancelled",
                now,
                task_id=task.id,
                epic_id=task.epic_id,
                data={"reason": reason, "by": operator},
            )

        return await self._change(name, verb)

    async def retry(
        self, name: str, *, max_attempts: int, force: bool = False, fresh: bool = False, operator: str | None = None
    ) -> Task:
        """Failed or cancelled → eligible again. Without ``force`` only while attempts remain or it was cancelled.

        ``max_attempts`` is what holds for tasks that name none themselves.

        ``fresh``: its work in progress is not carried over (it stays on its snapshot ref). What has landed already
        does not land again: such a task goes on where it was.
        """

        async def verb(tx: Transaction, task: Task, now: int) -> None:
            if task.state not in DEAD:
                raise WrongState(f"{task.id} is {task.status}, not failed or cancelled", hint=f"drover info {task.id}")
            used_up = task.state is State.FAILED and task.failures >= (task.max_attempts or max_attempts)
            if used_up and not force:
                raise WrongState(f"{task.id} has used up its attempts", hint=f"drover retry --force {task.id}")
            if task.landed_at is not None:
                await move_task(tx, task, State.QUEUED, now, forgiven=True)
            else:
                await self._start_over(tx, task, now, fresh=fresh)
            await tell(
                tx, "task.retried", now, task_id=task.id, epic_id=task.epic_id, data={"by": operator, "fresh": fresh}
            )

        return await self._change(name, verb)

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


class _Taken(Exception):
    """Somebody else has added a task under one of the ids or keys meanwhile."""


async def _ids_of_keys(tx: Transaction, keys: Sequence[str]) -> dict[str, str]:
    rows = await tx.all("list_ids_of_keys", keys=json.dumps(keys)) if keys else []
    return {str(row["key"]): str(row["id"]) for row in rows}


def _row_of(new: NewTask, id: str, epic_id: str | None) -> list[Value]:
    """The columns of ``add_tasks``, each as every database can hold it."""
    document = json.dumps(new.input) if new.input is not None else None
    values = (
        id, new.title, new.description, epic_id, new.type, new.priority, new.key, new.agent, new.test_mode,
        new.test_scope, new.test_command, new.timeout_ms, new.max_attempts, int(new.allow_no_change), document,
    )  # fmt: skip
    return [clean(value) for value in values]


class _PutOff(NamedTuple):
    """What adding many tasks leaves to be written in one statement of each kind."""

    edges: list[tuple[str, str]]
    ids: list[str]  # of which it is to be told that they were created

    async def write(self, tx: Transaction, now: int) -> None:
        if self.edges:
            await tx.one("lock_graph")  # not before: nothing of an import lands for as long as it is held
            edges = json.dumps(self.edges)
            await tx.run("add_blockers", edges=edges, now=now)
            await tx.run("recount_blockers_among", ids=json.dumps(list(dict.fromkeys(id for id, _ in self.edges))))
        if self.ids:
            await tx.run("tell_created", ids=json.dumps(self.ids), now=now)
        self.edges.clear()
        self.ids.clear()


_EDITABLE = (
    "title", "description", "epic_id", "type", "priority", "agent", "test_mode", "test_scope", "test_command",
    "timeout_ms", "max_attempts",
)  # fmt: skip


def _inherited(parent: Task) -> dict[str, Value]:
    names = ("agent", "priority", "test_mode", "test_scope", "test_command", "timeout_ms", "max_attempts")
    return {name: getattr(parent, name) for name in names}


async def _place_among(tx: Transaction, parent: Task, wanted: int | None) -> tuple[int, str | None, str | None]:
    """The number of a new sub-task, the sibling it comes after, and the one that has yet to begin after it."""
    if parent.parent_id is not None:
        raise UsageError(
            f"{parent.id} is a sub-task itself; sub-tasks have none", hint=f"use --parent {parent.parent_id}"
        )
    if parent.state is State.RUNNING or parent.state is State.COMPLETED or parent.landed_at is not None:
        raise WrongState(f"{parent.id} is {parent.status}; sub-tasks come before it", hint=f"drover info {parent.id}")
    siblings = await tx.all("list_children", parent_id=parent.id)
    sequence = wanted if wanted is not None else max((int(r["sequence"] or 0) for r in siblings), default=0) + 1
    earlier = [str(r["id"]) for r in siblings if int(r["sequence"] or 0) < sequence]
    later = [r for r in siblings if int(r["sequence"] or 0) > sequence]
    waits = later and later[0]["landed_at"] is None and later[0]["state"] not in (State.RUNNING, State.COMPLETED)
    return sequence, earlier[-1] if earlier else None, str(later[0]["id"]) if waits else None


async def _refuse_circle(tx: Transaction, new: str, pairs: list[tuple[str, str]]) -> None:
    """A new task may not wait for what will wait for it; pairs of a blocker of it and a dependent of it."""
    for blocker, dependent in pairs:
        if blocker == dependent or await tx.one("find_wait", task_id=blocker, blocker_id=dependent):
            edges = await _edges(tx)
            edges[new] = [blocker]
            edges[dependent].append(new)
            raise CycleError(graph.find_cycle(edges, new) or (new, dependent, new))


async def _edges(tx: Transaction) -> defaultdict[str, list[str]]:
    edges: defaultdict[str, list[str]] = defaultdict(list)
    for row in await tx.all("list_blockers"):
        edges[str(row["task_id"])].append(str(row["blocker_id"]))
    return edges


# ---------------------------------------------------------------- readings shared by the verbs of the store


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
        if edges:
            await tx.one("lock_graph")
        id = await resolve(tx, name)
        await tx.one("lock_task", id=id)
        task = await get_task(tx, id, now)
        await verb(tx, task, now)
        tx.ring()
        return await get_task(tx, task.id, now)

    return await database.write(whole)


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


async def resolve(tx: Transaction, name: str) -> str:
    """The id that ``name`` is, or the only one that begins with it."""
    if await tx.one("find_task", id=name):
        return name
    query = "list_ids_between" if "." in name else "list_root_ids_between"
    for low in (name, f"task-{name}"):
        rows = await tx.all(query, low=low, high=low + "~")
        if len(rows) == 1:
            return str(rows[0]["id"])
        if rows:
            raise NotFound(f"{name!r} could be {', '.join(str(r['id']) for r in rows)}", hint="type more of the id")
    raise NotFound(f"no task {name!r}", hint="drover list")


async def resolve_epic(tx: Transaction, name: str) -> str:
    """As :func:`resolve`, for epics."""
    if await tx.one("find_epic", id=name):
        return name
    for low in (name, f"epic-{name}"):
        rows = await tx.all("list_epic_ids_between", low=low, high=low + "~")
        if len(rows) == 1:
            return str(rows[0]["id"])
        if rows:
            raise NotFound(f"{name!r} could be {', '.join(str(r['id']) for r in rows)}", hint="type more of the id")
    raise NotFound(f"no epic {name!r}", hint="drover epic list")


async def get_task(tx: Transaction, id: str, now: int, *, stranded: Set[str] | None = None) -> Task:
    """One task with its edges. ``stranded``: ids of the stranded ones, where they are known."""
    row = await tx.one("find_task", id=id)
    if row is None:
        raise NotFound(f"no task {id!r}", hint="drover list")
    return await with_edges(tx, row, now, stranded=stranded)


async def with_edges(tx: Transaction, row: Row, now: int, *, stranded: Set[str] | None = None) -> Task:
    """The task of a whole row of ``tasks``."""
    id = str(row["id"])
    edges: dict[str, list[str]] = {"label": [], "blocker": [], "dependent": []}
    for edge in await tx.all("list_edges_of_task", id=id):
        edges[str(edge["kind"])].append(str(edge["other"]))
    if row["open_blockers"] and stranded is None:
        stranded = await _stranded(tx)
    return task_of(
        row,
        now=now,
        labels=edges["label"],
        blocked_by=edges["blocker"],
        blocks=edges["dependent"],
        stranded=bool(row["open_blockers"]) and id in (stranded or ()),
    )


async def _stranded(tx: Transaction) -> Set[str]:
    return {str(r["id"]) for r in await tx.all("list_stranded")}


_Edges = Mapping[tuple[str, str], Sequence[str]]  # (task, "label" or "blocker" or "dependent") → the others, sorted


def _edges_of(labels: Iterable[tuple[str, str]], blockers: Sequence[tuple[str, str]]) -> _Edges:
    """Of (task, label) and (task, blocker)."""
    edges: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for id, label in labels:
        edges[id, "label"].append(str(clean(label)))
    for id, blocker in blockers:
        edges[id, "blocker"].append(blocker)
        edges[blocker, "dependent"].append(id)
    return {key: sorted(others) for key, others in edges.items()}


async def _load_page(tx: Transaction, now: int, **which: Value) -> list[Task]:
    return await _with_their_edges(tx, await tx.all("list_tasks_page", **which), now)


async def _load_these(tx: Transaction, ids: Sequence[str], now: int, edges: _Edges | None = None) -> list[Task]:
    found: dict[str, Task] = {}
    for at in range(0, len(ids), PAGE):
        rows = await tx.all("list_tasks_among", ids=json.dumps(ids[at : at + PAGE]))
        found |= {task.id: task for task in await _with_their_edges(tx, rows, now, edges)}
    return [found[id] for id in ids]


async def _with_their_edges(tx: Transaction, rows: Sequence[Row], now: int, edges: _Edges | None = None) -> list[Task]:
    """``edges``: where they are known already."""
    if edges is None:
        edges = await _edges_among(tx, rows)
    stranded = await _stranded(tx) if any(row["open_blockers"] for row in rows) else frozenset()
    return [
        task_of(
            row,
            now=now,
            labels=edges.get((str(row["id"]), "label"), ()),
            blocked_by=edges.get((str(row["id"]), "blocker"), ()),
            blocks=edges.get((str(row["id"]), "dependent"), ()),
            stranded=row["id"] in stranded,
        )
        for row in rows
    ]


async def _edges_among(tx: Transaction, rows: Sequence[Row]) -> _Edges:
    edges: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for edge in await tx.all("list_edges_among", ids=json.dumps([row["id"] for row in rows])) if rows else ():
        edges[str(edge["id"]), str(edge["kind"])].append(str(edge["other"]))
    return edges

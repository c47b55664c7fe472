"""Adding tasks: all of a call or none, in one transaction, idempotent by their keys."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from drover.domain import graph
from drover.domain.clock import Clock
from drover.domain.errors import CycleError, StoreError, UsageError, WrongState
from drover.domain.garbage import no_looks
from drover.domain.ids import new_id, new_ids
from drover.domain.models import NewTask, Task
from drover.domain.states import State
from drover.store.database import Database, Transaction, Value, clean
from drover.store.events import tell
from drover.store.reading import Edges, all_edges, edges_of, get_task, load_these, resolve, resolve_epic

AT_ONCE = 8  # so many tasks are worth other statements than one
ID_TRIES_PER_LENGTH = 8


class Adding:
    """What :class:`Tasks` does to add them."""

    def __init__(self, database: Database, clock: Clock, rng: random.Random | None) -> None:
        self._database = database
        self._clock = clock
        self._rng = rng

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
            put_off = PutOff([], [], [])
            for new in news:
                if new.parent_id is not None:
                    await put_off.write(tx, now)  # a sub-task's place is found by its parent's edges
                ids.append(await self._insert(tx, new, now, by, keys, put_off))
                if new.key is not None:
                    keys[new.key] = ids[-1]
            await put_off.write(tx, now)
            tx.ring()
            return await load_these(tx, ids, now)

        async def at_once(tx: Transaction) -> list[Task]:
            now = self._clock.now()
            with no_looks():
                ids, edges = await self._insert_all(tx, news, now, by)
                tx.ring()
                return await load_these(tx, ids, now, edges)

        if len(news) >= AT_ONCE and not any(new.parent_id for new in news):
            with suppress(_Taken):  # nothing was written
                return await self._database.write(at_once)
        return await self._database.write(verb)

    async def _insert_all(
        self, tx: Transaction, news: Sequence[NewTask], now: int, by: str | None
    ) -> tuple[list[str], Edges | None]:
        """Tasks without parents, in one statement of each kind; their ids in order. Raises :class:`_Taken`.

        With their edges, when all of them are new: nothing else can stand behind them yet.
        """
        keys = await _ids_of_keys(tx, [new.key for new in news if new.key is not None])
        free = iter(await self._free_ids(tx, len(news)))
        names: dict[str, str] = {}
        ids, fresh, put_off = [], set[str](), PutOff([], [], [])
        rows, labels = list[list[Value]](), list[tuple[str, str]]()
        for new in news:
            if new.key is not None and new.key in keys:
                ids.append(keys[new.key])
                continue
            ids.append(id := next(free))
            fresh.add(id)
            if new.key is not None:
                keys[new.key] = id
            epic_id = await resolve_epic(tx, new.epic_id) if new.epic_id else None
            labels += [(id, label) for label in dict.fromkeys(new.labels)]
            for name in dict.fromkeys(new.blocked_by):
                if name not in keys and name not in names:
                    names[name] = await resolve(tx, name)
            blockers = dict.fromkeys(keys.get(name) or names[name] for name in new.blocked_by)
            put_off.edges.extend([(id, blocker) for blocker in blockers])
            put_off.ids.append(id)
            known = fresh.issuperset(blockers)  # then none of them has landed
            if not known:
                put_off.uncounted.append(id)
            rows.append(_row_of(new, id, epic_id, len(blockers) if known else 0))
        if await tx.run("add_tasks", tasks=_cleaned(rows), by=by, now=now) != len(rows):
            raise _Taken
        for id, label in labels:
            await tx.run("add_label", task_id=id, label=label)
        edges = edges_of(labels, put_off.edges) if len(rows) == len(news) else None
        await put_off.write(tx, now)
        return ids, edges

    async def _free_ids(self, tx: Transaction, count: int) -> list[str]:
        """As many new ids, none of them taken now."""
        free: dict[str, None] = {}
        for length in range(4, 12):
            for _ in range(ID_TRIES_PER_LENGTH):
                drawn = dict.fromkeys(
                    id for id in new_ids("task", count - len(free), length, self._rng) if id not in free
                )
                taken = {str(row["id"]) for row in await tx.all("list_ids_among", ids=json.dumps(list(drawn)))}
                free |= {id: None for id in drawn if id not in taken}
                if len(free) == count:
                    return list(free)
        raise StoreError("no free task ids were found")

    async def _insert(
        self, tx: Transaction, new: NewTask, now: int, by: str | None, keys: Mapping[str, str], put_off: PutOff
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
            put_off.uncounted.extend([id] if blockers else [])
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


class _Taken(Exception):
    """Somebody else has added a task under one of the ids or keys meanwhile."""


async def _ids_of_keys(tx: Transaction, keys: Sequence[str]) -> dict[str, str]:
    rows = await tx.all("list_ids_of_keys", keys=json.dumps(keys)) if keys else []
    return {str(row["key"]): str(row["id"]) for row in rows}


def _row_of(new: NewTask, id: str, epic_id: str | None, open_blockers: int) -> list[Value]:
    """The columns of ``add_tasks``."""
    document = json.dumps(new.input) if new.input is not None else None
    return [
        id, new.title, new.description, epic_id, new.type, new.priority, new.key, new.agent, new.test_mode,
        new.test_scope, new.test_command, new.timeout_ms, new.max_attempts, int(new.allow_no_change), document,
        open_blockers,
    ]  # fmt: skip


def _cleaned(rows: Sequence[Sequence[Value]]) -> str:
    """As JSON, each value as every database can hold it."""
    text = json.dumps(rows)
    # Whatever is not ASCII was escaped, and NUL, too: most often there is nothing to look for.
    return json.dumps([[clean(value) for value in row] for row in rows]) if "\\u" in text else text


class PutOff(NamedTuple):
    """What adding many tasks leaves to be written in one statement of each kind."""

    edges: list[tuple[str, str]]
    uncounted: list[str]  # tasks whose open blockers are to be counted
    ids: list[str]  # of which it is to be told that they were created

    async def write(self, tx: Transaction, now: int) -> None:
        if self.edges:
            await tx.one("lock_graph")  # not before: nothing of an import lands for as long as it is held
            await tx.run("add_blockers", edges=json.dumps(self.edges), now=now)
        if self.uncounted:
            await tx.run("recount_blockers_among", ids=json.dumps(self.uncounted))
        if self.ids:
            await tx.run("tell_created", ids=json.dumps(self.ids), now=now)
        for written in self:
            written.clear()


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
            edges = await all_edges(tx)
            edges[new] = [blocker]
            edges[dependent].append(new)
            raise CycleError(graph.find_cycle(edges, new) or (new, dependent, new))

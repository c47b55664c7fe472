"""Readings of the backlog that the verbs of the store share: names resolved, tasks with their edges."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple

from drover.domain.errors import NotFound
from drover.domain.models import Task
from drover.store.database import Row, Transaction, Value, clean
from drover.store.rows import task_of

PAGE = 5_000


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


async def all_edges(tx: Transaction) -> defaultdict[str, list[str]]:
    """The blockers of every task."""
    edges: defaultdict[str, list[str]] = defaultdict(list)
    for row in await tx.all("list_blockers"):
        edges[str(row["task_id"])].append(str(row["blocker_id"]))
    return edges


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


class Edges(NamedTuple):
    """The labels, blockers and dependents of tasks by their ids, each sorted."""

    labels: Mapping[str, Sequence[str]]
    blockers: Mapping[str, Sequence[str]]
    dependents: Mapping[str, Sequence[str]]


def edges_of(labels: Iterable[tuple[str, str]], blockers: Iterable[tuple[str, str]]) -> Edges:
    """Of (task, label) and (task, blocker)."""
    named, before, after = (
        defaultdict[str, list[str]](list),
        defaultdict[str, list[str]](list),
        defaultdict[str, list[str]](list),
    )
    for id, label in labels:
        named[id].append(str(clean(label)))
    for id, blocker in blockers:
        before[id].append(blocker)
        after[blocker].append(id)
    return Edges(*({id: sorted(others) for id, others in kind.items()} for kind in (named, before, after)))


async def load_page(tx: Transaction, now: int, **which: Value) -> list[Task]:
    """A page of ``list_tasks_page``."""
    return await _with_their_edges(tx, await tx.all("list_tasks_page", **which), now)


async def load_these(tx: Transaction, ids: Sequence[str], now: int, edges: Edges | None = None) -> list[Task]:
    """In this order. ``edges``: where they are known already."""
    found: dict[str, Task] = {}
    for at in range(0, len(ids), PAGE):
        rows = await tx.all("list_tasks_among", ids=json.dumps(ids[at : at + PAGE]))
        found |= {task.id: task for task in await _with_their_edges(tx, rows, now, edges)}
    return [found[id] for id in ids]


async def _with_their_edges(tx: Transaction, rows: Sequence[Row], now: int, edges: Edges | None = None) -> list[Task]:
    if edges is None:
        edges = await _edges_among(tx, rows)
    stranded = await _stranded(tx) if any(row["open_blockers"] for row in rows) else frozenset()
    return [
        task_of(
            row,
            now=now,
            labels=edges.labels.get(id := str(row["id"]), ()),
            blocked_by=edges.blockers.get(id, ()),
            blocks=edges.dependents.get(id, ()),
            stranded=id in stranded,
        )
        for row in rows
    ]


async def _edges_among(tx: Transaction, rows: Sequence[Row]) -> Edges:
    found: dict[str, defaultdict[str, list[str]]] = {kind: defaultdict(list) for kind in _KINDS}
    for edge in await tx.all("list_edges_among", ids=json.dumps([row["id"] for row in rows])) if rows else ():
        found[str(edge["kind"])][str(edge["id"])].append(str(edge["other"]))
    return Edges(*found.values())


_KINDS = ("label", "blocker", "dependent")

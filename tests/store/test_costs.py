"""What a verb costs in the steps of the database's own machine: the same however large the backlog."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from drover.domain.models import NewTask, Task
from drover.domain.verdicts import Completed
from drover.store import Store
from drover.store.database import Value
from drover.store.migrate import known_newest
from drover.store.postgres_calls import CALL, make_finish
from drover.store.queries import load, numbered
from drover.store.sqlite import SqliteDatabase
from drover.store.sqlite_file import in_thread
from tests.store.conftest import PROJECT, Place
from tests.store.scenes import hire, hire_many, land, landing_of, take

pytestmark = pytest.mark.anyio
FILL = """
INSERT INTO tasks (id, title, description, type, priority, epic_id, created_at, updated_at)
SELECT 'task-' || $1::integer || 'x' || i, 'A task', '', 'other', i % 5, $2, 1, 1 FROM generate_series(1, $1) AS i
"""


async def steps(store: Store, act: Callable[[], Awaitable[Any]]) -> int:
    """How many instructions SQLite's machine ran on the writing connection for it."""
    database = store.database
    assert isinstance(database, SqliteDatabase)
    writer = await database._writing()
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    await in_thread(writer, lambda c: c.set_progress_handler(count, 1))
    await act()
    await in_thread(writer, lambda c: c.set_progress_handler(None, 1))
    return counted


async def fill(store: Store, how_many: int) -> list[Task]:
    return await store.tasks.add_many([NewTask(title=f"{n}", priority=n % 5) for n in range(how_many)])


async def test_a_life_costs_the_same_in_a_large_backlog_as_in_a_small_one(on_sqlite: Place) -> None:
    costs: dict[str, list[int]] = {"claim": [], "renew": [], "land": [], "settle": []}
    async with on_sqlite.open() as store:
        worker = await hire(store)
        for size in (50, 5_000):
            await fill(store, size)
            await take(store, worker=worker)  # the first one after a change prepares its statements anew
            costs["claim"].append(await steps(store, lambda: store.claims.claim(worker)))
            claim = await take(store, worker=worker)
            costs["renew"].append(await steps(store, lambda claim=claim: store.claims.renew(claim)))
            costs["land"].append(await steps(store, lambda claim=claim: land(store, claim)))
            landed = (await store.landings.of_task(claim.task_id))[0].commit
            done = Completed(landed=landing_of(claim, landed))
            costs["settle"].append(await steps(store, lambda claim=claim, done=done: store.claims.settle(claim, done)))
    for verb, (small, large) in costs.items():
        assert 0 < large <= 1.2 * small, f"{verb}: {small} steps, then {large}"


async def test_freeing_many_dependents_costs_as_much_as_there_are(on_sqlite: Place) -> None:
    costs = []
    async with on_sqlite.open() as store:
        for size in (100, 1_000):
            blocker = await store.tasks.add(NewTask(title="b", priority=9))
            await store.tasks.add_many([NewTask(title="d", blocked_by=(blocker.id,)) for _ in range(size)])
            claim = await take(store, blocker)
            costs.append(await steps(store, lambda claim=claim: land(store, claim)))
    assert costs[1] < 12 * costs[0]


@pytest.mark.parametrize("query", ["claim_task", "claim_task_of_epic", "start_tasks"])
async def test_a_claim_reads_as_much_of_a_large_backlog_on_postgres_as_of_a_small_one(
    on_postgres: Place, query: str
) -> None:
    """Without statistics, as after an import: the planner believes the ready queue to be empty."""
    sql, names = numbered(load("postgres")[query])
    read = []
    async with on_postgres.open() as store:
        epic, worker = await store.epics.add("E"), await hire(store)
        values: dict[str, Value] = {"worker_id": worker.id, "lease_until": 1, "now": 1, "epic_id": epic.id}
        values["workers"] = json.dumps([worker.id])
        connection = await asyncpg.connect(on_postgres.url, server_settings={"search_path": f"drover_{PROJECT}"})
        for size in (50, 3_000):
            await connection.execute(FILL, size, epic.id)
            plan = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, TIMING off) {sql}", *[values[n] for n in names])
            text = "\n".join(row[0] for row in plan)
            assert "tasks_ready" in text and "Sort" not in text and "Seq Scan" not in text, text
            read.append(_buffers(text))
        await connection.close()
    assert 0 < read[1] <= read[0] + 20, read  # an index grows by a level, not by its rows


async def test_a_group_that_ends_reads_as_much_of_a_large_backlog_on_postgres_as_of_a_small_one(
    on_postgres: Place,
) -> None:
    """All of the server's function, in which no statement can be explained by itself."""
    schema = f"drover_{PROJECT}"
    read = []
    async with on_postgres.open() as store:
        epic = await store.epics.add("E")
        connection = await asyncpg.connect(on_postgres.url, server_settings={"search_path": schema})
        await connection.execute(make_finish(schema, "token", known_newest()))
        await connection.execute(FILL, 4, epic.id)
        for worker in await hire_many(store, 4):
            assert await store.plain.claim(worker)
        for size in (30, 4_000):
            await connection.execute(FILL, size, epic.id)
            read.append(min([await _end_all(connection) for _ in range(6)]))
        assert await store.plain.completed() == 2 * 6 * 4
        await connection.close()
    assert 0 < read[1] < 2 * read[0], read  # an index may have grown by a level; all rows would be 4,000 and more


async def _end_all(connection: Any) -> int:
    """All that run end, and their workers take what is next; what that read."""
    rows = await connection.fetch("SELECT id, fence, claimed_by FROM tasks WHERE lease_until IS NOT NULL")
    ends = json.dumps([[row["id"], row["fence"], row["claimed_by"], None, row["claimed_by"]] for row in rows])
    call, _ = numbered(CALL)
    plan = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, TIMING off) {call}", ends, 1, 60_000, None, 0)
    return _buffers("\n".join(row[0] for row in plan))


def _buffers(plan: str) -> int:
    line = next(line for line in plan.splitlines() if "Buffers: shared" in line)
    return sum(int(part.split("=")[1]) for part in line.split() if "=" in part)


def test_the_sqlite_here_can_say_what_the_queries_say() -> None:
    connection = sqlite3.connect(":memory:")
    assert connection.execute("SELECT value FROM json_each('[1]')").fetchone() == (1,)
    connection.close()

"""How the databases go about the statements that run for every task: by an index, never by looking at all of them."""

from __future__ import annotations

import re
import sqlite3

import asyncpg
import pytest

from drover.store.postgres_link import schema_of
from drover.store.queries import load, numbered
from tests.store.conftest import PROJECT, Place

pytestmark = pytest.mark.anyio

# Statement → the index it has to begin with; the head of it is what the statement wants.
HOT = {
    "claim_task": "tasks_ready",
    "claim_task_of_epic": "tasks_ready_of_epic",
    "start_task": "tasks_ready",
    "wake_due": "tasks_due",
    "list_expired": "tasks_leased",
    "list_standing": "tasks_leased",
    "find_outlook": "tasks_ready",
    "find_prospect": "tasks_ready",
}
BY_KEY = (
    "find_task", "renew_lease", "check_claim", "finish_task", "settle_task", "end_attempt", "record_landed",
    "lower_dependents", "recount_blockers", "list_edges_of_task", "list_results_of_blockers", "list_steps",
    "find_task_by_key", "list_events",
)  # fmt: skip
FILL = """
INSERT INTO tasks (id, title, description, type, priority, epic_id, state, reason, due_at, completed_at, landed_at,
                   created_at, updated_at)
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
SELECT 'task-f' || CAST(i AS text), 'A task', '', 'other', i % 3, CASE WHEN i % 5 = 0 THEN 'epic-a' END,
       CASE i % 4 WHEN 0 THEN 'completed' WHEN 1 THEN 'waiting' ELSE 'queued' END,
       CASE WHEN i % 4 = 1 THEN 'backoff' END, CASE WHEN i % 4 = 1 THEN i END,
       CASE WHEN i % 4 = 0 THEN 1 END, CASE WHEN i % 4 = 0 THEN 1 END, i, i
  FROM n
"""
EPIC = "INSERT INTO epics (id, title, description, created_at) VALUES ('epic-a', 'An epic', '', 1)"
EDGES = """
INSERT INTO blockers (task_id, blocker_id, created_at)
WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
SELECT 'task-f' || CAST(i AS text), 'task-f' || CAST(i - 1 AS text), 1 FROM n
"""


@pytest.fixture
async def sqlite_plans(on_sqlite: Place) -> dict[str, str]:
    async with on_sqlite.open():
        pass
    queries = load("sqlite")
    with sqlite3.connect(on_sqlite.file) as db:
        db.execute(EPIC)
        db.execute(FILL)
        db.execute(EDGES)
        plans = {}
        for name in (*HOT, *BY_KEY):
            values = dict.fromkeys(re.findall(r"(?<![:\w]):([a-z_]+)\b", queries[name]), 1)
            rows = db.execute("EXPLAIN QUERY PLAN " + queries[name], values).fetchall()
            plans[name] = "\n".join(str(row[3]) for row in rows)
    db.close()
    return plans


async def test_sqlite_finds_the_next_task_at_the_head_of_an_index(sqlite_plans: dict[str, str]) -> None:
    for name, index in HOT.items():
        assert re.search(rf"USING (COVERING )?INDEX {index}\b", sqlite_plans[name]), f"{name}:\n{sqlite_plans[name]}"


async def test_sqlite_never_looks_at_every_row_nor_sorts(sqlite_plans: dict[str, str]) -> None:
    for name, plan in sqlite_plans.items():
        assert not re.search(r"SCAN (tasks|blockers|attempts|events|steps|t|b|a)$", plan, re.MULTILINE), (
            f"{name}:\n{plan}"
        )
        if name not in ("list_edges_of_task", "list_steps"):  # they order the few rows of one task
            assert "TEMP B-TREE" not in plan, f"{name}:\n{plan}"


async def test_postgres_finds_the_next_task_at_the_head_of_an_index(on_postgres: Place) -> None:
    queries = load("postgres")
    db = await asyncpg.connect(on_postgres.url)
    try:
        await db.execute(f'SET search_path = "{schema_of(PROJECT)}"')
        await db.execute(EPIC)
        await db.execute(FILL)
        await db.execute(EDGES)
        await db.execute("ANALYZE")
        await db.execute("SET plan_cache_mode = force_generic_plan")
        for name in (*HOT, *BY_KEY):
            sql, names = numbered(queries[name])
            await db.execute(f"PREPARE {name} AS {sql}")
            given = f"({', '.join(['NULL'] * len(names))})" if names else ""
            plan = "\n".join(row[0] for row in await db.fetch(f"EXPLAIN EXECUTE {name}{given}"))
            assert not re.search(r"Seq Scan on (tasks|blockers)\b", plan), f"{name}:\n{plan}"
            if index := HOT.get(name):
                assert re.search(rf"\b{index}\b", plan), f"{name}:\n{plan}"
    finally:
        await db.close()

"""How both databases reach the rows of the statements that run for every task: through an index, without sorting."""

from __future__ import annotations

import asyncpg
import pytest

from drover.store.database import Value
from drover.store.queries import load, numbered
from drover.store.sqlite import SqliteDatabase
from drover.store.sqlite_file import in_thread
from tests.store.conftest import PROJECT, Place
from tests.store.test_costs import fill

pytestmark = pytest.mark.anyio

HOT = (
    "claim_task", "claim_task_of_epic", "start_tasks", "finish_tasks", "end_attempt", "end_attempts", "add_attempts",
    "lower_dependents", "lower_all_dependents", "lock_dependents", "tell_ends_and_claims", "renew_lease",
    "list_results_of_blockers", "list_standing", "find_held_by", "find_prospect", "find_outlook", "wake_due",
    "find_task_by_key", "find_task", "list_blockers_of_task", "add_attempt", "tell_created",
)  # fmt: skip
# What they are asked with; the values do not matter, their types do.
VALUES: dict[str, Value] = {
    "id": "task-none", "task_id": "task-none", "blocker_id": "task-none", "worker_id": "nobody", "epic_id": "epic-none",
    "key": "none", "host": "here", "pid": 1, "fence": 1, "attempt": 1, "now": 1, "most": 8, "lease_until": 1,
    "lease_now": 1, "alive_at": None, "outcome": None, "error": None, "result": None,
    "ends": '[["task-none", 1, "nobody", null, 1]]', "ids": '["task-none"]', "ready": "[]", "workers": '["nobody"]',
}  # fmt: skip
MADE = ("json_each", "queued", "e", "f", "r", "w")  # rows that the statement has made itself
# What is sorted are a few tasks, or their neighbours.
FEW = ("lower_dependents", "lower_all_dependents", "list_blockers_of_task", "tell_created")
MANY = 400


@pytest.mark.parametrize("query", HOT)
async def test_sqlite_scans_and_sorts_nothing_for_a_hot_statement(on_sqlite: Place, query: str) -> None:
    sql = load("sqlite")[query]
    _, names = numbered(sql)
    async with on_sqlite.open() as store:
        assert isinstance(store.database, SqliteDatabase)
        await fill(store, MANY)
        values = {name: VALUES.get(name) for name in names}
        rows = await in_thread(
            await store.database._writing(),
            lambda c: c.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall(),
        )
    plan = "\n".join(str(row["detail"]) for row in rows)
    reached = [line for line in plan.splitlines() if line.startswith("SCAN") and line.split()[1] not in MADE]
    assert all("INDEX" in line or "CONSTANT" in line or "(subquery" in line for line in reached), plan
    assert "TEMP B-TREE" not in plan or query in FEW, plan


@pytest.mark.parametrize("query", HOT)
async def test_postgres_can_reach_the_rows_of_a_hot_statement_by_an_index(on_postgres: Place, query: str) -> None:
    """Sequential scans and sorts cost as much as can be here: what still shows one has no other way."""
    sql, names = numbered(load("postgres")[query])
    async with on_postgres.open() as store:
        await fill(store, MANY)
        connection = await asyncpg.connect(on_postgres.url, server_settings={"search_path": f"drover_{PROJECT}"})
        try:
            await connection.execute("SET enable_seqscan = off; SET enable_sort = off; SET plan_cache_mode = auto")
            rows = await connection.fetch(f"EXPLAIN {sql}", *[VALUES.get(name) for name in names])
        finally:
            await connection.close()
    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan" not in plan, plan
    assert "Sort" not in plan or query in FEW, plan

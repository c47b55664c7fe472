"""A runner that is nothing but the database, on Postgres through asyncpg: two commits a task, synchronous_commit=on.

Arguments: SHAPE MS URL new|resume.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import asyncpg

from scripts.bench.floors import WORKERS, Sleepers, serve
from scripts.bench.journal import Journal
from scripts.bench.shapes import blockers_of

SCHEMA = """
DROP TABLE IF EXISTS job, needs, happened;
CREATE TABLE job (id int PRIMARY KEY, state text NOT NULL, missing int NOT NULL, fence int NOT NULL DEFAULT 0,
                  owner text, lease timestamptz);
CREATE INDEX job_ready ON job (id) WHERE state = 'ready';
CREATE TABLE needs (blocker int, job int, PRIMARY KEY (blocker, job));
CREATE TABLE happened (n bigserial PRIMARY KEY, job int, what text, at timestamptz DEFAULT now());
"""
TAKE = """UPDATE job SET state = 'running', fence = fence + 1, owner = $1, lease = now() + interval '30 s'
 WHERE id = (SELECT id FROM job WHERE state = 'ready' ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING id, fence"""
FINISH = """WITH done AS (UPDATE job SET state = 'done', lease = NULL
               WHERE id = $1 AND fence = $2 AND state = 'running' RETURNING id),
     told AS (INSERT INTO happened (job, what) SELECT id, 'done' FROM done),
     held AS (SELECT j.id FROM job j JOIN needs n ON n.job = j.id
               WHERE n.blocker = $1 AND EXISTS (SELECT FROM done) ORDER BY j.id FOR UPDATE OF j)
UPDATE job SET missing = missing - 1, state = CASE WHEN missing = 1 THEN 'ready' ELSE state END
  FROM held WHERE job.id = held.id RETURNING job.state"""


async def main() -> None:
    shape, ms, url = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    journal, blockers = Journal("journal"), blockers_of(shape)
    pool = await asyncpg.create_pool(url, min_size=WORKERS, max_size=WORKERS)
    if sys.argv[4] == "new":
        await pool.execute(SCHEMA)
    journal.mark("handed-in")
    if sys.argv[4] == "new":
        jobs = [(n, "ready" if not mine else "waiting", len(mine), 0) for n, mine in enumerate(blockers)]
        edges = [(b, n) for n, mine in enumerate(blockers) for b in mine]
        async with pool.acquire() as db, db.transaction():
            await db.copy_records_to_table("job", records=jobs, columns=["id", "state", "missing", "fence"])
            await db.copy_records_to_table("needs", records=edges)
    else:
        await pool.execute("UPDATE job SET state = 'ready' WHERE state = 'running'")
    left = await pool.fetchval("SELECT count(*) FROM job WHERE state <> 'done'")
    connections: dict[str, Any] = {f"w{n}": await pool.acquire() for n in range(WORKERS)}

    async def take(worker: str) -> Any:
        return await connections[worker].fetchrow(TAKE, worker)

    async def finish(worker: str, job: int, fence: int) -> tuple[int, Any]:
        rows = await connections[worker].fetch(FINISH, job, fence)
        return sum(row[0] == "ready" for row in rows), await take(worker)

    await serve(Sleepers(), journal, ms, left, take, finish)
    pool.terminate()


if __name__ == "__main__":
    asyncio.run(main())

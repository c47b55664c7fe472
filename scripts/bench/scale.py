"""What a backlog of a million tasks costs. Each function returns figures; sizes are numbers of queued tasks."""

from __future__ import annotations

import sqlite3
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

import psutil

import drover
from drover.domain.models import Run, Worker
from drover.process import current_identity
from scripts.bench.shapes import blockers_of

CLAIMS = 200
ADDED = 10_000

FILL = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
INSERT INTO tasks (id, title, description, type, priority, created_at, updated_at)
SELECT printf('task-f%07d', i), 'Task number ' || i, '', 'other', i % 3, 1800000000000 + i, 1800000000000 FROM n
"""


def fill(path: Path, count: int) -> None:
    """Queue many tasks at once, as an import long ago would have left them."""
    with sqlite3.connect(path) as db:
        db.execute(FILL, {"count": count})
    db.close()


async def nothing(job: drover.Job) -> None:
    """The work of a task that is never run."""


async def claims(place: Path, size: int) -> dict[str, Any]:
    """Milliseconds of one claim, alone, and of finishing with the next claim; megabytes held."""
    path = place / f"claims-{size}.db"
    async with AsyncExitStack() as stack:
        d = await stack.enter_async_context(drover.open(f"sqlite:///{path}", repo=None, agent=nothing))
        fill(path, size)
        worker = Worker(id="bench-1", host="bench", process=current_identity())
        await d.store.workers.start_run(Run(id="run-bench"), [worker])
        claimed, finished = [], []
        for _ in range(CLAIMS):
            began = time.perf_counter()
            taken = await d.store.claims.claim(worker)
            claimed.append((time.perf_counter() - began) * 1000)
            assert taken is not None
        taken_next = await d.store.plain.claim(worker)
        for _ in range(CLAIMS):
            assert taken_next is not None
            began = time.perf_counter()
            done = await d.store.plain.finish(taken_next.claim, None, then=worker)
            finished.append((time.perf_counter() - began) * 1000)
            taken_next = done.next
        rss = psutil.Process().memory_info().rss / 1e6
    return {"size": size, "claim_ms": median(claimed), "finish_and_claim_ms": median(finished), "rss_mb": rss}


async def adding(place: Path) -> float:
    """Seconds of adding 10,000 tasks with about three blockers each, in one call."""
    async with drover.open(f"sqlite:///{place / 'adding.db'}", repo=None, agent=nothing) as d:
        began = time.perf_counter()
        graph = blockers_of(f"layered:{ADDED}")
        await d.add_many([drover.new_task(str(n), key=str(n), blocked_by=map(str, b)) for n, b in enumerate(graph)])
        return time.perf_counter() - began

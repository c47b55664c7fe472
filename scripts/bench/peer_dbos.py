"""A runner: DBOS, the whole graph one workflow, each task a step of it, eight at a time.

Its fastest way to run a graph: one checkpoint a task and no queue. Step numbers are reserved in order, so that a
replay after a crash is deterministic. Arguments: SHAPE MS URL new|resume.
"""

from __future__ import annotations

import asyncio
import os
import sys

from dbos import DBOS, SetWorkflowID

from scripts.bench.journal import Journal
from scripts.bench.shapes import blockers_of

WORKERS = 8


async def main() -> None:
    shape, ms, url = sys.argv[1], float(sys.argv[2]), sys.argv[3] or "sqlite:///dbos.sqlite"
    journal, blockers = Journal("journal"), blockers_of(shape)
    DBOS(
        config={
            "name": "bench", "system_database_url": url, "application_version": "1", "executor_id": "local",
            "log_level": "ERROR",
        }
    )  # fmt: skip

    @DBOS.step()
    async def body(task: int) -> int:
        journal.begin(task)
        if ms:
            await asyncio.sleep(ms / 1000)
        journal.end(task)
        return task

    @DBOS.workflow()
    async def graph(shape: str) -> None:
        slots = [DBOS.reserve_step() for _ in blockers]
        ended = [asyncio.Event() for _ in blockers]
        free = asyncio.Semaphore(WORKERS)

        async def go(task: int) -> None:
            for blocker in blockers[task]:
                await ended[blocker].wait()
            async with free:
                await slots[task].run_async(None, body, task)
            ended[task].set()

        await asyncio.gather(*(go(task) for task in range(len(blockers))))

    await asyncio.to_thread(DBOS.launch)
    journal.mark("handed-in")
    with SetWorkflowID("graph"):
        handle = await DBOS.start_workflow_async(graph, shape)
    await handle.get_result(polling_interval_sec=0.01)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())

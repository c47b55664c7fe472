"""A runner: drover without git, eight workers. Arguments: SHAPE MS URL new|resume."""

from __future__ import annotations

import sys

import anyio

import drover
from scripts.bench.journal import Journal
from scripts.bench.shapes import blockers_of

WORKERS = 8


async def main() -> None:
    shape, ms, url = sys.argv[1], float(sys.argv[2]), sys.argv[3] or "sqlite:///drover.db"
    journal, blockers = Journal("journal"), blockers_of(shape)

    async def work(job: drover.Job) -> None:
        task = int(job.title)
        journal.begin(task)
        if ms:
            await anyio.sleep(ms / 1000)
        journal.end(task)

    async with drover.open(url, repo=None, agent=work, workers=WORKERS) as d:
        database = d.store.database
        journal.mark("handed-in")
        if sys.argv[4] == "new":
            await d.add_many(
                [drover.new_task(str(n), key=str(n), blocked_by=map(str, mine)) for n, mine in enumerate(blockers)]
            )
        commits, statements = _counters(database)
        journal.mark("added")
        await d.run()
        after = _counters(database)
        journal.mark(f"commits={after[0] - commits}")
        journal.mark(f"statements={after[1] - statements}")


def _counters(database: object) -> tuple[int, int]:
    return getattr(database, "commits", 0), getattr(database, "statements", 0)


if __name__ == "__main__":
    anyio.run(main)

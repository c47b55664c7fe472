"""One process of a race: claims until nothing is left, and prints what it got.

usage: claiming.py URL WORKER
"""

from __future__ import annotations

import sys

import anyio

from drover.domain.models import ProcessIdentity, Run, Worker
from drover.store import open_store


async def main(url: str, name: str) -> None:
    worker = Worker(id=name, host="h", process=ProcessIdentity(boot_id="b", pid=1, started=1))
    async with open_store(url, project_id="test") as store:
        await store.workers.start_run(Run(id=f"run-{name}"), [worker])
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        while claim := await store.claims.claim(worker):
            print(claim.task_id, claim.fence, flush=True)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])

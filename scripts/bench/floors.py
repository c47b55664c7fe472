"""The workers of the floors: eight coroutines that take, do, finish, and wake as many others as that set free."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from scripts.bench.journal import Journal

WORKERS = 8
Take = Callable[[str], Awaitable[Any]]
Finish = Callable[[str, int, int], Awaitable[tuple[int, Any]]]


class Sleepers:
    """Workers that found nothing. A ticket taken before looking makes sure that no call is missed."""

    def __init__(self) -> None:
        self.calls = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self, ticket: int) -> None:
        if ticket == self.calls:
            call = asyncio.get_running_loop().create_future()
            self._waiting.append(call)
            await call

    def call(self, count: int) -> None:
        if count > 0:
            self.calls += 1
        for _ in range(min(count, len(self._waiting))):
            self._waiting.popleft().set_result(None)


async def serve(sleepers: Sleepers, journal: Journal, ms: float, left: int, take: Take, finish: Finish) -> None:
    """Until ``left`` tasks are done. ``finish`` says how many tasks became ready, and what the worker does next."""
    over = asyncio.Event()

    async def work(worker: str) -> None:
        nonlocal left
        taken = None
        while True:
            if taken is None:
                ticket = sleepers.calls
                taken = await take(worker)
                if taken is None:
                    await sleepers.wait(ticket)
                    continue
            job, fence = taken
            journal.begin(job)
            if ms:
                await asyncio.sleep(ms / 1000)
            journal.end(job)
            ready, taken = await finish(worker, job, fence)
            left -= 1
            sleepers.call(ready - (taken is not None))
            if not left:
                over.set()

    workers = [asyncio.create_task(work(f"w{n}")) for n in range(WORKERS)]
    await over.wait()
    for worker in workers:
        worker.cancel()

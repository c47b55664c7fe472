"""Workers and runs: who is at work, and what they were asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from drover.domain.clock import Clock
from drover.domain.models import ProcessIdentity, Run, Worker
from drover.store.database import Database, Row, Transaction, Value
from drover.store.events import tell
from drover.store.rows import run_of


class OtherHost(NamedTuple):
    """A run on another host. ``push``: the remote it lands on; None when it lands where nobody else sees it."""

    host: str
    push: str | None
    target: str | None


class Workers:
    """Verbs of workers and runs."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def start_run(self, run: Run, workers: Sequence[Worker]) -> None:
        """Record a run and its workers before any of them may claim; once, however often it is asked for."""

        async def verb(tx: Transaction) -> None:
            now = self._clock.now()
            if await tx.one("find_run", id=run.id) is not None:
                return
            await tx.run(
                "add_run",
                id=run.id,
                epic_id=run.epic_id,
                task_ids=json.dumps(run.task_ids),
                target=run.target,
                mode=run.mode,
                workers=run.workers,
                host=run.host,
                process=run.process,
                push=run.push,
                budget_microusd=run.budget_microusd,
                now=now,
            )
            for worker in workers:
                await tx.run(
                    "add_worker",
                    id=worker.id,
                    run_id=run.id,
                    host=worker.host,
                    boot_id=worker.process.boot_id,
                    pid=worker.process.pid,
                    process_started=worker.process.started,
                    now=now,
                    seen_at=tx.lease_now,
                )
            await tell(
                tx,
                "run.started",
                now,
                epic_id=run.epic_id,
                host=run.host,
                data={"run_id": run.id, "workers": run.workers},
            )

        await self._database.write(verb)

    async def finish_run(self, run: Run, workers: Sequence[Worker], data: Mapping[str, Value]) -> None:
        """Record a run's end and that its workers hold nothing any more; once, however often it is asked for."""

        async def verb(tx: Transaction) -> None:
            now = self._clock.now()
            if await tx.run("finish_run", id=run.id, now=now) != 1:
                return
            for worker in workers:
                await tx.run("stop_worker", id=worker.id, now=now)
            await tell(tx, "run.finished", now, epic_id=run.epic_id, host=run.host, data={"run_id": run.id, **data})

        await self._database.write(verb)

    async def note_throttle(self, run_id: str, concurrency: int | None, why: str) -> None:
        """So many of the run's workers may be at work now, and why not all; None: all of them."""

        async def verb(tx: Transaction) -> None:
            now = self._clock.now()
            before = await tx.one("find_run", id=run_id)
            if before is None:
                return
            await tx.run("throttle_run", id=run_id, concurrency=concurrency, throttle=why or None, now=now)
            was = before["concurrency"]
            data: dict[str, Value] = {"run_id": run_id, "workers": before["workers"], "concurrency": concurrency}
            if concurrency is None:
                await tell(tx, "run.recovered", now, host=str(before["host"]), data=data)
            elif was is None or concurrency < int(was):
                detail = f"{concurrency} of {before['workers']} at work: {why}"
                await tell(tx, "run.throttled", now, host=str(before["host"]), data=data | {"detail": detail})

        await self._database.write(verb)

    async def open_runs(self) -> list[Run]:
        """Runs that were not recorded as finished: at work, or dead."""

        async def verb(tx: Transaction) -> list[Row]:
            return await tx.all("list_open_runs")

        return [run_of(row) for row in await self._database.read(verb)]

    async def stop(self, worker_id: str) -> None:
        """A worker that is known to be gone."""

        async def verb(tx: Transaction) -> None:
            await tx.run("stop_worker", id=worker_id, now=self._clock.now())

        await self._database.write(verb)

    async def note_seen(self, run_id: str, *, unseen_ms: int) -> None:
        """The run's workers are there. Others that were not seen for ``unseen_ms`` and hold nothing have stopped."""

        async def verb(tx: Transaction) -> None:
            await tx.run("note_seen", run_id=run_id, seen_at=tx.lease_now)
            await tx.run("stop_unseen", before=tx.lease_now - unseen_ms, now=self._clock.now())

        await self._database.write(verb)

    async def others_at_work(self, host: str, *, within_ms: int) -> list[OtherHost]:
        """Runs on other hosts that were seen within the time."""

        async def verb(tx: Transaction) -> list[Row]:
            return await tx.all("list_others_at_work", host=host, since=tx.lease_now - within_ms)

        return [
            OtherHost(
                str(row["host"]),
                str(row["push"]) if row["push"] is not None else None,
                str(row["target"]) if row["target"] is not None else None,
            )
            for row in await self._database.read(verb)
        ]

    async def list_workers(self) -> list[Worker]:
        """Workers that were not recorded as stopped: at work, or dead."""

        async def verb(tx: Transaction) -> list[Row]:
            return await tx.all("list_workers")

        return [_worker_of(row) for row in await self._database.read(verb)]

    async def last_run(self) -> Run | None:
        """The run started last, finished or not."""

        async def verb(tx: Transaction) -> Row | None:
            return await tx.one("last_run")

        row = await self._database.read(verb)
        return run_of(row) if row else None

    async def meta(self, key: str) -> str | None:
        """A fact about the whole store."""

        async def verb(tx: Transaction) -> Row | None:
            return await tx.one("find_meta", key=key)

        row = await self._database.read(verb)
        return str(row["value"]) if row else None

    async def set_meta(self, key: str, value: str) -> None:
        """Record a fact about the whole store."""

        async def verb(tx: Transaction) -> None:
            await tx.run("set_meta", key=key, value=value)

        await self._database.write(verb)

    async def settle_meta(self, key: str, value: str) -> str:
        """Record a fact that nobody has recorded yet; the fact as it is recorded now."""

        async def verb(tx: Transaction) -> str:
            await tx.run("settle_meta", key=key, value=value)
            row = await tx.one("find_meta", key=key)
            return str(row["value"]) if row else value

        return await self._database.write(verb)

    async def greeting(self) -> tuple[str | None, bool]:
        """The repository that is recorded as the store's, and whether the backlog is empty."""

        async def verb(tx: Transaction) -> Row | None:
            return await tx.one("find_greeting")

        row = await self._database.read(verb)
        if row is None:
            return None, True
        return str(row["repository"]) if row["repository"] is not None else None, not row["filled"]


def _worker_of(row: Row) -> Worker:
    return Worker(
        id=str(row["id"]),
        host=str(row["host"]),
        process=ProcessIdentity(
            boot_id=str(row["boot_id"]), pid=int(row["pid"] or 0), started=int(row["process_started"] or 0)
        ),
        run_id=str(row["run_id"]) if row["run_id"] is not None else None,
        started_at=int(row["started_at"] or 0),
    )

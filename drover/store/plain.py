"""Claims of a life without git: taken and closed in as few transactions as the promise allows.

The work is a function of this process, so it begins with the claim, and its result is the landing: one
transaction completes the task, lets its dependents' counters fall and takes the worker's next claim.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

from pydantic import JsonValue

from drover.domain.clock import Clock
from drover.domain.errors import LeaseLost
from drover.domain.models import Claim, Task, Worker
from drover.store.database import Database, Row, Transaction
from drover.store.events import tell
from drover.store.rows import task_of


class Taken(NamedTuple):
    """A claim and what its work is given: the results of the task's blockers, by their ids."""

    claim: Claim
    results: Mapping[str, JsonValue]


class Finished(NamedTuple):
    """What completing a task has set free, and what the same worker took next."""

    ready: int
    next: Taken | None


class Prospect(NamedTuple):
    """What a run could still do. Times are unix milliseconds."""

    ready: int  # counted no further than was asked
    running: bool
    due_at: int | None
    paused: bool


class Plain:
    """Verbs of claims without git. ``lease_ms`` is how long one lasts unrenewed."""

    def __init__(self, database: Database, clock: Clock, lease_ms: int) -> None:
        self._database = database
        self._clock = clock
        self.lease_ms = lease_ms

    async def claim(self, worker: Worker) -> Taken | None:
        """The best ready task (priority, then age); None when there is none."""

        async def verb(tx: Transaction) -> Taken | None:
            return await self._take(tx, worker, self._clock.now())

        return await self._database.write(verb)

    async def finish(self, claim: Claim, result: str | None, *, then: Worker | None) -> Finished:
        """Complete the claim's task with its result (JSON), and take the next one for ``then``.

        :class:`LeaseLost` when the claim is no longer held; then nothing was written and nothing taken.
        """

        async def verb(tx: Transaction) -> Finished:
            now = self._clock.now()
            await tx.one("share_graph")
            task = claim.task
            changed = await tx.run(
                "finish_task", id=task.id, fence=claim.fence, worker_id=claim.worker_id, result=result, now=now
            )
            if changed != 1:
                raise LeaseLost(f"{task.id} is no longer held by {claim.worker_id} (fence {claim.fence})")
            await tx.run("end_attempt", task_id=task.id, fence=claim.fence, outcome="done", error=None, now=now)
            await _tell(tx, "task.completed", now, claim)
            ready = await self._set_free(tx, task, now)
            return Finished(ready, await self._take(tx, then, now) if then else None)

        return await self._database.write(verb)

    async def _set_free(self, tx: Transaction, task: Task, now: int) -> int:
        ready = 0
        for row in await tx.all("lower_dependents", blocker_id=task.id):
            if row["open_blockers"] == 0 and row["state"] == "queued":
                ready += 1
                await tell(tx, "task.ready", now, task_id=str(row["id"]), data={"after": task.id})
        return ready

    async def _take(self, tx: Transaction, worker: Worker, now: int) -> Taken | None:
        await tx.run("wake_due", now=now)
        lease_until = tx.lease_now + self.lease_ms
        row = await tx.one("start_task", worker_id=worker.id, lease_until=lease_until, now=now)
        if row is None:
            return None
        task = task_of(row, now=now)
        await tx.run(
            "add_attempt",
            task_id=task.id,
            fence=task.fence,
            attempt=task.attempt,
            worker_id=worker.id,
            host=worker.host,
            pid=worker.process.pid,
            now=now,
        )
        claim = Claim(task=task, fence=task.fence, worker_id=worker.id, lease_until=lease_until)
        await _tell(tx, "task.claimed", now, claim)
        results = await tx.all("list_results_of_blockers", task_id=task.id)
        return Taken(claim, {str(r["blocker_id"]): _document(r) for r in results})

    async def renew(self, claims: Collection[Claim]) -> set[tuple[str, int]]:
        """Extend the leases that last; those that were (id, fence). The others are lost."""

        async def verb(tx: Transaction) -> set[tuple[str, int]]:
            until, held = tx.lease_now + self.lease_ms, set()
            for claim in claims:
                changed = await tx.run(
                    "renew_lease", id=claim.task_id, fence=claim.fence, worker_id=claim.worker_id,
                    lease_until=until, lease_now=tx.lease_now,
                )  # fmt: skip
                if changed == 1:
                    held.add((claim.task_id, claim.fence))
            return held

        return await self._database.write(verb)

    async def standing(self) -> set[tuple[str, int]]:
        """Every running claim whose lease has not ended, as (id, fence)."""

        async def verb(tx: Transaction) -> list[Row]:
            return await tx.all("list_standing", lease_now=tx.lease_now)

        return {(str(r["id"]), int(r["fence"] or 0)) for r in await self._database.read(verb)}

    async def prospect(self, most: int) -> Prospect:
        """What could be done now or later; the same cost however large the backlog."""

        async def verb(tx: Transaction) -> tuple[Row | None, Row | None]:
            now = self._clock.now()
            return await tx.one("count_ready", most=most, now=now), await tx.one("find_wait_ahead", now=now)

        ready, ahead = await self._database.read(verb)
        due_at = int(ahead["due_at"]) if ahead and ahead["due_at"] is not None else None
        return Prospect(
            int(ready["n"] or 0) if ready else 0, bool(ahead and ahead["running"]), due_at,
            bool(ahead and ahead["paused"]),
        )  # fmt: skip

    async def completed(self) -> int:
        """How many tasks are completed."""

        async def verb(tx: Transaction) -> Row | None:
            return await tx.one("count_completed")

        row = await self._database.read(verb)
        return int(row["n"] or 0) if row else 0

    async def ids_of(self, state: Literal["failed", "paused"]) -> tuple[str, ...]:
        """Tasks stored in this state, in the order they were added."""

        async def verb(tx: Transaction) -> list[Row]:
            return await tx.all(f"list_{state}")

        return tuple([str(r["id"]) for r in await self._database.read(verb)])

    async def told_since(self, seq: int, type: str) -> list[str]:
        """The tasks of the events of one type after ``seq``, in their order."""

        async def verb(tx: Transaction) -> list[Row]:
            return await tx.all("list_finished_since", after=seq, type=type)

        return [str(r["task_id"]) for r in await self._database.read(verb)]


async def _tell(tx: Transaction, type: str, now: int, claim: Claim) -> None:
    task = claim.task
    await tell(
        tx, type, now, task_id=task.id, attempt=task.attempt, worker=claim.worker_id,
        data={"title": task.title, "fence": claim.fence},
    )  # fmt: skip


def _document(row: Row) -> JsonValue:
    found: JsonValue = json.loads(str(row["result"])) if row["result"] is not None else None
    return found

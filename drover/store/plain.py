"""Claims of a life without git: taken and closed in as few transactions as the promise allows.

The work is a function of this process, so it begins with the claim, and its result is the landing: one
transaction completes the task, lets its dependents' counters fall and takes the worker's next claim.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import partial
from typing import Literal, NamedTuple

from pydantic import JsonValue

from drover.domain.clock import Clock
from drover.domain.errors import LeaseLost, OutcomeUnknown
from drover.domain.models import Claim, Worker
from drover.store.database import Database, Row, Transaction, Value
from drover.store.events import Told, tell_all, told
from drover.store.migrate import refuse_newer
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
    due: bool  # something waited for a time that has come
    running: bool
    due_at: int | None  # when the next one is due


class Plain:
    """Verbs of claims without git. ``lease_ms`` is how long one lasts unrenewed."""

    def __init__(self, database: Database, clock: Clock, lease_ms: int) -> None:
        self._database = database
        self._clock = clock
        self.lease_ms = lease_ms

    async def claim(self, worker: Worker) -> Taken | None:
        """The best ready task (priority, then age); None when there is none. See :meth:`wake_due`."""

        async def verb(tx: Transaction) -> Taken | None:
            now, events = self._clock.now(), list[Told]()
            taken = await self._take(tx, worker, now, events)
            await tell_all(tx, now, events)
            return taken

        return await self._database.write(verb)

    async def finish(self, claim: Claim, result: str | None, *, then: Worker | None, idle: int = 0) -> Finished:
        """Complete the claim's task with its result (JSON), and take the next one for ``then``.

        ``idle``: how many tasks this process could begin besides; others are told when there are more.
        :class:`LeaseLost` when the claim is no longer held; then nothing was written and nothing taken.
        """

        if self._database.calls and then is not None and then.id == claim.worker_id:
            try:
                return await self._database.call(partial(self._finish_and_take, claim, result, then, idle))
            except OutcomeUnknown:
                return await self._finish_anew(claim, result, then, idle)
        return await self._finish(claim, result, then, idle)

    async def _finish_anew(self, claim: Claim, result: str | None, then: Worker, idle: int) -> Finished:
        """Whether it was finished is not known: it is found done, with what the worker took after it, or done now."""
        try:
            return await self._finish(claim, result, then, idle)
        except LeaseLost:

            async def find(tx: Transaction) -> Finished | None:
                row = await tx.one("find_task", id=claim.task_id)
                if row is None or row["state"] != "completed" or row["fence"] != claim.fence:
                    return None
                held = await tx.one("find_held_by", worker_id=then.id)
                return Finished(0, await self._taken(tx, held, then) if held is not None else None)

            if (found := await self._database.read(find)) is None:
                raise
            self._database.bell.ring()  # what it has set free is not known any more
            return found

    async def _finish_and_take(
        self, claim: Claim, result: str | None, then: Worker, idle: int, tx: Transaction
    ) -> Finished:
        """The same in one statement, where the server has the function for it."""
        now, task = self._clock.now(), claim.task
        row = await tx.one(
            "finish_and_take",
            id=task.id,
            fence=claim.fence,
            worker_id=claim.worker_id,
            result=result,
            now=now,
            attempt=task.attempt,
            epic_id=task.epic_id,
            data=_told("task.completed", claim)[4],
            host=then.host,
            pid=then.process.pid,
            lease_ms=self.lease_ms,
            lease_now=tx.lease_now or None,
            idle=idle,
        )
        if row is None or row["done"] is None:
            raise LeaseLost(f"{task.id} is no longer held by {claim.worker_id} (fence {claim.fence})")
        done = json.loads(str(row["done"]))
        refuse_newer(done.get("schema", 0))
        if done["rang"]:
            tx.ring()
        if done["task"] is None:
            return Finished(done["ready"], None)
        taken = task_of(done["task"], now=now)
        follows = Claim(task=taken, fence=taken.fence, worker_id=then.id, lease_until=done["lease_until"])
        return Finished(done["ready"], Taken(follows, {r["blocker_id"]: _document(r) for r in done["results"] or ()}))

    async def _finish(self, claim: Claim, result: str | None, then: Worker | None, idle: int) -> Finished:
        async def verb(tx: Transaction) -> Finished:
            now, task = self._clock.now(), claim.task
            await tx.one("share_graph")
            changed = await tx.run(
                "finish_task", id=task.id, fence=claim.fence, worker_id=claim.worker_id, result=result, now=now
            )
            if changed != 1:
                raise LeaseLost(f"{task.id} is no longer held by {claim.worker_id} (fence {claim.fence})")
            await tx.run("end_attempt", task_id=task.id, fence=claim.fence, outcome="done", error=None, now=now)
            events = [_told("task.completed", claim)]
            freed = [
                str(row["id"])
                for row in await tx.all("lower_dependents", blocker_id=task.id)
                if row["open_blockers"] == 0 and row["state"] == "queued"
            ]
            events += [told("task.ready", id, {"after": task.id}) for id in freed]
            follows = await self._take(tx, then, now, events) if then else None
            await tell_all(tx, now, events)
            if len(freed) > (follows is not None) + idle:
                tx.ring()
            return Finished(len(freed), follows)

        return await self._database.write(verb)

    async def _take(self, tx: Transaction, worker: Worker, now: int, events: list[Told]) -> Taken | None:
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
        taken = await self._taken(tx, row, worker)
        events.append(_told("task.claimed", taken.claim))
        return taken

    async def _taken(self, tx: Transaction, row: Row, worker: Worker) -> Taken:
        """The claim of a task that the worker holds, and what its work is given."""
        task = task_of(row, now=self._clock.now())
        claim = Claim(task=task, fence=task.fence, worker_id=worker.id, lease_until=int(row["lease_until"] or 0))
        results = await tx.all("list_results_of_blockers", task_id=task.id)
        return Taken(claim, {str(r["blocker_id"]): _document(r) for r in results})

    async def wake_due(self) -> None:
        """Queue again what waited for a time that has come; claims take nothing else."""

        async def verb(tx: Transaction) -> None:
            if await tx.run("wake_due", now=self._clock.now()):
                tx.ring()

        await self._database.write(verb)

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

        async def verb(tx: Transaction) -> Row | None:
            return await tx.one("find_prospect", most=most, now=self._clock.now())

        row = await self._database.read(verb)
        assert row is not None  # noqa: S101 - it has no FROM
        due_at = int(row["due_at"]) if row["due_at"] is not None else None
        return Prospect(int(row["ready"] or 0), bool(row["due"]), bool(row["running"]), due_at)

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


def _told(type: str, claim: Claim) -> Told:
    task = claim.task
    data: dict[str, Value] = {"title": task.title, "fence": claim.fence}
    return told(type, task.id, data, attempt=task.attempt, worker=claim.worker_id, epic_id=task.epic_id)


def _document(row: Row) -> JsonValue:
    found: JsonValue = json.loads(str(row["result"])) if row["result"] is not None else None
    return found

"""Claims of a life without git: taken and closed in as few transactions as the promise allows.

The work is a function of this process, so it begins with the claim, and its result is the landing: one
transaction completes the task, lets its dependents' counters fall and takes the worker's next claim.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from pydantic import JsonValue

from drover.domain.clock import Clock
from drover.domain.errors import LeaseLost, OutcomeUnknown
from drover.domain.models import Claim, Worker
from drover.store.database import Database, Row, Transaction, Value
from drover.store.migrate import refuse_newer
from drover.store.rows import claim_of
from drover.store.together import Together

# So many groups may be under way at the same time where connections write beside one another: while the server works
# for one, this process does for another.
GROUPS = 2
_as_json = json.JSONEncoder(ensure_ascii=False).encode


class Taken(NamedTuple):
    """A claim and what its work is given: the results of the task's blockers, by their ids."""

    claim: Claim
    results: Mapping[str, JsonValue]


class Finished(NamedTuple):
    """What the same worker took next, and how many others may begin a task that nobody has taken."""

    spare: int
    next: Taken | None


class _End(NamedTuple):
    """A claim to be closed with its result, and who takes the next task."""

    key: str  # a claim's name: two of one task may end in one group, of whom one is behind its fence
    claim: Claim
    result: str | None
    then: Worker | None
    idle: int

    def told(self) -> list[Value]:
        """As the statements want it, see finish_tasks; and the worker that goes on."""
        claim = self.claim
        return [claim.task_id, claim.fence, claim.worker_id, self.result, self.then.id if self.then else None]


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
        self._claims = Together(self._claim_all)
        self._ends = Together(self._finish_all, GROUPS if database.dialect == "postgres" else 1)

    async def claim(self, worker: Worker) -> Taken | None:
        """The best ready task (priority, then age); None when there is none. See :meth:`wake_due`.

        Those that claim at the same time do it in one transaction.
        """
        return await self._claims.ask(worker)

    async def _claim_all(self, join: Callable[[], Sequence[Worker]]) -> list[Taken | Exception | None]:
        async def verb(tx: Transaction) -> list[Taken | Exception | None]:
            now, workers = self._clock.now(), join()
            rows, ids = await self._start(tx, [worker.id for worker in workers], now)
            if rows:
                await tx.run("tell_ends_and_claims", ends="[]", ready="[]", ids=ids, now=now)
            taken = await self._taken(tx, rows, ids, now)
            return [taken.get(worker.id) for worker in workers]

        return await self._database.write(verb)

    async def finish(self, claim: Claim, result: str | None, *, then: Worker | None, idle: int = 0) -> Finished:
        """Complete the claim's task with its result (JSON), and take the next one for ``then``.

        ``idle``: how many tasks this process could begin besides; others are told when there are more.
        :class:`LeaseLost` when the claim is no longer held; then nothing was written and nothing taken.
        Those that finish while a transaction is under way are finished together in the next.
        """
        end = _End(f"{claim.task_id} {claim.fence}", claim, result, then, idle)
        try:
            return await self._ends.ask(end)
        except OutcomeUnknown:
            return await self._finish_anew(end)

    async def _finish_anew(self, end: _End) -> Finished:
        """Whether it was finished is not known: it is found done, with what the worker took after it, or done now."""

        async def verb(tx: Transaction) -> Finished | Exception:
            return (await self._finish(tx, [end]))[0]

        async def find(tx: Transaction) -> Finished | None:
            row = await tx.one("find_task", id=end.claim.task_id)
            if row is None or row["state"] != "completed" or row["fence"] != end.claim.fence:
                return None
            held = await tx.all("find_held_by", worker_id=end.then.id) if end.then else []
            taken = await self._taken(tx, held, _ids(held), self._clock.now())
            return Finished(0, next(iter(taken.values()), None))

        done = await self._database.write(verb)
        if not isinstance(done, Exception):
            return done
        if (found := await self._database.read(find)) is None:
            raise done
        self._database.bell.ring()  # what it has set free is not known any more
        return found

    async def _finish_all(self, join: Callable[[], Sequence[_End]]) -> list[Finished | Exception]:
        """Each end's :class:`Finished`, or :class:`LeaseLost` where the claim is not held any more."""

        async def called(tx: Transaction) -> list[Finished | Exception]:
            return await self._call_finish(tx, join())

        async def verb(tx: Transaction) -> list[Finished | Exception]:
            return await self._finish(tx, join())

        if self._database.calls:
            return await self._database.call(called)
        return await self._database.write(verb)

    async def _call_finish(self, tx: Transaction, ends: Sequence[_End]) -> list[Finished | Exception]:
        """As :meth:`_finish` in one statement, where the server has the function for it."""
        now = self._clock.now()
        row = await tx.one(
            "finish_and_take",
            ends=_as_json(list({end.key: end.told() for end in ends}.values())),
            now=now,
            lease_ms=self.lease_ms,
            lease_now=tx.lease_now or None,
            idle=min(end.idle for end in ends),
        )
        done = json.loads(str(row["done"])) if row is not None else {}
        refuse_newer(done.get("schema", 0))
        if done["rang"]:
            tx.ring()
        taken = self._given(done["taken"] or (), done["results"] or (), now)
        return _shares(ends, set(done["ended"] or ()), done["spare"], taken)

    async def _finish(self, tx: Transaction, ends: Sequence[_End]) -> list[Finished | Exception]:
        now, said = self._clock.now(), {end.key: end.told() for end in ends}
        await tx.one("share_graph")
        held = _as_json(list(said.values()))
        ended = {str(row["key"]) for row in await tx.all("finish_tasks", ends=held, now=now)}
        if len(ended) < len(said):
            held = _as_json([said[key] for key in said if key in ended])
        workers = list(dict.fromkeys(end.then.id for end in ends if end.then and end.key in ended))
        await tx.run("end_attempts", ends=held, now=now)
        await tx.all("lock_dependents", ends=held)
        freed = [row["id"] for row in await tx.all("lower_all_dependents", ends=held) if _is_ready(row)]
        rows, ids = await self._start(tx, workers, now)
        await tx.run("tell_ends_and_claims", ends=held, ready=_as_json(freed), ids=ids, now=now)
        spare = max(0, len(freed) - len(rows))
        if spare > min(end.idle for end in ends):
            tx.ring()
        return _shares(ends, ended, spare, await self._taken(tx, rows, ids, now))

    async def _start(self, tx: Transaction, workers: Sequence[str], now: int) -> tuple[Sequence[Row], str]:
        """The best tasks for these workers, at most one each, claimed; and their ids as a JSON list."""
        until = tx.lease_now + self.lease_ms
        rows = await tx.all("start_tasks", workers=_as_json(workers), lease_until=until, now=now) if workers else ()
        ids = _ids(rows)
        if rows:
            await tx.run("add_attempts", ids=ids, now=now)
        return rows, ids

    async def _taken(self, tx: Transaction, rows: Sequence[Row], ids: str, now: int) -> dict[str, Taken]:
        """The claims of these running tasks by their workers, and what their work is given."""
        results = await tx.all("list_results_of_blockers", ids=ids) if rows else []
        return self._given(rows, results, now)

    def _given(self, rows: Sequence[Row], results: Sequence[Row], now: int) -> dict[str, Taken]:
        given: dict[object, dict[str, JsonValue]] = {row["id"]: {} for row in rows}
        for result in results:
            given[result["task_id"]][str(result["blocker_id"])] = _document(result)
        return {str(row["claimed_by"]): Taken(claim_of(row, now=now), given[row["id"]]) for row in rows}

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


def _shares(ends: Sequence[_End], ended: set[str], spare: int, taken: dict[str, Taken]) -> list[Finished | Exception]:
    """What each is told; nothing twice, be it an end, a task that was taken, or what is spare."""
    shares: list[Finished | Exception] = []
    for end in ends:
        if end.key in ended:
            ended.remove(end.key)
            shares.append(Finished(spare, taken.pop(end.then.id, None) if end.then else None))
            spare = 0
        else:
            claim = end.claim
            shares.append(LeaseLost(f"{claim.task_id} is no longer held by {claim.worker_id} (fence {claim.fence})"))
    return shares


def _is_ready(row: Row) -> bool:
    return row["open_blockers"] == 0 and row["state"] == "queued"


def _ids(rows: Iterable[Row]) -> str:
    return _as_json([row["id"] for row in rows])


def _document(row: Row) -> JsonValue:
    found: JsonValue = json.loads(str(row["result"])) if row["result"] is not None else None
    return found

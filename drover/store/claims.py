"""Claims: the right of one worker to write one task, from taking it to settling it.

Every write names the fence; a write that finds another one raises :class:`LeaseLost` and has changed nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from drover.domain.budget import Budget, Line
from drover.domain.clock import Clock
from drover.domain.errors import LeaseLost, StoreError
from drover.domain.models import (
    AgentLimit,
    AgentReport,
    Attempt,
    Claim,
    ProcessIdentity,
    Resumed,
    StepRecord,
    Task,
    Worker,
)
from drover.domain.states import State
from drover.domain.verdicts import Completed, Failed, Outcome, Parked, Planned, Released, Retry, Stopped, Verdict
from drover.store.database import Database, Row, Transaction, Value
from drover.store.events import tell
from drover.store.limits import choose_agent, wake_at
from drover.store.limits import standing as standing_limits
from drover.store.plans import PLAN_WAIT, keep
from drover.store.ports import lease_block
from drover.store.reading import with_edges
from drover.store.rows import attempt_of, step_of, task_of
from drover.store.spending import BUSY_MS, Standing, begin_standing, note_spent, take_paid
from drover.store.spending import REASON as BUDGET
from drover.store.tasks import Choice
from drover.store.usage import columns_of

FOREVER = 2**62
PARKED_AT_ONCE = 100  # in one transaction


class Held(NamedTuple):
    """A running task and who holds it."""

    task_id: str
    title: str
    epic_id: str | None
    fence: int
    attempt: int
    worker: Worker
    claimed_at: int
    alive_at: int | None


class Claims:
    """Verbs of a claim. ``lease_ms`` is how long one lasts unrenewed."""

    def __init__(self, database: Database, clock: Clock, lease_ms: int) -> None:
        self._database = database
        self._clock = clock
        self.lease_ms = lease_ms

    # ------------------------------------------------------------ taking

    async def claim(
        self,
        worker: Worker,
        *,
        epic_id: str | None = None,
        task_ids: Sequence[str] = (),
        agent: str | None = None,
        fallback: Sequence[str] = (),
        choice: Choice = "ready",
        budget: Budget | None = None,
    ) -> Claim | None:
        """The best ready task (priority, then age), of the epic or among the ids if given; None when there is none.

        ``choice``: of those without a plan, blocked ones too (``to_plan``), or with an approved one (``to_build``).
        ``agent`` is that of tasks that name none. A task whose agent is limited is not taken but parked until
        that limit's end, unless its agent has done its part, or one of ``fallback`` may work in its place: the
        first that is not limited, while what the account of the task's own may use is used up. Under a ``budget``
        the claim puts aside what its execution is expected to use: never more than there is, whoever else claims
        at the same time. A task whose own or whose epic's budget is used up is parked; when nothing may begin at
        all, only what needs no agent any more is taken.
        """

        asked = self._clock.boottime()  # the lease begins later, so it does not end before asked + lease_ms

        async def verb(tx: Transaction) -> Claim | None:
            now = self._clock.now()
            if await tx.run("wake_due", now=now):
                tx.ring()
            lease_until = tx.lease_now + self.lease_ms
            lease: dict[str, Value] = {"worker_id": worker.id, "lease_until": lease_until, "now": now}
            wanted = _Wanted(choice, epic_id, task_ids, agent or "", tuple(fallback))
            standing = await begin_standing(tx, budget, worker.run_id, now) if budget and budget.any else None
            if standing is not None and await standing.refusal(wanted.agent):
                row = await take_paid(tx, lease, epic_id, task_ids) if choice != "to_plan" else None
                held, who = (0, 0), None
            else:
                row, held, who = await _take_what_may_begin(tx, lease, wanted, standing)
            if row is None:
                return None
            task = await with_edges(tx, row, now)
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
            if any(held):
                await tx.run("reserve_budget", task_id=task.id, fence=task.fence, microusd=held[0], tokens=held[1])
            await _tell(tx, "task.claimed", now, task, worker.id, fence=task.fence, host=worker.host)
            port = await lease_block(tx, worker.host, task.id, task.fence, now)
            end = asked + self.lease_ms
            return Claim(
                task=task,
                fence=task.fence,
                worker_id=worker.id,
                lease_until=end,
                first_port=port,
                agent=who or task.agent or agent,
            )

        return await self._database.write(verb)

    async def find_held(self, worker: Worker) -> Claim | None:
        """The claim that this worker has, for one who was left in doubt whether it got one. It has one at most."""
        asked = self._clock.boottime()

        async def verb(tx: Transaction) -> Claim | None:
            held = await tx.one("find_held", worker_id=worker.id)
            row = await tx.one("find_task", id=held["id"]) if held is not None else None
            if held is None or row is None:
                return None
            task = await with_edges(tx, row, self._clock.now())
            end = asked + int(held["lease_until"] or 0) - tx.lease_now
            port = int(held["first_port"]) if held["first_port"] is not None else None
            return Claim(task=task, fence=task.fence, worker_id=worker.id, lease_until=end, first_port=port)

        return await self._database.read(verb)

    # ------------------------------------------------------------ holding

    async def renew(self, claim: Claim, *, alive_at: int | None = None) -> int:
        """Extend the lease while it lasts; its new end by this machine's boot clock. A lease that has ended is lost."""
        asked = self._clock.boottime()

        async def verb(tx: Transaction) -> int:
            lease_until = tx.lease_now + self.lease_ms
            await self._fenced(tx, "renew_lease", claim, lease_until=lease_until, lease_now=tx.lease_now)
            if alive_at is not None:
                await tx.run("note_alive", task_id=claim.task_id, fence=claim.fence, alive_at=alive_at)
            return asked + self.lease_ms

        return await self._database.write(verb)

    async def holds(self, claim: Claim) -> bool:
        """Whether the claim still stands."""

        async def verb(tx: Transaction) -> bool:
            found = await tx.one(
                "check_claim",
                id=claim.task_id,
                fence=claim.fence,
                worker_id=claim.worker_id,
                lease_now=tx.lease_now,
            )
            return found is not None

        return await self._database.read(verb)

    async def start_agent(
        self,
        claim: Claim,
        *,
        agent: str,
        process: ProcessIdentity,
        marker: str,
        session_id: str | None,
        resumed: Resumed,
        log: str,
        base: str | None,
        asked: bool = False,
    ) -> None:
        """Record who is about to act, before it may: after this the process can be found and the session resumed.

        ``asked``: it is going to be asked why it changed nothing.
        Recorded once for a process, however often it is asked for.
        """

        async def verb(tx: Transaction) -> None:
            now = self._clock.now()
            if await tx.one("find_agent", task_id=claim.task_id, fence=claim.fence, process=str(process)) is not None:
                await self._insist(tx, claim)
                return
            await self._fenced(tx, "start_agent", claim, lease_now=tx.lease_now, now=now)
            await tx.run(
                "note_agent",
                task_id=claim.task_id,
                fence=claim.fence,
                agent=agent,
                process=str(process),
                marker=marker,
                session_id=session_id,
                resumed=resumed,
                log=log,
                base=base,
                asked=int(asked),
                now=now,
            )
            await _tell(tx, "task.started", now, claim.task, claim.worker_id, agent=agent, resumed=resumed)

        await self._database.write(verb)

    async def note_session(self, claim: Claim, session_id: str) -> None:
        """The session's id, for agents that tell it only once they run."""

        async def verb(tx: Transaction) -> None:
            await tx.run("note_session", task_id=claim.task_id, fence=claim.fence, session_id=session_id)

        await self._database.write(verb)

    async def report(self, claim: Claim, report: AgentReport) -> None:
        """What the execution came to and used. Not fenced: it describes this execution and moves nothing."""

        async def verb(tx: Transaction) -> None:
            await _note_report(tx, claim, report)

        await self._database.write(verb)

    # ------------------------------------------------------------ steps

    async def recall(self, claim: Claim) -> dict[str, StepRecord]:
        """The completed steps of the claim's attempt, by name."""

        async def verb(tx: Transaction) -> list[Row]:
            return await tx.all("list_steps", task_id=claim.task_id, attempt=claim.task.attempt)

        return {str(row["name"]): step_of(row) for row in await self._database.read(verb)}

    async def complete_step(
        self, claim: Claim, name: str, result: str, *, started_at: int, report: AgentReport | None = None
    ) -> None:
        """Commit a step's result with the fence, the lease's renewal and its event.

        Once: the same result asked for again by the same claim is found, another one is a :class:`StoreError`.
        """

        async def verb(tx: Transaction) -> None:
            now = self._clock.now()
            lease_until = tx.lease_now + self.lease_ms
            await self._fenced(tx, "renew_lease", claim, lease_until=lease_until, lease_now=tx.lease_now)
            if await _kept_already(tx, claim, name, result):
                return
            await tx.run(
                "add_step",
                task_id=claim.task_id,
                attempt=claim.task.attempt,
                name=name,
                fence=claim.fence,
                started_at=started_at,
                now=now,
                result=result,
            )
            if report is not None:
                await _note_report(tx, claim, report)
            await _tell(tx, "step.completed", now, claim.task, claim.worker_id, step=name)

        await self._database.write(verb)

    async def move(self, claim: Claim, *, origin: str, begin_anew: bool, **data: Value) -> None:
        """Record that work begun on another host goes on here, ``origin`` says from what.

        ``begin_anew``: its steps up to the agent's are forgotten, for what they made did not come along.
        """

        async def verb(tx: Transaction) -> None:
            now = self._clock.now()
            lease_until = tx.lease_now + self.lease_ms
            await self._fenced(tx, "renew_lease", claim, lease_until=lease_until, lease_now=tx.lease_now)
            if begin_anew:
                await tx.run("forget_steps", task_id=claim.task_id, attempt=claim.task.attempt)
            await tx.run("note_origin", task_id=claim.task_id, fence=claim.fence, origin=origin)
            await _tell(tx, "task.moved", now, claim.task, claim.worker_id, origin=origin, **data)

        await self._database.write(verb)

    # ------------------------------------------------------------ closing

    async def settle(self, claim: Claim, verdict: Verdict) -> Task:
        """Close the claim with its verdict; the task as it is afterwards, also when this was kept before."""

        async def verb(tx: Transaction) -> Task:
            now = self._clock.now()
            before = await tx.one("find_task", id=claim.task_id)
            if before is None:
                raise _lost(claim)
            columns = _settled(task_of(before, now=now), verdict, now)
            if isinstance(verdict, Planned):
                plan_id = await keep(tx, claim, verdict, now)
                columns |= {"detail": f"{plan_id} waits to be judged"} if columns["reason"] else {}
            row = await tx.one(
                "settle_task", id=claim.task_id, fence=claim.fence, worker_id=claim.worker_id, **columns, now=now
            )
            if row is None and _settled_so(task_of(before, now=now), claim, verdict):
                return await with_edges(tx, before, now)
            if row is None:
                raise _lost(claim)
            outcome = columns["error_class"] if isinstance(verdict, Retry | Failed) else _OUTCOMES[verdict.kind]
            await tx.run(
                "end_attempt",
                task_id=claim.task_id,
                fence=claim.fence,
                outcome=str(outcome) if outcome else None,
                error=columns["error_message"] if isinstance(verdict, Retry | Failed) else None,
                now=now,
            )
            await tx.run("free_ports", task_id=claim.task_id, fence=claim.fence)
            if isinstance(verdict, Completed):
                await tx.run("publish_landing", task_id=claim.task_id, commit_oid=verdict.landed.commit, now=now)
            await _tell_verdict(tx, claim, verdict, now)
            tx.ring()
            return await with_edges(tx, row, now)

        return await self._database.write(verb)

    async def catch_up(self, claim: Claim, fence: int) -> bool:
        """Give the task back behind a later ``fence`` that git knows; False when the claim is not ours any more.

        After a backup was restored, fences begin anew where the backup was, and a repository refuses what is behind it.
        """

        async def verb(tx: Transaction) -> bool:
            now, task = self._clock.now(), claim.task
            changed = await tx.run(
                "catch_up", id=task.id, fence=claim.fence, worker_id=claim.worker_id, newer=fence, now=now
            )
            if changed != 1:
                return False
            await tx.run("end_attempt", task_id=task.id, fence=claim.fence, outcome="interrupted", error=None, now=now)
            await tx.run("free_ports", task_id=task.id, fence=claim.fence)
            await _tell(tx, "task.rescued", now, task, claim.worker_id, cause="git knows a later claim", fence=fence)
            tx.ring()
            return True

        return await self._database.write(verb)

    async def rescue(self, held: Held, *, dead: bool) -> bool:
        """Take a task from a worker that is proven ``dead``, or whose lease has ended; False when neither holds now."""

        async def verb(tx: Transaction) -> bool:
            now = self._clock.now()
            changed = await tx.run(
                "rescue_task",
                id=held.task_id,
                fence=held.fence,
                worker_id=held.worker.id,
                lease_now=FOREVER if dead else tx.lease_now,
                now=now,
            )
            if changed != 1:
                return False
            # A worker whose lease ended may be alive and act on it still: what it writes from now on is refused.
            outcome = Outcome.INTERRUPTED if dead else Outcome.FENCED
            await tx.run(
                "end_attempt", task_id=held.task_id, fence=held.fence, outcome=outcome.value, error=None, now=now
            )
            await tx.run("free_ports", task_id=held.task_id, fence=held.fence)
            await tell(
                tx,
                "task.rescued",
                now,
                task_id=held.task_id,
                epic_id=held.epic_id,
                attempt=held.attempt,
                worker=held.worker.id,
                data={"cause": "worker dead" if dead else "lease ended"},
            )
            tx.ring()
            return True

        return await self._database.write(verb)

    # ------------------------------------------------------------ reading

    async def running(self) -> list[Held]:
        """Every running task and who holds it."""

        async def verb(tx: Transaction) -> list[Row]:
            return await tx.all("list_running")

        return [_held(row) for row in await self._database.read(verb)]

    async def expired(self) -> list[str]:
        """Ids of tasks whose lease has ended, oldest first, at most a hundred."""

        async def verb(tx: Transaction) -> list[str]:
            return [str(r["id"]) for r in await tx.all("list_expired", lease_now=tx.lease_now)]

        return await self._database.read(verb)

    async def attempts(self, task_id: str) -> list[Attempt]:
        """Every execution of a task, oldest first."""

        async def verb(tx: Transaction) -> list[Row]:
            return await tx.all("list_attempts", task_id=task_id)

        return [attempt_of(row) for row in await self._database.read(verb)]

    async def steps(self, task_id: str, attempt: int) -> list[StepRecord]:
        """The completed steps of one attempt in their order."""

        async def verb(tx: Transaction) -> list[Row]:
            return await tx.all("list_steps", task_id=task_id, attempt=attempt)

        return [step_of(row) for row in await self._database.read(verb)]

    async def _insist(self, tx: Transaction, claim: Claim) -> None:
        if not await tx.one(
            "lock_claim", id=claim.task_id, fence=claim.fence, worker_id=claim.worker_id, lease_now=tx.lease_now
        ):
            raise _lost(claim)

    async def _fenced(self, tx: Transaction, query: str, claim: Claim, **values: Value) -> None:
        changed = await tx.run(query, id=claim.task_id, fence=claim.fence, worker_id=claim.worker_id, **values)
        if changed == 0:
            raise _lost(claim)
        if changed != 1:
            raise StoreError(f"{query} changed {changed} rows")


class _Wanted(NamedTuple):
    """Which task a claim is asked of."""

    choice: Choice
    epic_id: str | None
    task_ids: Sequence[str]
    agent: str  # of tasks that name none
    fallback: tuple[str, ...] = ()  # who stands in for an agent whose account is used up

    def agents(self, row: Row) -> tuple[str, ...]:
        """Who may work on the task, the first first."""
        return tuple(dict.fromkeys((str(row["agent"] or self.agent), *self.fallback)))


async def _take(tx: Transaction, lease: dict[str, Value], wanted: _Wanted) -> Row | None:
    ids = json.dumps(list(wanted.task_ids)) if wanted.task_ids else None
    if (choice := wanted.choice) != "ready":
        return await tx.one(f"claim_task_{choice}", epic_id=wanted.epic_id, ids=ids, **lease)
    if ids is not None:
        return await tx.one("claim_task_among", task_ids=ids, **lease)
    if wanted.epic_id is not None:
        return await tx.one("claim_task_of_epic", epic_id=wanted.epic_id, **lease)
    return await tx.one("claim_task", **lease)


async def _take_what_may_begin(
    tx: Transaction, lease: dict[str, Value], wanted: _Wanted, standing: Standing | None
) -> tuple[Row | None, tuple[int, int], str | None]:
    """As :func:`_take`, what it reserves, and who works; what a limit or a budget keeps from beginning is parked."""
    now, parked, held, who = int(lease["now"] or 0), 0, (0, 0), None
    row = await _take(tx, lease, wanted)
    limits = await standing_limits(tx, now) if row is not None else {}
    while row is not None and not await _agent_is_done(tx, row):
        agent, limit = choose_agent(wanted.agents(row), limits)
        found = _wait_of(limit, row, now) or await _room(row, agent, standing, now)
        if not isinstance(found, Parked):
            held, who = found, agent
            break
        await _park(tx, row, found, now)
        parked += 1
        row = await _take(tx, lease, wanted) if parked < PARKED_AT_ONCE else None
    if parked:
        tx.ring()
    return row, held, who


def _wait_of(limit: AgentLimit | None, row: Row, now: int) -> Parked | None:
    if limit is None:
        return None
    return Parked(reason=limit.reason, detail=limit.detail, until=wake_at(limit, str(row["id"]), now))


async def _room(row: Row, agent: str, standing: Standing | None, now: int) -> tuple[int, int] | Parked:
    """What the budget lets the task's execution reserve, or until when it waits."""
    if standing is None:
        return 0, 0
    found = await standing.reserve(task_of(row, now=now), agent)
    if not isinstance(found, Line):
        return found
    return Parked(reason=BUDGET, detail=found.words, until=None if found.used_up else now + BUSY_MS)


async def _agent_is_done(tx: Transaction, row: Row) -> bool:
    """Whether the task's attempt needs its agent no more: what it made is still to be tested, or to land."""
    steps = await tx.all("list_steps", task_id=row["id"], attempt=row["attempt"])
    return any(step["name"] == "let_agent_work" for step in steps)


async def _park(tx: Transaction, row: Row, parked: Parked, now: int) -> None:
    task, worker_id = task_of(row, now=now), str(row["claimed_by"])
    columns = _settled(task, parked, now)
    await tx.one("settle_task", id=task.id, fence=task.fence, worker_id=worker_id, **columns, now=now)
    told = {"reason": parked.reason, "detail": parked.detail, "until": parked.until}
    await _tell(tx, "task.waiting", now, task, worker_id, **told)


def _lost(claim: Claim) -> LeaseLost:
    return LeaseLost(f"{claim.task_id} is no longer held by {claim.worker_id} (fence {claim.fence})")


async def _kept_already(tx: Transaction, claim: Claim, name: str, result: str) -> bool:
    """Whether this claim has completed the step with this result, and only the answer was lost."""
    steps = await tx.all("list_steps", task_id=claim.task_id, attempt=claim.task.attempt)
    mine = (name, claim.fence, result)
    return any((step["name"], step["fence"], step["result"]) == mine for step in steps)


def _settled_so(task: Task, claim: Claim, verdict: Verdict) -> bool:
    """Whether the task stands as this verdict on this very claim leaves it; nobody else leaves it so."""
    if task.fence != claim.fence or task.claimed_by is not None:
        return False
    match verdict:
        case Completed():
            return task.state is State.COMPLETED and task.landed_commit == verdict.landed.commit
        case Parked():
            return task.state is State.WAITING and (task.reason, task.detail) == (verdict.reason, verdict.detail)
        case Retry() | Failed():
            told = task.error is not None and task.error.message == verdict.message
            return told and (task.failures, task.conflicts) != (claim.task.failures, claim.task.conflicts)
        case _:
            return False


_OUTCOMES = {"completed": None, "parked": None, "planned": None, "released": "interrupted", "stopped": "cancelled"}


def _settled(task: Task, verdict: Verdict, now: int) -> dict[str, Value]:
    """The columns that a verdict leaves behind. Pure."""
    error = task.error
    columns: dict[str, Value] = {
        "state": State.QUEUED.value,
        "reason": None,
        "detail": None,
        "due_at": None,
        "attempt": task.attempt,
        "failures": task.failures,
        "conflicts": task.conflicts,
        "troubles": 0,
        "interruptions": task.interruptions,
        "error_class": error.error_class if error else None,
        "error_message": error.message if error else None,
        "error_advice": error.what_to_do if error else None,
        "completed_at": None,
    }
    match verdict:
        case Completed():
            columns |= {"state": "completed", "completed_at": now}
            columns |= {"error_class": None, "error_message": None, "error_advice": None}
        case Parked():
            columns |= {"state": "waiting", "reason": verdict.reason, "detail": verdict.detail, "due_at": verdict.until}
            if verdict.reason == "internal":
                columns |= {"troubles": task.troubles + 1}
        case Planned() if verdict.approved_by is None:
            columns |= {"state": "waiting", "reason": PLAN_WAIT}
        case Retry() | Failed():
            columns |= {
                "error_class": verdict.error_class.value,
                "error_message": verdict.message,
                "error_advice": verdict.advice,
            }
            if isinstance(verdict, Failed):
                columns |= {"state": "failed", "failures": task.failures + 1}
            else:
                # What has landed is not done once more: the same attempt goes on from its last step.
                columns |= {"attempt": task.attempt + (task.landed_at is None)}
                columns |= {"failures": task.failures + (verdict.charge == "attempt")}
                columns |= {"conflicts": task.conflicts + (verdict.charge == "conflict")}
                if verdict.until > now:
                    columns |= {"state": "waiting", "reason": "backoff", "due_at": verdict.until}
        case Released():
            columns |= {"interruptions": task.interruptions + 1}
        case Stopped():
            columns |= {"state": "cancelled" if verdict.order == "cancel" else "paused"}
    return columns


async def _tell_verdict(tx: Transaction, claim: Claim, verdict: Verdict, now: int) -> None:
    kinds = {
        "completed": "task.completed",
        "parked": "task.waiting",
        "planned": "task.planned",
        "retry": "task.retrying",
        "failed": "task.failed",
        "released": "task.released",
        "stopped": "task.stopped",
    }
    data: dict[str, Value] = {
        k: v
        for k, v in verdict.model_dump(mode="json", exclude={"kind", "landed", "draft"}).items()
        if v not in (None, "")
    }
    if isinstance(verdict, Completed):
        data["commit"] = verdict.landed.commit
    await _tell(tx, kinds[verdict.kind], now, claim.task, claim.worker_id, **data)


async def _tell(tx: Transaction, type: str, now: int, task: Task, worker: str, **data: Value) -> None:
    await tell(
        tx,
        type,
        now,
        task_id=task.id,
        epic_id=task.epic_id,
        attempt=task.attempt,
        worker=worker,
        data={"title": task.title, **data},
    )


async def _note_report(tx: Transaction, claim: Claim, report: AgentReport) -> None:
    told = columns_of(report)
    before = None
    if report.usage.cost_usd or report.usage.tokens:
        before = await tx.one("find_execution", task_id=claim.task_id, fence=claim.fence)
    await tx.run(
        "note_report",
        task_id=claim.task_id,
        fence=claim.fence,
        outcome=report.outcome,
        error=report.reason or None,
        **told,
    )
    if before is not None:
        cost_microusd = round(report.usage.cost_usd * 1e6)
        await note_spent(tx, before, cost_microusd=cost_microusd, tokens=report.usage.tokens)


def _held(row: Row) -> Held:
    process = ProcessIdentity(
        boot_id=str(row["boot_id"]), pid=int(row["pid"] or 0), started=int(row["process_started"] or 0)
    )
    return Held(
        task_id=str(row["id"]),
        title=str(row["title"]),
        epic_id=str(row["epic_id"]) if row["epic_id"] is not None else None,
        fence=int(row["fence"] or 0),
        attempt=int(row["attempt"] or 0),
        worker=Worker(id=str(row["claimed_by"]), host=str(row["host"]), process=process),
        claimed_at=int(row["claimed_at"] or 0),
        alive_at=int(row["alive_at"]) if row["alive_at"] is not None else None,
    )

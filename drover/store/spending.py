"""What agents have used, what claims have put aside, and what budgets leave.

Sums are kept in the transaction that reports an execution, as differences to what was reported of it before.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, NamedTuple

from drover.domain.budget import FIRST_GUESS_MICROUSD, FIRST_GUESS_TOKENS, Budget, Line, day_of, next_day
from drover.domain.clock import Clock
from drover.domain.models import Cost, Task
from drover.domain.states import State
from drover.store.database import Database, Row, Transaction, Value
from drover.store.events import tell
from drover.store.reading import get_task, resolve_epic
from drover.store.tasks import move_task

REASON = "budget"
BUSY_MS = 5_000  # how soon a task is tried again whose epic's budget is reserved by others
By = Literal["epic", "task", "agent", "day"]


class Refusal(NamedTuple):
    """Why nothing may begin."""

    line: Line
    until: int | None  # unix ms: when there is a new budget; None: when somebody raises it, or what is reserved is over


class Spending:
    """Verbs of budgets."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def refusal(self, budget: Budget, run_id: str, agent: str) -> Refusal | None:
        """Why no claim of the run can begin an execution now, whichever task; None when one can."""

        async def verb(tx: Transaction) -> Refusal | None:
            now = self._clock.now()
            standing = await _standing(tx, budget, run_id, now)
            return await standing.refusal(agent)

        return await self._database.read(verb)

    async def lines(self, budget: Budget, *, run_id: str | None = None, epic_ids: Sequence[str] = ()) -> list[Line]:
        """How the limits stand: of the run, of today, of these epics."""

        async def verb(tx: Transaction) -> list[Line]:
            standing = await _standing(tx, budget, run_id, self._clock.now())
            epics = [line for id in epic_ids if (line := await standing.of_epic(id)) is not None]
            return [*await standing.of_all(), *epics]

        return await self._database.read(verb)

    async def stop_over(self, budget: Budget, run_id: str) -> list[str]:
        """Park the tasks at work whose budget is used up; their ids. Who holds one loses its claim and saves its work.

        Those of other runs stop for what they share: the day, the epic, the task.
        """

        async def list_spenders(tx: Transaction) -> list[Row]:
            return await tx.all("list_spenders")

        spenders = await self._database.read(list_spenders)  # often none, and then nobody has to wait for a writer

        async def verb(tx: Transaction) -> list[str]:
            now = self._clock.now()
            standing = await _standing(tx, budget, run_id, now)
            over_all = [line for line in await standing.of_all() if line.used_up]
            stopped = []
            for row in spenders:
                task = await get_task(tx, str(row["id"]), now, stranded=frozenset())
                lines = [
                    line
                    for line in over_all
                    if (line.scope == "day" and line.id == day_of(int(row["started_at"] or 0)))
                    or (line.scope != "day" and row["run_id"] == run_id)
                ]
                lines += [line for line in await standing.of_task(task) if line.used_up]
                if lines and await _is_at_work(tx, task, int(row["fence"] or 0), now):
                    await _stop(tx, task, lines[0], now)
                    stopped.append(task.id)
            if stopped:
                tx.ring()
            return stopped

        return await self._database.write(verb) if spenders else []

    async def tell(self, line: Line, *, run_id: str) -> None:
        """Record that a limit is near, or used up."""

        async def verb(tx: Transaction) -> None:
            data: dict[str, Value] = {"scope": line.scope, "id": line.id, "limit": line.limit, "spent": line.spent}
            data |= {"run_id": run_id, "detail": line.words}
            epic_id = line.id if line.scope == "epic" else None
            type = "budget.used_up" if line.used_up else "budget.low"
            await tell(tx, type, self._clock.now(), epic_id=epic_id, data=data)

        await self._database.write(verb)

    async def wake(self) -> int:
        """Let everything that waits for a budget try again; how many. Without room they will wait anew."""

        async def verb(tx: Transaction) -> int:
            woken = await tx.run("wake_for_budget", now=self._clock.now())
            if woken:
                tx.ring()
            return woken

        return await self._database.write(verb)

    async def costs(self, by: By, *, epic: str | None = None) -> list[Cost]:
        """What was used by each epic, task, agent or local day; the dearest first, days in their order."""

        async def verb(tx: Transaction) -> list[Row]:
            epic_id = await resolve_epic(tx, epic) if epic else None
            return await tx.all("cost_by_quarter" if by == "day" else f"cost_by_{by}", epic_id=epic_id)

        rows = await self._database.read(verb)
        if by != "day":
            return [Cost.model_validate(dict(row)) for row in rows]
        days: defaultdict[str, list[Row]] = defaultdict(list)
        for row in rows:
            days[day_of(int(row["quarter"] or 0) * 900_000)].append(row)
        names = ("executions", "input_tokens", "output_tokens", "cost_microusd")
        return [
            Cost(id=day, **{name: sum(int(row[name] or 0) for row in some) for name in names})
            for day, some in days.items()
        ]


# ---------------------------------------------------------------- within the transactions of others


async def note_spent(tx: Transaction, before: Row, *, cost_microusd: int, tokens: int) -> None:
    """An execution has used so much by now; ``before``: its ``find_execution`` from before that was written."""
    known_cost, known_tokens = int(before["cost_microusd"] or 0), int(before["tokens"] or 0)
    change: dict[str, Value] = {
        "cost_microusd": cost_microusd - known_cost,
        "tokens": tokens - known_tokens,
        "executions": int(not known_cost and not known_tokens),
    }
    if not any(change.values()):
        return
    places = {
        "agent": before["agent"],
        "day": day_of(int(before["started_at"] or 0)),
        "epic": before["epic_id"],
        "run": before["run_id"],
    }
    for scope, id in places.items():  # in one order, so that nobody waits for one who waits for him
        if id:
            await tx.run("add_spending", scope=scope, id=id, **change)


class Standing:
    """How a budget stands within one transaction."""

    def __init__(self, tx: Transaction, budget: Budget, run_id: str | None, now: int, reserved: list[Row]) -> None:
        self._tx = tx
        self._budget = budget
        self._run_id = run_id
        self._now = now
        self._reserved = reserved

    async def of_all(self) -> list[Line]:
        """The lines that hold for every task of the run."""
        budget, today = self._budget, day_of(self._now)
        lines = []
        if self._run_id is not None and (budget.run is not None or budget.tokens is not None):
            row = await self._tx.one("find_spending", scope="run", id=self._run_id)
            mine = [r for r in self._reserved if r["run_id"] == self._run_id]
            for scope, limit, spent, name in (
                ("run", budget.run, "cost_microusd", "microusd"),
                ("tokens", budget.tokens, "tokens", "tokens"),
            ):
                if limit is not None:
                    used = int(row[spent] or 0) if row else 0
                    held = sum(int(r[name] or 0) for r in mine)
                    lines.append(Line(scope=scope, id=self._run_id, limit=limit, spent=used, reserved=held))
        if budget.day is not None:
            lines.append(await self._line("day", today, budget.day))
        return lines

    async def of_task(self, task: Task) -> list[Line]:
        """The lines of the task itself and of its epic."""
        lines = []
        if self._budget.task is not None:
            row = await self._tx.one("sum_of_task", task_id=task.id)
            spent = int(row["cost_microusd"] or 0) if row else 0
            lines.append(Line(scope="task", id=task.id, limit=self._budget.task, spent=spent))
        if task.epic_id is not None and (line := await self.of_epic(task.epic_id)) is not None:
            lines.append(line)
        return lines

    async def of_epic(self, epic_id: str) -> Line | None:
        if self._budget.epic is None:
            return None
        return await self._line("epic", epic_id, self._budget.epic)

    async def estimate(self, agent: str) -> tuple[int, int]:
        """What one more execution of the agent is expected to use, in millionths of a dollar and in tokens."""
        row = await self._tx.one("find_spending", scope="agent", id=agent)
        count = int(row["executions"] or 0) if row else 0
        cost, tokens = FIRST_GUESS_MICROUSD, FIRST_GUESS_TOKENS
        if row is not None and count:
            cost, tokens = int(row["cost_microusd"] or 0) // count, int(row["tokens"] or 0) // count
        return max(1, self._budget.estimate or cost), max(1, tokens)

    async def refusal(self, agent: str) -> Refusal | None:
        """Why no task may begin; None when one that has room itself may."""
        cost, tokens = await self.estimate(agent)
        refused = [line for line in await self.of_all() if not line.room(tokens if line.scope == "tokens" else cost)]
        refused.sort(key=lambda line: (not line.used_up, line.scope == "day"))
        if not refused:
            return None
        return Refusal(refused[0], self.until(refused[0]))

    def until(self, line: Line) -> int | None:
        """When there is a new budget by itself."""
        return next_day(self._now) if line.scope == "day" and line.used_up else None

    async def reserve(self, task: Task, agent: str) -> tuple[int, int] | Line:
        """What a claim of the task puts aside (millionths of a dollar, tokens), or the line that is in its way."""
        cost, tokens = await self.estimate(agent)
        held_cost, held_tokens = cost, tokens
        for line in [*await self.of_all(), *await self.of_task(task)]:
            room = line.room(tokens if line.scope == "tokens" else cost)
            if not room:
                return line
            if line.scope == "tokens":
                held_tokens = min(held_tokens, room)
            else:
                held_cost = min(held_cost, room)
        return held_cost, held_tokens

    async def _line(self, scope: str, id: str, limit: int) -> Line:
        row = await self._tx.one("find_spending", scope=scope, id=id)
        mine = [
            r for r in self._reserved if (day_of(int(r["started_at"] or 0)) if scope == "day" else r["epic_id"]) == id
        ]
        held = sum(int(r["microusd"] or 0) for r in mine)
        return Line(scope=scope, id=id, limit=limit, spent=int(row["cost_microusd"] or 0) if row else 0, reserved=held)


async def begin_standing(tx: Transaction, budget: Budget, run_id: str | None, now: int) -> Standing:
    """For a claim: from here to the end of the transaction nobody else reserves or spends."""
    await tx.one("lock_spending")
    return await _standing(tx, budget, run_id, now)


async def _standing(tx: Transaction, budget: Budget, run_id: str | None, now: int) -> Standing:
    return Standing(tx, budget, run_id, now, await tx.all("list_reserved"))


async def take_paid(
    tx: Transaction, lease: dict[str, Value], epic_id: str | None, task_ids: Sequence[str]
) -> Row | None:
    """The best task that needs no agent any more: its work is paid for, and only has to land."""
    ids = json.dumps(list(task_ids)) if task_ids else None
    return await tx.one("claim_paid_task", epic_id=epic_id, task_ids=ids, **lease)


async def _is_at_work(tx: Transaction, task: Task, fence: int, now: int) -> bool:
    """Whether that execution's agent has still to be paid for: it may have ended since it was listed."""
    await tx.one("lock_task", id=task.id)
    task = await get_task(tx, task.id, now, stranded=frozenset())
    steps = await tx.all("list_steps", task_id=task.id, attempt=task.attempt)
    paid = any(step["name"] == "let_agent_work" for step in steps)
    return task.state is State.RUNNING and task.fence == fence and not paid


async def _stop(tx: Transaction, task: Task, line: Line, now: int) -> None:
    until = next_day(now) if line.scope == "day" else None
    await tx.run("end_attempt", task_id=task.id, fence=task.fence, outcome=REASON, error=line.words, now=now)
    await move_task(tx, task, State.WAITING, now, reason=REASON, detail=line.words, due_at=until)
    await tell(
        tx, "task.waiting", now, task_id=task.id, epic_id=task.epic_id, attempt=task.attempt,
        data={"title": task.title, "reason": REASON, "detail": line.words, "until": until},
    )  # fmt: skip

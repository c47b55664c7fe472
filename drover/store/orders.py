"""The operator's hand on a task at work: pause it, let it go on, tell its agent something.

An order is a row. Whoever holds the task's claim finds it within a second, on whatever host: a pause takes the claim
away, words wait beside the task until its agent has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from drover.domain.clock import Clock
from drover.domain.errors import LeaseLost, WrongState
from drover.domain.models import Claim, Task, Word
from drover.domain.states import TERMINAL, State
from drover.store.database import Database, Transaction
from drover.store.events import tell
from drover.store.reading import get_task
from drover.store.tasks import change_task, move_task

QUESTION = "question"  # the reason of a task that waits for a person's answer


class Orders:
    """Verbs of steering. ``by`` is the operator, for the record."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    # ------------------------------------------------------------ stopping and going on

    async def pause(self, name: str, *, reason: str = "", by: str | None = None) -> Task:
        """Stop the task until :meth:`resume`; who holds it loses its claim by this and stops the agent.

        No attempt is used up. A task that asks a question still asks it afterwards.
        """

        async def verb(tx: Transaction, task: Task, now: int) -> None:
            if task.state in TERMINAL or task.state is State.PAUSED:
                raise WrongState(f"{task.id} is {task.status}", hint=f"drover info {task.id}")
            if task.landed_at is not None:
                raise WrongState(f"{task.id} has landed already and only waits to be published", hint="drover status")
            if task.state is State.RUNNING:
                await tx.run("end_attempt", task_id=task.id, fence=task.fence, outcome="paused", error=None, now=now)
            asks = task.state is State.WAITING and task.reason == QUESTION
            await move_task(
                tx, task, State.PAUSED, now, reason=QUESTION if asks else None, detail=task.detail if asks else None
            )
            await _tell(tx, "task.paused", now, task, reason=reason, by=by)

        return await change_task(self._database, self._clock, name, verb)

    async def resume(self, name: str, *, hint: str = "", by: str | None = None) -> Task:
        """A paused task goes on, its agent with ``hint`` if there is one. What asked before asks again without one."""

        async def verb(tx: Transaction, task: Task, now: int) -> None:
            if task.state is not State.PAUSED:
                raise WrongState(f"{task.id} is {task.status}, not paused", hint=f"drover info {task.id}")
            asks = task.reason == QUESTION
            if hint:
                await _add_word(tx, task, now, hint, by, question=task.detail if asks else None)
            if asks and not hint:
                await move_task(tx, task, State.WAITING, now, reason=QUESTION, detail=task.detail)
            else:
                await move_task(tx, task, State.QUEUED, now)
            await _tell(tx, "task.resumed", now, task, hint=hint, by=by)

        return await change_task(self._database, self._clock, name, verb)

    # ------------------------------------------------------------ words

    async def hint(self, name: str, text: str, *, by: str | None = None) -> Word:
        """Words for the task's agent: for its running session where it can hear, else for its next turn."""
        said: list[Word] = []

        async def verb(tx: Transaction, task: Task, now: int) -> None:
            if task.landed_at is not None:
                raise WrongState(f"{task.id} has landed: no agent will work on it", hint=f"drover info {task.id}")
            said.append(await _add_word(tx, task, now, text, by))
            await _tell(tx, "task.hinted", now, task, text=text, by=by)

        await change_task(self._database, self._clock, name, verb)
        return said[0]

    async def answer(self, name: str, text: str, *, by: str | None = None) -> Task:
        """Answer the question that a task waits for; it goes on in the same session where its agent can."""

        async def verb(tx: Transaction, task: Task, now: int) -> None:
            if task.state is not State.WAITING or task.reason != QUESTION:
                hint = f"drover hint {task.id} tells its agent something all the same"
                raise WrongState(f"{task.id} is {task.status} and asks nothing", hint=hint)
            await _add_word(tx, task, now, text, by, question=task.detail or "")
            await move_task(tx, task, State.QUEUED, now)
            await _tell(tx, "task.answered", now, task, question=task.detail or "", text=text, by=by)

        return await change_task(self._database, self._clock, name, verb)

    async def words(self, task_id: str) -> list[Word]:
        """Everything that was said to a task's agent, oldest first."""

        async def verb(tx: Transaction) -> list[Word]:
            return [Word.model_validate(dict(row)) for row in await tx.all("list_words", task_id=task_id)]

        return await self._database.read(verb)

    async def untold(self, task_id: str, fence: int) -> list[Word]:
        """What the execution of that fence has still to tell its agent.

        What an execution was told that was then cut off is told again: nobody knows what its session has kept.
        """

        async def verb(tx: Transaction) -> list[Word]:
            return [Word.model_validate(dict(r)) for r in await tx.all("list_untold", task_id=task_id, fence=fence)]

        return await self._database.read(verb)

    # ------------------------------------------------------------ by the holder of the claim

    async def told(self, claim: Claim, words: Sequence[Word], how: Literal["session", "turn"]) -> None:
        """The agent of this claim has these words; :class:`LeaseLost` when the claim is no more."""

        async def verb(tx: Transaction) -> None:
            now = self._clock.now()
            held = await tx.one(
                "lock_claim", id=claim.task_id, fence=claim.fence, worker_id=claim.worker_id, lease_now=tx.lease_now
            )
            if held is None:
                raise LeaseLost(f"{claim.task_id} is no longer held by {claim.worker_id} (fence {claim.fence})")
            for word in words:
                await tx.run(
                    "note_told", task_id=claim.task_id, number=word.number, fence=claim.fence, how=how, now=now
                )
            data = {"words": [str(word.number) for word in words], "how": how}
            await tell(
                tx, "task.told", now, task_id=claim.task_id, epic_id=claim.task.epic_id,
                attempt=claim.task.attempt, worker=claim.worker_id, data=data,
            )  # fmt: skip

        await self._database.write(verb)

    async def stopped(self, claim: Claim) -> None:
        """Tell that nothing of the claim's execution is alive any more, if an order has ended it.

        Not fenced, as the claim is gone: it moves nothing. Nothing is told once somebody has begun in its place.
        """

        async def verb(tx: Transaction) -> None:
            now = self._clock.now()
            task = await get_task(tx, claim.task_id, now, stranded=frozenset())
            if task.fence != claim.fence or task.claimed_by is not None:
                return
            await tell(
                tx, "task.stopped", now, task_id=task.id, epic_id=task.epic_id, attempt=claim.task.attempt,
                worker=claim.worker_id, data={"title": task.title, "state": task.state.value},
            )  # fmt: skip

        await self._database.write(verb)


async def _add_word(
    tx: Transaction, task: Task, now: int, text: str, by: str | None, *, question: str | None = None
) -> Word:
    kind = "hint" if question is None else "answer"
    row = await tx.one("add_word", task_id=task.id, kind=kind, text=text, question=question, said_by=by, now=now)
    assert row is not None  # noqa: S101 - it returns what it has added
    return Word.model_validate(dict(row))


async def _tell(tx: Transaction, type: str, now: int, task: Task, **data: str | None) -> None:
    told = {"title": task.title} | {key: value for key, value in data.items() if value}
    await tell(tx, type, now, task_id=task.id, epic_id=task.epic_id, attempt=task.attempt, data=told)

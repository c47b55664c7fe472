"""What many ask for at the same time is done in one transaction."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import anyio

from drover.domain.errors import DiskFull, StoreError

A = TypeVar("A")
R = TypeVar("R")
# Does what is asked for by all of a group; an answer or an error for each, in their order.
All = Callable[[Callable[[], Sequence[A]]], Awaitable[Sequence[R | Exception]]]


@dataclass(slots=True, eq=False)
class _Asked(Generic[A, R]):
    item: A
    answered: bool = False
    answer: R | None = None
    error: Exception | None = None


class Together(Generic[A, R]):
    """Those who ask while a transaction is under way share the next; whoever waits first asks for all of them.

    ``ask_all`` is given a function that says whom the transaction is for. It is to be called when the transaction has
    begun, for until then others may join, and again when it is begun anew.
    """

    def __init__(self, ask_all: All[A, R]) -> None:
        self._ask_all = ask_all
        self._waiting: deque[_Asked[A, R]] = deque()
        self._over: anyio.Event | None = None  # of the transaction under way

    async def ask(self, item: A) -> R:
        """The answer, or the error that ``ask_all`` gives to this item or raises for its whole group.

        Not cancelled while it waits: the item may be under way with those of others.
        """
        asked: _Asked[A, R] = _Asked(item)
        self._waiting.append(asked)
        with anyio.CancelScope(shield=True):
            while not asked.answered:
                if self._over is not None:
                    await self._over.wait()
                else:
                    await self._lead()
        if asked.error is not None:
            raise asked.error
        return cast(R, asked.answer)

    async def _lead(self) -> None:
        """Ask for all that wait until the transaction has begun; then the next of those who came too late leads."""
        group: list[_Asked[A, R]] = []

        def join() -> list[A]:
            while self._waiting:
                group.append(self._waiting.popleft())
            return [asked.item for asked in group]

        over = self._over = anyio.Event()
        try:
            await self._answer(group, join)
        finally:
            for asked in group:
                asked.answered = True
            self._over = None
            over.set()

    async def _answer(self, group: list[_Asked[A, R]], join: Callable[[], Sequence[A]]) -> None:
        try:
            answers = await self._ask_all(join)
        except Exception as error:  # noqa: BLE001 - it is raised by each who asked
            join()  # the transaction may not even have begun
            if type(error) in (StoreError, DiskFull) and len(group) > 1:
                # One of them broke it for all, and nothing was kept: each is tried alone.
                for asked in group:
                    await self._answer([asked], [asked.item].copy)
                return
            answers = [error] * len(group)
        for asked, answer in zip(group, answers, strict=True):
            if isinstance(answer, Exception):
                asked.error = answer
            else:
                asked.answer = answer

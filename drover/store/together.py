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
    """Those who ask while transactions are under way share the next; whoever wakes first asks for all of them.

    ``ask_all`` is given a function that says whom the transaction is for. It is to be called when the transaction has
    begun, for until then others may join. Up to ``at_once`` transactions are under way at the same time; those that
    begin together share those who wait evenly.
    """

    def __init__(self, ask_all: All[A, R], at_once: int = 1) -> None:
        self._ask_all = ask_all
        self._waiting: deque[_Asked[A, R]] = deque()
        self._free = at_once  # so many more may be under way
        self._beginning = 0  # of those under way, the ones that have not said yet whom they are for
        self._over = anyio.Event()  # of one of them, whichever is first

    async def ask(self, item: A) -> R:
        """The answer, or the error that ``ask_all`` gives to this item or raises for its whole group.

        Not cancelled while it waits: the item may be under way with those of others.
        """
        asked: _Asked[A, R] = _Asked(item)
        self._waiting.append(asked)
        with anyio.CancelScope(shield=True):
            while not asked.answered:
                if self._free and asked in self._waiting:
                    await self._lead(asked)
                else:
                    await self._over.wait()
        if asked.error is not None:
            raise asked.error
        return cast(R, asked.answer)

    async def _lead(self, first: _Asked[A, R]) -> None:
        """Ask for one, and for its share of those that wait when the transaction has begun."""
        self._waiting.remove(first)
        self._free -= 1
        self._beginning += 1
        group, joined = [first], False

        def join() -> list[A]:
            nonlocal joined
            if not joined:
                joined = True
                group.extend([self._waiting.popleft() for _ in range(len(self._waiting) // self._beginning)])
                self._beginning -= 1
            return [asked.item for asked in group]

        try:
            await self._answer(group, join)
        finally:
            if not joined:
                self._beginning -= 1
            for asked in group:
                asked.answered = True
            self._free += 1
            over, self._over = self._over, anyio.Event()
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

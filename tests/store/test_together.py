"""Those who ask at the same time are answered by one transaction, each with what is theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import pytest

from drover.domain.errors import DiskFull, LeaseLost, StoreError, StoreUnavailable
from drover.store.together import Together

pytestmark = pytest.mark.anyio


class Desk:
    """Doubles numbers; 13 is refused, and what else it does with a group is said by the test."""

    def __init__(self, trouble: Callable[[list[int]], Exception | None] = lambda group: None) -> None:
        self.groups: list[list[int]] = []
        self.trouble = trouble
        self.open = anyio.Event()
        self.begun = anyio.Event()
        self.together = Together(self.ask_all)

    async def ask_all(self, join: Callable[[], Sequence[int]]) -> list[int | Exception]:
        self.begun.set()
        await self.open.wait()
        group = list(join())
        if (trouble := self.trouble(group)) is not None:
            raise trouble
        self.groups.append(group)
        return [LeaseLost("unlucky") if number == 13 else 2 * number for number in group]

    async def ask(self, numbers: Sequence[int]) -> dict[int, int | Exception]:
        """Ask for all at once; the first transaction begins when all of them wait."""
        answers: dict[int, int | Exception] = {}

        async def one(number: int) -> None:
            try:
                answers[number] = await self.together.ask(number)
            except Exception as error:
                answers[number] = error

        async with anyio.create_task_group() as group:
            for number in numbers:
                group.start_soon(one, number)
            await anyio.wait_all_tasks_blocked()
            self.open.set()
        return answers


async def test_whoever_waits_shares_one_transaction_and_gets_his_own_answer() -> None:
    desk = Desk()
    answers = await desk.ask([1, 13, 3])
    assert desk.groups == [[1, 13, 3]]
    assert answers[1] == 2 and answers[3] == 6 and isinstance(answers[13], LeaseLost)


async def test_who_comes_while_one_is_under_way_is_in_the_next() -> None:
    desk, late = Desk(), Desk()
    desk.open.set()

    async def ask_all(join: Callable[[], Sequence[int]]) -> list[int | Exception]:
        group = list(join())
        desk.groups.append(group)
        late.begun.set()
        await late.open.wait()
        return list(group)

    together = Together(ask_all)
    async with anyio.create_task_group() as group:
        group.start_soon(together.ask, 1)
        await late.begun.wait()
        for number in (2, 3):
            group.start_soon(together.ask, number)
        await anyio.wait_all_tasks_blocked()
        late.open.set()
    assert desk.groups == [[1], [2, 3]]
    assert await together.ask(4) == 4, "it goes on afterwards"


async def test_those_that_begin_at_the_same_time_share_who_waits_and_no_more_begin() -> None:
    groups: list[list[int]] = []
    gates = [anyio.Event() for _ in range(3)]

    async def ask_all(join: Callable[[], Sequence[int]]) -> list[int | Exception]:
        await anyio.lowlevel.checkpoint()
        group = list(join())
        groups.append(group)
        await gates[len(groups) - 1].wait()
        return [2 * number for number in group]

    together, answers = Together(ask_all, 2), dict[int, int]()

    async def ask(number: int) -> None:
        answers[number] = await together.ask(number)

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(ask, number)
        await anyio.wait_all_tasks_blocked()
        assert sorted(map(len, groups)) == [3, 3] and sorted(groups[0] + groups[1]) == [0, 1, 2, 3, 4, 5]
        for number in (6, 7, 8):
            group.start_soon(ask, number)
        await anyio.wait_all_tasks_blocked()
        assert len(groups) == 2, "both are under way"
        gates[1].set()
        await anyio.wait_all_tasks_blocked()
        assert groups[2:] == [[6, 7, 8]] and set(answers) == set(groups[1]), "one is over, another has begun"
        gates[0].set()
        gates[2].set()
    assert answers == {number: 2 * number for number in range(9)}


@pytest.mark.parametrize("error", [StoreError("a constraint"), DiskFull("no space")])
async def test_one_that_breaks_it_for_all_is_found_by_trying_each_alone(error: Exception) -> None:
    desk = Desk(lambda group: error if 7 in group else None)
    answers = await desk.ask([1, 7, 3])
    assert answers == {1: 2, 7: error, 3: 6}
    assert desk.groups == [[1], [3]], "of the broken group nothing was kept"


async def test_a_database_that_is_away_is_told_to_each_who_asked() -> None:
    away = StoreUnavailable("away")
    desk = Desk(lambda group: away)
    assert await desk.ask([1, 2]) == {1: away, 2: away}
    desk.trouble = lambda group: None
    assert await desk.together.ask(5) == 10


async def test_nobody_is_left_waiting_when_the_transaction_did_not_begin() -> None:
    away = StoreUnavailable("cannot connect")

    async def ask_all(join: Callable[[], Sequence[int]]) -> list[int | Exception]:
        await anyio.lowlevel.checkpoint()
        raise away

    together = Together(ask_all)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await together.ask(1)


async def test_who_is_cancelled_leaves_with_the_answer_of_the_others_given() -> None:
    desk = Desk()
    got: list[int] = []

    async def second() -> None:
        got.append(await desk.together.ask(2))

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(second)
            await desk.begun.wait()
            scope.cancel()
            group.start_soon(_set, desk.open)
            await desk.together.ask(1)
    assert got == [4] and {number for each in desk.groups for number in each} == {1, 2}


async def _set(event: anyio.Event) -> None:
    event.set()

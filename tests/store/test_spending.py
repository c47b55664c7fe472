"""Budgets: what claims put aside, what executions use, and who has to wait."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from drover.domain.budget import Budget, Line, day_of, next_day
from drover.domain.models import AgentReport, Claim, Task, Usage, Worker
from drover.domain.states import State
from drover.domain.verdicts import Released
from drover.store import Store
from drover.testing import FakeClock

from .conftest import Place
from .scenes import add, hire_many, land, start

pytestmark = pytest.mark.anyio

USD = 1_000_000


def used(usd: float, tokens: int = 0, outcome: str = "failed") -> AgentReport:
    return AgentReport(outcome=outcome, usage=Usage(cost_usd=usd, input_tokens=tokens))


async def crew(store: Store, how_many: int = 1) -> list[Worker]:
    """Workers of one run."""
    workers = await hire_many(store, how_many)
    run_id = f"run-{workers[0].process.pid}"
    return [worker.model_copy(update={"run_id": run_id}) for worker in workers]


async def claim(store: Store, worker: Worker, budget: Budget, **scope: Any) -> Claim | None:
    return await store.claims.claim(worker, agent="claude", budget=budget, **scope)


async def take(store: Store, worker: Worker, budget: Budget, **scope: Any) -> Claim:
    taken = await claim(store, worker, budget, **scope)
    assert taken is not None
    return taken


async def spend(store: Store, taken: Claim, usd: float, tokens: int = 0) -> None:
    """An execution that used so much and is over."""
    await start(store, taken)
    await store.claims.report(taken, used(usd, tokens))
    await store.claims.settle(taken, Released())


async def run_line(store: Store, worker: Worker, budget: Budget) -> Line:
    return (await store.spending.lines(budget, run_id=worker.run_id))[0]


async def now_of(store: Store, task: Task) -> Task:
    return await store.tasks.get(task.id)


# ---------------------------------------------------------------- what is put aside


async def test_a_claim_puts_aside_what_it_is_expected_to_use(store: Store) -> None:
    budget = Budget(run=10 * USD, estimate=2 * USD)
    workers = await crew(store, 6)
    for _ in range(6):
        await add(store)
    taken = [await claim(store, worker, budget) for worker in workers]
    assert [one is not None for one in taken] == [True] * 5 + [False]
    line = await run_line(store, workers[0], budget)
    assert (line.spent, line.reserved, line.used_up) == (0, 10 * USD, False)
    assert taken[0] is not None
    await spend(store, taken[0], 0.5)
    line = await run_line(store, workers[0], budget)
    assert (line.spent, line.reserved) == (USD // 2, 8 * USD)
    assert await claim(store, workers[5], budget) is None  # 1.50 is not enough, and others are at work


async def test_the_end_of_a_budget_is_for_one_at_a_time(store: Store) -> None:
    budget = Budget(run=USD, estimate=3 * USD)
    workers = await crew(store, 2)
    for _ in range(3):
        await add(store)
    first = await take(store, workers[0], budget)
    assert (await run_line(store, workers[0], budget)).reserved == USD
    assert await claim(store, workers[1], budget) is None
    await spend(store, first, 0.4)
    second = await take(store, workers[1], budget)
    assert (await run_line(store, workers[0], budget)).reserved == 600_000
    await spend(store, second, 0.7)
    assert await claim(store, workers[1], budget) is None
    refusal = await store.spending.refusal(budget, str(workers[0].run_id), "claude")
    assert refusal is not None
    assert (refusal.line.used_up, refusal.until) == (True, None)
    assert refusal.line.words == "the run's budget of $1.00 is used up ($1.10)"
    assert all(task.state is State.QUEUED for task in await store.tasks.list_tasks())  # they stay ready


async def test_claims_that_race_never_reserve_more_than_there_is(place: Place) -> None:
    budget = Budget(run=10 * USD, day=7 * USD, estimate=2 * USD)
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(place.open()) for _ in range(4)]
        workers = await crew(stores[0], 12)
        for _ in range(20):
            await add(stores[0])
        taken: list[Claim] = []

        async def race(number: int) -> None:
            found = await claim(stores[number % 4], workers[number], budget)
            taken.extend([found] if found else [])

        async with anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(race, number)
        assert len(taken) == 3
        lines = await stores[0].spending.lines(budget, run_id=workers[0].run_id)
        assert [(line.scope, line.reserved) for line in lines] == [("run", 6 * USD), ("day", 6 * USD)]


async def test_an_agent_is_expected_to_use_what_it_used_before(store: Store) -> None:
    budget = Budget(run=100 * USD)
    workers = await crew(store, 3)
    for _ in range(4):
        await add(store)
    for usd in (0.2, 0.4):
        await spend(store, await take(store, workers[0], budget), usd)
    await take(store, workers[1], budget)
    assert (await run_line(store, workers[0], budget)).reserved == 300_000


# ---------------------------------------------------------------- what was used


async def test_what_is_told_twice_of_an_execution_counts_once(store: Store) -> None:
    budget = Budget(run=10 * USD)
    (worker,) = await crew(store)
    await add(store)
    taken = await take(store, worker, budget)
    await start(store, taken)
    for usd in (1.0, 1.0, 2.5):
        await store.claims.report(taken, used(usd, 100))
    line = await run_line(store, worker, budget)
    assert (line.spent, line.reserved) == (2_500_000, 0)
    (cost,) = await store.spending.costs("agent")
    assert (cost.id, cost.executions, cost.tokens, cost.cost_microusd) == ("claude", 1, 100, 2_500_000)


async def test_the_sums_are_what_the_executions_say(store: Store, clock: FakeClock) -> None:
    rng = random.Random(7)
    epics = [(await store.epics.add(f"Epic {n}")).id for n in range(2)]
    tasks = [await add(store, epic_id=rng.choice([None, *epics])) for _ in range(6)]
    crews = [await crew(store) for _ in range(2)]
    spent: dict[tuple[str, str], int] = {}
    for _ in range(25):
        (worker,) = rng.choice(crews)
        task = rng.choice(tasks)
        taken = await take(store, worker, Budget(day=10**12), task_ids=[task.id])
        await start(store, taken)
        for microusd in rng.sample(range(1, 5 * USD), rng.randint(1, 3)):
            await store.claims.report(taken, used(microusd / 1e6))
        await store.claims.settle(taken, Released())
        for key in (("epic", task.epic_id), ("run", worker.run_id), ("day", day_of(clock.now()))):
            if key[1]:
                spent[(key[0], key[1])] = spent.get((key[0], key[1]), 0) + microusd
        clock.advance(rng.randint(0, 5 * 3600))
    budget = Budget(run=1, day=1, epic=1)
    for (scope, id), expected in spent.items():
        if scope == "day":
            by_day = {cost.id: cost.cost_microusd for cost in await store.spending.costs("day")}
            assert by_day[id] == expected
            continue
        lines = await store.spending.lines(budget, run_id=id, epic_ids=[id])
        assert next(line.spent for line in lines if (line.scope, line.id) == (scope, id)) == expected
    total = sum(cost.cost_microusd for cost in await store.spending.costs("task"))
    assert total == sum(amount for (scope, _), amount in spent.items() if scope == "run")
    assert {cost.id for cost in await store.spending.costs("epic")} == {t.epic_id or "" for t in tasks}


async def test_tokens_are_a_budget_too(store: Store) -> None:
    budget = Budget(tokens=1000)
    (worker,) = await crew(store)
    await add(store)
    await spend(store, await take(store, worker, budget), 0, tokens=1001)
    assert await claim(store, worker, budget) is None
    assert (await run_line(store, worker, budget)).words == "the run's budget of 1,000 tokens is used up (1,001 tokens)"


# ---------------------------------------------------------------- who waits, and who does not


async def test_only_the_tasks_of_an_epic_without_budget_wait(store: Store) -> None:
    budget = Budget(epic=USD, estimate=USD)
    epic = await store.epics.add("Dear")
    dear, next_one = await add(store, epic_id=epic.id, priority=9), await add(store, epic_id=epic.id, priority=8)
    cheap = await add(store)
    first, second, third = await crew(store, 3)
    taken = await take(store, first, budget)
    assert taken.task_id == dear.id
    assert (await take(store, second, budget)).task_id == cheap.id
    waiting = await now_of(store, next_one)
    assert (waiting.state, waiting.reason) == (State.WAITING, "budget")
    assert waiting.due_at is not None  # what is reserved may come back
    await spend(store, taken, 1.2)
    assert await claim(store, third, budget) is None
    for task in (dear, next_one):
        assert (await now_of(store, task)).state is State.WAITING
    assert (await now_of(store, dear)).due_at is None
    assert (await now_of(store, dear)).detail == f"the budget of {epic.id} of $1.00 is used up ($1.20)"


async def test_a_task_that_cost_too_much_waits_until_its_budget_is_raised(store: Store) -> None:
    task = await add(store)
    (worker,) = await crew(store)
    await spend(store, await take(store, worker, Budget(task=USD)), 1.0)
    assert await claim(store, worker, Budget(task=USD)) is None
    assert (await now_of(store, task)).needs_person
    assert await store.spending.wake() == 1
    assert await claim(store, worker, Budget(task=USD)) is None  # not raised: it waits anew
    assert await store.spending.wake() == 1
    assert (await take(store, worker, Budget(task=2 * USD))).task_id == task.id


async def test_what_is_paid_for_lands_without_a_budget(store: Store) -> None:
    budget = Budget(run=USD)
    (worker,) = await crew(store)
    await add(store, priority=5)
    paid = await add(store)
    taken = await take(store, worker, budget, task_ids=[paid.id])
    await start(store, taken)
    report = used(3.0, outcome="done")
    await store.claims.complete_step(taken, "let_agent_work", report.model_dump_json(), started_at=0, report=report)
    await store.claims.settle(taken, Released())
    again = await take(store, worker, budget)
    assert again.task_id == paid.id
    assert (await run_line(store, worker, budget)).reserved == 0
    assert await claim(store, worker, budget, epic_id="epic-none") is None


async def test_those_at_work_stop_when_the_budget_is_used_up(store: Store) -> None:
    budget = Budget(run=10 * USD, estimate=USD)
    workers = await crew(store, 4)
    for _ in range(4):
        await add(store)
    dear, at_work, done, other = [await take(store, worker, budget) for worker in workers]
    for one in (at_work, done):
        await start(store, one)
    report = used(0.1, outcome="done")
    await store.claims.complete_step(done, "let_agent_work", report.model_dump_json(), started_at=0, report=report)
    assert await store.spending.stop_over(budget, str(workers[0].run_id)) == []
    await spend(store, dear, 11)
    rung = store.bell.rings
    assert await store.spending.stop_over(budget, str(workers[0].run_id)) == [at_work.task_id]
    assert store.bell.rings > rung
    parked = await store.tasks.get(at_work.task_id)
    assert (parked.state, parked.reason, parked.failures, parked.attempt) == (State.WAITING, "budget", 0, 1)
    assert not await store.claims.holds(at_work)
    assert await store.claims.holds(done)  # it is paid for
    assert await store.claims.holds(other)  # its agent has not begun; its next step is refused nothing
    assert (await store.claims.attempts(at_work.task_id))[-1].outcome == "budget"
    await land(store, done)


async def test_a_run_s_budget_does_not_stop_another_run(store: Store) -> None:
    budget = Budget(run=USD)
    (mine,), (theirs,) = await crew(store), await crew(store)
    await add(store)
    await add(store)
    held = await take(store, theirs, Budget())
    await start(store, held)
    await spend(store, await take(store, mine, budget), 2)
    assert await store.spending.stop_over(budget, str(mine.run_id)) == []
    assert await store.claims.holds(held)


async def test_a_day_has_its_budget_and_the_next_day_its_own(store: Store, clock: FakeClock) -> None:
    budget = Budget(day=USD, estimate=USD)
    (worker,) = await crew(store)
    await add(store)
    clock.set_wall(next_day(clock.now()) + 3_600_000)
    await spend(store, await take(store, worker, budget), 1)
    assert await claim(store, worker, budget) is None
    refusal = await store.spending.refusal(budget, "another run", "claude")
    assert refusal is not None
    assert refusal.until == next_day(clock.now())
    clock.set_wall(refusal.until)
    assert await claim(store, worker, budget) is not None


async def test_without_a_budget_nothing_is_put_aside(store: Store) -> None:
    (worker,) = await crew(store)
    await add(store)
    taken = await take(store, worker, Budget())
    await spend(store, taken, 5)
    assert await store.spending.lines(Budget()) == []
    assert await claim(store, worker, Budget(run=5 * USD)) is None  # what was spent before the limit counts

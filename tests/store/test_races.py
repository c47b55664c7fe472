"""Many at once: claimers, processes, operators beside landings; and callers that are cancelled at any point."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest
from anyio.lowlevel import checkpoint

from drover.domain.errors import CycleError, DroverError, LeaseLost, WrongState
from drover.domain.models import Claim, NewTask, Task
from drover.domain.states import State
from drover.domain.verdicts import Released
from drover.store import Store
from drover.store.postgres import PostgresDatabase
from tests.proof.plugin import Tally
from tests.store.conftest import Place
from tests.store.scenes import add, complete, hire, hire_many, land, landing_of, take

pytestmark = pytest.mark.anyio


async def together(*acts: Awaitable[Any]) -> list[Any]:
    """What each came to; errors of drover's as values."""
    results: list[Any] = [None] * len(acts)

    async def one(n: int, act: Awaitable[Any]) -> None:
        try:
            results[n] = await act
        except DroverError as error:
            results[n] = error

    async with anyio.create_task_group() as group:
        for n, act in enumerate(acts):
            group.start_soon(one, n, act)
    return results


@pytest.mark.suite("T11")
async def test_sixty_four_claimers_share_a_thousand_tasks(store: Store, tally: Tally) -> None:
    await store.tasks.add_many([NewTask(title=f"{n}") for n in range(1_000)])
    workers = await hire_many(store, 64)
    taken: list[Claim] = []

    async def claim(n: int) -> None:
        while found := await store.claims.claim(workers[n]):
            taken.append(found)

    async with anyio.create_task_group() as group:
        for n in range(64):
            group.start_soon(claim, n)
    assert Counter(c.task_id for c in taken).most_common(1)[0][1] == 1
    assert len(taken) == 1_000 and {c.fence for c in taken} == {1}
    assert len(await store.claims.running()) == 1_000
    tally(points=1_000)


@pytest.mark.suite("T11")
async def test_three_processes_share_a_backlog(place: Place, tally: Tally) -> None:
    async with place.open() as store:
        await store.tasks.add_many([NewTask(title=f"{n}") for n in range(150)])
    program = Path(__file__).with_name("claiming.py")
    racers = [
        subprocess.Popen(
            [sys.executable, program, place.url, f"w{n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for n in range(3)
    ]
    for racer in racers:
        assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    outs = [racer.communicate(timeout=60)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    lines = [line for out in outs for line in out.splitlines()]
    assert len(lines) == 150 and len(set(lines)) == 150
    assert all(line.endswith(" 1") for line in lines)
    tally(points=150)


async def test_a_key_gives_one_task_to_all_who_add_it_at_the_same_time(place: Place) -> None:
    async with place.open() as one, place.open() as two:
        added = await together(*[add((one, two)[n % 2], f"{n}", key="k", labels=(f"l{n}",)) for n in range(16)])
        assert len({task.id for task in added}) == 1
        (task,) = await one.tasks.list_tasks()
        assert len(task.labels) == 1


async def test_sub_tasks_added_at_the_same_time_get_numbers_of_their_own(place: Place) -> None:
    async with place.open() as one, place.open() as two:
        parent = await add(one)
        added = await together(*[add((one, two)[n % 2], parent_id=parent.id) for n in range(12)])
        assert sorted(t.sequence for t in added) == list(range(1, 13))
        assert await one.tasks.miscounted() == []
        assert (await one.tasks.get(parent.id)).open_blockers == 12


async def test_of_two_blocks_that_would_make_a_circle_one_is_refused(place: Place) -> None:
    async with place.open() as one, place.open() as two:
        for _ in range(10):
            a, b = await add(one), await add(two)
            results = await together(one.tasks.block(a.id, [b.id]), two.tasks.block(b.id, [a.id]))
            assert sorted(type(r) for r in results if isinstance(r, CycleError)) == [CycleError]


async def test_a_counter_is_right_whatever_is_done_to_the_graph_while_its_blockers_land(place: Place) -> None:
    async with place.open() as one, place.open() as two:
        for round in range(8):
            blockers = [await add(one, f"{round} b{n}") for n in range(4)]
            behind = [await add(one, f"{round} d{n}", blocked_by=blockers[:2]) for n in range(3)]
            claims = [await take(one, b) for b in blockers]
            await together(
                *[(one, two)[n % 2].landings.landed(c, landing_of(c)) for n, c in enumerate(claims)],
                two.tasks.block(behind[0].id, [blockers[2].id, blockers[3].id]),
                one.tasks.unblock(behind[1].id, [blockers[1].id]),
                two.tasks.resolve(behind[2].id),
                add(one, "late", blocked_by=blockers),
                two.tasks.reset(blockers[0].id),
                one.tasks.cancel(behind[2].id),
            )
            assert await one.tasks.miscounted() == []


async def test_blockers_that_land_at_the_same_time_free_each_dependent_once(place: Place) -> None:
    async with place.open() as one, place.open() as two:
        blockers = [await add(one) for _ in range(12)]
        behind = [await add(one, blocked_by=blockers) for _ in range(6)]
        claims = [await take(one, b) for b in blockers]
        landed = await together(*[(one, two)[n % 2].landings.landed(c, landing_of(c)) for n, c in enumerate(claims)])
        assert landed == [None] * 12
        assert {(await one.tasks.get(t.id)).open_blockers for t in behind} == {0}
        freed = [e.task_id for e in await one.events.page() if e.type == "task.ready"]
        assert sorted(str(id) for id in freed) == sorted(t.id for t in behind)


@pytest.mark.suite("T11")
async def test_a_claim_and_an_operators_order_never_both_win(place: Place, tally: Tally) -> None:
    async with place.open() as one, place.open() as two:
        worker = await hire(one)
        for _ in range(10):
            task = await add(one)
            claim, cancelled = await together(one.claims.claim(worker, task_ids=[task.id]), two.tasks.cancel(task.id))
            assert [t.state for t in cancelled] == [State.CANCELLED]
            if claim is not None:
                with pytest.raises(LeaseLost):
                    await one.claims.renew(claim)
            tally(points=1)


@pytest.mark.suite("T11")
async def test_a_sub_task_lands_or_is_cancelled_with_its_parent_and_never_both(place: Place, tally: Tally) -> None:
    async with place.open() as one, place.open() as two:
        for _ in range(10):
            parent = await add(one)
            first, second = [await add(one, parent_id=parent.id) for _ in range(2)]
            claim = await take(one, first)
            landed, cancelled = await together(
                one.landings.landed(claim, landing_of(claim)), two.tasks.cancel(parent.id)
            )
            open_ = [second.id] if landed is None else [first.id, second.id]
            assert [t.id for t in cancelled] == [parent.id, *open_]
            assert ((await one.tasks.get(first.id)).landed_at is not None) is (landed is None)
            assert await one.tasks.miscounted() == []
            tally(points=1)


@pytest.mark.suite("T11")
async def test_a_settlement_and_a_rescue_never_both_win(place: Place, tally: Tally) -> None:
    async with place.open() as one, place.open() as two:
        for _ in range(10):
            task = await add(one)
            claim = await take(one, task)
            (held,) = [h for h in await two.claims.running() if h.task_id == task.id]
            settled, rescued = await together(one.claims.settle(claim, Released()), two.claims.rescue(held, dead=True))
            assert isinstance(settled, Task) is not rescued
            assert (await one.tasks.get(task.id)).interruptions == 1
            tally(points=1)


@pytest.mark.suite("T11")
async def test_an_intent_and_a_rescue_never_both_win(place: Place, tally: Tally) -> None:
    async with place.open() as one, place.open() as two:
        for _ in range(10):
            task = await add(one)
            claim = await take(one, task)
            (held,) = [h for h in await two.claims.running() if h.task_id == task.id]
            await together(
                one.landings.intend(claim, target="main", old="o", commit="c", tree="t"),
                two.claims.rescue(held, dead=True),
            )
            intents = [r.created_at for r in await one.landings.of_task(task.id)]
            rescue = [e for e in await one.events.page(task_id=task.id) if e.type == "task.rescued"]
            assert len(intents) <= 1 and len(rescue) == 1
            with pytest.raises(LeaseLost):
                await one.landings.intend(claim, target="main", old="o", commit="c2", tree="t")
            tally(points=1)


# ------------------------------------------------------------ callers that are cancelled


async def sound(place: Place, store: Store) -> None:
    """The store goes on, nothing is half done, nobody holds a transaction open."""
    assert await store.tasks.miscounted() == []
    task = await add(store, "after")
    assert (await store.tasks.get(task.id)).title == "after"
    if place.kind == "postgres":
        connection = await asyncpg.connect(place.url)
        open_ = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        assert await connection.fetchval(f"{open_} AND state LIKE 'idle in transaction%'") == 0
        assert await connection.fetchval(open_) <= 9
        await connection.close()


async def quiet(store: Store) -> None:
    """Wait for the transactions that nobody waits for any more."""
    if isinstance(store.database, PostgresDatabase):
        await store.database._finished()
    else:
        await store.workers.set_meta("k", "v")  # writes of SQLite keep their order


async def cancelled_after(steps: int, act: Callable[[], Awaitable[Any]], *, native: bool) -> bool:
    """Whether the act came to its end before it was cancelled after so many steps of the event loop."""
    ended = False

    async def run() -> None:
        nonlocal ended
        await act()
        ended = True

    if native:
        task = asyncio.get_running_loop().create_task(run())
        await let_pass(steps)
        task.cancel()
        await asyncio.wait([task])
    else:
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await let_pass(steps)
            group.cancel_scope.cancel()
    return ended


async def let_pass(steps: int) -> None:
    """Steps of the event loop; the later ones are long enough for a server to answer in."""
    for step in range(steps):
        await (checkpoint() if step < 15 else anyio.sleep(0.0003))


Scene = Callable[[Store, int], Awaitable[tuple[Callable[[], Awaitable[Any]], Callable[[], Awaitable[bool]]]]]


async def adding(store: Store, n: int) -> Any:
    parent = await add(store)

    async def happened() -> bool:
        found = [t for t in await store.tasks.list_tasks() if t.key == f"key {n}"]
        assert all(t.labels == ("a", "b") and t.blocked_by == (parent.id,) and t.open_blockers == 1 for t in found)
        return bool(found)

    return lambda: add(store, "x", key=f"key {n}", labels=("a", "b"), blocked_by=[parent]), happened


async def claiming(store: Store, n: int) -> Any:
    task, worker = await add(store), await hire(store)

    async def happened() -> bool:
        found = await store.tasks.get(task.id)
        attempts = await store.claims.attempts(task.id)
        assert (found.state, found.fence, len(attempts)) in ((State.QUEUED, 0, 0), (State.RUNNING, 1, 1))
        return found.fence == 1

    return lambda: store.claims.claim(worker, task_ids=[task.id]), happened


async def landing(store: Store, n: int) -> Any:
    task = await add(store)
    behind = await add(store, blocked_by=[task])
    claim = await take(store, task)

    async def happened() -> bool:
        found, dependent = await store.tasks.get(task.id), await store.tasks.get(behind.id)
        assert (found.landed_at is not None) is (dependent.open_blockers == 0)
        return found.landed_at is not None

    return lambda: store.landings.landed(claim, landing_of(claim)), happened


async def settling(store: Store, n: int) -> Any:
    claim = await take(store, await add(store))

    async def happened() -> bool:
        found = await store.tasks.get(claim.task_id)
        ended = (await store.claims.attempts(claim.task_id))[0].ended_at is not None
        assert ended is (found.state is State.QUEUED)
        return ended

    return lambda: store.claims.settle(claim, Released()), happened


@pytest.mark.suite("T8")
@pytest.mark.parametrize("native", [False, True], ids=["scope", "native"])
@pytest.mark.parametrize("scene", [adding, claiming, landing, settling])
async def test_a_cancelled_caller_leaves_a_whole_transaction_or_none(
    place: Place, scene: Scene, native: bool, tally: Tally
) -> None:
    answered = happened_anyway = tried = 0
    async with place.open() as store:
        for steps in range(0, 40, 2 if place.kind == "sqlite" else 3):
            act, happened = await scene(store, steps)
            ended = await cancelled_after(steps, act, native=native)
            await quiet(store)
            tried += 1
            answered += ended
            happened_anyway += await happened()
            assert not ended or await happened()
        await sound(place, store)
    assert happened_anyway >= answered
    assert happened_anyway > 0
    tally(points=tried)


@pytest.mark.suite("T8")
async def test_a_store_whose_scope_is_cancelled_keeps_what_was_under_way_and_leaves_nothing_behind(
    place: Place,
) -> None:
    threads = set(threading.enumerate())
    for steps in range(0, 60, 4):

        async def use(steps: int = steps) -> None:
            async with place.open(watch=True) as store, anyio.create_task_group() as group:
                for n in range(5):
                    group.start_soon(store.tasks.add, NewTask(title=f"{steps} {n}", labels=("whole",)))
                await anyio.sleep_forever()

        await cancelled_after(steps, use, native=False)
    with anyio.fail_after(60):
        while not set(threading.enumerate()) <= threads:  # one that was told to end may need a moment for it
            await anyio.sleep(0.01)
    async with place.open() as store:
        assert all(t.labels == ("whole",) for t in await store.tasks.list_tasks())
        await sound(place, store)


async def test_what_was_asked_for_before_closing_is_done(place: Place) -> None:
    results: list[Any] = []

    async def ask(store: Store, n: int) -> None:
        results.append(await add(store, f"{n}"))

    async with anyio.create_task_group() as group, place.open() as store:
        for n in range(20):
            group.start_soon(ask, store, n)
        await checkpoint()
    async with place.open() as store:
        assert {t.id for t in await store.tasks.list_tasks()} == {t.id for t in results}
    assert len(results) == 20


async def test_a_store_that_is_closed_says_so(place: Place) -> None:
    async with place.open() as store:
        task = await add(store)
    for act in (store.tasks.get(task.id), store.tasks.cancel(task.id)):
        with pytest.raises(DroverError, match="is closed"):
            await act


async def test_an_error_inside_the_store_comes_out_as_it_is(place: Place) -> None:
    with pytest.raises(WrongState, match="as it is"):
        async with place.open():
            raise WrongState("as it is")


async def test_two_stores_of_one_process_share_a_database(place: Place) -> None:
    async with place.open() as one, place.open() as two:
        tasks = await together(*[add((one, two)[n % 2], f"{n}") for n in range(20)])
        assert {t.id for t in await one.tasks.list_tasks()} == {t.id for t in tasks}
        await complete(two, tasks[0])
        assert (await one.tasks.get(tasks[0].id)).state is State.COMPLETED
    async with place.open() as again:
        assert len(await again.tasks.list_tasks()) == 20
        await land(again, await take(again))

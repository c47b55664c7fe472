"""Claims of a life without git that end at the same time: each comes to what is its own, and nothing happens twice."""

from __future__ import annotations

import random
from collections import Counter

import anyio
import pytest

from drover.domain.errors import LeaseLost
from drover.domain.models import NewTask, Worker
from drover.store import Store
from drover.store.plain import Finished, Taken
from drover.store.postgres import PostgresDatabase
from drover.store.sqlite import SqliteDatabase
from drover.store.together import Together
from tests.store.conftest import Place
from tests.store.scenes import add, hire_many

pytestmark = pytest.mark.anyio


async def claim(store: Store, worker: Worker) -> Taken:
    taken = await store.plain.claim(worker)
    assert taken is not None
    return taken


async def finish_at_once(store: Store, ends: list[tuple[Taken, Worker | None]]) -> list[Finished | LeaseLost]:
    """All of them ask before the first transaction has begun."""
    came_to: list[Finished | LeaseLost | None] = [None] * len(ends)

    async def one(n: int, taken: Taken, then: Worker | None) -> None:
        try:
            came_to[n] = await store.plain.finish(taken.claim, f'"{n}"', then=then)
        except LeaseLost as lost:
            came_to[n] = lost

    async with anyio.create_task_group() as group:
        for n, (taken, then) in enumerate(ends):
            group.start_soon(one, n, taken, then)
    return [each for each in came_to if each is not None]


async def test_those_that_end_together_free_their_dependents_and_take_what_is_next(place: Place) -> None:
    async with place.open() as store:
        first, second, third = [await add(store, name) for name in ("first", "second", "third")]
        both = await add(store, "both", blocked_by=[first, second], priority=9)
        late = await add(store, "late", blocked_by=[third])
        workers = await hire_many(store, 3)
        taken = [await claim(store, worker) for worker in workers]
        came_to = await finish_at_once(store, [(t, w) for t, w in zip(taken[:2], workers[:2], strict=True)])
        follows = [end.next for end in came_to if isinstance(end, Finished) and end.next is not None]
        assert [f.claim.task_id for f in follows] == [both.id], "there is one task for the two of them"
        assert follows[0].results == {first.id: "0", second.id: "1"}
        (last,) = await finish_at_once(store, [(taken[2], None)])
        assert isinstance(last, Finished) and last.next is None and last.spare == 1
        assert (await claim(store, workers[1])).claim.task_id == late.id
        told = Counter((e.type, e.task_id) for e in await store.events.page(limit=500))
        assert {count for (kind, _), count in told.items() if kind.startswith("task.")} == {1}
        assert {id for kind, id in told if kind == "task.ready"} == {both.id, late.id}
        ready = {e.task_id: e.data["after"] for e in await store.events.page(limit=500) if e.type == "task.ready"}
        assert ready[both.id] in (first.id, second.id) and ready[late.id] == third.id


async def test_workers_that_claim_together_take_the_best_tasks_in_one_transaction(place: Place) -> None:
    async with place.open() as store:
        tasks = [await add(store, f"task {n}", priority=n) for n in range(3)]
        workers = await hire_many(store, 4)
        taken: dict[str, Taken | None] = {}

        async def one(worker: Worker) -> None:
            taken[worker.id] = await store.plain.claim(worker)

        database = store.database
        assert isinstance(database, SqliteDatabase | PostgresDatabase)
        before = database.commits
        async with anyio.create_task_group() as group:
            for worker in workers:
                group.start_soon(one, worker)
        assert database.commits == before + 1
        ids = [t.claim.task_id for t in taken.values() if t is not None]
        assert sorted(ids) == sorted(task.id for task in tasks) and list(taken.values()).count(None) == 1
        assert all(t.claim.worker_id == worker for worker, t in taken.items() if t is not None)
        assert {held.worker.id for held in await store.claims.running()} == {id for id, t in taken.items() if t}
        told = Counter(e.task_id for e in await store.events.page(limit=500) if e.type == "task.claimed")
        assert told == Counter(ids)


async def test_what_a_group_sets_free_is_taken_in_its_place_among_all_that_is_ready(place: Place) -> None:
    """Priority before age, and whoever ends has set it free before anything is taken."""
    async with place.open() as store:
        one, two = await add(store, "one", priority=9), await add(store, "two", priority=9)
        for title, priority in (("second", 5), ("fourth", 2), ("last", 0)):
            await add(store, title, priority=priority)
        await add(store, "first", priority=6, blocked_by=[one])
        await add(store, "third", priority=3, blocked_by=[two])
        await add(store, "fifth", priority=2, blocked_by=[one, two])
        workers = await hire_many(store, 2)
        taken = [await claim(store, worker) for worker in workers]
        order = []
        for _ in range(6):
            (end,) = await finish_at_once(store, [(taken.pop(0), workers[0])])
            assert isinstance(end, Finished) and end.next is not None
            order.append(end.next.claim.task.title)
            taken.append(end.next)
            workers.reverse()
        assert order == ["first", "second", "third", "fourth", "fifth", "last"]
        assert not await store.tasks.miscounted()


@pytest.mark.parametrize("seed", range(3))
async def test_groups_of_any_graph_come_to_what_their_definition_says(place: Place, seed: int) -> None:
    """On SQLite by the statements, on Postgres by the server's function."""
    rng = random.Random(seed)
    async with place.open() as store:
        store.plain._ends = Together(store.plain._finish_all)  # one group at a time, so that there is one order
        news = [
            NewTask(title=f"{n}", key=f"{n}", priority=rng.randrange(3),
                    blocked_by=tuple(str(b) for b in rng.sample(range(n), min(n, rng.randrange(4)))))
            for n in range(40)
        ]  # fmt: skip
        tasks = await store.tasks.add_many(news)
        place_of = {task.id: (-task.priority, n) for n, task in enumerate(tasks)}
        open_of = {task.id: set(task.blocked_by) for task in tasks}
        ready = {id for id, blockers in open_of.items() if not blockers}
        running: dict[str, Taken] = {}
        results: dict[str, str] = {}
        workers = {worker.id: worker for worker in await hire_many(store, 5)}

        def take(how_many: int) -> set[str]:
            best = set(sorted(ready, key=place_of.__getitem__)[:how_many])
            ready.difference_update(best)
            return best

        while ready or running:
            for idle in [worker for id, worker in workers.items() if id not in running][: len(ready)]:
                running[idle.id] = await claim(store, idle)
                assert {running[idle.id].claim.task_id} == take(1)
            group = rng.sample(sorted(running), rng.randint(1, len(running)))
            ends = await finish_at_once(store, [(running[id], workers[id]) for id in group])
            done = {running.pop(id).claim.task_id: f"{n}" for n, id in enumerate(group)}
            results |= done
            freed = {id for id, open in open_of.items() if open & done.keys() and not open - done.keys()}
            for open in open_of.values():
                open.difference_update(done)
            ready |= freed
            expected = take(len(group))
            assert all(isinstance(end, Finished) for end in ends)
            finished = [end for end in ends if isinstance(end, Finished)]
            follows = [end.next for end in finished if end.next is not None]
            assert {f.claim.task_id for f in follows} == expected and len(follows) == len(expected)
            assert sum(end.spare for end in finished) == max(0, len(freed) - len(expected))
            for taken in follows:
                task = tasks[place_of[taken.claim.task_id][1]]
                assert taken.results == {id: results[id] for id in task.blocked_by} and taken.claim.fence == 1
                running[taken.claim.worker_id] = taken
        assert results.keys() == place_of.keys() and not await store.tasks.miscounted()
        told = Counter((e.type, e.task_id) for e in await store.events.page(limit=500) if e.type.startswith("task."))
        assert set(told.values()) == {1}
        kinds = Counter(kind for kind, _ in told)
        blocked = sum(bool(task.blocked_by) for task in tasks)
        assert (kinds["task.claimed"], kinds["task.completed"], kinds["task.ready"]) == (40, 40, blocked)


async def test_groups_that_end_beside_one_another_take_nothing_twice(place: Place) -> None:
    async with place.open() as store, place.open() as other:
        await store.tasks.add_many([NewTask(title=f"{n}") for n in range(200)])

        async def drain(mine: Store, worker: Worker) -> None:
            taken = await mine.plain.claim(worker)
            while taken is not None:
                taken = (await mine.plain.finish(taken.claim, None, then=worker)).next

        async with anyio.create_task_group() as group:
            for mine in (store, other):
                for worker in await hire_many(mine, 5):
                    group.start_soon(drain, mine, worker)
        assert {task.fence for task in await store.tasks.list_tasks()} == {1}
        told = Counter((e.type, e.task_id) for e in await store.events.page(limit=5_000))
        assert {count for (kind, _), count in told.items() if kind.startswith("task.")} == {1}
        assert await store.plain.completed() == 200


async def test_a_zombie_among_those_that_end_together_gets_nothing(place: Place) -> None:
    """Its heir may end in the very same transaction."""
    async with place.open() as store:
        contested, other = await add(store, "contested", priority=9), await add(store, "other", priority=8)
        for _ in range(4):
            await add(store, "more")
        behind = await add(store, "behind", blocked_by=[contested])
        old, new, third = await hire_many(store, 3)
        zombie = await claim(store, old)
        (held,) = await store.claims.running()
        assert await store.claims.rescue(held, dead=True)
        heir, beside = await claim(store, new), await claim(store, third)
        assert (heir.claim.task_id, beside.claim.task_id) == (contested.id, other.id)
        lost, won, well = await finish_at_once(store, [(zombie, old), (heir, new), (beside, third)])
        assert isinstance(lost, LeaseLost)
        assert isinstance(won, Finished) and isinstance(well, Finished)
        assert won.next is not None and well.next is not None and won.next.claim.task_id != well.next.claim.task_id
        assert (await store.tasks.get(contested.id)).result == "1"
        assert (await store.tasks.get(behind.id)).status.value == "ready"
        running = {held.worker.id for held in await store.claims.running()}
        assert running == {new.id, third.id}, "the zombie took nothing"
        told = Counter((e.type, e.task_id) for e in await store.events.page(limit=500))
        assert told["task.completed", contested.id] == 1
        assert [a.outcome for a in await store.claims.attempts(contested.id)] == ["interrupted", "done"]


async def test_who_says_twice_that_it_has_finished_is_believed_once(place: Place) -> None:
    async with place.open() as store:
        for title in ("first", "second", "third"):
            await add(store, title)
        (worker,) = await hire_many(store, 1)
        taken = await claim(store, worker)
        came_to = await finish_at_once(store, [(taken, worker), (taken, worker)])
        assert sorted(type(each).__name__ for each in came_to) == ["Finished", "LeaseLost"]
        assert len(await store.claims.running()) == 1
        told = Counter((e.type, e.task_id) for e in await store.events.page(limit=500))
        assert told["task.completed", taken.claim.task_id] == 1

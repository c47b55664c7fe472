"""The event log: what happened, in the order it happened, nothing missed and nothing twice."""

from __future__ import annotations

import anyio
import pytest

from drover.domain.errors import WrongState
from drover.store import Store
from drover.testing import FakeClock
from tests.store.conftest import Place
from tests.store.scenes import add, complete, take

pytestmark = pytest.mark.anyio


async def test_a_change_and_its_event_are_kept_together_or_not_at_all(store: Store) -> None:
    task = await add(store)
    await complete(store, task)
    before = await store.events.page()
    with pytest.raises(WrongState):
        await store.tasks.cancel(task.id)
    assert await store.events.page() == before
    assert [e.type for e in before] == [
        "task.created", "run.started", "task.claimed", "task.landed", "task.completed",
    ]  # fmt: skip


async def test_a_page_goes_on_where_the_last_one_ended(store: Store) -> None:
    for n in range(7):
        await add(store, f"{n}")
    seen, after = [], 0
    while page := await store.events.page(after=after, limit=3):
        seen += [e.data["title"] for e in page]
        after = page[-1].seq
    assert seen == [f"{n}" for n in range(7)]
    assert await store.events.last_seq() == after


async def test_a_page_can_be_narrowed(store: Store, clock: FakeClock) -> None:
    epic = await store.epics.add("E")
    begin = clock.now()
    a = await add(store, epic_id=epic.id)
    clock.advance(10)
    b = await add(store)
    page = store.events.page
    assert {e.task_id for e in await page(task_id=b.id)} == {b.id}
    assert [e.type for e in await page(epic_id=epic.id)] == ["epic.created", "task.created"]
    assert [e.task_id for e in await page(since=begin + 1)] == [b.id]
    assert [e.task_id for e in await page(until=begin + 9_999)] == [None, a.id]


async def test_an_empty_log_ends_at_zero(store: Store) -> None:
    assert await store.events.last_seq() == 0
    assert await store.events.page() == []


async def test_a_reader_that_goes_on_from_what_it_saw_misses_nothing(place: Place) -> None:
    """Four writers in two processes, one reader that always goes on from the last number it saw."""
    writing = 4
    seen: list[int] = []

    async def write(store: Store, name: str) -> None:
        nonlocal writing
        for n in range(25):
            await add(store, f"{name} {n}")
        writing -= 1

    async def read(store: Store) -> None:
        while True:
            last_look = not writing
            while page := await store.events.page(after=seen[-1] if seen else 0, limit=7):
                seen.extend(e.seq for e in page)
            if last_look:
                return

    async with place.open() as one, place.open() as two, anyio.create_task_group() as group:
        group.start_soon(read, two)
        for n in range(4):
            group.start_soon(write, (one, two)[n % 2], f"w{n}")
    async with place.open() as store:
        assert len(await store.tasks.list_tasks()) == 100
        assert seen == [e.seq for e in await store.events.page()]


async def test_the_bell_rings_when_a_change_can_be_seen(store: Store) -> None:
    """Whoever is woken by the bell and looks finds what it rang for."""
    task = await add(store)
    found = []

    async def wait() -> None:
        ticket = store.bell.ticket()
        ready.set()
        assert await store.bell.wait(ticket, 10)
        found.append((await store.tasks.get(task.id)).state)

    for _ in range(20):
        ready = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await ready.wait()
            await store.tasks.cancel(task.id)
        await store.tasks.reset(task.id)
    assert found == ["cancelled"] * 20


async def test_news_ring_for_what_is_no_work(store: Store) -> None:
    await add(store)
    claim = await take(store)
    bell, news = store.bell.ticket(), store.news.ticket()
    await store.claims.complete_step(claim, "verify", "{}", started_at=1)
    assert (store.bell.rings, store.news.rings > news) == (bell, True)


async def listening(store: Store) -> None:
    """A listener of Postgres rings once when it begins to listen."""
    if store.database.dialect == "postgres":
        assert await store.bell.wait(0, 10)


async def test_another_process_is_heard(place: Place) -> None:
    async with place.open(watch=True) as mine, place.open() as others:
        await listening(mine)
        ticket = mine.bell.ticket()
        task = await add(others)
        assert await mine.bell.wait(ticket, 10)
        assert (await mine.tasks.get(task.id)).title == "a task"


async def test_a_process_does_not_hear_itself_twice(place: Place) -> None:
    async with place.open(watch=True) as mine:
        await listening(mine)
        task = await add(mine)
        ticket = mine.bell.ticket()
        assert not await mine.bell.wait(ticket, 0.3)
        assert task.id

"""A backlog that is moved between databases arrives whole, or not at all."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from drover.domain.errors import StoreError, StoreUnavailable, WrongState
from drover.domain.models import NewTask
from drover.domain.verdicts import Failed, Outcome, Parked
from drover.store import Store, moving, open_store
from drover.store.audit import look_over
from drover.store.moving import NotEmpty
from drover.store.tables import Reference, list_tables
from drover.testing import FakeClock
from tests.store.conftest import PROJECT, Place
from tests.store.proxies import Cut, wire
from tests.store.scenes import add, complete, hire, take

pytestmark = pytest.mark.anyio


def nothing_said(what: str, done: int, total: int) -> None:
    """No progress."""


def export(file: Path) -> dict[str, list[Any]]:
    """Everything that a file holds, read with SQLite alone."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        names = [n for (n,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
        names = [n for n in names if n not in ("drover_migrations", "sqlite_sequence", "sqlite_stat1")]
        return {name: sorted(db.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in names}


async def live_a_little(store: Store) -> None:
    """A backlog in which every table that a life writes has something."""
    epic = await store.epics.add("An epic, ünïcode ✓ and 'quotes'")
    first = await add(store, "first\nline", epic_id=epic.id, labels=("a", "b"), key="k")
    parent = await add(store, "parent")
    await add(store, "child", parent_id=parent.id)
    await add(store, "behind", blocked_by=[first, parent])
    await complete(store, first)
    for verdict in (
        Failed(error_class=Outcome.FAILED, message="no\\N \t tab"),
        Parked(reason="question", detail="what?"),
    ):
        claim = await take(store, await add(store))
        await store.claims.settle(claim, verdict)
    await store.workers.set_meta("fact", "it is so")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "there" / "drover.db"


async def test_there_and_back_again_is_the_same(place: Place, clock: FakeClock, file: Path, tmp_path: Path) -> None:
    back = tmp_path / "back" / "drover.db"
    async with open_store(f"sqlite:///{file}", clock=clock) as one:
        await live_a_little(one)
        async with place.open() as two:
            moved = await moving.move(one.database, two.database, nothing_said)
            await two.workers.settle_meta("repository", "is recorded in a server's schema alone")
            assert await two.tasks.miscounted() == []
            assert (moved["tasks"].rows, moved["epics"].rows) == (6, 1)
            async with open_store(f"sqlite:///{back}", clock=clock) as three:
                assert await moving.move(two.database, three.database, nothing_said) == moved
            # And the numbers that a database gives go on behind those that came.
            newest = (await two.events.page())[-1].seq
            task = await add(two, "afterwards")
            assert (await two.tasks.list_tasks())[-1].id == task.id
            assert (await two.events.page())[-1].seq == newest + 1
    assert export(file) == export(back)
    assert sum(len(rows) for rows in export(back).values()) == sum(tally.rows for tally in moved.values()) > 30


async def test_a_target_that_holds_something_is_left_alone(place: Place, clock: FakeClock, file: Path) -> None:
    async with open_store(f"sqlite:///{file}", clock=clock) as one, place.open() as two:
        await live_a_little(one)
        task = await add(two, "mine")
        with pytest.raises(NotEmpty, match=r"it has rows in tasks \(1\)"):
            await moving.move(one.database, two.database, nothing_said)
        assert [t.id for t in await two.tasks.list_tasks()] == [task.id]


async def test_what_a_run_on_an_empty_backlog_left_stops_nobody(place: Place, clock: FakeClock, file: Path) -> None:
    async with open_store(f"sqlite:///{file}", clock=clock) as one, place.open() as two:
        await live_a_little(one)
        await hire(two)
        await two.workers.set_meta("fact", "another")
        await moving.move(one.database, two.database, nothing_said)
        assert await two.workers.meta("fact") == "it is so"
        assert await moving.tally(one.database) == await moving.tally(two.database)


async def test_a_backlog_that_is_being_worked_on_stays(place: Place, clock: FakeClock, file: Path) -> None:
    async with open_store(f"sqlite:///{file}", clock=clock) as one, place.open() as two:
        claim = await take(one, await add(one))
        with pytest.raises(WrongState, match=f"at work on 1 task.*{claim.task_id}"):
            await moving.move(one.database, two.database, nothing_said)
        assert await two.tasks.list_tasks() == []


SPOILS = {
    "a row is lost": "DELETE FROM task_labels WHERE label = 'b'",
    "a word is changed": "UPDATE task_labels SET label = 'c' WHERE label = 'b'",
}


async def spoil(place: Place, sql: str) -> None:
    """Let the target change what it is given, behind the back of whoever fills it."""
    if place.kind == "sqlite":
        with closing(sqlite3.connect(place.file)) as db:
            db.execute(f"CREATE TRIGGER spoil AFTER INSERT ON task_labels BEGIN {sql}; END")
        return
    connection = await asyncpg.connect(place.url, server_settings={"search_path": f"drover_{PROJECT}"})
    await connection.execute(
        f"CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {sql}; RETURN NULL; END $$;"
        "CREATE TRIGGER spoil AFTER INSERT ON task_labels EXECUTE FUNCTION spoil()"
    )
    await connection.close()


@pytest.mark.parametrize("how", SPOILS)
async def test_what_arrives_otherwise_than_it_went_is_not_kept(
    place: Place, clock: FakeClock, file: Path, how: str
) -> None:
    async with open_store(f"sqlite:///{file}", clock=clock) as one, place.open() as two:
        await live_a_little(one)
        await spoil(place, SPOILS[how])
        with pytest.raises(StoreError, match="task_labels came out otherwise than it went in"):
            await moving.move(one.database, two.database, nothing_said)
        assert await two.tasks.list_tasks() == [] and await two.events.page() == []


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_copy_whose_last_word_was_lost_is_looked_after(
    on_postgres: Place, clock: FakeClock, file: Path, cut: Cut
) -> None:
    """The wire is cut at the target's COMMIT: what was kept counts, what was not is said and may be done again."""
    server = on_postgres.server
    assert server is not None
    async with open_store(f"sqlite:///{file}", clock=clock) as one, wire(server.port) as cable:
        await live_a_little(one)
        async with open_store(server.url(on_postgres.name, port=cable.port), project_id=PROJECT) as two:
            cable.cut_at = (cable.commits + 1, cut)
            if cut == "before":
                with pytest.raises(StoreUnavailable, match="nothing was kept there"):
                    await moving.move(one.database, two.database, nothing_said)
                assert await two.tasks.list_tasks() == []
            await moving.move(one.database, two.database, nothing_said)
            assert await moving.tally(one.database) == await moving.tally(two.database)


async def test_how_far_it_is_is_told(place: Place, clock: FakeClock, file: Path) -> None:
    told: list[tuple[str, int, int]] = []
    async with open_store(f"sqlite:///{file}", clock=clock) as one, place.open() as two:
        await one.tasks.add_many([NewTask(title=f"{n}") for n in range(2_500)])
        await moving.move(one.database, two.database, lambda *how_far: told.append(how_far))
    assert {what for what, _, _ in told} == {"read", "written"} and len(told) > 6
    for what in ("read", "written"):
        steps = [(done, total) for named, done, total in told if named == what]
        assert steps == sorted(steps) and steps[-1][0] == steps[-1][1]


@pytest.mark.slow
async def test_ten_thousand_tasks_go_there_and_come_back(on_postgres: Place, file: Path, tmp_path: Path) -> None:
    """DROVER_PROOF_COUNT tasks with a life behind each; what it took is printed, not judged."""
    back, count = tmp_path / "back" / "drover.db", int(os.environ.get("DROVER_PROOF_COUNT", "10000"))
    async with open_store(f"sqlite:///{file}", clock=FakeClock()) as one, on_postgres.open() as two:
        tasks = await one.tasks.add_many(
            [NewTask(title=f"{n}", key=f"{n}", blocked_by=(f"{n - 1}",) * (n % 3 == 1)) for n in range(count)]
        )
        for task in tasks[: count // 10 : 3]:
            await complete(one, task)
        began = time.monotonic()
        await moving.move(one.database, two.database, nothing_said)
        there = time.monotonic()
        async with open_store(f"sqlite:///{back}", clock=FakeClock()) as three:
            await moving.move(two.database, three.database, nothing_said)
        print(f"{count} tasks: {there - began:.1f} s there, {time.monotonic() - there:.1f} s back")
    assert export(file) == export(back)


async def test_both_databases_tell_of_the_same_references(on_sqlite: Place, on_postgres: Place) -> None:
    """Also of those that Postgres does not look up by itself."""
    told = []
    for place in (on_sqlite, on_postgres):
        async with place.open() as store:
            tables = await store.database.read(list_tables)
            told.append({(table.name, reference) for table in tables for reference in table.references})
    assert told[0] == told[1] and ("blockers", Reference(("blocker_id",), "tasks", ("id",))) in told[1]


async def test_what_refers_to_nothing_on_postgres_is_found(on_postgres: Place) -> None:
    async with on_postgres.open() as store:
        task = await add(store, "alone")
        await take(store, task)
        assert await look_over(store.database, nothing_said) == []
        connection = await asyncpg.connect(on_postgres.url, server_settings={"search_path": f"drover_{PROJECT}"})
        await connection.execute("INSERT INTO blockers (task_id, blocker_id, created_at) VALUES ('a', 'b', 1)")
        await connection.execute("UPDATE attempts SET worker_id = 'nobody'")
        await connection.close()
        found = [fault.what for fault in await look_over(store.database, nothing_said) if fault.about == "references"]
    refer = ("attempts refer by worker_id", "blockers refer by blocker_id", "blockers refer by task_id")
    assert len(found) == 3 and all(any(words in what for what in found) for words in refer), found

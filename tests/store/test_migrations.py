"""Migrations: up only, one transaction each, refused where the program and the database do not belong together."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest

from drover.domain.errors import SchemaError
from drover.store import migrate, sqlite_file
from drover.store.postgres_link import Address, connect
from drover.store.postgres_schema import ensure_schema
from drover.store.sqlite import SqliteDatabase
from drover.testing import FakeClock
from tests.postgres_server import Server
from tests.proof.plugin import Tally
from tests.store.conftest import PROJECT, Place, alone, say
from tests.store.scenes import add

pytestmark = pytest.mark.anyio
GOLDEN = Path(__file__).parents[1] / "golden"


def dumping() -> Any:
    spec = importlib.util.spec_from_file_location("dump_schema", Path(__file__).parents[2] / "scripts/dump_schema.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_schema_of_sqlite_is_the_one_that_was_reviewed() -> None:
    assert dumping().sqlite_schema() == (GOLDEN / "schema.sqlite.sql").read_text(), "run `make schema` and look at it"


async def test_the_schema_of_postgres_is_the_one_that_was_reviewed(on_postgres: Place) -> None:
    found = await dumping().postgres_schema(on_postgres.url, "golden")
    assert found == (GOLDEN / "schema.postgres.sql").read_text(), "run `make schema` and look at it"


def test_every_text_of_postgres_sorts_as_sqlite_sorts_it() -> None:
    columns = re.findall(r"^    \w+ text.*", (GOLDEN / "schema.postgres.sql").read_text(), re.MULTILINE)
    assert columns and all('COLLATE "C"' in column for column in columns)


def test_both_databases_have_the_same_columns() -> None:
    sqlite = closing(sqlite3.connect(":memory:"))
    with sqlite as connection:
        connection.executescript((GOLDEN / "schema.sqlite.sql").read_text())
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        columns = {t: [row[1] for row in connection.execute(f"PRAGMA table_info({t})")] for t in tables}
    blocks = re.findall(
        r"TABLE (\w+)\n((?:    \w+ (?:text|bigint|integer).*\n)*)", (GOLDEN / "schema.postgres.sql").read_text()
    )
    found = {name: [line.split()[0] for line in body.splitlines()] for name, body in blocks}
    del columns["sqlite_sequence"]  # which SQLite makes for the numbers of events
    assert columns == found


def test_a_script_is_split_where_statements_end() -> None:
    script = "-- one; two\nCREATE TABLE a (b text DEFAULT ';');\n\nINSERT INTO a VALUES ('x;\ny');\n-- the end;\n"
    found = list(migrate.Migration(1, "n", "c", script).statements())
    assert [s.split("\n", 1)[-1] for s in found] == ["CREATE TABLE a (b text DEFAULT ';');", "y');"]


# ------------------------------------------------------------ databases of other programs


@asynccontextmanager
async def raw(place: Place) -> AsyncIterator[Any]:
    """A way to say plain SQL to the database."""
    if place.kind == "sqlite":
        with closing(sqlite3.connect(place.file, isolation_level=None)) as connection:

            async def execute(sql: str) -> list[Any]:
                return connection.execute(sql).fetchall()

            yield execute
    else:
        link = await asyncpg.connect(place.url, server_settings={"search_path": f"drover_{place.project}"})

        async def fetch(sql: str) -> list[Any]:
            return [tuple(row) for row in await link.fetch(sql)]

        yield fetch
        await link.close()


async def test_opening_again_changes_nothing(place: Place) -> None:
    ledger = "SELECT number, name, checksum, applied_at FROM drover_migrations ORDER BY number"
    async with place.open() as store:
        task = await add(store)
    async with raw(place) as execute:
        before = await execute(ledger)
    place.clock.advance(60)
    async with place.open() as store:
        assert (await store.tasks.get(task.id)).title == task.title
    async with raw(place) as execute:
        assert await execute(ledger) == before
    assert [name for _, name, _, _ in before] == [m.name for m in migrate.available("sqlite")]


@pytest.mark.suite("T38")
async def test_a_database_of_a_newer_drover_is_refused(place: Place) -> None:
    async with place.open() as store:
        await add(store)
    async with raw(place) as execute:
        await execute("INSERT INTO drover_migrations VALUES (9999, '9999_from_the_future', 'x', 1)")
    with pytest.raises(SchemaError, match="made by a newer drover") as caught:
        async with place.open():
            pass
    assert "9999_from_the_future" in caught.value.message
    assert caught.value.hint == "install a drover at least as new"
    async with raw(place) as execute:
        assert await execute("SELECT count(*) FROM tasks") == [(1,)]


async def test_an_edited_migration_is_refused_by_its_name(place: Place) -> None:
    async with place.open():
        pass
    async with raw(place) as execute:
        await execute("UPDATE drover_migrations SET checksum = 'another' WHERE number = 1")
    with pytest.raises(SchemaError, match="migration 0001_create_backlog is not the one this database was made with"):
        async with place.open():
            pass


async def test_those_who_open_a_new_database_at_the_same_time_make_it_once(place: Place) -> None:
    place.project = "new"  # the copied database holds another
    opened = []

    async def open_it() -> None:
        async with place.open() as store:
            opened.append(await add(store))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(open_it)
    async with raw(place) as execute:
        assert await execute("SELECT count(*) FROM drover_migrations") == [(len(migrate.available("sqlite")),)]
    assert len({task.id for task in opened}) == 5


@pytest.mark.suite("T38")
async def test_who_comes_while_another_makes_the_file_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked to make it a WAL one, SQLite refuses at once while another writes, for all its timeout."""
    path, refused = tmp_path / "drover.db", []
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")

        def let_go(_: float) -> None:
            refused.append(True)
            if other.in_transaction:
                other.execute("ROLLBACK")

        monkeypatch.setattr(sqlite_file.time, "sleep", let_go)
        database = SqliteDatabase(path, FakeClock())
        await database.open()
        await database.close()
    assert refused


async def test_another_process_may_migrate_between_two_migrations_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger is what counts, not what it said when we began."""
    ours, theirs = (SqliteDatabase(tmp_path / "drover.db", FakeClock()) for _ in range(2))
    apply_next, overtaken = SqliteDatabase._apply_next, []

    def be_overtaken(database: SqliteDatabase, connection: sqlite3.Connection, known: list[migrate.Migration]) -> bool:
        more = apply_next(database, connection, known)
        if database is ours and not overtaken:
            overtaken.append(True)
            anyio.run(theirs.open)
            anyio.run(theirs.close)
        return more

    monkeypatch.setattr(SqliteDatabase, "_apply_next", be_overtaken)
    await ours.open()
    await ours.close()
    assert overtaken
    with closing(sqlite3.connect(tmp_path / "drover.db")) as connection:
        (count,) = connection.execute("SELECT count(*) FROM drover_migrations").fetchone()
    assert count == len(migrate.available("sqlite"))


# ------------------------------------------------------------ kills


def killed_while_migrating(path: Path, point: int) -> bool:
    """Whether a process that makes the database died before that statement."""
    child = os.fork()
    if not child:
        said = 0

        def count(statement: str) -> None:
            nonlocal said
            said += 1
            if said == point:
                os.kill(os.getpid(), signal.SIGKILL)

        connection = sqlite3.connect(path, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.set_trace_callback(count)
        SqliteDatabase(path, FakeClock())._migrate(connection)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.suite("T38")
def test_a_kill_at_any_statement_of_a_migration_leaves_a_database_that_opens(tmp_path: Path, tally: Tally) -> None:
    points = 0

    async def opens(place: Place) -> None:
        async with place.open() as store:
            await add(store)
            assert await store.tasks.miscounted() == []

    while True:
        points += 1
        place = Place(f"sqlite:///{tmp_path}/{points}/drover.db", FakeClock(), "sqlite")
        place.file.parent.mkdir()
        if not killed_while_migrating(place.file, points):
            break
        anyio.run(opens, place)
    statements = sum(len(list(m.statements())) for m in migrate.available("sqlite"))
    assert points > statements
    tally(points=points - 1)


class Cut:
    """A connection whose server process is gone before the n-th statement that changes something."""

    def __init__(self, connection: Any, point: int) -> None:
        self._connection, self._left = connection, point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def execute(self, query: str, *values: Any) -> Any:
        self._left -= 1
        if not self._left:
            self._connection.terminate()
        return await self._connection.execute(query, *values)


@pytest.mark.suite("T38")
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("each", [5, pytest.param(1, marks=pytest.mark.slow)])
async def test_a_connection_lost_at_any_statement_of_a_migration_leaves_a_schema_that_opens(
    postgres: Server, clock: FakeClock, each: int, tally: Tally
) -> None:
    name = f"cut{os.getpid()}"
    alone(say(postgres, f"CREATE DATABASE {name}"))
    points = 0
    while True:
        points += 1
        place = Address(postgres.url(name), f"drover_{PROJECT}")
        connection = await connect(place)
        try:
            await ensure_schema(Cut(connection, points), place, 1)
            break
        except asyncpg.InterfaceError:
            pass
        finally:
            connection.terminate()
        if points % each == 1 % each:  # each of them would take a second more
            async with Place(postgres.url(name), clock, "postgres").open() as store:
                await add(store)
            tally(points=1)
        alone(say(postgres, f"DROP SCHEMA IF EXISTS drover_{PROJECT} CASCADE", name))
    statements = sum(len(list(m.statements())) for m in migrate.available("postgres"))
    assert points > statements
    alone(say(postgres, f"DROP DATABASE {name} WITH (FORCE)"))

"""A store of each kind, opened afresh for every test, with the clock in the test's hands."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from drover.domain.clock import Clock
from drover.store import Store, open_store
from drover.store.postgres import PostgresDatabase
from drover.testing import FakeClock
from tests import postgres_server
from tests.postgres_server import NoServer, Server

LEASE_MS = 60_000
PROJECT = "test"
TEMPLATE = "drover_template"
PASSWORD = "open s@me"
_numbers = count()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@dataclass
class Place:
    """Where a test's database is; every :meth:`open` is one more process, as far as the store can tell."""

    url: str
    clock: FakeClock
    kind: str
    server: Server | None = None
    project: str = PROJECT

    @asynccontextmanager
    async def open(self, *, clock: Clock | None = None, watch: bool = False) -> AsyncIterator[Store]:
        async with open_store(
            self.url, project_id=self.project, clock=clock or self.clock, lease_ms=LEASE_MS, watch=watch
        ) as store:
            if isinstance(store.database, PostgresDatabase) and clock is None:
                store.database.lease_clock = self.clock.boottime
            yield store

    @property
    def name(self) -> str:
        """Of the database on its server."""
        return self.url.rsplit("/", 1)[1].split("?")[0]

    @property
    def file(self) -> Path:
        return Path(self.url.removeprefix("sqlite:///"))


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        yield Place(f"sqlite:///{tmp_path}/state/drover.db", clock, "sqlite")
    else:
        yield request.getfixturevalue("on_postgres")


@pytest.fixture
def on_sqlite(clock: FakeClock, tmp_path: Path) -> Place:
    return Place(f"sqlite:///{tmp_path}/state/drover.db", clock, "sqlite")


@pytest.fixture
def on_postgres(clock: FakeClock, postgres: Server) -> Iterator[Place]:
    """A database of its own, copied from one that is migrated already."""
    name = f"t{os.getpid()}_{next(_numbers)}"
    # Copying files beats copying through the WAL at this size: 11 ms against 26.
    alone(say(postgres, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy"))
    yield Place(postgres.url(name), clock, "postgres", postgres)
    alone(say(postgres, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    async with place.open() as opened:
        yield opened


@pytest.fixture(scope="session")
def postgres() -> Server:
    """The session's server, a migrated template in it."""
    try:
        server = postgres_server.shared()
    except NoServer as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no Postgres: {reason}")
        pytest.skip(f"no Postgres: {reason}")
    with Path(server.data, "template.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        alone(_ensure_template(server))
    return server


async def _ensure_template(server: Server) -> None:
    connection = await asyncpg.connect(server.url())
    try:
        if await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", TEMPLATE):
            return
        await connection.execute("CREATE ROLE guest LOGIN")
        await connection.execute(f"CREATE ROLE secured LOGIN PASSWORD '{PASSWORD}'")  # see pg_hba.conf
        await connection.execute("CREATE DATABASE unfinished")
        async with open_store(server.url("unfinished"), project_id=PROJECT):
            pass
        await connection.execute(f"ALTER DATABASE unfinished RENAME TO {TEMPLATE}")
    finally:
        await connection.close()


async def say(server: Server, sql: str, database: str = "postgres") -> None:
    connection = await asyncpg.connect(server.url(database))
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def alone(work: Coroutine[Any, Any, None]) -> None:
    """Run something in a loop of its own, wherever the caller is."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()

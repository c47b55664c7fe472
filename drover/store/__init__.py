"""Everything asked of the database, as verbs: one verb is one transaction."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from drover.domain.clock import Clock, SystemClock
from drover.domain.errors import DiskFull, SettingsError, StoreUnavailable
from drover.store.claims import Claims
from drover.store.database import Bell, Database
from drover.store.epics import Epics
from drover.store.events import Events
from drover.store.landings import Landings
from drover.store.limits import Limits
from drover.store.orders import Orders
from drover.store.patient import Patient
from drover.store.plain import Plain
from drover.store.plans import Plans
from drover.store.ports import Ports
from drover.store.spending import Spending
from drover.store.sqlite import open_sqlite
from drover.store.tasks import Tasks
from drover.store.usage import Usages
from drover.store.workers import Workers

if TYPE_CHECKING:
    from drover.store.postgres import PostgresDatabase

__all__ = ["Store", "open_store"]


class Store:
    """The verbs by noun, over one open database."""

    def __init__(self, database: Database, clock: Clock, lease_ms: int, rng: random.Random | None = None) -> None:
        self.database = database
        self.clock = clock  # by which the times are told that are in it
        self._made_with = (clock, lease_ms, rng)
        self.tasks = Tasks(database, clock, rng)
        self.claims = Claims(database, clock, lease_ms)
        self.epics = Epics(database, clock)
        self.events = Events(database)
        self.landings = Landings(database, clock)
        self.limits = Limits(database, clock)
        self.orders = Orders(database, clock)
        self.plain = Plain(database, clock, lease_ms)
        self.plans = Plans(database, clock)
        self.ports = Ports(database, clock)
        self.spending = Spending(database, clock)
        self.usage = Usages(database)
        self.workers = Workers(database, clock)

    def patient(self) -> Store:
        """The same store for those who wait while its server is away, instead of hearing so; see :class:`Patient`.

        A file is never away: of what SQLite says only a full disk is waited out, on which nothing was kept.
        """
        if isinstance(self.database, Patient):
            return self
        trouble = (DiskFull,) if self.database.dialect == "sqlite" else (DiskFull, StoreUnavailable)
        return Store(Patient(self.database, trouble), *self._made_with)

    @property
    def bell(self) -> Bell:
        """Rings when the backlog may have changed."""
        return self.database.bell

    @property
    def news(self) -> Bell:
        """Rings when the event log may have grown."""
        return self.database.news


@asynccontextmanager
async def open_store(
    url: str,
    *,
    project_id: str | None = None,
    clock: Clock | None = None,
    lease_ms: int = 300_000,
    watch: bool = False,
    rng: random.Random | None = None,
) -> AsyncGenerator[Store]:
    """The store at ``sqlite:///PATH`` or ``postgresql://…``, made if it is missing, migrated.

    ``project_id``: whose backlog it is; on a Postgres server each project has a schema of its own, named after it.
    ``watch``: notice other processes' commits while it is open. Without a ``clock`` of the caller's times are told by
    this machine's, on Postgres by the server's.
    """
    async with AsyncExitStack() as stack:
        database: Database
        if url.startswith("sqlite:///"):
            clock = clock or SystemClock()
            database = await stack.enter_async_context(
                open_sqlite(Path(url.removeprefix("sqlite:///")), clock, watch=watch)
            )
        elif url.startswith(("postgresql://", "postgres://")):
            server = await stack.enter_async_context(_open_postgres(url, project_id, clock, watch=watch))
            database, clock = server, server.clock
        else:
            scheme = url.split(":", 1)[0]
            raise SettingsError(
                f"database_url: {scheme!r} is not a database drover can use", hint="sqlite:///PATH or postgresql://…"
            )
        yield Store(database, clock, lease_ms, rng)


def _open_postgres(
    url: str, project_id: str | None, clock: Clock | None, *, watch: bool
) -> AbstractAsyncContextManager[PostgresDatabase]:
    # asyncpg takes as long to import as everything else together, and most projects are on SQLite.
    from drover.store.postgres import open_postgres  # noqa: PLC0415
    from drover.store.postgres_link import schema_of  # noqa: PLC0415

    if project_id is None:
        raise SettingsError("a store on Postgres needs the project's id", hint="set [project] id in .drover.toml")
    return open_postgres(url, schema_of(project_id), clock, listen=watch)

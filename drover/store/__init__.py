"""Everything asked of the database, as verbs: one verb is one transaction."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from drover.domain.clock import Clock, SystemClock
from drover.domain.errors import SettingsError
from drover.store.claims import Claims
from drover.store.database import Bell, Database
from drover.store.epics import Epics
from drover.store.events import Events
from drover.store.landings import Landings
from drover.store.plain import Plain
from drover.store.sqlite import open_sqlite
from drover.store.tasks import Tasks
from drover.store.workers import Workers

__all__ = ["Store", "open_store"]


class Store:
    """The verbs by noun, over one open database."""

    def __init__(self, database: Database, clock: Clock, lease_ms: int, rng: random.Random | None = None) -> None:
        self.database = database
        self.tasks = Tasks(database, clock, rng)
        self.claims = Claims(database, clock, lease_ms)
        self.epics = Epics(database, clock)
        self.events = Events(database)
        self.landings = Landings(database, clock)
        self.plain = Plain(database, clock, lease_ms)
        self.workers = Workers(database, clock)

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
    clock: Clock | None = None,
    lease_ms: int = 300_000,
    watch: bool = False,
    rng: random.Random | None = None,
) -> AsyncGenerator[Store]:
    """The store at ``sqlite:///PATH``, migrated. ``watch``: notice other processes' commits while it is open."""
    clock = clock or SystemClock()
    if not url.startswith("sqlite:///"):
        scheme = url.split(":", 1)[0]
        raise SettingsError(f"database_url: {scheme!r} is not a database drover can use", hint="sqlite:///PATH")
    async with open_sqlite(Path(url.removeprefix("sqlite:///")), clock, watch=watch) as database:
        yield Store(database, clock, lease_ms, rng)

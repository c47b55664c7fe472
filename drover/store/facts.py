"""What a store is, read without changing it: where, of which version, how large, and whether it keeps its word."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import anyio

from drover.domain.errors import SettingsError, StoreError
from drover.domain.models import Frozen
from drover.settings.urls import redact
from drover.store import migrate
from drover.store.queries import Dialect
from drover.store.sqlite_file import BUSY_TIMEOUT_MS, translated

SQLITE = "sqlite:///"
COUNT_TASKS = "SELECT count(*) FROM tasks"
Ledger = Mapping[int, tuple[str, str]]  # number → name and checksum of the migrations that a database has had


class Setting(Frozen):
    """One setting of the database that matters, and whether it is as it has to be."""

    name: str
    value: str
    good: bool = True


class Facts(Frozen):
    """A store as it was found. ``applied`` is None where there is none yet."""

    url: str  # without its secrets
    dialect: Dialect
    where: str  # the file, or the schema
    version: str = ""
    size: int = 0  # bytes
    tasks: int = 0
    settings: tuple[Setting, ...] = ()
    applied: tuple[str, ...] | None = None
    pending: tuple[str, ...] = ()  # migrations of this program that it has not had
    trouble: str = ""  # why this program cannot use it


class Seen(NamedTuple):
    """What one look at a database came to."""

    version: str
    size: int
    settings: tuple[Setting, ...]
    ledger: Ledger | None
    tasks: int = 0


async def examine(url: str, project_id: str | None) -> Facts:
    """Look at the store at ``url`` without making, migrating or changing anything.

    Raises what opening it would raise where it cannot even be looked at.
    """
    dialect, where, seen = await _see(url, project_id)
    known = migrate.available(dialect)
    facts = Facts(
        url=redact(url).split("?", 1)[0], dialect=dialect, where=where, version=seen.version, size=seen.size,
        settings=seen.settings, tasks=seen.tasks, pending=tuple(m.name for m in known),
    )  # fmt: skip
    if seen.ledger is None:
        return facts
    trouble, missing = "", []
    try:
        missing = migrate.pending(dict(seen.ledger), known)
    except StoreError as error:
        trouble = error.message
    applied = tuple(name for _, (name, _) in sorted(seen.ledger.items()))
    return facts.model_copy(update={"applied": applied, "pending": tuple(m.name for m in missing), "trouble": trouble})


def tasks_in(file: Path) -> int:
    """How many tasks a file holds; none where it cannot be read."""
    try:
        return _see_file(file).tasks
    except (StoreError, OSError):
        return 0


async def _see(url: str, project_id: str | None) -> tuple[Dialect, str, Seen]:
    if url.startswith(SQLITE):
        file = Path(url.removeprefix(SQLITE)).absolute()
        return "sqlite", str(file), await anyio.to_thread.run_sync(_see_file, file)
    if project_id is None:
        raise SettingsError("a store on Postgres needs the project's id", hint="set [project] id in .drover.toml")
    # asyncpg takes as long to import as everything else together, and most projects are on SQLite.
    from drover.store import postgres_facts  # noqa: PLC0415

    return "postgres", *await postgres_facts.see(url, project_id)


def _see_file(file: Path) -> Seen:
    version = f"SQLite {sqlite3.sqlite_version}"
    if not file.exists():
        return Seen(version, 0, (), None)
    size = sum(part.stat().st_size for part in (file, Path(f"{file}-wal")) if part.exists())
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_MS / 1000)) as found:
            journal = str(found.execute("PRAGMA journal_mode").fetchone()[0])
            settings = (
                Setting(name="journal_mode", value=journal, good=journal == "wal"),
                Setting(name="synchronous", value="full"),  # drover sets and reads it back on every connection
            )
            ledger = _ledger(found)
            tasks = int(found.execute(COUNT_TASKS).fetchone()[0]) if ledger else 0
            return Seen(version, size, settings, ledger, tasks)
    except sqlite3.Error as error:
        raise translated(error, file) from error


def _ledger(found: sqlite3.Connection) -> Ledger | None:
    if not found.execute("SELECT 1 FROM sqlite_schema WHERE name = 'drover_migrations'").fetchone():
        return None
    rows = found.execute("SELECT number, name, checksum FROM drover_migrations")
    return {number: (name, checksum) for number, name, checksum in rows}

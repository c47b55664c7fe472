"""SQLite behind the seam: one writing connection a process, whole transactions, group commit.

Rules (measured): a cancelled ``await`` on aiosqlite does not stop its statement, so a transaction is
never made of several awaits. A verb is an ``async def`` whose awaits never suspend here, so a whole batch
of verbs runs as one function in the connection's thread, between one BEGIN IMMEDIATE and one COMMIT;
those that arrive while a commit is being synced share the next one. Each stands on a savepoint of its own.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncGenerator, Awaitable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import aiosqlite
import anyio

from drover.domain.clock import Clock
from drover.domain.errors import DroverError, OutcomeUnknown, StoreError, StoreUnavailable
from drover.store import migrate
from drover.store.database import Bell, Row, Value, Verb, clean
from drover.store.queries import load
from drover.store.sqlite_file import (
    Keeper,
    in_thread,
    is_busy,
    is_full,
    open_reader,
    open_writer,
    refuse_remote,
    translated,
    wal_stamp,
)
from drover.store.sqlite_tables import SqliteTables

T = TypeVar("T")

WATCH_EVERY_S = 0.05  # how soon another process's commit is noticed while somebody waits
WATCH_CLOSELY_S, WATCH_QUIETLY_S = 5.0, 0.4  # and when nothing was written for so long: a wake-up costs 0.2 ms
CLOCK_TICK_NS = 20_000_000  # two writes of one tick of the kernel's coarse clock leave the same time on a file
BATCH_LIMIT = 256
CLOSING_S = 10.0

# What became of a batch: its connection goes on, may not be used any more, or (nothing was kept) each of the
# batch has to be tried alone because one of them broke it.
Fate = Literal["sound", "broken", "apart"]


class SqliteTransaction:
    """Runs named queries at once; its coroutines never suspend."""

    def __init__(self, connection: sqlite3.Connection, queries: dict[str, str], lease_now: int) -> None:
        self._connection = connection
        self._queries = queries
        self.lease_now = lease_now
        self.rang = False
        self.statements = 0

    async def all(self, query: str, **values: Value) -> list[Row]:
        cursor = self._execute(query, values)
        # Naming the columns once, not for every row, halves what a thousand rows cost.
        cursor.row_factory = None
        names = [column[0] for column in cursor.description or ()]  # none for a statement that returns no rows
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    async def one(self, query: str, **values: Value) -> Row | None:
        cursor = self._execute(query, values)
        row = cursor.fetchone()
        cursor.close()  # an open cursor would pin the snapshot
        return cast(Row | None, row)

    async def run(self, query: str, **values: Value) -> int:
        return self._execute(query, values).rowcount

    def _execute(self, query: str, values: dict[str, Value]) -> sqlite3.Cursor:
        self.statements += 1
        for name, value in values.items():
            if isinstance(value, str) and not (value.isascii() and "\0" not in value):
                values[name] = clean(value)
        return self._connection.execute(self._queries[query], values)

    def tables(self) -> SqliteTables:
        return SqliteTables(self._connection)

    def ring(self) -> None:
        self.rang = True


@dataclass(slots=True)
class _Job:
    verb: Verb[Any]
    done: anyio.Event = field(default_factory=anyio.Event)
    value: object = None
    error: BaseException | None = None


class SqliteDatabase:
    """A database file. Made by :func:`open_sqlite`."""

    dialect = "sqlite"
    calls = False

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self.bell = Bell()
        self.news = Bell()
        self._rang = False  # by the batch under way; it runs in another thread, and bells belong to the event loop
        self._clock = clock
        self._queries = load("sqlite")
        self._pending: list[_Job] = []
        self._work = anyio.Event()
        self._keeper = Keeper(path)
        self._writer: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None
        self._closed = False
        self._schema_version: int | None = None  # SQLite's own counter of schema changes, as it was looked at last
        self.commits = 0  # how many transactions were synced, and how many statements they had; for the benchmarks
        self.statements = 0

    # ------------------------------------------------------------ the two verbs of the seam

    async def write(self, verb: Verb[T]) -> T:
        if self._closed:
            raise self._gone()
        job = _Job(verb)
        self._pending.append(job)
        self._work.set()
        await job.done.wait()
        if job.error is not None:
            raise job.error
        return cast(T, job.value)

    async def call(self, verb: Verb[T]) -> T:
        return await self.write(verb)

    async def read(self, verb: Verb[T]) -> T:
        if self._reader is None or self._closed:
            raise self._gone()
        return await in_thread(self._reader, lambda c: self._read(c, verb))

    def _read(self, connection: sqlite3.Connection, verb: Verb[T]) -> T:
        try:
            connection.execute("BEGIN")
            try:
                return _drive(verb(self._transaction(connection)))
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise translated(error, self.path) from error

    def _transaction(self, connection: sqlite3.Connection) -> SqliteTransaction:
        return SqliteTransaction(connection, self._queries, self._clock.boottime())

    def _gone(self) -> StoreUnavailable:
        return StoreUnavailable(f"{self.path} is closed")

    # ------------------------------------------------------------ the writer

    async def serve(self) -> None:
        """Take whatever waits, commit it together, answer each; for ever."""
        while True:
            await self._work.wait()
            self._work = anyio.Event()
            await self.drain()

    async def drain(self) -> None:
        """Commit and answer everything that waits now, whether the caller is cancelled or not."""
        with anyio.CancelScope(shield=True):
            while self._pending:
                batch, self._pending = self._pending[:BATCH_LIMIT], self._pending[BATCH_LIMIT:]
                try:
                    await self._commit(batch)
                finally:
                    for job in batch:
                        job.done.set()

    async def _commit(self, batch: list[_Job]) -> None:
        try:
            writer = await self._writing()
            fate = await in_thread(writer, lambda c: self._run_batch(c, batch))
        except (sqlite3.Error, OSError, DroverError) as error:
            for job in batch:
                job.error = job.error or translated(error, self.path)
            fate = "broken"
        if fate != "sound":
            await self._discard_writer()
        if fate == "apart":
            for job in batch:
                await self._commit([job])
            return
        self.news.ring()
        if self._rang:
            self._rang = False
            self.bell.ring()

    def _run_batch(self, connection: sqlite3.Connection, batch: list[_Job]) -> Fate:
        """Every job has a value or an error afterwards, unless they have to be tried apart."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._refuse_newer(connection)
            tx = self._transaction(connection)
            for job in batch:
                self._run_one(connection, tx, job)
        except sqlite3.Error as error:
            # Nothing was committed. SQLITE_FULL and its kind may have rolled back by themselves and
            # left the connection in autocommit, so it is not asked for anything any more.
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            if len(batch) > 1 and not is_busy(error):
                return "apart"
            for job in batch:
                job.error = translated(error, self.path)
            return "sound" if is_busy(error) else "broken"
        return self._keep(connection, batch, tx)

    def _keep(self, connection: sqlite3.Connection, batch: list[_Job], tx: SqliteTransaction) -> Fate:
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if is_full(error) and len(batch) > 1:
                return "apart"
            for job in batch:
                if job.error is None:
                    job.error = self._uncommitted(error)
            return "broken"
        self.commits += 1
        self.statements += tx.statements
        self._rang = tx.rang
        self._keeper.look_after(connection)
        return "sound"

    def _refuse_newer(self, connection: sqlite3.Connection) -> None:
        """Nothing is written any more once a newer drover has migrated the file; looked at when its schema moves."""
        version = connection.execute("PRAGMA schema_version").fetchone()["schema_version"]
        if version == self._schema_version:
            return
        newest = connection.execute("SELECT max(number) AS newest FROM drover_migrations").fetchone()["newest"]
        migrate.refuse_newer(newest or 0)
        self._schema_version = version

    def _uncommitted(self, error: sqlite3.Error) -> DroverError:
        # What marks a transaction as committed is in the last frame of it: a WAL that could not be
        # extended has none. Any other failure (of the sync above all) may have left it on the disk.
        if is_full(error):
            return translated(error, self.path)
        return OutcomeUnknown(f"{self.path}: COMMIT failed: {error}")

    def _run_one(self, connection: sqlite3.Connection, tx: SqliteTransaction, job: _Job) -> None:
        connection.execute("SAVEPOINT verb")
        try:
            job.value, job.error = _drive(job.verb(tx)), None
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError) as error:
            connection.execute("ROLLBACK TO verb")
            job.error = StoreError(f"{self.path}: {error}")
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a verb raises is its caller's, not the batch's
            connection.execute("ROLLBACK TO verb")
            job.error = error
        connection.execute("RELEASE verb")

    # ------------------------------------------------------------ connections

    async def _writing(self) -> aiosqlite.Connection:
        if self._writer is None:
            self._writer = await open_writer(self.path, self._keeper)
        return self._writer

    async def _discard_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(sqlite3.Error, ValueError), anyio.move_on_after(5, shield=True):
                await writer.close()

    async def open(self) -> None:
        """Bring the schema up to this program's; from here on the database can be read."""
        try:
            await in_thread(await self._writing(), self._migrate)
            self._reader = await open_reader(self.path)
        except sqlite3.Error as error:
            raise translated(error, self.path) from error

    async def close(self) -> None:
        """Commit what was asked for, let everything go."""
        self._closed = True
        with anyio.move_on_after(CLOSING_S, shield=True):
            await self.drain()
            reader, self._reader = self._reader, None
            if reader is not None:
                await reader.close()
            await self._discard_writer()  # last, so that it leaves a file without a WAL
        for job in self._pending:
            job.error = self._gone()
            job.done.set()
        self._keeper.close()

    def _migrate(self, connection: sqlite3.Connection) -> None:
        known = migrate.available("sqlite")
        try:
            while self._apply_next(connection, known):
                pass
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _apply_next(self, connection: sqlite3.Connection, known: list[migrate.Migration]) -> bool:
        """Apply the first migration that is missing; False when none is.

        The ledger is read anew for each one: another process may apply one between two of ours.
        """
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(migrate.LEDGER)
        ledger = connection.execute("SELECT number, name, checksum FROM drover_migrations").fetchall()
        missing = migrate.pending({r["number"]: (r["name"], r["checksum"]) for r in ledger}, known)
        for migration in missing[:1]:
            for statement in migration.statements():
                connection.execute(statement)
            connection.execute(
                "INSERT INTO drover_migrations VALUES (?, ?, ?, ?)",
                (migration.number, migration.name, migration.checksum, self._clock.now()),
            )
        connection.execute("COMMIT")
        return len(missing) > 1

    # ------------------------------------------------------------ other processes

    async def watch(self) -> None:
        """Ring the bells when another process has committed; for ever."""
        seen: tuple[int, int] | None = wal_stamp(self.path)
        version, stirred = await self._version(), anyio.current_time()
        while True:
            quiet_s = anyio.current_time() - stirred
            await anyio.sleep(WATCH_EVERY_S if quiet_s < WATCH_CLOSELY_S else WATCH_QUIETLY_S)
            stamp = wal_stamp(self.path)
            if stamp == seen:
                continue
            stirred = anyio.current_time()
            settled = time.time_ns() - stamp[0] > CLOCK_TICK_NS
            seen = stamp if settled else None
            before, version = version, await self._version()
            if version != before:
                self.bell.ring()
                self.news.ring()

    async def _version(self) -> int | None:
        """A number that changes with the commits of every connection but the writer; None while there is no writer."""
        if self._writer is None:
            return None
        try:
            return await in_thread(self._writer, _data_version)
        except (sqlite3.Error, ValueError):  # it was discarded meanwhile
            return None


@asynccontextmanager
async def open_sqlite(path: Path, clock: Clock, *, watch: bool = False) -> AsyncGenerator[SqliteDatabase]:
    """An open, migrated database. ``watch``: ring the bells for other processes' commits too.

    Raises :class:`SchemaError` for a database of a newer drover, :class:`StoreError` where SQLite's
    promises do not hold (a network file system, a pragma that does not stick).
    """
    path = path.absolute()
    refuse_remote(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StoreError(f"cannot make {path.parent}: {error.strerror}") from error
    database = SqliteDatabase(path, clock)
    failure: BaseException | None = None
    try:
        await database.open()
        async with anyio.create_task_group() as group:
            group.start_soon(database.serve, name="store writer")
            if watch:
                group.start_soon(database.watch, name="store watch")
            try:
                yield database
            except (anyio.get_cancelled_exc_class(), GeneratorExit):
                raise
            except BaseException as error:  # noqa: BLE001 - raised again below: the group would wrap it in another
                failure = error
            group.cancel_scope.cancel()
    finally:
        await database.close()
    if failure is not None:
        raise failure


def _drive(coroutine: Awaitable[T]) -> T:
    """Run a verb to its end without an event loop."""
    try:
        cast(Coroutine[Any, Any, T], coroutine).send(None)
    except StopIteration as stop:
        return cast(T, stop.value)
    cast(Coroutine[Any, Any, T], coroutine).close()
    raise RuntimeError("a verb of the store may await nothing but its transaction")


def _data_version(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("PRAGMA data_version").fetchone()["data_version"]
    return found

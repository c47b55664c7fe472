"""SQLite behind the seam: one writing connection a process, whole transactions, group commit.

Rules (measured): a cancelled ``await`` on aiosqlite does not stop its statement, so a transaction is
never made of several awaits. A verb is an ``async def`` whose awaits never suspend here, so a whole batch
of verbs runs as one function in the connection's thread, between one BEGIN IMMEDIATE and one COMMIT;
those that arrive while a commit is being synced share the next one. Each stands on a savepoint of its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import aiosqlite
import anyio
import psutil

from drover.domain.clock import Clock
from drover.domain.errors import DiskFull, DroverError, OutcomeUnknown, SchemaError, StoreError, StoreUnavailable
from drover.store import migrate
from drover.store.database import Bell, Row, Value, Verb
from drover.store.queries import load

T = TypeVar("T")

BUSY_TIMEOUT_MS = 5_000
WATCH_EVERY_S = 0.05  # how soon another process's commit is noticed while somebody waits
BATCH_LIMIT = 256
# PRAGMA → what it must read back as; NORMAL lost 500 of 500 acknowledged commits at a power cut, FULL none.
PRAGMAS: dict[str, tuple[str, object]] = {
    "journal_mode": ("WAL", "wal"),
    "synchronous": ("FULL", 2),
    "foreign_keys": ("ON", 1),
    "busy_timeout": (str(BUSY_TIMEOUT_MS), BUSY_TIMEOUT_MS),
    "fullfsync": ("ON", 1),
    "checkpoint_fullfsync": ("ON", 1),
    "trusted_schema": ("OFF", 0),
}
REMOTE_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "gluster", "lustre", "fuse.", "sshfs", "beegfs")


class SqliteTransaction:
    """Runs named queries at once; its coroutines never suspend."""

    def __init__(self, connection: sqlite3.Connection, queries: dict[str, str], lease_now: int) -> None:
        self._connection = connection
        self._queries = queries
        self.lease_now = lease_now
        self.rang = False

    async def all(self, query: str, **values: Value) -> list[Row]:
        return cast(list[Row], self._connection.execute(self._queries[query], values).fetchall())

    async def one(self, query: str, **values: Value) -> Row | None:
        cursor = self._connection.execute(self._queries[query], values)
        row = cursor.fetchone()
        cursor.close()  # an open cursor would pin the snapshot
        return cast(Row | None, row)

    async def run(self, query: str, **values: Value) -> int:
        return self._connection.execute(self._queries[query], values).rowcount

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

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self.bell = Bell()
        self.news = Bell()
        self._rang = False  # by the batch under way; it runs in another thread, and bells belong to the event loop
        self._clock = clock
        self._queries = load("sqlite")
        self._pending: list[_Job] = []
        self._work = anyio.Event()
        self._writer: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None
        self._lock: IO[bytes] | None = None
        self._seen: tuple[int, int] = (0, 0)
        self.commits = 0  # how many transactions were synced; for the benchmarks

    # ------------------------------------------------------------ the two verbs of the seam

    async def write(self, verb: Verb[T]) -> T:
        job = _Job(verb)
        self._pending.append(job)
        self._work.set()
        await job.done.wait()
        if job.error is not None:
            raise job.error
        return cast(T, job.value)

    async def read(self, verb: Verb[T]) -> T:
        reader = self._reader
        if reader is None:
            raise StoreUnavailable(f"{self.path} is closed")
        return await _in_thread(reader, lambda c: self._read(c, verb))

    def _read(self, connection: sqlite3.Connection, verb: Verb[T]) -> T:
        try:
            connection.execute("BEGIN")
            try:
                return _drive(verb(self._transaction(connection)))
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise _translated(error, self.path) from error

    def _transaction(self, connection: sqlite3.Connection) -> SqliteTransaction:
        return SqliteTransaction(connection, self._queries, self._clock.boottime())

    # ------------------------------------------------------------ the writer

    async def _serve(self) -> None:
        """Take whatever waits, commit it together, answer each; for ever."""
        while True:
            await self._work.wait()
            self._work = anyio.Event()
            while self._pending:
                batch, self._pending = self._pending[:BATCH_LIMIT], self._pending[BATCH_LIMIT:]
                with anyio.CancelScope(shield=True):
                    await self._commit(batch)

    async def _commit(self, batch: list[_Job]) -> None:
        broken = False
        try:
            if self._writer is None:
                self._writer = await self._connect_writer()
            broken = await _in_thread(self._writer, lambda c: self._run_batch(c, batch))
        except (sqlite3.Error, OSError, DroverError) as error:
            for job in batch:
                job.error = job.error or _translated(error, self.path)
            broken = True
        if broken:
            await self._discard_writer()
        self._seen = self._stamp()
        for job in batch:
            job.done.set()
        self.news.ring()
        if self._rang:
            self._rang = False
            self.bell.ring()

    def _run_batch(self, connection: sqlite3.Connection, batch: list[_Job]) -> bool:
        """Whether the connection may no longer be used. Every job has a value or an error afterwards."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            tx = self._transaction(connection)
            for job in batch:
                self._run_one(connection, tx, job)
            self._rang = tx.rang
        except sqlite3.Error as error:
            # Nothing was committed. SQLITE_FULL and its kind may have rolled back by themselves and
            # left the connection in autocommit, so it is not asked for anything any more.
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            for job in batch:
                job.error = _translated(error, self.path)
            return not _is_busy(error)
        try:
            connection.execute("COMMIT")
            self.commits += 1
        except sqlite3.Error as error:
            for job in batch:
                if job.error is None:
                    job.error = OutcomeUnknown(f"{self.path}: COMMIT failed: {error}")
            return True
        return False

    def _run_one(self, connection: sqlite3.Connection, tx: SqliteTransaction, job: _Job) -> None:
        connection.execute("SAVEPOINT verb")
        try:
            job.value = _drive(job.verb(tx))
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

    async def _connect_writer(self) -> aiosqlite.Connection:
        connection = await _connect(self.path)
        try:
            await _in_thread(connection, self._prepare_writer)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await connection.close()
            raise
        return connection

    def _prepare_writer(self, connection: sqlite3.Connection) -> None:
        for pragma, (value, wanted) in PRAGMAS.items():
            connection.execute(f"PRAGMA {pragma} = {value}")
            got = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
            if got != wanted:
                raise StoreError(f"{self.path}: PRAGMA {pragma} is {got!r}, not {wanted!r}; drover would lose commits")
        # Two connections checkpointing at once can corrupt the WAL in SQLite before 3.51.3, so only the
        # holder of the lock file does.
        connection.execute(f"PRAGMA wal_autocheckpoint = {1000 if self._take_lock() else 0}")
        connection.row_factory = _row

    def _take_lock(self) -> bool:
        if self._lock is not None:
            return True
        file = (self.path.parent / "drover.lock").open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        self._lock = file
        return True

    async def _discard_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(sqlite3.Error, ValueError), anyio.move_on_after(5, shield=True):
                await writer.close()

    def _refuse_pending(self) -> None:
        for job in self._pending:
            job.error = StoreUnavailable(f"{self.path} is closed")
            job.done.set()
        self._pending.clear()

    async def bring_up_to_date(self) -> list[str]:
        """Bring the schema up to this program's; the names of what was applied."""
        if self._writer is None:
            self._writer = await self._connect_writer()
        return await _in_thread(self._writer, self._migrate)

    def _migrate(self, connection: sqlite3.Connection) -> list[str]:
        try:
            return [m.name for m in self._apply(connection)]
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise _translated(error, self.path) from error

    def _apply(self, connection: sqlite3.Connection) -> list[migrate.Migration]:
        known = migrate.available("sqlite")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(migrate.LEDGER)
        ledger = connection.execute("SELECT number, name, checksum FROM drover_migrations").fetchall()
        applied = {r["number"]: (r["name"], r["checksum"]) for r in ledger}
        try:
            missing = migrate.pending(applied, known)
        except SchemaError:
            connection.execute("ROLLBACK")
            raise
        for number, migration in enumerate(missing):
            if number:
                connection.execute("BEGIN IMMEDIATE")
            for statement in migration.statements():
                connection.execute(statement)
            connection.execute(
                "INSERT INTO drover_migrations VALUES (?, ?, ?, ?)",
                (migration.number, migration.name, migration.checksum, self._clock.now()),
            )
            connection.execute("COMMIT")
        if connection.in_transaction:
            connection.execute("COMMIT")
        return missing

    # ------------------------------------------------------------ other processes

    async def _watch(self) -> None:
        """Ring the bell when another process has committed.

        ``stat`` by name is safe where opening the files is not: closing any descriptor of them would
        drop this process's locks.
        """
        while True:
            await anyio.sleep(WATCH_EVERY_S)
            stamp = self._stamp()
            if stamp != self._seen:
                self._seen = stamp
                self.bell.ring()
                self.news.ring()

    def _stamp(self) -> tuple[int, int]:
        try:
            found = os.stat(f"{self.path}-wal")  # noqa: PTH116 - one system call, twenty times a second
        except OSError:
            return (0, 0)
        return (found.st_mtime_ns, found.st_size)


@asynccontextmanager
async def open_sqlite(path: Path, clock: Clock, *, watch: bool = False) -> AsyncGenerator[SqliteDatabase]:
    """An open, migrated database. ``watch``: ring the bell for other processes' commits too.

    Raises :class:`SchemaError` for a database of a newer drover, :class:`StoreError` where SQLite's
    promises do not hold (a network file system, a pragma that does not stick).
    """
    path = path.absolute()
    _refuse_remote(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StoreError(f"cannot make {path.parent}: {error.strerror}") from error
    database = SqliteDatabase(path, clock)
    try:
        await database.bring_up_to_date()
        database._reader = await _connect(path, readonly=True)
        database._seen = database._stamp()
        async with anyio.create_task_group() as group:
            group.start_soon(database._serve, name="store writer")
            if watch:
                group.start_soon(database._watch, name="store watch")
            try:
                yield database
            finally:
                group.cancel_scope.cancel()
    finally:
        database._refuse_pending()
        with anyio.move_on_after(10, shield=True):
            await database._discard_writer()
            if database._reader is not None:
                await database._reader.close()
        if database._lock is not None:
            database._lock.close()


async def _connect(path: Path, *, readonly: bool = False) -> aiosqlite.Connection:
    target = f"{path.as_uri()}?mode={'ro' if readonly else 'rwc'}"
    try:
        # Shielded: a cancelled connect would leave its thread behind, and the program would hang at exit.
        with anyio.CancelScope(shield=True):
            connection = await aiosqlite.connect(target, uri=True, isolation_level=None, cached_statements=256)
            if readonly:
                await _in_thread(connection, _prepare_reader)
    except sqlite3.Error as error:
        raise _translated(error, path) from error
    return connection


def _prepare_reader(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA query_only = ON")
    connection.row_factory = _row


async def _in_thread(connection: aiosqlite.Connection, call: Callable[[sqlite3.Connection], T]) -> T:
    """One function in the connection's own thread, awaited to its end even when the caller is cancelled."""
    # aiosqlite has no public way to run a function of ours in its thread, and a transaction made of
    # several awaits is what this module exists to prevent.
    run = cast(Callable[..., Awaitable[T]], connection._execute)
    with anyio.CancelScope(shield=True):
        answer: T = await run(call, connection._conn)
    return answer


def _drive(coroutine: Awaitable[T]) -> T:
    """Run a verb to its end without an event loop."""
    try:
        cast(Coroutine[Any, Any, T], coroutine).send(None)
    except StopIteration as stop:
        return cast(T, stop.value)
    cast(Coroutine[Any, Any, T], coroutine).close()
    raise RuntimeError("a verb of the store may await nothing but its transaction")


def _row(cursor: sqlite3.Cursor, values: tuple[Value, ...]) -> Row:
    return dict(zip([column[0] for column in cursor.description], values, strict=True))


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _translated(error: BaseException, path: Path) -> DroverError:
    if isinstance(error, DroverError):
        return error
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        return DiskFull(f"no space left for {path}", hint="free some space; drover goes on by itself")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreError(f"{path} is damaged or not a database: {error}", hint="run `drover doctor`")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreUnavailable(f"{path} is locked by another process", hint="try again")
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        return StoreUnavailable(f"{path}: {error}", hint="check the disk and the directory's permissions")
    return StoreError(f"{path}: {error}")


def _refuse_remote(path: Path) -> None:
    """WAL needs shared memory between its processes, which no network file system gives."""
    place = path.absolute().parent
    best = ("", "")
    for part in psutil.disk_partitions(all=True):
        if place.is_relative_to(part.mountpoint) and len(part.mountpoint) > len(best[0]):
            best = (part.mountpoint, part.fstype)
    if best[1].startswith(REMOTE_FILE_SYSTEMS):
        raise StoreError(
            f"{path} is on a network file system ({best[1]}); SQLite would lose commits there",
            hint="keep the project on a local disk, or set DROVER_DATABASE_URL to a Postgres",
        )

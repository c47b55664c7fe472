"""The file of a SQLite database: where it may be, how it is opened, what its errors mean."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, TypeVar, cast

import aiosqlite
import anyio

from drover.domain.errors import DiskFull, DroverError, StoreError, StoreUnavailable
from drover.store.database import Row, Value

T = TypeVar("T")

BUSY_TIMEOUT_MS = 5_000
BUSY_AGAIN_S = 0.005
WAL_LIMIT = 16 << 20  # a WAL that a long reader let grow is cut to this when it starts anew
CHECKPOINT_PAGES = 1_000
PAGE = 4_096
LITTLE_ROOM = 1 << 20  # more than SQLite asks for at a time, and file systems keep some of what they call free
# PRAGMA → what it must read back as; NORMAL lost 500 of 500 acknowledged commits at a power cut, FULL none.
PRAGMAS: dict[str, tuple[str, object]] = {
    "journal_mode": ("WAL", "wal"),
    "synchronous": ("FULL", 2),
    "foreign_keys": ("ON", 1),
    "busy_timeout": (str(BUSY_TIMEOUT_MS), BUSY_TIMEOUT_MS),
    "fullfsync": ("ON", 1),
    "checkpoint_fullfsync": ("ON", 1),
    "trusted_schema": ("OFF", 0),
    "journal_size_limit": (str(WAL_LIMIT), WAL_LIMIT),
    # What a savepoint may have to take back is otherwise written to a file from 64 KB on: 10 kB a task, never needed.
    "temp_store": ("MEMORY", 2),
}
REMOTE_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "gluster", "lustre", "fuse.", "sshfs", "beegfs")


class Keeper:
    """Which process checkpoints: the one that holds the lock file beside the database.

    Two connections checkpointing at once can corrupt the WAL in SQLite before 3.51.3.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: IO[bytes] | None = None

    def keep(self, connection: sqlite3.Connection) -> None:
        """Let a writing connection just opened checkpoint, or not."""
        pages = CHECKPOINT_PAGES if self._take() else 0
        connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")

    def look_after(self, connection: sqlite3.Connection) -> None:
        """Called after a commit: when the WAL grows because its keeper has gone, become its keeper."""
        if self._lock is not None:
            return
        if wal_stamp(self._path)[1] > CHECKPOINT_PAGES * PAGE and self._take():
            connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")

    def _take(self) -> bool:
        if self._lock is None:
            file = (self._path.parent / "drover.lock").open("ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                return False
            self._lock = file
        return True

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


async def open_writer(path: Path, keeper: Keeper) -> aiosqlite.Connection:
    """The connection that writes, every promise of it read back."""
    return await _open(path, "rwc", lambda connection: _prepare_writer(connection, path, keeper))


async def open_reader(path: Path) -> aiosqlite.Connection:
    """A connection that cannot write."""
    return await _open(path, "ro", _prepare_reader)


async def _open(path: Path, mode: str, prepare: Callable[[sqlite3.Connection], None]) -> aiosqlite.Connection:
    # Shielded: a cancelled connect would leave its thread behind, and the program would hang at exit.
    with anyio.CancelScope(shield=True):
        connection = await aiosqlite.connect(
            f"{path.as_uri()}?mode={mode}", uri=True, isolation_level=None, cached_statements=256
        )
        try:
            await in_thread(connection, prepare)
        except BaseException:
            await connection.close()
            raise
    return connection


def _prepare_writer(connection: sqlite3.Connection, path: Path, keeper: Keeper) -> None:
    connection.row_factory = _row
    for pragma, (value, wanted) in PRAGMAS.items():
        _set(connection, pragma, value)
        got = next(iter(connection.execute(f"PRAGMA {pragma}").fetchone().values()))
        if got != wanted:
            raise StoreError(f"{path}: PRAGMA {pragma} is {got!r}, not {wanted!r}; drover would lose commits")
    keeper.keep(connection)


def _set(connection: sqlite3.Connection, pragma: str, value: str) -> None:
    """Set it, patiently: to make a file that another is at work on a WAL one is refused at once for all the timeout."""
    until = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute(f"PRAGMA {pragma} = {value}")
            return
        except sqlite3.OperationalError as refused:
            if refused.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(BUSY_AGAIN_S)


def _prepare_reader(connection: sqlite3.Connection) -> None:
    connection.row_factory = _row
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA query_only = ON")


def _row(cursor: sqlite3.Cursor, values: tuple[Value, ...]) -> Row:
    return dict(zip([column[0] for column in cursor.description], values, strict=True))


async def in_thread(connection: aiosqlite.Connection, call: Callable[[sqlite3.Connection], T]) -> T:
    """One function in the connection's own thread, awaited to its end even when the caller is cancelled."""
    # aiosqlite has no public way to run a function of ours in its thread, and a transaction made of
    # several awaits is what this module exists to prevent.
    run = cast(Callable[..., Awaitable[T]], connection._execute)
    with anyio.CancelScope(shield=True):
        answer: T = await run(call, connection._conn)
    return answer


def wal_stamp(path: Path) -> tuple[int, int]:
    """When the WAL was last written (ns) and its size; zeros when there is none.

    ``stat`` by name is safe where opening the files is not: closing any descriptor of them would drop
    this process's locks.
    """
    try:
        found = os.stat(f"{path}-wal")  # noqa: PTH116 - one system call, twenty times a second
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


def refuse_remote(path: Path) -> None:
    """WAL needs shared memory between its processes, which no network file system gives."""
    place = path.resolve().parent
    best = ("", "")
    for mountpoint, kind in mounts():
        if place.is_relative_to(mountpoint) and len(mountpoint) >= len(best[0]):
            best = (mountpoint, kind)
    if best[1].startswith(REMOTE_FILE_SYSTEMS):
        raise StoreError(
            f"{path} is on a network file system ({best[1]}); SQLite would lose commits there",
            hint="keep the project on a local disk, or set DROVER_DATABASE_URL to a Postgres",
        )


def mounts() -> list[tuple[str, str]]:
    """Where file systems are mounted, and of which kind."""
    table = Path("/proc/self/mounts")
    if table.is_file():  # without psutil, which takes as long to import as the rest of opening a file
        lines = (os.fsdecode(line).split(" ") for line in table.read_bytes().splitlines())
        return [(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), line[1]), line[2]) for line in lines]
    import psutil  # noqa: PLC0415

    return [(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]


def is_busy(error: sqlite3.Error) -> bool:
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_full(error: BaseException) -> bool:
    return _code(error) == sqlite3.SQLITE_FULL or (isinstance(error, OSError) and error.errno == errno.ENOSPC)


def translated(error: BaseException, path: Path) -> DroverError:
    """The error as the rest of drover knows it; of one at which nothing was kept."""
    if isinstance(error, DroverError):
        return error
    code = _code(error)
    if is_full(error) or (code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and _is_crowded(path)):
        return DiskFull(f"no space left for {path}", hint="make room and try again; a run at work goes on by itself")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreError(f"{path} is damaged or not a database: {error}", hint="run `drover doctor`")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreUnavailable(f"{path} is locked by another process", hint="try again")
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        return StoreUnavailable(f"{path}: {error}", hint="check the disk and the directory's permissions")
    return StoreError(f"{path}: {error}")


def _code(error: BaseException) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _is_crowded(path: Path) -> bool:
    """Whether so little fits beside that file that an error of it means a full disk.

    For the memory that its processes share (the ``-shm`` file) SQLite has no word of its own for that.
    """
    try:
        return shutil.disk_usage(path.parent).free < LITTLE_ROOM
    except OSError:
        return False

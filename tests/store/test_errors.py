"""What a database's own errors become for the rest of drover, and what a person is told to do about them."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import asyncpg
import pytest

from drover.domain.errors import DiskFull, DroverError, StoreError, StoreUnavailable
from drover.store import postgres_link, sqlite_file
from drover.store.postgres_link import POOLER_HINT, Address, is_lost

SERVER = Address("postgresql://olive:hunter2@db.example/drover?sslmode=disable", "drover_p")
FILE = Path("/state/drover.db")


class _WrongValue(asyncpg.InterfaceError, ValueError):
    """As asyncpg refuses a value that it cannot send: nothing is wrong with the connection."""


def of_postgres(kind: type[asyncpg.PostgresError], message: str = "said the server") -> asyncpg.PostgresError:
    return kind(f"{message}\nDETAIL: more of it")


def of_sqlite(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("said SQLite")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "kind", "message", "hint"),
    [
        (of_postgres(asyncpg.InvalidPasswordError), StoreError, "refused to let us in: said", "user and password"),
        (of_postgres(asyncpg.InvalidCatalogNameError), StoreError, ": said the server", "createdb"),
        (of_postgres(asyncpg.InsufficientPrivilegeError), StoreError, ": said", 'SCHEMA "drover_p" AUTHORIZATION'),
        (of_postgres(asyncpg.InvalidSQLStatementNameError), StoreError, ": said", POOLER_HINT),
        (of_postgres(asyncpg.DuplicatePreparedStatementError), StoreError, ": said", POOLER_HINT),
        (
            of_postgres(asyncpg.ProtocolViolationError, "unsupported startup parameter: jit"),
            StoreError,
            "jit",
            "pooler",
        ),
        (of_postgres(asyncpg.ReadOnlySQLTransactionError), StoreUnavailable, "takes no writes now: said", "primary"),
        (of_postgres(asyncpg.CannotConnectNowError), StoreUnavailable, "takes no writes now: said", "wait"),
        (of_postgres(asyncpg.DiskFullError), DiskFull, "no space left at", "goes on by itself"),
        (of_postgres(asyncpg.OutOfMemoryError), StoreUnavailable, ": said the server", None),
        (of_postgres(asyncpg.LockNotAvailableError), StoreUnavailable, ": said the server", None),
        (of_postgres(asyncpg.AdminShutdownError), StoreUnavailable, ": said the server", None),
        (of_postgres(asyncpg.UniqueViolationError), StoreError, ": said the server", None),
        (TimeoutError(), StoreUnavailable, "did not answer in time", "network"),
        (ConnectionResetError("reset"), StoreUnavailable, "cannot be reached: reset", "host"),
        (asyncpg.InterfaceError("closed"), StoreUnavailable, "cannot be reached: closed", "host"),
        (asyncpg.InternalClientError("crossed"), StoreUnavailable, "cannot be reached: crossed", "host"),
        (_WrongValue("too long"), StoreError, ": too long", None),
        (ValueError(), StoreError, ": ValueError", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_error_of_postgres_says_whether_to_wait_and_what_to_do(
    error: Exception, kind: type[DroverError], message: str, hint: str | None
) -> None:
    found = postgres_link.translated(error, SERVER)
    assert type(found) is kind
    assert found.message.startswith(("postgresql://olive:***@db.example/drover", "no space left at postgresql://olive"))
    assert message in found.message
    assert "hunter2" not in found.message
    assert "\n" not in found.message
    assert hint is None or hint in str(found.hint)


@pytest.mark.parametrize(
    ("error", "kind", "message", "hint"),
    [
        (of_sqlite(sqlite3.SQLITE_FULL), DiskFull, "no space left", "goes on by itself"),
        (OSError(errno.ENOSPC, "full"), DiskFull, "no space left", "goes on by itself"),
        (of_sqlite(sqlite3.SQLITE_CORRUPT), StoreError, "is damaged or not a database: said SQLite", "doctor"),
        (of_sqlite(sqlite3.SQLITE_NOTADB), StoreError, "is damaged or not a database: said SQLite", "doctor"),
        (of_sqlite(sqlite3.SQLITE_BUSY), StoreUnavailable, "is locked by another process", "try again"),
        (of_sqlite(sqlite3.SQLITE_BUSY_SNAPSHOT), StoreUnavailable, "is locked by another process", "try again"),
        (of_sqlite(sqlite3.SQLITE_LOCKED), StoreUnavailable, "is locked by another process", "try again"),
        (of_sqlite(sqlite3.SQLITE_IOERR), StoreUnavailable, ": said SQLite", "check the disk"),
        (of_sqlite(sqlite3.SQLITE_IOERR_FSYNC), StoreUnavailable, ": said SQLite", "check the disk"),
        (of_sqlite(sqlite3.SQLITE_NOMEM), StoreUnavailable, ": said SQLite", "check the disk"),
        (of_sqlite(sqlite3.SQLITE_CANTOPEN), StoreUnavailable, ": said SQLite", "permissions"),
        (of_sqlite(sqlite3.SQLITE_READONLY), StoreUnavailable, ": said SQLite", "permissions"),
        (of_sqlite(sqlite3.SQLITE_CONSTRAINT), StoreError, ": said SQLite", None),
        (OSError(errno.EACCES, "denied"), StoreError, "denied", None),
    ],
    ids=lambda value: str(getattr(value, "sqlite_errorcode", value)) if isinstance(value, Exception) else None,
)
def test_an_error_of_sqlite_says_whether_to_wait_and_what_to_do(
    error: Exception, kind: type[DroverError], message: str, hint: str | None
) -> None:
    found = sqlite_file.translated(error, FILE)
    assert type(found) is kind
    assert str(FILE) in found.message
    assert message in found.message
    assert hint is None or hint in str(found.hint)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN])
def test_where_nothing_more_fits_any_error_of_a_file_is_a_full_disk(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "drover.db"
    assert type(sqlite_file.translated(of_sqlite(code), file)) is StoreUnavailable
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    assert type(sqlite_file.translated(of_sqlite(code), file)) is DiskFull
    assert type(sqlite_file.translated(of_sqlite(sqlite3.SQLITE_CORRUPT), file)) is StoreError


def test_what_is_said_already_is_not_said_otherwise() -> None:
    said = StoreError("the schema is newer", hint="take a newer drover")
    assert postgres_link.translated(said, SERVER) is said
    assert sqlite_file.translated(said, FILE) is said


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (of_postgres(asyncpg.AdminShutdownError), True),
        (of_postgres(asyncpg.ConnectionDoesNotExistError), True),
        (of_postgres(asyncpg.IdleInTransactionSessionTimeoutError), True),
        (of_postgres(asyncpg.QueryCanceledError), False),
        (of_postgres(asyncpg.UniqueViolationError), False),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (asyncpg.InterfaceError("closed"), True),
        (asyncpg.InternalClientError("crossed"), True),
        (_WrongValue("too long"), False),
        (StoreError("anything"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_a_connection_is_given_up_when_it_broke_and_not_when_the_server_said_no(error: Exception, lost: bool) -> None:
    assert is_lost(error) is lost

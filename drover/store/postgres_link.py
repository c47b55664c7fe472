"""A connection to a Postgres server: how it is made, what is asked of the server, what its errors mean."""

from __future__ import annotations

import hashlib
import secrets
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol, cast

import anyio
import asyncpg

from drover.domain.errors import DiskFull, DroverError, StoreError, StoreUnavailable
from drover.settings.urls import redact
from drover.store.database import Row, Value

OLDEST = 130_000  # server_version_num of the oldest server that is supported
NAME_LIMIT = 63  # bytes of an identifier; Postgres cuts longer ones without a word

# asyncpg's own errors, and what the network says by itself. An InternalClientError is what asyncpg says when the
# server's farewell and a new query cross on the wire.
DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
# The transaction did not happen and may simply be tried again.
COLLISIONS = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.InvalidCachedStatementError)
_REFUSED = (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)
_FORBIDDEN = (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidSchemaNameError)
_POOLED = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
_STANDBY = (asyncpg.ReadOnlySQLTransactionError, asyncpg.CannotConnectNowError)
_PASSING = ("08", "25", "40", "53", "55", "57")  # of SQLSTATE: connection, transaction, rollback, space, locks, stop
_GONE = ("08", "57", "25P03")  # the server has ended the session, or the network has
POOLER_HINT = "give the server's own address, or a pooler's that keeps one session a connection"


class Connection(Protocol):
    """What is used of asyncpg's connections, which have no types of their own."""

    async def fetch(self, query: str, *values: Value) -> list[Row]: ...
    async def fetchrow(self, query: str, *values: Value) -> Row | None: ...
    async def fetchval(self, query: str, *values: Value) -> Value: ...
    async def execute(self, query: str, *values: Value) -> str: ...
    async def copy_records_to_table(
        self, table_name: str, *, records: Iterable[Sequence[Value]], columns: Sequence[str]
    ) -> str: ...
    async def add_listener(self, channel: str, heard: Callable[..., None]) -> None: ...
    def add_termination_listener(self, ended: Callable[..., None]) -> None: ...
    def get_server_pid(self) -> int: ...
    def is_closed(self) -> bool: ...
    def terminate(self) -> None: ...
    async def close(self, *, timeout: float) -> None: ...  # noqa: ASYNC109 - asyncpg's own way to bound it


class Limits(NamedTuple):
    """How long anything may take before it counts as failed, in the units of the names."""

    connect_s: float = 10
    command_s: float = 30
    statement_ms: int = 25_000
    lock_ms: int = 10_000
    idle_in_transaction_ms: int = 30_000
    ping_s: float = 15  # how soon a listener notices that its server has gone without a word


LIMITS = Limits()


class Address(NamedTuple):
    """A server, and the schema of one project in it."""

    url: str
    schema: str
    limits: Limits = LIMITS

    def __str__(self) -> str:
        return redact(self.url).split("?", 1)[0]

    @property
    def quoted(self) -> str:
        return quote(self.schema)


def schema_of(project_id: str) -> str:
    """The schema of a project; one that is too long for a name keeps its beginning and a digest of the whole."""
    name = f"drover_{project_id}"
    if len(name.encode()) <= NAME_LIMIT:
        return name
    digest = hashlib.sha256(project_id.encode()).hexdigest()[:12]
    return f"{name.encode()[:50].decode(errors='ignore')}_{digest}"


def quote(name: str) -> str:
    """An identifier as SQL spells it."""
    return '"' + name.replace('"', '""') + '"'


async def connect(address: Address) -> Connection:
    """A connection that sees the project's schema alone; bounded, and never left half made when cancelled."""
    limits = address.limits
    settings = {
        "application_name": "drover",
        "search_path": address.quoted,
        "synchronous_commit": "on",
        "default_transaction_isolation": "read committed",
        "jit": "off",  # compiling takes longer than any query of ours runs
        "statement_timeout": str(limits.statement_ms),
        "lock_timeout": str(limits.lock_ms),
        "idle_in_transaction_session_timeout": str(limits.idle_in_transaction_ms),
    }
    try:
        # asyncpg leaks a connection whose connect is cancelled in the middle.
        with anyio.CancelScope(shield=True):
            connection = await asyncpg.connect(
                address.url,
                timeout=limits.connect_s,
                command_timeout=limits.command_s,
                statement_cache_size=256,
                server_settings=settings,
            )
            _keep_alive(connection)
    except (*DRIVER_ERRORS, ValueError) as error:
        raise translated(error, address) from error
    return cast(Connection, connection)


def _keep_alive(connection: object) -> None:
    """Let the kernel notice a peer that is gone: asyncpg sets none of this, and would wait for ever."""
    found = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE"  # macOS calls it otherwise
    for name, value in ((idle, 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000)):
        with suppress(AttributeError, OSError):  # not every system has all of them
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Met(NamedTuple):
    """A server as a connection met it."""

    pid: int  # of the process that serves the connection
    now: int  # of its clock, unix ms
    system: Value  # which cluster of databases it is; the same on its standbys; None where nobody may ask


async def verify(connection: Connection, address: Address) -> Met:
    """Refuse a server on which an acknowledged commit could be lost, or that keeps no session of ours."""
    said = await connection.fetchrow(
        "SELECT CAST(current_setting('server_version_num') AS integer) AS version,"
        " current_setting('synchronous_commit') AS synchronous_commit, current_setting('fsync') AS fsync,"
        " pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS standby,"
        " CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint) AS now"
    )
    assert said is not None  # noqa: S101 - a SELECT without FROM has one row
    if int(said["version"] or 0) < OLDEST:
        raise StoreError(f"{address}: its version {said['version']} is too old", hint="use PostgreSQL 13 or newer")
    if said["standby"]:
        raise StoreUnavailable(f"{address} is a standby or read-only", hint="give the address of the primary")
    for setting in ("fsync", "synchronous_commit"):
        if said[setting] != "on":
            raise StoreError(
                f"{address} has {setting} = {said[setting]}, so commits could be lost", hint=f"set {setting} = on there"
            )
    # A server names its own process in the handshake, a pooler names nobody's.
    pid = int(await connection.fetchval("SELECT pg_backend_pid()") or 0)
    if pid != connection.get_server_pid():
        await _refuse_shared_sessions(connection, address)
    try:
        system = await connection.fetchval("SELECT system_identifier FROM pg_control_system()")
    except asyncpg.PostgresError:
        system = None
    return Met(pid, int(said["now"] or 0), system)


async def _refuse_shared_sessions(connection: Connection, address: Address) -> None:
    secret = secrets.token_hex(8)
    await connection.execute("SELECT set_config('drover.session', $1, false)", secret)
    other = await connect(address)
    try:
        seen = await other.fetchval("SELECT current_setting('drover.session', true)")
        kept = await connection.fetchval("SELECT current_setting('drover.session', true)")
    finally:
        other.terminate()
    if seen == secret or kept != secret:
        raise pooled(address)


def pooled(address: Address) -> StoreError:
    """What is wrong with a pooler that gives a connection another session for every transaction."""
    return StoreError(f"{address} is a pooler that gives every transaction another session", hint=POOLER_HINT)


def is_lost(error: BaseException) -> bool:
    """Whether the connection broke, rather than the server refusing something."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate or "").startswith(_GONE) and not isinstance(error, asyncpg.QueryCanceledError)
    return isinstance(error, OSError | TimeoutError) or _is_broken(error)


def _is_broken(error: BaseException) -> bool:
    # Of asyncpg's InterfaceErrors those that say something about a value are ValueErrors too.
    broken = isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError)
    return broken and not isinstance(error, ValueError)


def translated(error: BaseException, address: Address) -> DroverError:
    """The error as the rest of drover knows it. Never shows a secret of the URL."""
    said = str(error).strip().split("\n", 1)[0] or type(error).__name__
    if isinstance(error, DroverError):
        return error
    if isinstance(error, _REFUSED):
        return StoreError(f"{address} refused to let us in: {said}", hint="check the user and password of the URL")
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return StoreError(f"{address}: {said}", hint="make the database first: createdb NAME")
    if isinstance(error, _FORBIDDEN):
        grant = f"let an administrator run: CREATE SCHEMA {address.quoted} AUTHORIZATION the_user"
        return StoreError(f"{address}: {said}", hint=grant)
    if isinstance(error, _POOLED) or "unsupported startup parameter" in said:
        return StoreError(f"{address}: {said}", hint=POOLER_HINT)
    if isinstance(error, _STANDBY):
        return StoreUnavailable(f"{address} takes no writes now: {said}", hint="wait, or give the primary's address")
    if isinstance(error, asyncpg.DiskFullError):
        return DiskFull(
            f"no space left at {address}", hint="make room there, try again; a run at work goes on by itself"
        )
    if isinstance(error, asyncpg.PostgresError):
        passing = str(error.sqlstate or "").startswith(_PASSING)
        return (StoreUnavailable if passing else StoreError)(f"{address}: {said}")
    if isinstance(error, TimeoutError):
        return StoreUnavailable(f"{address} did not answer in time", hint="check the network and the server")
    if isinstance(error, OSError) or _is_broken(error):
        return StoreUnavailable(f"{address} cannot be reached: {said}", hint="check the host, the port and the network")
    return StoreError(f"{address}: {said}")

"""Postgres behind the seam: whole transactions on connections of our own, one schema a project.

A verb is a function of its transaction alone, so one that met a deadlock or a dead connection before its
COMMIT is simply run again. After COMMIT was sent and not answered nothing is known, and that is what the
caller hears. Connections are cheap beside what a doubtful one costs: any that saw an error is terminated.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar, cast

import anyio
import asyncpg
from anyio.abc import TaskGroup

from drover.domain.clock import Clock, SystemClock
from drover.domain.errors import DroverError, OutcomeUnknown, StoreError, StoreUnavailable
from drover.domain.ids import new_token
from drover.domain.quantities import format_duration
from drover.store.database import Bell, Row, Value, Verb, clean
from drover.store.migrate import known_newest, refuse_newer
from drover.store.postgres_calls import CALL, PLACE, make_finish
from drover.store.postgres_link import (
    COLLISIONS,
    DRIVER_ERRORS,
    LIMITS,
    Address,
    Connection,
    Limits,
    connect,
    is_lost,
    pooled,
    translated,
    verify,
)
from drover.store.postgres_schema import ensure_schema
from drover.store.postgres_tables import PostgresTables
from drover.store.queries import load, numbered

T = TypeVar("T")
log = logging.getLogger(__name__)

POOL = 8
TRIES = 5
CLOSING_S = 10.0
CLOCK_TOLERANCE_MS = 120_000
BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)  # between tries to reach a server that is away

_CLOCK = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint) AS now, pg_backend_pid() AS pid"
BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
BEGIN_WRITING = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
# Whoever writes says below which number it cannot add an event any more: see first_open_event.
# And that nobody has migrated the schema meanwhile, to one that this program does not know.
_NEWEST = "(SELECT max(number) FROM drover_migrations) AS schema"
_CLOCK_AND_PLACE = f"{_CLOCK}, {_NEWEST}, {PLACE}"


class PostgresTransaction:
    """Runs named queries on one connection between its BEGIN and its COMMIT."""

    def __init__(self, connection: Connection, lease_now: int, schema: int) -> None:
        self._connection = connection
        self.lease_now = lease_now
        self.schema = schema  # the number of its last migration, when the transaction writes
        self.rang = False

    async def all(self, query: str, **values: Value) -> list[Row]:
        sql, names = _queries()[query]
        return [dict(row) for row in await self._connection.fetch(sql, *[clean(values[name]) for name in names])]

    async def one(self, query: str, **values: Value) -> Row | None:
        sql, names = _queries()[query]
        row = await self._connection.fetchrow(sql, *[clean(values[name]) for name in names])
        return None if row is None else dict(row)

    async def run(self, query: str, **values: Value) -> int:
        sql, names = _queries()[query]
        status = await self._connection.execute(sql, *[clean(values[name]) for name in names])
        return int(status.rsplit(" ", 1)[1])

    def tables(self) -> PostgresTables:
        return PostgresTables(self._connection)

    def ring(self) -> None:
        self.rang = True


@cache
def _queries() -> dict[str, tuple[str, tuple[str, ...]]]:
    return {name: numbered(sql) for name, sql in (load("postgres") | {"finish_and_take": CALL}).items()}


@dataclass(slots=True, eq=False)
class _Job:
    verb: Verb[Any]
    writes: bool
    alone: bool = False  # one statement, which is its own transaction
    done: anyio.Event = field(default_factory=anyio.Event)
    value: object = None
    error: BaseException | None = None


@dataclass(slots=True, eq=False)
class _Session:
    """A connection and the server process that it talked to first."""

    connection: Connection
    pid: int


class _Committing(Exception):
    """COMMIT was sent, and its answer did not come."""


class ServersClock:
    """The server's clock as this machine can tell it: its own, set right each time that the server tells the time.

    So what one host says shall be tried again in a minute is tried again in a minute by all of them.
    """

    def __init__(self, machine: Clock) -> None:
        self.machine = machine
        self.ahead_ms = 0  # how far this machine is ahead

    def now(self) -> int:
        return self.machine.now() - self.ahead_ms

    def boottime(self) -> int:
        return self.machine.boottime()

    async def sleep(self, seconds: float) -> None:
        await self.machine.sleep(seconds)

    def told(self, server: int, *, asked_at: int) -> None:
        """The server's time, of a moment between ``asked_at`` and now; a slow answer alone moves nothing."""
        self.ahead_ms = min(max(self.ahead_ms, asked_at - server), self.machine.now() - server)


class PostgresDatabase:
    """One project's schema on a server. Made by :func:`open_postgres`."""

    dialect = "postgres"

    def __init__(self, address: Address, clock: Clock | None) -> None:
        self.address = address
        self.bell = Bell()
        self.news = Bell()
        self.lease_clock: Callable[[], int] | None = None  # tests put theirs in the place of the server's
        self._servers_clock = ServersClock(clock or SystemClock())
        self.clock: Clock = clock or self._servers_clock
        self._token = new_token()  # tells our own notifications from those of others
        self._idle: list[_Session] = []
        self._busy: set[_Session] = set()
        self._slots = anyio.Semaphore(POOL, fast_acquire=True)
        self._jobs: set[_Job] = set()
        self._all_done = anyio.Event()
        self._group: TaskGroup | None = None
        self._system: Value = None
        self.calls = True  # whether every session has the functions of postgres_calls
        self._closed = False
        self._ended = False
        self._failures = 0
        self._not_before = 0.0
        self._trouble = ""
        self.commits = 0  # how many writing transactions were kept; for the benchmarks

    # ------------------------------------------------------------ the two verbs of the seam

    async def write(self, verb: Verb[T]) -> T:
        return cast(T, await self._ask(_Job(verb, writes=True)))

    async def call(self, verb: Verb[T]) -> T:
        """As :meth:`write`, for a verb that is a single statement: sent by itself, it is its own transaction."""
        return cast(T, await self._ask(_Job(verb, writes=True, alone=True)))

    async def read(self, verb: Verb[T]) -> T:
        return cast(T, await self._ask(_Job(verb, writes=False)))

    async def _ask(self, job: _Job) -> object:
        if self._group is None or self._closed:
            raise self._gone()
        # In a task of its own: a caller that is cancelled stops waiting and leaves nothing half done.
        self._jobs.add(job)
        self._group.start_soon(self._answer, job, name="store transaction")
        await job.done.wait()
        if job.error is not None:
            raise job.error
        return job.value

    async def _answer(self, job: _Job) -> None:
        try:
            with anyio.CancelScope(shield=True):
                async with self._slots:
                    job.value = await self._try(job)
        except Exception as error:  # noqa: BLE001 - whatever a verb raises is its caller's
            job.error = error
        except BaseException:
            job.error = self._in_doubt("cancelled") if job.writes else self._gone()
            raise
        finally:
            job.done.set()
            self._jobs.discard(job)
            if not self._jobs:
                self._all_done.set()

    def _gone(self) -> StoreUnavailable:
        return StoreUnavailable(f"{self.address} is closed")

    def _in_doubt(self, why: object) -> OutcomeUnknown:
        return OutcomeUnknown(f"{self.address}: whether a transaction was kept is not known: {why}")

    # ------------------------------------------------------------ one transaction

    async def _try(self, job: _Job) -> object:
        """Run the job until it is kept or refused; again when it collided, or its connection had died meanwhile."""
        for left in reversed(range(TRIES)):
            session = await self._take()
            try:
                return await self._run(session, job)
            except _Committing as doubt:
                raise self._in_doubt(doubt) from doubt
            except DRIVER_ERRORS as error:
                if is_lost(error):
                    self._drop_idle()  # they led to the same server
                if not left or not (isinstance(error, COLLISIONS) or _may_be_stale(error)):
                    raise translated(error, self.address) from error
        raise AssertionError("the last try returns or raises")

    async def _run(self, session: _Session, job: _Job) -> object:
        """One try. The connection is given back only by a transaction that ended as it should."""
        if job.alone:
            return await self._run_alone(session, job)
        connection, sound = session.connection, False
        self._busy.add(session)
        try:
            await connection.execute(BEGIN_WRITING if job.writes else BEGIN_READING)
            tx = await self._begun(session, job)
            try:
                refuse_newer(tx.schema)
                value = await job.verb(tx)
            except DRIVER_ERRORS:
                raise
            except Exception:
                await connection.execute("ROLLBACK")
                sound = True
                raise
            await self._commit(connection, job, tx)
            sound = True
        finally:
            self._busy.discard(session)
            if sound:
                self._idle.append(session)
            else:
                connection.terminate()
        if job.writes:
            self._kept(tx)
        return value

    async def _run_alone(self, session: _Session, job: _Job) -> object:
        sound = False
        self._busy.add(session)
        try:
            tx = PostgresTransaction(session.connection, self.lease_clock() if self.lease_clock else 0, 0)
            try:
                value = await job.verb(tx)
                sound = True
            except asyncpg.PostgresError as error:
                if is_lost(error):
                    raise _Committing(str(error)) from error
                raise  # the server said no, so nothing was kept
            except DRIVER_ERRORS as error:
                raise _Committing(str(error) or type(error).__name__) from error
            except Exception:
                sound = True
                raise
        finally:
            self._busy.discard(session)
            if sound:
                self._idle.append(session)
            else:
                session.connection.terminate()
        self._kept(tx)
        return value

    async def _begun(self, session: _Session, job: _Job) -> PostgresTransaction:
        asked_at = self._servers_clock.machine.now()
        row = await session.connection.fetchrow(_CLOCK_AND_PLACE if job.writes else _CLOCK)
        assert row is not None  # noqa: S101 - a sequence has one row
        self._servers_clock.told(int(row["now"] or 0), asked_at=asked_at)
        if row["pid"] != session.pid:
            raise pooled(self.address)
        now = self.lease_clock() if self.lease_clock else int(row["now"] or 0)
        return PostgresTransaction(session.connection, now, int(row["schema"] or 0) if job.writes else 0)

    async def _commit(self, connection: Connection, job: _Job, tx: PostgresTransaction) -> None:
        """:class:`_Committing` when nobody knows whether a writing transaction was kept."""
        notify = f"NOTIFY {self.address.quoted}, '{self._token}'; " if tx.rang else ""
        try:
            status = await connection.execute(f"{notify}COMMIT")
        except DRIVER_ERRORS as error:
            if job.writes and not isinstance(error, COLLISIONS):
                raise _Committing(str(error) or type(error).__name__) from error
            raise
        if status != "COMMIT":
            raise StoreError(f"{self.address}: the transaction ended in {status}")

    def _kept(self, tx: PostgresTransaction) -> None:
        self.commits += 1
        self.news.ring()
        if tx.rang:
            self.bell.ring()

    # ------------------------------------------------------------ connections

    async def _take(self) -> _Session:
        if self._ended:
            raise self._gone()
        while self._idle:
            session = self._idle.pop()
            if not session.connection.is_closed():
                return session
        if anyio.current_time() < self._not_before:
            raise StoreUnavailable(self._trouble)
        try:
            session = await self._meet()
        except DroverError as found:
            self._not_before = anyio.current_time() + BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
            self._failures += 1
            self._trouble = found.message
            raise
        if self._failures:
            self._failures = 0
            self._ring()  # the server is back: whoever waits may look again
        return session

    async def _meet(self, first: Callable[[Connection], Awaitable[None]] | None = None) -> _Session:
        """A new session with the server that was met before; ``first`` is what is done with it before all else."""
        connection = await connect(self.address)
        try:
            asked_at = self._servers_clock.machine.now()
            met = await verify(connection, self.address)
            self._servers_clock.told(met.now, asked_at=asked_at)
            if met.system != self._system and self._group is not None:
                # What was claimed there may not be known here, and fences might be given a second time.
                raise StoreError(f"{self.address} is another server than before", hint="start drover anew")
            if first is not None:
                await first(connection)
            await self._make_functions(connection)
        except BaseException as error:
            connection.terminate()
            if isinstance(error, DRIVER_ERRORS):
                raise translated(error, self.address) from error
            raise
        self._system = met.system
        return _Session(connection, met.pid)

    async def _make_functions(self, connection: Connection) -> None:
        try:
            await connection.execute(make_finish(self.address.schema, self._token, known_newest()))
        except (asyncpg.InsufficientPrivilegeError, asyncpg.DiskFullError):  # where none can be made it goes without
            self.calls = False

    def _drop_idle(self) -> None:
        for session in self._idle:
            session.connection.terminate()
        self._idle.clear()

    async def open(self, group: TaskGroup) -> None:
        """Look at the server, bring the schema up to this program's; from here on verbs can run, in ``group``."""
        session = await self._meet(lambda new: ensure_schema(new, self.address, self.clock.now()))
        self._warn_of_clock()
        self._idle.append(session)
        self._group = group

    def _warn_of_clock(self) -> None:
        ahead_ms = self._servers_clock.ahead_ms
        if abs(ahead_ms) > CLOCK_TOLERANCE_MS:
            log.warning(
                "the clock of this machine is %s %s the database's, by which drover goes",
                format_duration(abs(ahead_ms) // 1000 * 1000),
                "ahead of" if ahead_ms > 0 else "behind",
            )

    async def close(self) -> None:
        """Let transactions under way come to their end, then let every connection go."""
        self._closed = True
        with anyio.move_on_after(CLOSING_S, shield=True):
            await self._finished()
        self._ended = True
        for session in self._busy:
            session.connection.terminate()
        with anyio.CancelScope(shield=True):
            await self._finished()
            while self._idle:
                await _farewell(self._idle.pop())

    async def _finished(self) -> None:
        while self._jobs:
            self._all_done = anyio.Event()
            await self._all_done.wait()

    # ------------------------------------------------------------ other processes

    async def listen(self) -> None:
        """Ring the bells when another process has committed; for ever, on a connection of its own.

        A notification is a hint: one sent while the connection was down is lost, so the bells ring
        after each reconnect too, and nobody waits for them alone.
        """
        tries = 0
        while True:
            try:
                connection = await connect(self.address)
            except DroverError as error:
                log.info("not listening: %s", error.message)
                await anyio.sleep(BACKOFF_S[min(tries, len(BACKOFF_S) - 1)])
                tries += 1
                continue
            tries = 0
            try:
                await self._hear(connection)
            except DRIVER_ERRORS as error:
                log.info("listening anew: %s", translated(error, self.address).message)
            finally:
                connection.terminate()

    async def _hear(self, connection: Connection) -> None:
        lost = anyio.Event()
        connection.add_termination_listener(lambda *_: lost.set())
        await connection.add_listener(self.address.schema, self._heard)
        self._ring()
        while not lost.is_set():
            with anyio.move_on_after(self.address.limits.ping_s):
                await lost.wait()
            if not lost.is_set():
                await connection.execute("SELECT 1")  # a socket whose peer is gone without a word looks alive

    def _heard(self, connection: object, pid: int, channel: str, payload: str) -> None:
        if payload != self._token:
            self._ring()

    def _ring(self) -> None:
        self.news.ring()
        self.bell.ring()


def _may_be_stale(error: BaseException) -> bool:
    """Whether a fresh connection may fare better. A server that does not answer in time will not."""
    return is_lost(error) and not isinstance(error, TimeoutError)


async def _farewell(session: _Session) -> None:
    try:
        await session.connection.close(timeout=2)
    except DRIVER_ERRORS:
        session.connection.terminate()


@asynccontextmanager
async def open_postgres(
    url: str, schema: str, clock: Clock | None = None, *, listen: bool = False, limits: Limits = LIMITS
) -> AsyncGenerator[PostgresDatabase]:
    """The project whose schema that is, made and migrated. ``listen``: ring the bells for other processes' commits.

    Without a ``clock`` it is the server's that times are told by.

    Raises :class:`StoreUnavailable` when the server cannot be reached now, :class:`StoreError` when it
    refuses or does not keep what it acknowledges, :class:`SchemaError` for a schema of a newer drover.
    """
    database = PostgresDatabase(Address(url, schema, limits), clock)
    failure: BaseException | None = None
    async with anyio.create_task_group() as group:
        try:
            await database.open(group)
            if listen:
                group.start_soon(database.listen, name="store listener")
            yield database
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - raised again below: the group would wrap it in another
            failure = error
        finally:
            await database.close()
            group.cancel_scope.cancel()
    if failure is not None:
        raise failure

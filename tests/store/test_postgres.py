"""Postgres: servers that must not be trusted, wires that are cut, sessions that end, and others at work beside us."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import asyncpg
import pytest

from drover.domain.clock import SystemClock
from drover.domain.errors import DroverError, LeaseLost, OutcomeUnknown, SettingsError, StoreError, StoreUnavailable
from drover.domain.models import Claim, NewTask, Task, Worker
from drover.domain.states import State, Status
from drover.domain.verdicts import Completed, Outcome, Retry
from drover.store import Store, open_store
from drover.store import postgres as postgres_module
from drover.store.adding import PutOff
from drover.store.database import Transaction
from drover.store.events import tell
from drover.store.postgres import PostgresDatabase, ServersClock, open_postgres
from drover.store.postgres_link import Limits, schema_of
from drover.testing import FakeClock
from tests import postgres_server
from tests.postgres_server import Server
from tests.proof.plugin import Tally
from tests.store.conftest import LEASE_MS, PASSWORD, PROJECT, Place, say
from tests.store.proxies import Cut, Pooler, Wire, wire
from tests.store.scenes import add, hire, hire_many, landing_of, start, take

pytestmark = pytest.mark.anyio
WAITING_FOR_ME = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
WAITING_FOR_A_LOCK = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)
QUICK = Limits(connect_s=1, command_s=0.5, statement_ms=400, lock_ms=300, idle_in_transaction_ms=5_000, ping_s=0.1)
PATIENT = QUICK._replace(connect_s=10, command_s=2, statement_ms=1_800, lock_ms=1_500)  # for a busy machine


@pytest.fixture
def place(on_postgres: Place) -> Place:
    """These are about Postgres alone."""
    return on_postgres


@asynccontextmanager
async def at(url: str, clock: FakeClock, *, limits: Limits = QUICK, listen: bool = False) -> AsyncIterator[Store]:
    """A store whose patience is short."""
    async with open_postgres(url, schema_of(PROJECT), clock, limits=limits, listen=listen) as database:
        yield Store(database, clock, LEASE_MS)


def through(place: Place, wire: Wire) -> str:
    assert place.server is not None
    return place.server.url(place.name, port=wire.port)


@asynccontextmanager
async def link(place: Place) -> AsyncIterator[asyncpg.Connection]:
    """A connection of somebody else's to the same schema."""
    connection = await asyncpg.connect(place.url, server_settings={"search_path": f"drover_{PROJECT}"})
    try:
        yield connection
    finally:
        await connection.close()


async def end_sessions(place: Place) -> None:
    async with link(place) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


# ------------------------------------------------------------ who is let in, and by whom


async def refused(url: str, error: type[DroverError], match: str) -> DroverError:
    with pytest.raises(error, match=match) as caught:
        async with open_store(url, project_id=PROJECT):
            pass
    return caught.value


@pytest.mark.suite("T35")
async def test_a_wrong_password_is_said_without_showing_it(postgres: Server) -> None:
    url = postgres.url(user=f"secured:{quote('wrong secret')}")
    error = await refused(url, StoreError, "refused to let us in: password authentication failed")
    assert "secret" not in str(error) and "secured:***@127.0.0.1" in str(error)
    assert error.hint == "check the user and password of the URL"


async def test_the_right_password_lets_in(postgres: Server) -> None:
    url = postgres.url(user=f"secured:{quote(PASSWORD)}")
    error = await refused(url, StoreError, "permission denied for database")
    assert error.hint is not None and 'CREATE SCHEMA "drover_test" AUTHORIZATION' in error.hint


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (("127.0.0.1", "nowhere.invalid"), StoreUnavailable, "cannot be reached"),
        (("/postgres?", "/no_such_database?"), StoreError, 'database "no_such_database" does not exist'),
        (("postgres@", "stranger@"), StoreError, 'role "stranger" does not exist'),
    ],
    ids=["host", "database", "user"],
)
async def test_what_the_url_gets_wrong_is_said(
    postgres: Server, change: tuple[str, str], error: type[DroverError], match: str
) -> None:
    found = await refused(postgres.url().replace(*change), error, match)
    assert found.hint


async def test_a_port_where_nobody_listens_is_said() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"postgresql://postgres@127.0.0.1:{bound.getsockname()[1]}/postgres"
        await refused(url, StoreUnavailable, "cannot be reached")


async def test_a_url_that_is_none_is_said() -> None:
    await refused("postgresql://host:port/x?sslmode=maybe", StoreError, "postgresql://host:port/x")
    await refused("mysql://host/x", SettingsError, "'mysql' is not a database drover can use")


async def test_a_store_on_postgres_needs_to_know_whose_it_is(postgres: Server) -> None:
    with pytest.raises(SettingsError, match="needs the project's id"):
        async with open_store(postgres.url()):
            pass


async def test_a_role_that_may_only_use_its_own_schema_is_enough(place: Place) -> None:
    assert place.server is not None
    name = place.name
    url = place.url.replace("postgres@", "guest@")
    async with link(place) as admin:
        await admin.execute("CREATE SCHEMA drover_mine AUTHORIZATION guest")
    async with open_store(url, project_id="mine", watch=True) as store:
        await add(store)
    # And one that may change the rows, but no table of them.
    await say(place.server, 'GRANT USAGE ON SCHEMA "drover_test" TO guest', name)
    tables = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA drover_test TO guest"
    await say(place.server, f"GRANT {tables}", name)
    await say(place.server, "GRANT SELECT ON ALL SEQUENCES IN SCHEMA drover_test TO guest", name)
    async with open_store(url, project_id=PROJECT) as store:
        await add(store, blocked_by=[await add(store)])
        claim = await take(store)
        await store.landings.landed(claim, landing_of(claim))
        assert len(await store.events.page()) > 3
    await say(place.server, "DROP OWNED BY guest", name)


async def test_a_schema_that_may_not_be_used_is_said(place: Place) -> None:
    error = await refused(place.url.replace("postgres@", "guest@"), StoreError, "drover_test|schema")
    assert error.hint is not None and "CREATE SCHEMA" in error.hint


async def test_projects_on_one_server_never_see_each_other(place: Place) -> None:
    async with open_store(place.url, project_id="a-1") as one, open_store(place.url, project_id="b") as two:
        task = await add(one)
        assert await two.tasks.list_tasks() == []
        assert await two.claims.claim(await hire(two)) is None
        assert (await one.tasks.get(task.id)).id == task.id


def test_a_long_project_id_keeps_a_name_of_its_own() -> None:
    one, two = schema_of("p" * 63), schema_of("p" * 62 + "q")
    assert one != two and len(one) <= 63 and one.startswith("drover_ppp")
    assert schema_of("short-1") == "drover_short-1"


# ------------------------------------------------------------ servers that must not be trusted


async def test_servers_that_cannot_keep_a_promise_are_refused(place: Place, clock: FakeClock) -> None:
    """One that does not sync, one that only follows another, and one that takes another's place."""
    made = postgres_server.new_data()
    try:
        server = postgres_server.start(made, fsync="off")
        try:
            error = await refused(server.url(), StoreError, "has fsync = off, so commits could be lost")
            assert error.hint == "set fsync = on there"
        finally:
            postgres_server.stop(server, "fast")
        signal_file = Path(made[1], "standby.signal")
        signal_file.touch()
        server = postgres_server.start(made)
        try:
            error = await refused(server.url(), StoreUnavailable, "is a standby or read-only")
            assert error.hint == "give the address of the primary"
        finally:
            postgres_server.stop(server)
        signal_file.unlink()
        server = postgres_server.start(made)
        try:
            await refuses_another_server(place, clock, server)
        finally:
            postgres_server.stop(server)
    finally:
        postgres_server.remove(made)


async def refuses_another_server(place: Place, clock: FakeClock, other: Server) -> None:
    """Behind one name another server answers from one moment to the next."""
    assert place.server is not None
    await say(other, f"CREATE DATABASE {place.name}")
    async with open_store(other.url(place.name), project_id=PROJECT):
        pass  # it has a schema of that name, too
    async with wire(place.server.port) as cable, at(through(place, cable), clock) as store:
        await add(store)
        cable.target = other.port
        await cable.hang_up()
        with pytest.raises(StoreError, match="is another server than before"):
            await store.tasks.list_tasks()


async def test_a_server_that_is_read_only_is_refused(place: Place) -> None:
    async with link(place) as admin:
        await admin.execute(
            f"ALTER DATABASE {await admin.fetchval('SELECT current_database()')} SET default_transaction_read_only = on"
        )
    await refused(place.url, StoreUnavailable, "is a standby or read-only")


async def test_a_session_commits_durably_whatever_the_server_prefers(place: Place) -> None:
    async with link(place) as admin:
        name = await admin.fetchval("SELECT current_database()")
        await admin.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    async with place.open() as store:
        assert await setting(store, "synchronous_commit") == "on"


async def test_a_pooler_that_shares_sessions_is_refused(place: Place, clock: FakeClock) -> None:
    assert place.server is not None
    name = place.name
    async with Pooler(place.server.port, name, shared=True) as port:
        error = await refused(place.server.url(name, port=port), StoreError, "gives every transaction another session")
        assert error.hint is not None and "one session a connection" in error.hint


async def test_a_pooler_that_keeps_sessions_is_fine(place: Place) -> None:
    assert place.server is not None
    name = place.name
    async with (
        Pooler(place.server.port, name, shared=False) as port,
        open_store(place.server.url(name, port=port), project_id=PROJECT) as store,
    ):
        assert (await add(store)).title == "a task"


async def test_a_session_that_is_exchanged_later_is_noticed(place: Place) -> None:
    async with place.open() as store:
        database = store.database
        assert isinstance(database, PostgresDatabase)
        database._idle[0].pid += 1
        with pytest.raises(StoreError, match="gives every transaction another session"):
            await add(store)
        assert (await add(store)).title == "a task"  # on a session of its own


async def setting(store: Store, name: str) -> Any:
    database = store.database
    assert isinstance(database, PostgresDatabase)
    return await database._idle[0].connection.fetchval("SELECT current_setting($1)", name)


async def test_every_session_is_bounded_and_sees_its_schema_alone(place: Place) -> None:
    async with place.open() as store:
        names = (
            "search_path",
            "statement_timeout",
            "lock_timeout",
            "idle_in_transaction_session_timeout",
            "application_name",
        )
        assert [await setting(store, name) for name in names] == ['"drover_test"', "25s", "10s", "30s", "drover"]
        database = store.database
        assert isinstance(database, PostgresDatabase)
        found = database._idle[0].connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
        assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


# ------------------------------------------------------------ wires that are cut

Step = Callable[[Store, dict[str, Any]], Awaitable[Any]]


async def _add(store: Store, seen: dict[str, Any]) -> None:
    seen["task"] = await store.tasks.add(NewTask(title="t", key="k", labels=("l",)))


async def _claim(store: Store, seen: dict[str, Any]) -> None:
    seen["claim"] = await store.claims.claim(seen["worker"])


async def _land(store: Store, seen: dict[str, Any]) -> None:
    await store.landings.landed(seen["claim"], landing_of(seen["claim"]))


async def _settle(store: Store, seen: dict[str, Any]) -> None:
    await store.claims.settle(seen["claim"], Completed(landed=landing_of(seen["claim"])))


@pytest.mark.suite("T7")
@pytest.mark.parametrize("cut", ["before", "after", "hang"])
async def test_a_commit_whose_answer_is_lost_is_in_doubt_and_settled_by_reading(
    place: Place, clock: FakeClock, cut: Cut, tally: Tally
) -> None:
    """Each COMMIT of a life is cut once; the life goes on after a look, and everything has happened once."""
    for number, step in enumerate((_add, _claim, _land, _settle)):
        await end_to_end(place, clock, cut, number, step)
        tally(points=1)


async def end_to_end(place: Place, clock: FakeClock, cut: Cut, number: int, cut_step: Step) -> None:
    assert place.server is not None
    doubts = 0
    async with (
        wire(place.server.port) as cable,
        place.open() as sure,
        at(through(place, cable), clock, limits=PATIENT) as store,
    ):
        assert isinstance(store.database, PostgresDatabase)
        store.database.lease_clock = clock.boottime
        seen: dict[str, Any] = {"worker": await hire(sure)}
        for step in (_add, _claim, _land, _settle):
            cable.cut_at = (cable.commits + 1, cut) if step is cut_step else None
            try:
                await step(store, seen)
            except OutcomeUnknown:
                doubts += 1
                if cut != "before":
                    with anyio.fail_after(60):  # a busy server may commit after we gave up
                        await cable.answered.wait()
                await settle_doubt(sure, step, seen, happened=cut != "before")
                if cut == "before" or step in (_add, _land):
                    await step(store, seen)  # those that may be asked for twice are
        (task,) = [t for t in await sure.tasks.list_tasks() if t.id == seen["task"].id]
        assert (task.state, task.fence, task.labels) == (State.COMPLETED, 1, ("l",))
        told = [e.type for e in await sure.events.page(task_id=task.id)]
        assert told == ["task.created", "task.claimed", "task.landed", "task.completed"]
        assert doubts == 1
        await sure.tasks.edit(task.id, {"title": f"done {number}"})
        async with link(place) as connection:
            await connection.execute("UPDATE tasks SET key = NULL")


async def settle_doubt(sure: Store, step: Step, seen: dict[str, Any], *, happened: bool) -> None:
    """Look what became of it, as one who was left in doubt has to."""
    tasks = [t for t in await sure.tasks.list_tasks() if t.key == "k"]
    if step is _add:
        assert bool(tasks) is happened
        return
    task = tasks[0]
    if step is _claim:
        assert (task.state is State.RUNNING) is happened
        if happened:
            seen["claim"] = Claim(task=task, fence=task.fence, worker_id=seen["worker"].id, lease_until=0)
    elif step is _land:
        assert (task.landed_at is not None) is happened
    else:
        assert (task.state is State.COMPLETED) is happened


@pytest.mark.suite("T19")
async def test_a_server_that_falls_silent_is_noticed_in_time(place: Place, clock: FakeClock) -> None:
    assert place.server is not None
    async with wire(place.server.port) as cable, at(through(place, cable), clock) as store:
        await add(store)
        cable.freeze()
        began = anyio.current_time()
        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            await store.tasks.list_tasks()
        assert anyio.current_time() - began < QUICK.command_s + 1
        cable.thaw()
        assert len(await store.tasks.list_tasks()) == 1


async def test_a_server_that_is_away_is_said_at_once_and_comes_back_by_itself(place: Place, clock: FakeClock) -> None:
    assert place.server is not None
    async with wire(place.server.port) as cable, at(through(place, cable), clock) as store:
        await add(store)
        await cable.refuse()
        for _ in range(20):
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                await store.tasks.list_tasks()
        met = cable.connections
        await cable.accept()
        rings = store.bell.ticket()
        with anyio.fail_after(60):
            while True:
                try:
                    assert len(await store.tasks.list_tasks()) == 1
                    break
                except StoreUnavailable:
                    await anyio.sleep(0.02)
        assert cable.connections == met + 1
        assert store.bell.rings > rings


async def test_a_server_that_is_away_is_not_asked_again_at_once(
    place: Place, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert place.server is not None
    async with wire(place.server.port) as cable, at(through(place, cable), clock) as store:
        monkeypatch.setattr("drover.store.postgres.BACKOFF_S", (3_600.0,))
        await add(store)
        await cable.refuse()
        for _ in range(20):
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                await store.tasks.list_tasks()
        await cable.accept()
        met = cable.connections
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await store.tasks.list_tasks()
        assert cable.connections == met


async def test_sessions_that_ended_while_nobody_looked_are_replaced(place: Place) -> None:
    async with place.open() as store:
        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(store.tasks.add, NewTask(title="x"))
        await end_sessions(place)
        assert (await add(store)).title == "a task"
        assert len(await store.tasks.list_tasks()) == 7


@pytest.mark.suite("T18")
async def test_a_transaction_whose_session_ends_in_the_middle_is_done_again(place: Place) -> None:
    tries = 0

    async def verb(tx: Transaction) -> int:
        nonlocal tries
        tries += 1
        await tx.run("set_meta", key=f"{tries}", value="v")
        if tries == 1:
            await end_sessions(place)
        await tx.run("set_meta", key="done", value="v")
        return tries

    async with place.open() as store:
        assert await store.database.write(verb) == 2
        assert [await store.workers.meta(k) for k in ("1", "2", "done")] == [None, "v", "v"]


async def test_transactions_that_lock_each_other_out_are_both_done(place: Place) -> None:
    async with place.open() as store:
        a, b = await add(store), await add(store)
        met, tries = [anyio.Event(), anyio.Event()], 0

        async def lock(first: str, second: str, mine: int) -> None:
            async def verb(tx: Transaction) -> None:
                nonlocal tries
                tries += 1
                await tx.one("lock_task", id=first)
                met[mine].set()
                await met[1 - mine].wait()
                await tx.one("lock_task", id=second)

            await store.database.write(verb)

        async with anyio.create_task_group() as group:
            group.start_soon(lock, a.id, b.id, 0)
            group.start_soon(lock, b.id, a.id, 1)
        assert tries in (3, 4)  # on a busy machine the server may end both, one after the other


async def test_a_lock_that_is_held_too_long_is_said_and_nothing_was_done(place: Place, clock: FakeClock) -> None:
    async with at(place.url, clock) as store, link(place) as other:
        task = await add(store)
        async with other.transaction():
            await other.execute("SELECT 1 FROM tasks WHERE id = $1 FOR UPDATE", task.id)
            with pytest.raises(StoreUnavailable, match="lock timeout"):
                await store.tasks.cancel(task.id)
        assert (await store.tasks.get(task.id)).state is State.QUEUED
        assert (await store.tasks.cancel(task.id))[0].state is State.CANCELLED


async def test_a_claim_never_waits_for_a_task_that_others_hold(place: Place, clock: FakeClock) -> None:
    async with at(place.url, clock) as store, link(place) as other:
        first, second = await add(store), await add(store)
        async with other.transaction():
            await other.execute("SELECT 1 FROM tasks WHERE id = $1 FOR UPDATE", first.id)
            claim = await store.claims.claim(await hire(store))
            assert claim is not None and claim.task_id == second.id


async def test_a_store_that_closes_ends_what_does_not_end_by_itself(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "CLOSING_S", 0.2)
    caught: list[DroverError] = []

    async def wait_for_ever(store: Store) -> None:
        async def verb(tx: Transaction) -> None:
            await tx.run("set_meta", key="k", value="v")
            begun.set()
            await other.wait()
            await tx.run("set_meta", key="k2", value="v")

        try:
            await store.database.write(verb)
        except DroverError as error:
            caught.append(error)

    begun, other = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as group, place.open() as store:
        group.start_soon(wait_for_ever, store)
        await begun.wait()
        group.start_soon(_set_later, other)
    assert len(caught) == 1 and isinstance(caught[0], StoreUnavailable)
    async with place.open() as store:
        assert await store.workers.meta("k") is None


async def _set_later(event: anyio.Event) -> None:
    await anyio.sleep(0.5)
    event.set()


class Working:
    """Workers that live every task to its end, whatever the server does meanwhile; in doubt they look."""

    def __init__(self, store: Store, patient: float) -> None:
        self.store, self.patient = store, patient
        self.completed = self.troubles = 0

    async def insist(self, act: Callable[[], Awaitable[Any]]) -> Any:
        """The answer, asking again for as long as the server is away; None when it is not known."""
        while True:
            try:
                return await act()
            except OutcomeUnknown:
                self.troubles += 1
                return None
            except StoreUnavailable:
                self.troubles += 1
                await anyio.sleep(self.patient)

    async def work(self, worker: Worker, goal: int) -> None:
        tasks, claims, landings = self.store.tasks, self.store.claims, self.store.landings
        while self.completed < goal:
            await self.insist(lambda: claims.claim(worker))
            for task in await self.insist(tasks.list_tasks):
                if task.claimed_by != worker.id:
                    continue
                claim = Claim(task=task, fence=task.fence, worker_id=worker.id, lease_until=0)
                landed = landing_of(claim)
                for _ in range(2):  # once more for an answer that was lost: what was kept is not done again
                    await self.insist(lambda claim=claim, landed=landed: landings.landed(claim, landed))
                await self.insist(lambda claim=claim, landed=landed: claims.settle(claim, Completed(landed=landed)))
            self.completed = (await self.insist(tasks.counts))[Status.COMPLETED]


async def live_through_restarts(
    clock: FakeClock, tally: Tally, *, tasks: int, restarts: int, down_s: Sequence[float] = ()
) -> None:
    """``down_s``: how long the server is away, from the first restart on; then no longer than starting it takes."""
    made = postgres_server.new_data()
    server = postgres_server.start(made)
    try:
        async with at(server.url(), clock, limits=PATIENT, listen=True) as store:
            workers = await hire_many(store, 4)
            crew, hit = Working(store, 0.05), 0
            async with anyio.create_task_group() as group:
                for worker in workers:
                    group.start_soon(crew.work, worker, tasks)
                for n in range(restarts):
                    fresh = [NewTask(title=key, key=key) for key in (f"{n}.{k}" for k in range(tasks // restarts))]
                    before = crew.completed
                    while await crew.insist(lambda fresh=fresh: store.tasks.add_many(fresh)) is None:
                        pass  # a key makes one task, however often it is given
                    with anyio.fail_after(60):
                        while crew.completed <= before:
                            await anyio.sleep(0.005)
                    troubles = crew.troubles
                    mode = ("immediate", "fast")[n % 2]
                    await anyio.to_thread.run_sync(postgres_server.stop, server, mode)
                    await anyio.sleep(down_s[n] if n < len(down_s) else 0)
                    await anyio.to_thread.run_sync(lambda: postgres_server.start(made, port=server.port))
                    hit += crew.troubles > troubles
            done = await store.tasks.list_tasks()
            assert [(t.state, t.fence) for t in done] == [(State.COMPLETED, 1)] * tasks
            told = Counter((e.type, e.task_id) for e in await store.events.page(limit=10_000) if e.task_id)
            kinds = ("task.created", "task.claimed", "task.landed", "task.completed")
            assert told == Counter({(kind, t.id): 1 for kind in kinds for t in done})
            assert await store.tasks.miscounted() == []
    finally:
        postgres_server.stop(server)
        postgres_server.remove(made)
    tally(points=restarts, hit=hit)


@pytest.mark.suite("T18")
async def test_nothing_is_lost_or_doubled_while_the_server_is_restarted(clock: FakeClock, tally: Tally) -> None:
    await live_through_restarts(clock, tally, tasks=60, restarts=3)


@pytest.mark.suite("T18")
@pytest.mark.slow
@pytest.mark.timeout(1_200)
async def test_nothing_is_lost_or_doubled_through_many_restarts(clock: FakeClock, tally: Tally) -> None:
    await live_through_restarts(clock, tally, tasks=500, restarts=50, down_s=(30, 20, 10, 5, 2, 1))


# ------------------------------------------------------------ hints of others


@pytest.mark.suite("T20")
async def test_a_listener_looks_around_after_every_reconnect(place: Place, clock: FakeClock) -> None:
    assert place.server is not None
    async with (
        wire(place.server.port) as cable,
        at(through(place, cable), clock, listen=True) as mine,
        place.open() as others,
    ):
        assert await mine.bell.wait(0, 5)
        rings = mine.bell.ticket()
        await cable.refuse()
        await add(others)  # told while nobody listened
        await cable.accept()
        assert await mine.bell.wait(rings, 5)
        rings = mine.bell.ticket()
        await add(others)
        assert await mine.bell.wait(rings, 5)


@pytest.mark.suite("T19")
async def test_a_listener_whose_wire_died_without_a_word_listens_again(place: Place, clock: FakeClock) -> None:
    assert place.server is not None
    async with (
        wire(place.server.port) as cable,
        at(through(place, cable), clock, listen=True) as mine,
        place.open() as others,
    ):
        assert await mine.bell.wait(0, 5)
        cable.freeze()
        met, rings = cable.connections, mine.bell.ticket()
        await add(others)
        with anyio.fail_after(60):
            while cable.connections == met:  # it has noticed, and tries again
                await anyio.sleep(0.02)
        cable.thaw()
        assert await mine.bell.wait(rings, 10)


# ------------------------------------------------------------ others beside us


@pytest.mark.suite("T13")
async def test_the_servers_clock_alone_ends_a_lease(place: Place, tally: Tally) -> None:
    wild = FakeClock()
    schema = schema_of(PROJECT)
    async with (
        open_postgres(place.url, schema, wild) as one,
        open_postgres(place.url, schema, SystemClock()) as two,
    ):
        mine, others = Store(one, wild, 700), Store(two, SystemClock(), 700)
        await add(mine)
        claim = await take(mine)
        for jump in (86_400, 7_200):
            wild.advance(jump)
            assert await mine.claims.holds(claim) and await others.claims.expired() == []
        await mine.claims.renew(claim)
        with anyio.fail_after(60):
            while not await others.claims.expired():
                await anyio.sleep(0.05)
        wild.set_wall(0)
        with pytest.raises(LeaseLost):
            await mine.claims.renew(claim)
    tally(points=3)  # two leaps ahead, and one far back


@pytest.mark.suite("T13")
@pytest.mark.parametrize("hours", [2, -2])
async def test_a_wait_is_as_long_for_every_host_whatever_their_clocks_say(
    place: Place, hours: int, tally: Tally
) -> None:
    """One host, whose clock is off, says when a task is to be tried again; another, whose clock is right, tries it."""
    off, right = FakeClock(), SystemClock()
    off.set_wall(right.now() + hours * 3_600_000)
    async with (
        open_postgres(place.url, schema_of(PROJECT)) as database,
        open_store(place.url, project_id=PROJECT) as others,
    ):
        database._servers_clock.machine = off
        mine = Store(database, database.clock, LEASE_MS)
        task = await add(mine)
        claim = await take(mine)
        assert abs(mine.clock.now() - right.now()) < 30_000, "what a busy machine may take to answer"
        await mine.claims.settle(
            claim, Retry(error_class=Outcome.FAILED, message="no", until=mine.clock.now() + 60_000)
        )
        due_at = (await others.tasks.get(task.id)).due_at
        assert due_at is not None and abs(due_at - right.now() - 60_000) < 30_000
        assert await others.claims.claim(await hire(others)) is None
        off.set_wall(right.now() - hours * 3_600_000)  # it is set the other way
        await mine.tasks.get(task.id)
        assert abs(mine.clock.now() - right.now()) < 30_000
    tally(points=2)


def test_the_servers_clock_is_told_as_well_as_its_answers_allow() -> None:
    machine = FakeClock()
    machine.set_wall(10_000)
    clock = ServersClock(machine)
    clock.told(4_000, asked_at=9_900)
    assert clock.now() in range(4_000, 4_101)
    before = clock.ahead_ms
    machine.set_wall(20_000)
    clock.told(13_000, asked_at=12_000)  # an answer that took eight seconds tells less than the one before
    assert clock.ahead_ms == before
    machine.set_wall(5_000)
    clock.told(20_000, asked_at=5_000)
    assert clock.now() == 20_000


@pytest.mark.suite("T12")
@pytest.mark.parametrize("act", ["renew", "start", "intend"])
async def test_a_lease_that_ends_while_its_holder_waits_is_not_revived(place: Place, act: str) -> None:
    async with (
        open_postgres(place.url, schema_of(PROJECT), SystemClock()) as database,
        link(place) as other,
        anyio.create_task_group() as group,
    ):
        store = Store(database, SystemClock(), 500)
        claim = await take(store, await add(store))
        acts: dict[str, Callable[[], Awaitable[Any]]] = {
            "renew": lambda: store.claims.renew(claim),
            "start": lambda: start(store, claim),
            "intend": lambda: store.landings.intend(claim, target="main", old="o", commit="c", tree="t"),
        }
        results: list[Any] = []

        async def attempt() -> None:
            try:
                results.append(await acts[act]())
            except LeaseLost as lost:
                results.append(lost)

        async with other.transaction():
            await other.execute("SELECT 1 FROM tasks FOR UPDATE")
            group.start_soon(attempt)
            with anyio.fail_after(60):
                while not await store.claims.expired():
                    await anyio.sleep(0.05)
            assert results == []
        with anyio.fail_after(60):
            while not results:
                await anyio.sleep(0.01)
        assert isinstance(results[0], LeaseLost)
        assert not await store.claims.holds(claim)


async def test_an_import_stops_no_landing(place: Place, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tasks are being added in one transaction; only its very end has the graph to itself."""
    written, landed, write = anyio.Event(), anyio.Event(), PutOff.write

    async def late(self: PutOff, tx: Transaction, now: int) -> None:
        written.set()
        await landed.wait()
        await write(self, tx, now)

    adding = 20
    async with at(place.url, clock) as store, place.open() as others:
        blocker = await add(store)
        claim = await take(store, blocker)
        monkeypatch.setattr(PutOff, "write", late)
        new = [NewTask(title="x", blocked_by=(blocker.id,)) for _ in range(adding)]
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(others.tasks.add_many, new)
                await written.wait()
                try:
                    await store.landings.landed(claim, landing_of(claim))
                    assert len(await store.tasks.list_tasks()) == 1
                finally:
                    landed.set()
        assert await store.tasks.miscounted() == []
        assert (await store.tasks.counts())[Status.READY] == adding


CHANGES: dict[str, Callable[[Store, Task, Task], Awaitable[Task]]] = {
    "resolve": lambda store, behind, blocker: store.tasks.resolve(behind.id),
    "unblock": lambda store, behind, blocker: store.tasks.unblock(behind.id, [blocker.id]),
    "block": lambda store, behind, blocker: store.tasks.block(behind.id, [blocker.id]),
}


@pytest.mark.parametrize("change", list(CHANGES))
async def test_a_counter_is_right_when_a_blocker_lands_between_its_count_and_the_commit(
    place: Place, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, ended, go_on = anyio.Event(), anyio.Event(), anyio.Event()

    async def tell_slowly(tx: Transaction, *told: Any, **more: Any) -> None:
        await tell(tx, *told, **more)
        counted.set()
        await go_on.wait()

    async with place.open() as store, place.open() as others, link(place) as looking:
        blocker = await add(store, "blocker")
        behind = await add(store, "behind", blocked_by=[] if change == "block" else [blocker])
        claim = await take(store, blocker)

        async def land() -> None:
            await others.landings.landed(claim, landing_of(claim))
            ended.set()

        monkeypatch.setattr("drover.store.tasks.tell", tell_slowly)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(CHANGES[change], store, behind, blocker)
                await counted.wait()
                group.start_soon(land)
                while not (ended.is_set() or await looking.fetchval(WAITING_FOR_A_LOCK)):
                    await anyio.sleep(0.01)
                go_on.set()
        assert await store.tasks.miscounted() == []
        assert (await store.tasks.get(behind.id)).open_blockers == 0
        assert (await store.tasks.get(blocker.id)).landed_at is not None


async def test_an_intent_waits_for_whoever_takes_the_claim(place: Place, clock: FakeClock) -> None:
    async with place.open() as store, link(place) as other:
        task = await add(store)
        claim = await take(store, task)
        taking = other.transaction()
        await taking.start()
        await other.execute(
            "UPDATE tasks SET state = 'queued', claimed_by = NULL, lease_until = NULL WHERE id = $1", task.id
        )
        results: list[Any] = []

        async def intend() -> None:
            try:
                results.append(await store.landings.intend(claim, target="main", old="o", commit="c", tree="t"))
            except LeaseLost as lost:
                results.append(lost)

        async with anyio.create_task_group() as group:
            group.start_soon(intend)
            with anyio.fail_after(60):
                while not await other.fetchval(WAITING_FOR_ME):
                    await anyio.sleep(0.01)
            assert results == []
            await taking.commit()
        assert isinstance(results[0], LeaseLost)
        assert await store.landings.of_task(task.id) == []


async def test_an_event_is_shown_only_when_no_earlier_one_can_come(place: Place) -> None:
    begun, go_on = anyio.Event(), anyio.Event()

    async def slow(tx: Transaction) -> None:
        await tell(tx, "slow.one", 1)
        begun.set()
        await go_on.wait()

    async with place.open() as one, place.open() as two, anyio.create_task_group() as group:
        await add(one)
        before = await one.events.page()
        group.start_soon(one.database.write, slow)
        await begun.wait()
        task = await add(two)  # committed, and numbered behind one that is not
        assert (await two.tasks.get(task.id)).id == task.id
        assert await two.events.page() == before
        assert await two.events.last_seq() == before[-1].seq
        go_on.set()
        await one.database._finished()  # type: ignore[attr-defined]
        shown = [e.type for e in await two.events.page(after=before[-1].seq)]
        assert shown == ["slow.one", "task.created"]


async def test_an_event_that_was_rolled_back_holds_nobody_up(place: Place) -> None:
    async def fails(tx: Transaction) -> None:
        await tell(tx, "never.happened", 1)
        raise StoreError("no")

    async with place.open() as store:
        with pytest.raises(StoreError):
            await store.database.write(fails)
        await add(store)
        assert [e.type for e in await store.events.page()] == ["task.created"]


def test_the_server_of_the_tests_ends_with_them_even_when_they_are_killed() -> None:
    program = (
        "import json; from tests.postgres_server import shared; print(json.dumps(shared().data), flush=True); input()"
    )
    environ = {name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"}
    session = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert session.stdout is not None and session.stdin is not None
    data = Path(json.loads(session.stdout.readline()))
    assert (data / "postmaster.pid").exists()
    session.kill()
    session.wait()
    session.stdin.close()
    session.stdout.close()
    deadline = time.monotonic() + 10
    while data.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("kept", [True, False])
async def test_a_finish_that_was_not_answered_is_found_or_done_and_nothing_hangs(
    place: Place, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    async with place.open() as store:
        first, second = await add(store, "first"), await add(store, "second")
        third = await add(store, "third", blocked_by=[first])
        worker = await hire(store)
        taken = await store.plain.claim(worker)
        assert taken is not None
        call = store.database.call

        async def lost(verb: Any) -> None:
            if kept:
                await call(verb)
            raise OutcomeUnknown("the wire was cut")

        monkeypatch.setattr(store.database, "call", lost)
        done = await store.plain.finish(taken.claim, '"1"', then=worker)
        monkeypatch.undo()
        assert done.next is not None and done.next.claim.task_id == second.id
        assert (await store.tasks.get(first.id)).result == "1"
        follows = await store.plain.finish(done.next.claim, None, then=worker)
        assert follows.next is not None and follows.next.claim.task_id == third.id
        assert follows.next.results == {first.id: "1"}
        with pytest.raises(LeaseLost):
            await store.plain.finish(taken.claim, None, then=worker)
        types = [event.type for event in await store.events.page(limit=100)]
        assert types.count("task.completed") == 2 and types.count("task.claimed") == 3
        for task in (first, second):
            assert [a.outcome for a in await store.claims.attempts(task.id)] == ["done"]


async def test_who_may_make_no_function_finishes_without_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PostgresDatabase, "calls", False, raising=False)

    async def refused(self: PostgresDatabase, connection: object) -> None:
        self.calls = False

    monkeypatch.setattr(PostgresDatabase, "_make_functions", refused)
    async with place.open() as store:
        first, second = await add(store, "first"), await add(store, "second")
        worker = await hire(store)
        taken = await store.plain.claim(worker)
        assert taken is not None and taken.claim.task_id == first.id
        done = await store.plain.finish(taken.claim, None, then=worker)
        assert done.next is not None and done.next.claim.task_id == second.id

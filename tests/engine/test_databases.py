"""A run on either database, and what becomes of it when the database goes away, or is migrated under it."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import string
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import anyio
import asyncpg
import pytest
from anyio import to_thread

from drover import app
from drover.app import databases
from drover.app.drover import Drover
from drover.domain.errors import DiskFull, SchemaError, StoreUnavailable
from drover.domain.models import RunReport
from drover.domain.states import State
from drover.engine import workers
from drover.engine.workers import Stop
from drover.process import find_marked
from drover.store import postgres
from drover.store.postgres_link import Limits
from tests import postgres_server
from tests.engine.places import Site
from tests.proof.plugin import Tally
from tests.small_disk import small_disk
from tests.store.proxies import Cut, Wire, wire

pytestmark = pytest.mark.anyio
QUICK = Limits(connect_s=2, command_s=1, statement_ms=900, lock_ms=900, idle_in_transaction_ms=5_000, ping_s=0.2)
WORKS = """echo "start $DROVER_TASK_ID" >> {ledger}
{between}
echo $$ > $DROVER_TASK_ID.txt
echo "end $DROVER_TASK_ID" >> {ledger}"""


FILL = "INSERT INTO filler SELECT repeat(md5(random()::text), 200) FROM generate_series(1, 20)"


class Scene:
    """A site whose agents keep a ledger outside, and its backlog somewhere."""

    def __init__(self, site: Site, url: str | None) -> None:
        self.site = site
        self.url = url
        self.ledger = site.top / "ledger"
        self.works()

    def works(self, between: str = ":") -> None:
        self.site.says(WORKS.format(ledger=self.ledger, between=between))

    @property
    def lines(self) -> Counter[str]:
        return Counter(self.ledger.read_text().splitlines()) if self.ledger.exists() else Counter()

    @asynccontextmanager
    async def open(self, url: str | None = None, **flags: object) -> AsyncIterator[Drover]:
        given = {"agents.command.path": str(self.site.agent), **flags}
        async with app.open(url or self.url, repo=self.site.root, agent="command", **given) as drover:
            yield drover

    async def until(self, true: Callable[[], object], seconds: float = 60) -> None:
        with anyio.fail_after(seconds):
            while not true():
                await anyio.sleep(0.02)

    def landed(self) -> Counter[str]:
        form = "--format=%(trailers:key=Drover-Task,valueonly,separator=%x2c)"
        return Counter(self.site.git("log", "--first-parent", form, "main").split())

    def through(self, cable: Wire) -> str:
        """The database's URL by way of a wire that can be cut."""
        return str(self.url).replace(f":{self.port}/", f":{cable.port}/")

    @property
    def port(self) -> int:
        return int(str(self.url).rsplit(":", 1)[1].split("/")[0])

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection of somebody else's to the project's schema."""
        connection = await asyncpg.connect(self.url)
        try:
            schema = await connection.fetchval("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'drover%'")
            await connection.execute(f'SET search_path TO "{schema}"')
            yield connection
        finally:
            await connection.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says nothing is given up soon."""
    monkeypatch.setattr(postgres, "open_postgres", partial(postgres.open_postgres, limits=QUICK))


@pytest.fixture(params=["sqlite", "postgres"])
def scene(request: pytest.FixtureRequest, site: Site) -> Scene:
    return Scene(site, request.getfixturevalue("database_url") if request.param == "postgres" else None)


@pytest.fixture
def on_postgres(site: Site, database_url: str) -> Scene:
    return Scene(site, database_url)


async def judge(scene: Scene, drover: Drover, ids: list[str], *, executions: int | None = 1) -> None:
    """Every task landed once, and the ledgers of rows, commits, events and agents agree."""
    tasks = {task.id: task for task in await drover.tasks()}
    assert {id: tasks[id].state for id in ids} == dict.fromkeys(ids, State.COMPLETED)
    assert scene.landed() == Counter(ids)
    if executions is not None:
        assert scene.lines == Counter({f"{word} {id}": executions for id in ids for word in ("start", "end")})
        assert {tasks[id].executions for id in ids} == {executions}
    told = Counter([(e.task_id, e.type) async for e in drover.events()])
    assert all(told[id, kind] == 1 for id in ids for kind in ("task.created", "task.landed", "task.completed"))
    assert await drover.store.tasks.miscounted() == []
    assert await faults(drover) == []


async def faults(drover: Drover) -> list[str]:
    return [fault.what for fault in await databases.check(drover, lambda what, done, total: None)]


@asynccontextmanager
async def running(drover: Drover, reports: list[RunReport], stop: Stop | None = None) -> AsyncIterator[None]:
    async def run() -> None:
        reports.append(await drover.run(workers=2, stop=stop, on_event=lambda event: None))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        yield


# ------------------------------------------------------------ on either


async def test_a_whole_life(scene: Scene) -> None:
    async with scene.open() as drover:
        a = await drover.add("A")
        b = await drover.add("B", blocked_by=[a])
        report = await drover.run(workers=2)
        assert report.completed == (a.id, b.id) and report.exit_code == 0
        await judge(scene, drover, [a.id, b.id])


async def test_a_conflict_is_resolved_by_another_attempt(scene: Scene) -> None:
    scene.site.says("grep -q '<<<' README.md && echo both > README.md || echo $DROVER_TASK_ID > README.md; sleep 0.3")
    async with scene.open() as drover:
        ids = [(await drover.add(f"{n}")).id for n in range(2)]
        await drover.run(workers=2)
        await judge(scene, drover, ids, executions=None)
        assert scene.site.git("show", "main:README.md") == "both"


async def test_what_a_run_that_was_stopped_began_is_gone_on_with(scene: Scene) -> None:
    scene.works("sleep 60")
    async with scene.open() as drover:
        task = await drover.add("long")
        stop = Stop()
        reports: list[RunReport] = []
        async with running(drover, reports, stop):
            await scene.until(lambda: scene.lines[f"start {task.id}"])
            stop.soft()
        assert reports[0].exit_code == 130
        scene.works()
        await drover.run(workers=1)
        after = await drover.task(task.id)
        assert (after.state, after.interruptions, after.failures) == (State.COMPLETED, 1, 0)
        await judge(scene, drover, [task.id], executions=None)


# ------------------------------------------------------------ a database that goes away


@pytest.mark.suite("T18")
async def test_agents_work_on_while_the_database_is_away_and_nothing_is_done_twice(on_postgres: Scene) -> None:
    """Away from before the agents end until after: they end, are waited with, and land when it is back."""
    scene = on_postgres
    go = scene.site.top / "go"
    scene.works(f"while ! test -e {go}; do sleep 0.05; done")
    async with wire(scene.port) as cable, scene.open(scene.through(cable)) as drover:
        ids = [(await drover.add(f"{n}")).id for n in range(4)]
        reports: list[RunReport] = []
        async with running(drover, reports):
            await scene.until(lambda: len(scene.lines) == 2)
            await cable.refuse()
            go.touch()
            await scene.until(lambda: len(scene.lines) == 4)
            await anyio.sleep(0.5)  # whatever would give up gives up
            await cable.accept()
        assert set(reports[0].completed) == set(ids) and reports[0].exit_code == 0
        await judge(scene, drover, ids)


@pytest.mark.suite("T18", "T19")
@pytest.mark.parametrize("how", ["refused", pytest.param("silent", marks=pytest.mark.slow)])
async def test_an_agent_is_stopped_before_its_lease_ends_and_its_task_goes_on_when_the_database_is_back(
    on_postgres: Scene, quick: None, how: str
) -> None:
    scene = on_postgres
    scene.works("sleep 600")
    async with wire(scene.port) as cable, scene.open(scene.through(cable), claim_timeout="9s") as drover:
        task = await drover.add("long")
        marker = drover.places.marker(task.id)
        reports: list[RunReport] = []
        async with running(drover, reports):
            await scene.until(lambda: scene.lines[f"start {task.id}"])
            if how == "refused":
                await cable.refuse()
            else:
                cable.freeze()
            await scene.until(lambda: not find_marked(marker))
            assert await lease_left_ms(scene) > 0
            scene.works()
            if how == "refused":
                await cable.accept()
            else:
                cable.thaw()
        assert reports[0].completed == (task.id,)
        after = await drover.task(task.id)
        assert (after.failures, after.fence) == (0, 2)
        await judge(scene, drover, [task.id], executions=None)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.suite("T18")
async def test_a_run_lives_through_restarts_of_its_server(site: Site, tally: Tally) -> None:
    """A real server stopped at random times, now at once, now gently, and away for a while; the run never ends."""
    seed, count = int(os.environ.get("DROVER_PROOF_SEED", "7")), int(os.environ.get("DROVER_PROOF_COUNT", "10"))
    rng, made = random.Random(seed), postgres_server.new_data()
    server = postgres_server.start(made)
    scene, done = Scene(site, server.url()), 0
    scene.works("sleep 0.3")
    try:
        async with scene.open(claim_timeout="2m") as drover:
            ids = [(await drover.add(f"{n}")).id for n in range(4 * count)]
            reports: list[RunReport] = []
            async with running(drover, reports):
                while done < count and not reports:
                    await anyio.sleep(rng.uniform(0.2, 3))
                    await to_thread.run_sync(postgres_server.stop, server, rng.choice(("immediate", "fast")))
                    await anyio.sleep(rng.choice((0, 0, 1, 5)))
                    await to_thread.run_sync(partial(postgres_server.start, made, port=server.port))
                    done += 1
            assert set(reports[0].completed) == set(ids)
            await judge(scene, drover, ids)
    finally:
        postgres_server.stop(server)
        postgres_server.remove(made)
    tally(points=count, hit=done, seed=seed)


@pytest.fixture
def disk() -> Iterator[Path]:
    """A disk of 24 MB that belongs to whoever runs the server, in a directory that they may enter."""
    with tempfile.TemporaryDirectory(prefix="drover-small-") as top:
        Path(top).chmod(0o755)
        with small_disk(Path(top, "disk"), "24m") as where:
            shutil.chown(where, "nobody")
            yield where


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.suite("T15")
async def test_a_full_disk_of_the_server_is_waited_out(site: Site, disk: Path) -> None:
    made = postgres_server.new_data()
    server = postgres_server.start(made)
    try:
        admin = await asyncpg.connect(server.url())
        await admin.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
        await admin.execute("CREATE DATABASE small TABLESPACE small")
        await admin.close()
        scene = Scene(site, server.url("small"))
        async with scene.open() as drover:
            ids = [(await drover.add(f"{n}")).id for n in range(3)]
            async with scene.beside() as other:
                await other.execute("CREATE TABLE filler (what text)")
                with pytest.raises(asyncpg.DiskFullError):
                    while True:
                        await other.execute(FILL)
                with pytest.raises(DiskFull, match="no space left at postgresql"):
                    for _ in range(1_000):
                        await drover.add("more", description="".join(random.choices(string.printable, k=9_000)))
                reports: list[RunReport] = []
                async with running(drover, reports):
                    await anyio.sleep(3)
                    assert not reports
                    await other.execute("DROP TABLE filler")
            assert reports[0].exit_code == 0 and set(ids) <= set(reports[0].completed)
            await judge(scene, drover, sorted(reports[0].completed))
    finally:
        postgres_server.stop(server)
        postgres_server.remove(made)


@pytest.mark.suite("T20")
async def test_a_run_that_no_notification_ever_reaches_finds_the_work_by_looking(
    on_postgres: Scene, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    """Tasks of another process, each alone, added while this one is idle."""
    heard: list[str] = []

    async def deaf(connection: object, channel: str, callback: object) -> None:
        heard.append(channel)

    monkeypatch.setattr(asyncpg.Connection, "add_listener", deaf)
    monkeypatch.setattr(workers, "IDLE_LOOK_S", 0.1)
    scene = on_postgres
    async with scene.open() as drover, scene.open() as other, anyio.create_task_group() as group:
        await group.start(drover.serve)
        ids = []
        for n in range(5):
            ids.append((await other.add(f"{n}")).id)
            with anyio.fail_after(60):
                while (await other.task(ids[-1])).state is not State.COMPLETED:
                    await anyio.sleep(0.02)
            tally(points=1)
        group.cancel_scope.cancel()
    assert heard, "it would have listened"
    async with scene.open() as drover:
        await judge(scene, drover, ids)


async def lease_left_ms(scene: Scene) -> int:
    """Of the only running task, by the server's clock."""
    now = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"
    async with scene.beside() as connection:
        left: int = await connection.fetchval(f"SELECT lease_until - {now} FROM tasks WHERE state = 'running'")
        return left


async def test_ctrl_c_while_the_database_is_away_ends_the_run(on_postgres: Scene, quick: None) -> None:
    scene = on_postgres
    scene.works("sleep 600")
    async with wire(scene.port) as cable, scene.open(scene.through(cable), claim_timeout="2m") as drover:
        task = await drover.add("long")
        reports: list[RunReport] = []
        stop = Stop()
        with anyio.fail_after(60):
            async with running(drover, reports, stop):
                await scene.until(lambda: scene.lines[f"start {task.id}"])
                await cable.refuse()
                stop.soft()
        assert reports[0].exit_code == 130 and not find_marked(drover.places.marker(task.id))
        await cable.accept()


# ------------------------------------------------------------ a COMMIT that is not answered


async def live_with_a_cut(scene: Scene, cable: Wire, cut: tuple[int, Cut] | None) -> int:
    """One task's whole life, the COMMIT of that number cut; how many there were."""
    async with scene.open(scene.through(cable), claim_timeout="30s") as drover:
        task = await drover.add("cut")
        before = cable.commits
        cable.cut_at = (before + cut[0], cut[1]) if cut else None
        with anyio.fail_after(90):
            try:
                report = await drover.run(workers=1, on_event=lambda event: None)
            except StoreUnavailable:  # before anything began the command says so, and is typed again
                assert (await drover.task(task.id)).fence == 0
                report = await drover.run(workers=1, on_event=lambda event: None)
        cable.cut_at = None
        assert report.completed == (task.id,)
        after = await drover.task(task.id)
        assert (after.state, after.failures, after.fence, after.executions) == (State.COMPLETED, 0, 1, 1)
        told = Counter([e.data.get("step") or e.type async for e in drover.events(task=task.id)])
        assert set(told.values()) == {1}, told
        assert scene.lines[f"start {task.id}"] == scene.lines[f"end {task.id}"] == 1
        assert scene.landed()[task.id] == 1
        return cable.commits - before


async def live_with_cuts(scene: Scene, tally: Tally, *, sample: int | None, seed: int) -> None:
    async with wire(scene.port) as cable:
        commits = await live_with_a_cut(scene, cable, None)
        points: list[tuple[int, Cut]] = [(n, cut) for n in range(1, commits + 1) for cut in ("before", "after", "hang")]
        chosen = points if sample is None else random.Random(seed).sample(points, sample)
        for n, cut in chosen:
            await live_with_a_cut(scene, cable, (n, cut))
        async with scene.open() as drover:
            assert await faults(drover) == []
    tally(points=len(chosen), seed=seed)


@pytest.mark.suite("T7")
async def test_a_life_of_which_one_commit_is_cut_goes_on_as_if_nothing_had_been(
    on_postgres: Scene, quick: None, tally: Tally
) -> None:
    await live_with_cuts(on_postgres, tally, sample=4, seed=int(os.environ.get("DROVER_PROOF_SEED", "7")))


@pytest.mark.slow
@pytest.mark.timeout(2_400)
@pytest.mark.suite("T7")
async def test_a_life_of_which_any_commit_is_cut_goes_on_as_if_nothing_had_been(
    on_postgres: Scene, quick: None, tally: Tally
) -> None:
    await live_with_cuts(on_postgres, tally, sample=None, seed=0)


# ------------------------------------------------------------ a schema that moves


async def test_a_run_stops_when_a_newer_drover_has_migrated_the_database(scene: Scene) -> None:
    """An older one writes nothing any more, ends its agents, and says why."""
    scene.works("sleep 600")
    async with scene.open(claim_timeout="3s") as drover:
        task = await drover.add("long")
        said: list[SchemaError] = []

        async def run() -> None:
            try:
                await drover.run(workers=1)
            except SchemaError as error:
                said.append(error)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(run)
                await scene.until(lambda: scene.lines[f"start {task.id}"])
                await migrate(scene)
        assert "a newer drover has migrated the database meanwhile" in said[0].message
        assert not find_marked(drover.places.marker(task.id))
        with pytest.raises(SchemaError):
            await drover.add("more")
        assert (await drover.task(task.id)).state is State.RUNNING  # the newer one takes it back


async def migrate(scene: Scene) -> None:
    """As a newer drover would."""
    statements = ("CREATE TABLE novelties (id text)", "INSERT INTO drover_migrations VALUES (9999, '9999_new', 'x', 1)")
    if scene.url is not None:
        async with scene.beside() as connection:
            for statement in statements:
                await connection.execute(statement)
        return
    with closing(sqlite3.connect(scene.site.root / ".drover" / "drover.db")) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()

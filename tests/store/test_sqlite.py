"""SQLite: one writer, shared commits, full disks, locks of others, files that must not be trusted."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from drover.domain.errors import DiskFull, DroverError, OutcomeUnknown, StoreError, StoreUnavailable
from drover.domain.models import NewTask
from drover.store import Store, open_store, sqlite_file
from drover.store.database import Transaction
from drover.store.sqlite import SqliteDatabase
from drover.store.sqlite_file import CHECKPOINT_PAGES, PAGE, WAL_LIMIT, in_thread
from drover.testing import FakeClock
from tests.proof.plugin import Tally
from tests.small_disk import small_disk
from tests.store.conftest import Place
from tests.store.scenes import add

pytestmark = pytest.mark.anyio
MIB = 1 << 20


@pytest.fixture
def place(on_sqlite: Place) -> Place:
    """These are about SQLite alone."""
    return on_sqlite


async def ask(store: Store, sql: str) -> Any:
    """What the writing connection answers."""
    database = store.database
    assert isinstance(database, SqliteDatabase)
    writer = await database._writing()
    return next(iter((await in_thread(writer, lambda c: c.execute(sql).fetchone())).values()))


def look(place: Place, sql: str) -> Any:
    """What another process's connection answers."""
    with closing(sqlite3.connect(place.file, timeout=0)) as connection:
        return connection.execute(sql).fetchone()[0]


def wal(place: Place) -> Path:
    return Path(f"{place.file}-wal")


# ------------------------------------------------------------ shared commits


async def test_writes_that_wait_share_a_commit_and_fail_alone(store: Store) -> None:
    answers: dict[int, Any] = {}

    async def rows(tx: Transaction, n: int, error: Exception | None) -> int:
        await tx.run("set_meta", key=f"{n}", value="v")
        if error is not None:
            raise error
        if n == 13:
            await tx.run("add_step", task_id="none", attempt=1, name="", fence=1, started_at=1, now=1, result="")
        if n == 17:
            await asyncio.sleep(0)  # of all awaits the one that suspends without an event loop
        return n

    async def write(n: int, error: Exception | None = None) -> None:
        try:
            answers[n] = await store.database.write(lambda tx: rows(tx, n, error))
        except Exception as caught:
            answers[n] = type(caught)

    database = store.database
    assert isinstance(database, SqliteDatabase)
    before = database.commits
    async with anyio.create_task_group() as group:
        for n in range(40):
            group.start_soon(write, n, {5: ValueError("no"), 9: StoreError("no")}.get(n))
    bad = {5: ValueError, 9: StoreError, 13: StoreError, 17: RuntimeError}
    assert answers == {n: bad.get(n, n) for n in range(40)}
    assert {n for n in range(40) if await store.workers.meta(f"{n}") is None} == set(bad)
    assert database.commits - before < 10


@pytest.mark.suite("T15")
async def test_a_write_that_the_file_has_no_room_for_takes_no_neighbour_with_it(store: Store) -> None:
    results: dict[str, Any] = {}

    async def write(title: str, size: int) -> None:
        try:
            results[title] = await add(store, title, description="x" * size)
        except DroverError as error:
            results[title] = type(error)

    pages = await ask(store, "PRAGMA page_count")
    await ask(store, f"PRAGMA max_page_count = {pages + 40}")
    async with anyio.create_task_group() as group:
        group.start_soon(write, "first", 10)
        await anyio.sleep(0)
        for n in range(6):
            group.start_soon(write, f"small {n}", 10)
        group.start_soon(write, "big", 50 * MIB)
    titles = {t.title for t in await store.tasks.list_tasks()}
    assert titles >= {"first", *(f"small {n}" for n in range(6))}
    assert (results["big"] is DiskFull) is ("big" not in titles)
    assert look(Place("sqlite:///" + str(store.database.path), None, ""), "PRAGMA integrity_check") == "ok"  # type: ignore[arg-type, attr-defined]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    with small_disk(tmp_path / "disk", "3m") as where:
        yield where


@pytest.mark.suite("T15")
@pytest.mark.parametrize("levels", [5, pytest.param(20, marks=pytest.mark.slow)])
async def test_a_full_disk_is_said_and_the_store_goes_on_when_there_is_room_again(
    disk: Path, levels: int, tally: Tally
) -> None:
    place = Place(f"sqlite:///{disk}/drover.db", None, "sqlite")  # type: ignore[arg-type]
    async with open_store(place.url) as store:
        kept = [await add(store, "before")]
        room = shutil.disk_usage(disk).free
        for level in range(levels):
            spare = int(200_000 * (1 - level / (levels - 1)) ** 2)
            (disk / "ballast").write_bytes(b"x" * max(0, room - spare))
            with pytest.raises(DiskFull, match="no space left"):
                for _ in range(200):
                    kept.append(await add(store, "while", description="x" * 2_000))
            with pytest.raises(DiskFull):
                await add(store, "still full", description="x" * 60_000)
            assert len(await store.tasks.list_tasks()) == len(kept)
            (disk / "ballast").unlink()
            kept.append(await add(store, "after"))
            room = shutil.disk_usage(disk).free
            tally(points=1)
        assert {t.id for t in await store.tasks.list_tasks()} == {t.id for t in kept}
    assert look(place, "PRAGMA integrity_check") == "ok"
    assert look(place, "SELECT count(*) FROM tasks") == len(kept)


@pytest.mark.suite("T15")
@pytest.mark.parametrize("left", [0, 4_096, 28_672])
async def test_a_store_that_cannot_be_opened_for_want_of_room_says_so(
    disk: Path, clock: FakeClock, left: int, tally: Tally
) -> None:
    """Of the memory that its processes share, which is a file, SQLite says only that there was an error."""
    place = Place(f"sqlite:///{disk}/drover.db", clock, "sqlite")
    async with place.open() as store:
        kept = {(await add(store, "before")).title}
    (disk / "ballast").write_bytes(b"x" * (shutil.disk_usage(disk).free - left))
    with pytest.raises(DiskFull, match="no space left"):
        async with place.open() as store:
            for n in range(20):
                kept.add((await add(store, f"while {n}", description="x" * 4_000)).title)
    (disk / "ballast").unlink()
    async with place.open() as store:
        kept.add((await add(store, "after")).title)
        assert {t.title for t in await store.tasks.list_tasks()} == kept
    assert look(place, "PRAGMA integrity_check") == "ok"
    tally(points=1)


@pytest.mark.suite("T16")
def test_a_commit_that_could_not_be_written_is_in_doubt(tmp_path: Path) -> None:
    """A file that may not grow fails a write with another error than a full disk."""
    path = tmp_path / "drover.db"
    program = Path(__file__).with_name("writing.py")
    done = subprocess.run(
        [sys.executable, program, path, str(200_000)], capture_output=True, text=True, timeout=60, check=True
    )
    *acknowledged, last = done.stdout.splitlines()
    assert last.split()[1] == OutcomeUnknown.__name__
    with closing(sqlite3.connect(path)) as connection:
        found = [title for (title,) in connection.execute("SELECT title FROM tasks ORDER BY number")]
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert found[: len(acknowledged)] == acknowledged
    assert len(found) <= len(acknowledged) + 1


# ------------------------------------------------------------ promises


async def test_the_writer_keeps_its_promises(store: Store) -> None:
    expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5_000, "trusted_schema": 0}
    assert {name: await ask(store, f"PRAGMA {name}") for name in expected} == expected


async def test_a_promise_that_cannot_be_kept_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sqlite_file.PRAGMAS, "synchronous", ("NORMAL", 2))
    with pytest.raises(StoreError, match="PRAGMA synchronous is 1, not 2; drover would lose commits"):
        async with place.open():
            pass


async def test_a_reader_cannot_write(store: Store) -> None:
    async def write(tx: Transaction) -> int:
        return await tx.run("set_meta", key="k", value="v")

    with pytest.raises(StoreError):
        await store.database.read(write)
    assert await store.workers.meta("k") is None


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p"])
async def test_a_network_file_system_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    mounts = [("/", "ext4"), (str(tmp_path), "ext4"), (str(tmp_path), kind)]
    monkeypatch.setattr(sqlite_file, "mounts", lambda: mounts)
    with pytest.raises(StoreError, match=f"network file system \\({kind}\\)"):
        async with place.open():
            pass
    assert not place.file.parent.exists()


async def test_a_link_to_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    mounts = [("/", "ext4"), (str(tmp_path / "far"), "nfs")]
    monkeypatch.setattr(sqlite_file, "mounts", lambda: mounts)
    with pytest.raises(StoreError, match="network file system"):
        async with open_store(f"sqlite:///{tmp_path}/near/drover.db"):
            pass


def test_what_is_mounted_is_read_as_psutil_reads_it() -> None:
    assert set(sqlite_file.mounts()) == {(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)}


async def test_a_local_disk_below_a_network_file_system_is_fine(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = [("/", "nfs"), (str(tmp_path), "ext4")]
    monkeypatch.setattr(sqlite_file, "mounts", lambda: mounts)
    async with place.open() as store:
        await add(store)


async def test_a_file_that_is_no_database_is_left_alone(place: Place) -> None:
    place.file.parent.mkdir()
    place.file.write_bytes(b"Dear diary, " * 1_000)
    with pytest.raises(StoreError, match="damaged or not a database") as caught:
        async with place.open():
            pass
    assert caught.value.hint == "run `drover doctor`"
    assert place.file.read_bytes() == b"Dear diary, " * 1_000


async def test_damage_is_said_and_not_written_over(place: Place) -> None:
    async with place.open() as store:
        for n in range(50):
            await add(store, f"{n}", description="x" * 2_000)
    with place.file.open("r+b") as file:
        file.seek(3 * PAGE)
        file.write(b"\xff" * (place.file.stat().st_size - 4 * PAGE))
    with pytest.raises(StoreError, match="damaged"):
        async with place.open() as store:
            await store.tasks.list_tasks()


async def test_a_place_where_nothing_can_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot make"):
        async with open_store(f"sqlite:///{tmp_path}/file/state/drover.db"):
            pass
    (tmp_path / "drover.db").mkdir()
    with pytest.raises(StoreUnavailable, match=r"drover\.db"):
        async with open_store(f"sqlite:///{tmp_path}/drover.db"):
            pass


# ------------------------------------------------------------ other processes


async def test_a_lock_held_by_another_is_waited_for_and_then_said(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sqlite_file.PRAGMAS, "busy_timeout", ("100", 100))
    async with place.open() as store:
        with closing(sqlite3.connect(place.file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="locked by another process"):
                await add(store)
            assert await store.tasks.list_tasks() == []  # readers do not wait for writers
            other.execute("ROLLBACK")
        assert (await add(store)).title == "a task"


async def test_a_database_that_is_up_to_date_opens_while_another_reads_it(place: Place) -> None:
    async with place.open() as store:
        await add(store)
        with closing(sqlite3.connect(place.file, isolation_level=None)) as other:
            other.execute("BEGIN")
            assert other.execute("SELECT count(*) FROM tasks").fetchone() == (1,)
            async with place.open() as second:
                await add(second)
            assert other.execute("SELECT count(*) FROM tasks").fetchone() == (1,)


async def test_only_the_keeper_of_the_lock_file_checkpoints(place: Place) -> None:
    async with place.open() as first:
        assert await ask(first, "PRAGMA wal_autocheckpoint") == CHECKPOINT_PAGES
        async with place.open() as other:
            assert await ask(other, "PRAGMA wal_autocheckpoint") == 0


async def test_another_process_keeps_the_wal_small_when_the_keeper_has_gone(place: Place) -> None:
    opened, leave = anyio.Event(), anyio.Event()

    async def keep() -> None:
        async with place.open():
            opened.set()
            await leave.wait()
        gone.set()

    gone = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(keep)
        await opened.wait()
        async with place.open() as heir:
            leave.set()
            await gone.wait()
            assert await ask(heir, "PRAGMA wal_autocheckpoint") == 0
            for _ in range(3):
                await add(heir, description="x" * 2 * MIB)
            assert await ask(heir, "PRAGMA wal_autocheckpoint") == CHECKPOINT_PAGES
            await add(heir)
            size = wal(place).stat().st_size
            await add(heir, description="x" * MIB)
            assert wal(place).stat().st_size <= size


async def test_a_wal_that_a_long_reader_let_grow_is_cut_back(place: Place) -> None:
    async with place.open() as store:
        with closing(sqlite3.connect(place.file, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM tasks").fetchone()
            await store.tasks.add_many([NewTask(title="x", description="x" * MIB) for _ in range(20)])
            await add(store)
            assert wal(place).stat().st_size > WAL_LIMIT
            reader.execute("ROLLBACK")
        await add(store)
        await add(store)
        assert wal(place).stat().st_size <= WAL_LIMIT


async def test_a_closed_database_is_one_file(place: Place) -> None:
    async with place.open() as store:
        await add(store)
        assert wal(place).exists()
    assert sorted(p.name for p in place.file.parent.iterdir()) == ["drover.db", "drover.lock"]
    assert look(place, "SELECT count(*) FROM tasks") == 1


# ------------------------------------------------------------ kills


def killed_at(point: int, path: Path) -> list[str]:
    """What a writing process was promised before it was killed at that sync of the WAL."""
    program = [sys.executable, Path(__file__).with_name("writing.py"), path]
    if shutil.which("strace"):
        trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", f"{path}-wal", "-e", "trace=fdatasync", "-e"]
        trace.append(f"inject=fdatasync:signal=KILL:when={point}")
        done = subprocess.run([*trace, *program], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0, "it was not killed"
        return done.stdout.splitlines()
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline().strip() for _ in range(point)]
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.read().splitlines()
    process.wait()
    return lines


@pytest.mark.suite("T6")
@pytest.mark.parametrize(
    "point", [3, 4, 7, 12, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 44) if n not in (3, 4, 7, 12))]
)
def test_what_was_promised_is_there_after_a_kill_at_any_sync(tmp_path: Path, point: int) -> None:
    path = tmp_path / "drover.db"
    promised = killed_at(point, path)

    async def check() -> None:
        async with open_store(f"sqlite:///{path}") as store:
            tasks = await store.tasks.list_tasks()
            assert [t.title for t in tasks][: len(promised)] == promised
            assert len(tasks) <= len(promised) + 1
            assert await store.tasks.miscounted() == []
            created = [e for e in await store.events.page() if e.type == "task.created"]
            assert [e.task_id for e in created] == [t.id for t in tasks]

    anyio.run(check)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []

"""What dead processes left is taken back, and what the living have is let alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from drover.app.drover import Drover
from drover.domain.errors import GitError
from drover.domain.models import Attempt, Claim, ProcessIdentity, Run, Task, Worker, Worktree
from drover.domain.states import State, Status
from drover.engine import prompt, reaper, workplace
from drover.engine.past import Past
from drover.engine.workers import Stop
from drover.git.landing import raise_lease
from drover.git.repo import Repo
from drover.process import boot_id, current_identity, identify
from drover.testing import FakeClock
from tests.engine.places import Site
from tests.engine.test_leases import running

pytestmark = pytest.mark.anyio

Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """A process that does nothing, with that marker."""
    made: list[subprocess.Popen[bytes]] = []

    def start(marker: str = "") -> subprocess.Popen[bytes]:
        env = {**os.environ, **({"DROVER_MARKER": marker} if marker else {})}
        made.append(subprocess.Popen(["sleep", "300"], env=env, start_new_session=True))
        return made[-1]

    yield start
    for one in made:
        one.kill()
        one.wait()


def alive(process: subprocess.Popen[bytes]) -> ProcessIdentity:
    found = identify(process.pid)
    assert found is not None
    return found


def dead(spawn: Spawn) -> ProcessIdentity:
    """Who a process was that has ended."""
    process = spawn()
    identity = alive(process)
    process.kill()
    process.wait()
    return identity


async def claimed(drover: Drover, process: ProcessIdentity, *, host: str | None = None, name: str = "w") -> Claim:
    """The best ready task, claimed by a worker in that process."""
    host = host or (await drover.tools()).host
    worker = Worker(id=f"{name}-1", host=host, process=process, run_id=None)
    await drover.store.workers.start_run(Run(id=f"run-{name}", host=host), [worker])
    claim = await drover.store.claims.claim(worker)
    assert claim is not None
    return claim


def stale_lock(site: Site) -> Path:
    lock = site.root / ".git" / "refs" / "drover" / "lease" / "x.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    os.utime(lock, (1_000_000_000, 1_000_000_000))
    return lock


# ------------------------------------------------------------ the dead


async def test_a_dead_workers_task_is_taken_back_after_its_agent_was_ended(site: Site, spawn: Spawn) -> None:
    async with site.open() as drover:
        task = await drover.add("Left")
        claim = await claimed(drover, dead(spawn))
        agent = spawn(drover.places.marker(task.id, claim.fence))
        stranger = spawn(drover.places.marker("task-none", 1))
        assert await reaper.recover(await drover.tools()) == [f"{task.id}: taken back from w-1, whose process is gone"]
        assert agent.wait(60) == -15
        assert stranger.poll() is None
        after = await drover.task(task.id)
        assert (after.state, after.interruptions, after.failures) == (State.QUEUED, 1, 0)
        assert not await drover.store.claims.holds(claim)
        assert [w.id for w in await drover.store.workers.list_workers()] == []
        assert await reaper.recover(await drover.tools()) == [], "once"


async def test_a_worker_before_the_machine_started_again_is_dead_whatever_the_machine_is_called(site: Site) -> None:
    """Its pid may be somebody else's now. A SQLite file has one machine."""
    before = ProcessIdentity(boot_id=f"not {boot_id()}", pid=os.getpid(), started=current_identity().started)
    async with site.open() as drover:
        task = await drover.add("Left")
        await claimed(drover, before, host="as it was called")
        assert len(await reaper.recover(await drover.tools())) == 1
        assert (await drover.task(task.id)).state is State.QUEUED


async def test_a_worker_of_another_host_is_not_judged_by_processes_here(site: Site, spawn: Spawn) -> None:
    """As of another container: the same kernel, other process ids."""
    async with site.open() as drover:
        task = await drover.add("Elsewhere")
        await claimed(drover, dead(spawn), host="elsewhere")
        assert await reaper.recover(await drover.tools()) == []
        assert (await drover.task(task.id)).state is State.RUNNING


async def test_while_another_run_is_at_work_here_its_claim_and_its_locks_are_let_alone(
    site: Site, spawn: Spawn
) -> None:
    async with site.open() as drover:
        await drover.add("At work")
        claim = await claimed(drover, alive(spawn()))
        lock = stale_lock(site)
        assert await reaper.recover(await drover.tools()) == []
        assert lock.exists()
        assert await drover.store.claims.holds(claim)


@pytest.mark.parametrize("who", ["nobody", "another host"])
async def test_where_nobody_else_is_at_work_what_was_left_lying_is_cleared(site: Site, spawn: Spawn, who: str) -> None:
    async with site.open() as drover:
        await drover.add("At work")
        if who == "another host":
            await claimed(drover, alive(spawn()), host="elsewhere")
        lock = stale_lock(site)
        half = drover.places.worktrees / ".task-x.making-1"
        half.mkdir(parents=True)
        assert await reaper.recover(await drover.tools()) == []
    assert not lock.exists() and not half.exists()


async def test_of_two_strangers_only_the_one_whose_lease_has_ended_is_relieved(site: Site, spawn: Spawn) -> None:
    clock = FakeClock()
    process = alive(spawn())
    async with site.open(clock, claim_timeout="30s") as drover:
        first, second = await drover.add("First", priority=1), await drover.add("Second")
        await claimed(drover, process, name="a")
        clock.advance(20)
        held = await claimed(drover, process, name="b")
        clock.advance(11)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(reaper.patrol, await drover.tools())
                while (await drover.task(first.id)).state is State.RUNNING:
                    await anyio.sleep(0.02)
                group.cancel_scope.cancel()
        assert (await drover.task(first.id)).state is State.QUEUED
        assert (await drover.task(second.id)).state is State.RUNNING
        assert await drover.store.claims.holds(held)


async def test_trouble_that_stays_is_told_once_and_told_again_after_it_had_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outcomes = iter(["away", "away", "", "away", "full"])

    async def work() -> None:
        said = next(outcomes, None)
        if said is None:
            scope.cancel()
        elif said:
            raise GitError(said)

    with anyio.fail_after(60), anyio.CancelScope() as scope:
        await reaper.every(0.001, work)
    assert [record.message for record in caplog.records] == ["away", "away", "full"]


# ------------------------------------------------------------ the place of work


async def test_no_process_of_an_earlier_execution_lives_when_the_next_begins(site: Site, spawn: Spawn) -> None:
    async with site.open() as drover:
        task = await drover.add("Again")
        await raise_lease(await Repo.find(site.root), task.id, 1)  # as every execution does before it starts anything
        left = spawn(drover.places.marker(task.id, 1))
        other = spawn(drover.places.marker(f"{task.id}x", 1))
        await drover.run(workers=1)
        assert (await drover.task(task.id)).status is Status.COMPLETED
    assert left.wait(60) == -15
    assert other.poll() is None


async def test_work_on_a_base_without_its_blockers_work_is_not_begun(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drover.domain.verdicts.TROUBLES_LIMIT", 1)
    async with site.open() as drover:
        first = await drover.add("First")
        await drover.run(workers=1)
        site.git("reset", "-q", "--hard", "main^")
        site.git("update-ref", "refs/drover/target/main", "main")
        second = await drover.add("Second", blocked_by=[first])
        await drover.run(workers=1)
        after = await drover.task(second.id)
    assert (after.status, after.executions) == (Status.FAILED, 0)
    assert after.error is not None
    assert f"does not hold the work of its blocker {first.id}" in after.error.message


async def test_what_a_failed_attempt_left_is_there_for_the_next_on_the_new_base(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drover.domain.verdicts.backoff_ms", lambda *_: 10)
    site.says(
        f"test -e half.txt && {{ cat README.md half.txt > whole.txt; exit 0; }}; echo half > half.txt;"
        f" git -C {site.root} -c core.hooksPath=/dev/null commit -q --allow-empty -m 'on the way'; exit 1"
    )
    async with site.open() as drover:
        task = await drover.add("Twice")
        await drover.run(workers=1)
        after = await drover.task(task.id)
    assert (after.status, after.attempt) == (Status.COMPLETED, 2)
    assert site.git("show", "main:whole.txt") == "# A site\nhalf"
    assert "on the way" in site.git("log", "--format=%s", "main")
    assert not list((site.root / ".drover" / "worktrees").glob(".*.carry"))


async def test_saved_work_whose_clone_is_gone_is_brought_back_for_the_next_attempt(site: Site) -> None:
    clock, stop = FakeClock(), Stop()
    site.says("test -e half.txt && { cat half.txt > whole.txt; exit 0; }; echo half > half.txt; exit 1")
    async with site.open(clock) as drover:
        task = await drover.add("Twice")
        async with running(drover, stop=stop):
            while (await drover.task(task.id)).status is not Status.WAITING:
                await anyio.sleep(0.02)
            stop.soft()
        shutil.rmtree(site.worktree(task.id))
        clock.advance(60)
        async with running(drover):
            pass
        after = await drover.task(task.id)
    assert (after.status, after.attempt) == (Status.COMPLETED, 2)
    assert site.git("show", "main:whole.txt") == "half"


@pytest.mark.parametrize("note", ["", "{", "[]", '{"attempt": 1}', '{"attempt": 2, "work": "other"}'])
async def test_a_note_that_was_cut_off_or_is_of_another_attempt_says_nothing(tmp_path: Path, note: str) -> None:
    path = tmp_path / "note"
    path.write_text(note)
    assert workplace._read_carry(path, 1) is None
    workplace._write_carry(path, 1, "abc")
    assert workplace._read_carry(path, 1) == "abc"
    assert workplace._read_carry(tmp_path / "none", 1) is None


@pytest.mark.parametrize("again", [True, False])
def test_an_agent_that_goes_on_is_told_when_the_machine_was_started_again(again: bool) -> None:
    process = str(ProcessIdentity(boot_id=f"not {boot_id()}" if again else boot_id(), pid=1, started=1))
    task = Task(id="task-a", title="Work")
    past = Past(task, (Attempt(task_id=task.id, fence=1, attempt=1, worker_id="w", started_at=1, process=process),))
    words = prompt.follow_up(task, Worktree(path="", base="", target=""), interrupted=True, lost_power=past.lost_power)
    assert ("may be missing or empty" in words) == again

"""The life without git: order, results, retries, crashes, zombies, cancellation."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from pathlib import Path

import anyio
import pytest

import drover
from drover.app import Drover
from drover.app.backlog import Backlog
from drover.domain.errors import LeaseLost, UsageError
from drover.domain.models import ProcessIdentity, Run, Worker
from drover.engine.workers import Stop
from tests import postgres_server
from tests.store.conftest import alone, say

pytestmark = pytest.mark.anyio
HERE = Path(__file__).parents[2]
_numbers = count()


class FakeClock:
    """Wall clock in the test's hand; leases go by the machine's own."""

    def __init__(self) -> None:
        self.at = 1_800_000_000_000
        self.since_boot = 1_000_000

    def now(self) -> int:
        return self.at

    def boottime(self) -> int:
        return self.since_boot

    async def sleep(self, seconds: float) -> None:
        self.at += int(seconds * 1000)


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/backlog.db"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, file_url: str) -> Iterator[str]:
    if request.param == "sqlite":
        yield file_url
        return
    try:
        server = postgres_server.shared()
    except postgres_server.NoServer as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no Postgres: {reason}")
        pytest.skip(f"no Postgres: {reason}")
    name = f"plain{os.getpid()}_{next(_numbers)}"
    alone(say(server, f"CREATE DATABASE {name} STRATEGY file_copy"))
    yield server.url(name)
    alone(say(server, f"DROP DATABASE {name} WITH (FORCE)"))


async def nothing(job: drover.Job) -> None:
    return None


async def test_workers_of_two_runs_are_told_apart_however_the_dice_fall(
    file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drover.domain.ids.secrets.choice", lambda letters: letters[0])
    async with drover.open(file_url, repo=None, agent=nothing) as d:
        for _ in range(2):
            task = await d.add("task")
            assert (await d.run(workers=2)).completed == (task.id,)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not condition():
            await anyio.sleep(0.01)


async def follow(d: Backlog, types: list[str]) -> AsyncIterator[str]:
    async for event in d.events(types=types, follow=True):
        yield str(event.task_id)


async def test_every_task_begins_after_all_its_blockers_have_ended(url: str) -> None:
    began: list[str] = []
    ended: set[str] = set()
    graph = {"a": "", "b": "a", "c": "a", "d": "bc", "e": "", "f": "de", "g": "f"}

    async def work(job: drover.Job) -> None:
        assert set(graph[job.title]) <= ended
        began.append(job.title)
        await anyio.lowlevel.checkpoint()
        ended.add(job.title)

    async with drover.open(url, repo=None, agent=work) as d:
        added = await d.add_many([drover.new_task(t, key=t, blocked_by=list(graph[t])) for t in graph])
        report = await d.run(workers=3)
        assert sorted(began) == sorted(graph)
        assert set(report.completed) == {t.id for t in added}
        assert report.exit_code == 0
        assert {t.status for t in await d.tasks()} == {drover.Status.COMPLETED}
        assert await d.store.tasks.miscounted() == []


async def test_the_best_priority_goes_first_and_then_the_oldest(url: str) -> None:
    order: list[str] = []

    async def work(job: drover.Job) -> None:
        order.append(job.title)

    async with drover.open(url, repo=None, agent=work) as d:
        for title, priority in (("first", 0), ("second", 0), ("urgent", 5)):
            await d.add(title, priority=priority)
        await d.run(workers=1)
    assert order == ["urgent", "first", "second"]


async def test_inputs_and_blockers_results_reach_the_work(url: str) -> None:
    async def work(job: drover.Job) -> object:
        if not job.blockers:
            return {"squared": int(job.input["x"]) ** 2}  # type: ignore[index, call-overload, arg-type]
        return sum(result["squared"] for result in job.blockers.values())  # type: ignore[index, call-overload, misc]

    async with drover.open(url, repo=None, agent=work) as d:
        parts = [await d.add(f"square {x}", input={"x": x}) for x in (2, 3)]
        whole = await d.add("sum", blocked_by=parts)
        await d.run()
        assert (await d.task(parts[0].id)).result == {"squared": 4}
        assert (await d.task(whole.id)).result == 13
        assert (await d.task(whole.id)).blocked_by == tuple(sorted(p.id for p in parts))


async def test_a_failed_task_waits_its_backoff_and_is_tried_again(url: str) -> None:
    clock, tries = FakeClock(), []

    async def work(job: drover.Job) -> str:
        tries.append((job.attempt, clock.at))
        if len(tries) < 3:
            raise ValueError("not yet")
        return "done"

    async with drover.open(url, repo=None, agent=work, clock=clock) as d:
        task = await d.add("stubborn")
        async with anyio.create_task_group() as group:
            group.start_soon(d.run)
            for n in (1, 2):
                await until(lambda n=n: len(tries) == n)  # type: ignore[misc]
                while (waiting := await d.task(task.id)).state != "waiting":
                    await anyio.sleep(0.01)
                assert waiting.reason == "backoff"
                assert waiting.error is not None
                assert waiting.error.message == "ValueError: not yet"
                assert waiting.due_at is not None
                clock.at = waiting.due_at - 1
                d.store.bell.ring()
                await anyio.sleep(0.05)
                assert len(tries) == n, "it is not due yet"
                clock.at = waiting.due_at
                d.store.bell.ring()
        assert [attempt for attempt, _ in tries] == [1, 2, 3]
        assert tries[2][1] - tries[1][1] > tries[1][1] - tries[0][1] >= 2_500
        assert (await d.task(task.id)).result == "done"


async def test_a_task_that_uses_up_its_attempts_fails_and_strands_its_dependents(url: str) -> None:
    async def work(job: drover.Job) -> None:
        raise RuntimeError("never")

    async with drover.open(url, repo=None, agent=work, max_attempts=1) as d:
        broken = await d.add("broken")
        behind = await d.add("behind", blocked_by=[broken])
        report = await d.run()
        assert (report.failed, report.stranded, report.exit_code) == ((broken.id,), (behind.id,), 3)
        [retried] = await d.retry([broken.id], force=True)
        assert retried.status == drover.Status.READY


async def test_a_result_that_is_not_json_fails_at_once_and_says_so(url: str) -> None:
    async def work(job: drover.Job) -> object:
        return {1, 2}

    async with drover.open(url, repo=None, agent=work) as d:
        task = await d.add("odd")
        await d.run()
        failed = await d.task(task.id)
        assert failed.status == drover.Status.FAILED
        assert failed.error is not None
        assert "not JSON" in failed.error.message
        with pytest.raises(UsageError, match="not JSON"):
            await d.add("odd", input=object())


async def test_work_that_takes_too_long_is_cancelled_and_has_failed(url: str) -> None:
    async with drover.open(url, repo=None, agent=lambda job: anyio.sleep(60), max_attempts=1) as d:
        task = await d.add("slow", timeout_ms=30)
        await d.run()
        error = (await d.task(task.id)).error
        assert error is not None
        assert error.error_class == "timeout"


async def test_a_step_that_was_committed_is_not_done_again(url: str) -> None:
    calls: list[str] = []
    stop = Stop()

    async def work(job: drover.Job) -> object:
        async def fetch() -> int:
            calls.append("fetch")
            return 7

        value = await job.step("fetch", fetch)
        if len(calls) == 1 and not stop.soft_asked.is_set():
            stop.soft()
            await anyio.sleep_forever()
        return value

    async with drover.open(url, repo=None, agent=work) as d:
        task = await d.add("two steps")
        assert (await d.run(stop=stop)).interrupted
        assert (await d.task(task.id)).status == drover.Status.READY
        report = await d.run()
        assert (await d.task(task.id)).result == 7
        assert report.redone == 1
    assert calls == ["fetch"]


DYING = """
import os, signal, sys
import anyio
import drover

async def work(job):
    with open(sys.argv[2], "a") as ledger:
        ledger.write(f"begin {job.title}\\n")
    if job.title == "t6":
        os.kill(os.getpid(), signal.SIGKILL)
    with open(sys.argv[2], "a") as ledger:
        ledger.write(f"end {job.title}\\n")
    return job.title

async def main():
    async with drover.open(sys.argv[1], repo=None, agent=work) as d:
        await d.add_many([
            drover.new_task(f"t{n}", key=f"t{n}", blocked_by=[f"t{n-1}"] if n else []) for n in range(10)])
        await d.run(workers=2)

anyio.run(main)
"""


async def test_a_killed_run_is_taken_up_without_running_finished_tasks_again(file_url: str, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    died = subprocess.run(
        [sys.executable, "-c", DYING, file_url, str(ledger)], env={**os.environ, "PYTHONPATH": str(HERE)}, timeout=60,
        check=False, capture_output=True,
    )  # fmt: skip
    assert died.returncode == -signal.SIGKILL, died.stderr
    done = [line.split()[1] for line in ledger.read_text().splitlines() if line.startswith("end")]
    again: list[str] = []

    async def work(job: drover.Job) -> str:
        again.append(job.title)
        return job.title

    async with drover.open(file_url, repo=None, agent=work) as d:
        report = await d.run(workers=2)
        assert again == ["t6", "t7", "t8", "t9"]
        assert done == [f"t{n}" for n in range(6)]
        assert (report.kept, report.redone, len(report.completed)) == (6, 1, 4)
        tasks = await d.tasks()
        assert [t.result for t in tasks] == [f"t{n}" for n in range(10)]
        assert [t.failures for t in tasks] == [0] * 10, "a death uses up no attempt"
    with sqlite3.connect(file_url.removeprefix("sqlite:///")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_zombie_cannot_finish(file_url: str) -> None:
    """A worker whose lease ended and whose task was given to another writes nothing, and takes nothing."""
    clock = FakeClock()
    async with drover.open(file_url, repo=None, agent=nothing, clock=clock, lease_ms=1_000) as d:
        task, other = await d.add("contested"), await d.add("another")
        workers = [
            Worker(id=id, host="here", process=ProcessIdentity(boot_id="b", pid=1, started=1)) for id in ("old", "new")
        ]
        await d.store.workers.start_run(Run(id="run-test"), workers)
        zombie = await d.store.plain.claim(workers[0])
        assert zombie is not None
        assert await d.store.plain.standing() == {(task.id, 1)}
        clock.since_boot += 1_001
        assert await d.store.plain.standing() == set()
        assert await d.store.plain.renew([zombie.claim]) == set(), "a lease that has ended is never revived"
        [held] = await d.store.claims.running()
        assert await d.store.claims.rescue(held, dead=False)
        heir = await d.store.plain.claim(workers[1])
        assert heir is not None
        assert heir.claim.task_id == task.id
        with pytest.raises(LeaseLost):
            await d.store.plain.finish(zombie.claim, '"stale"', then=workers[0])
        assert (await d.task(other.id)).status == drover.Status.READY, "the zombie took nothing either"
        await d.store.plain.finish(heir.claim, '"fresh"', then=None)
        assert (await d.task(task.id)).result == "fresh"
        assert (await d.task(task.id)).executions == 2


async def test_cancelling_a_run_gives_its_claims_back(url: str) -> None:
    at_work = anyio.Event()

    async def work(job: drover.Job) -> None:
        at_work.set()
        await anyio.sleep_forever()

    async with drover.open(url, repo=None, agent=work) as d:
        for n in range(3):
            await d.add(f"endless {n}")
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(d.run)
                await at_work.wait()
                scope.cancel()
        tasks = await d.tasks()
        assert {t.status for t in tasks} == {drover.Status.READY}
        assert [t.failures for t in tasks] == [0, 0, 0]
        assert [t.attempt for t in tasks] == [1, 1, 1]


async def test_cancelling_a_task_cancels_its_work_and_nothing_else(url: str) -> None:
    at_work, cancelled, go_on = anyio.Event(), [], anyio.Event()

    async def work(job: drover.Job) -> str:
        if job.title == "spared":
            await go_on.wait()
            return "done"
        at_work.set()
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            cancelled.append(job.title)
            raise
        return "never"

    async with drover.open(url, repo=None, agent=work) as d:
        spared, doomed = await d.add("spared"), await d.add("doomed")
        async with anyio.create_task_group() as group:
            group.start_soon(d.run)
            await at_work.wait()
            await d.cancel([doomed.id])
            await until(lambda: bool(cancelled))
            go_on.set()
        assert (await d.task(doomed.id)).status == drover.Status.CANCELLED
        assert (await d.task(spared.id)).result == "done"


async def test_a_served_backlog_takes_what_is_added_and_keeps_its_events(url: str) -> None:
    async with drover.open(url, repo=None, agent=nothing) as d, anyio.create_task_group() as group:
        await group.start(d.serve)
        seen = follow(d, ["completed"])
        for n in range(3):
            task = await d.add(f"late {n}")
            with anyio.fail_after(60):
                assert await anext(seen) == task.id
        group.cancel_scope.cancel()


async def test_two_programs_share_a_backlog_without_doing_a_task_twice(url: str, tmp_path: Path) -> None:
    program = f"""
import anyio, drover, sys
async def work(job):
    with open({str(tmp_path / "ledger")!r}, "a") as ledger:
        ledger.write(job.title + "\\n")
    await anyio.sleep(0.002)
async def main():
    async with drover.open({url!r}, repo=None, agent=work) as d:
        await d.run(workers=2)
anyio.run(main)
"""
    async with drover.open(url, repo=None, agent=nothing) as d:
        await d.add_many([drover.new_task(f"t{n}") for n in range(60)])
        env = {**os.environ, "PYTHONPATH": str(HERE)}
        both = [subprocess.Popen([sys.executable, "-c", program], env=env) for _ in range(2)]
        assert [await anyio.to_thread.run_sync(p.wait) for p in both] == [0, 0]
        assert {t.status for t in await d.tasks()} == {drover.Status.COMPLETED}
    assert sorted((tmp_path / "ledger").read_text().split()) == sorted(f"t{n}" for n in range(60))


async def test_a_reset_task_forgets_its_result_and_runs_again(url: str) -> None:
    results = iter(["one", "two"])

    async def work(job: drover.Job) -> str:
        return next(results)

    async with drover.open(url, repo=None, agent=work) as d:
        task = await d.add("again")
        await d.run()
        [reset] = await d.reset([task.id])
        assert reset.result is None
        await d.run()
        assert (await d.task(task.id)).result == "two"


async def test_the_store_of_a_repository_is_refused(file_url: str, repository: Path) -> None:
    async with drover.open(file_url, repo=repository) as project:
        assert isinstance(project, Drover)
        await project.add("with git")
    with pytest.raises(UsageError, match="repository"):
        async with drover.open(file_url, repo=None, agent=nothing):
            pass


async def test_functions_are_not_driven_as_agents_in_a_repository(tmp_path: Path, repository: Path) -> None:
    url = f"sqlite:///{tmp_path}/plain.db"
    async with drover.open(url, repo=None, agent=nothing) as d:
        await d.add("a function")
    async with drover.open(url, repo=repository) as project:
        with pytest.raises(UsageError, match="functions"):
            await project.run()

"""A lane that hosts share: what lands goes through the remote, and what is in its way only makes it wait."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest

from drover.app.drover import Drover
from drover.domain import verdicts
from drover.domain.errors import Unreachable, UsageError
from drover.domain.models import ProcessIdentity, Run, Worker
from drover.engine import carrying, reaper, remote_lane, train, upstream, workers
from drover.process import boot_id
from tests import postgres_server
from tests.conftest import GIT_ENVIRONMENT
from tests.engine.places import Site, run_until
from tests.postgres_server import NoServer

pytestmark = pytest.mark.anyio

LANDED = "--format=%(trailers:key=Drover-Task,valueonly,separator=%x2c)"
_numbers = count()

Open = Callable[..., AbstractAsyncContextManager[Drover]]


class Shared:
    """Two sites with one remote and one store."""

    def __init__(self, top: Path, url: str) -> None:
        self.url = url
        self.remote = top / "origin.git"
        self.a, self.b = (self._site(top / name) for name in "ab")

    def _site(self, top: Path) -> Site:
        top.mkdir()
        site = Site(top)
        if self.remote.exists():
            site.git("remote", "add", "origin", str(self.remote))
            site.git("fetch", "-q", "origin")
            site.git("reset", "-q", "--hard", "origin/main")
        else:
            site.git("clone", "-q", "--bare", str(site.root), str(self.remote))
            site.git("remote", "add", "origin", str(self.remote))
        return site

    def open(self, site: Site, **flags: object) -> AbstractAsyncContextManager[Drover]:
        given = {"project.id": "shared", "landing.push": "origin", "host": site.top.name, "url": self.url}
        return site.open(**{**given, **flags})

    def git(self, *argv: str) -> str:
        env = {**os.environ, **GIT_ENVIRONMENT}
        argv = ("git", *argv)
        return subprocess.run(argv, cwd=self.remote, env=env, capture_output=True, text=True, check=True).stdout.strip()

    def landed(self) -> Counter[str]:
        return Counter(self.git("log", LANDED, "main").split())

    def strangers_push(self, site: Site, name: str) -> str:
        """Somebody else's commit on the remote's main, made with the objects of a site."""
        env = {**os.environ, **GIT_ENVIRONMENT, "GIT_INDEX_FILE": str(site.top / "stranger")}
        script = (
            f"git read-tree {self.git('rev-parse', 'main')}; oid=$(echo theirs | git hash-object -w --stdin);"
            f"git update-index --add --cacheinfo 100644,$oid,{name};"
            f"c=$(git commit-tree -p {self.git('rev-parse', 'main')} -m theirs $(git write-tree));"
            "git push -q origin $c:refs/heads/main; echo $c"
        )
        site.git("fetch", "-q", "origin")
        argv = ["sh", "-ec", script]
        return subprocess.run(argv, cwd=site.root, env=env, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
async def shared(tmp_path: Path) -> AsyncIterator[Shared]:
    try:
        server = postgres_server.shared()
    except NoServer as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no Postgres: {reason}")
        pytest.skip(f"no Postgres: {reason}")
    name = f"shared{os.getpid()}_{next(_numbers)}"
    connection = await asyncpg.connect(server.url())
    await connection.execute(f"CREATE DATABASE {name}")
    yield Shared(tmp_path, server.url(name))
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a remote looks again at once."""
    monkeypatch.setattr(upstream, "AWAY_S", 0.1)
    monkeypatch.setattr(verdicts, "backoff_ms", lambda *_: 100)


async def status(drover: Drover, task_id: str) -> tuple[str, str | None]:
    task = await drover.task(task_id)
    return str(task.status), task.reason


async def test_two_hosts_land_side_by_side_and_their_branches_follow(shared: Shared) -> None:
    async with shared.open(shared.a) as a, shared.open(shared.b) as b:
        first = await a.add("First")
        tasks = [first, *[await a.add(f"Task {n}", blocked_by=[first]) for n in range(5)]]
        async with anyio.create_task_group() as group:
            for host in (a, b):
                group.start_soon(lambda host=host: host.run(workers=2))
        assert {str((await a.task(task.id)).status) for task in tasks} == {"completed"}
        await b.run()
        await a.run()
    assert shared.landed() == {task.id: 1 for task in tasks}
    assert shared.git("log", "--merges", "main") == ""
    assert shared.a.git("rev-parse", "main") == shared.b.git("rev-parse", "main") == shared.git("rev-parse", "main")
    assert shared.git("for-each-ref", "refs/drover") == "", "nothing is kept there of what is done"


async def test_hosts_that_change_one_place_resolve_and_land_one_after_the_other(shared: Shared) -> None:
    for site in (shared.a, shared.b):
        site.says("cat shared.txt 2>/dev/null; echo $DROVER_TASK_ID > shared.txt")
    async with shared.open(shared.a) as a, shared.open(shared.b) as b:
        tasks = [await a.add(f"Task {n}") for n in range(3)]
        async with anyio.create_task_group() as group:
            for host in (a, b):
                group.start_soon(lambda host=host: host.run(workers=2))
        assert {str((await a.task(task.id)).status) for task in tasks} == {"completed"}
    assert shared.landed() == {task.id: 1 for task in tasks}


@pytest.mark.usefixtures("hasty")
async def test_a_remote_that_is_away_makes_work_wait_and_uses_up_nothing(shared: Shared) -> None:
    away = shared.remote.with_name("away")
    async with shared.open(shared.a) as a:
        await a.run()
        task = await a.add("Waits")
        shared.remote.rename(away)

        async def come_back() -> None:
            with anyio.fail_after(60):
                while await status(a, task.id) != ("waiting", "remote"):
                    await anyio.sleep(0.01)
            assert "origin cannot be reached" in str((await a.task(task.id)).detail)
            away.rename(shared.remote)

        async with anyio.create_task_group() as group:
            group.start_soon(come_back)
            report = await a.run(workers=1)
        assert report.exit_code == 0
        after = await a.task(task.id)
        assert (str(after.status), after.executions, after.failures) == ("completed", 1, 0)
    assert shared.landed() == {task.id: 1}


@pytest.mark.slow
async def test_slow_tests_are_not_overtaken_by_other_hosts_for_ever(shared: Shared, tmp_path: Path) -> None:
    books = tmp_path / "books"
    slow = f"echo test >> {books}; sleep 1"
    async with shared.open(shared.a) as a, shared.open(shared.b) as b:
        task = await a.add("Slow", test_command=slow, priority=1)
        quick = [await a.add(f"Quick {n}", test_mode="disabled") for n in range(10)]

        async def others() -> None:
            await shared.a.eventually(books)
            await b.run(workers=1)

        async with anyio.create_task_group() as group:
            group.start_soon(others)
            await a.run(workers=1, tasks=[task.id])
            left = [str((await a.task(one.id)).status) for one in quick].count("completed")
        assert str((await a.task(task.id)).status) == "completed"
    assert books.read_text().count("test") <= 3, "overtaken twice, it kept the others waiting"
    assert left < len(quick), "it landed in the middle of theirs"


PLAN = "write one.txt 1\nwait 5s\nwrite two.txt 2\n"


async def test_a_session_that_comes_back_goes_on_from_where_it_was_last(shared: Shared) -> None:
    plan = "append a.txt 1\nwrite one 1\nwait 5s\nappend a.txt 2\nwrite two 2\nwait 5s\nappend a.txt 3\n"
    async with shared.open(shared.a) as a, shared.open(shared.b) as b:
        task = await a.add("To and fro", description=plan, agent="scripted")
        assert (await run_until(shared.a, a, shared.a.worktree(task.id) / "one")).interrupted
        assert (await run_until(shared.b, b, shared.b.worktree(task.id) / "two")).interrupted
        await a.run()
        attempts = (await a.details(task.id)).attempts
    assert [(one.host, one.resumed) for one in attempts] == [("a", "fresh"), ("b", "restored"), ("a", "restored")]
    assert shared.git("show", "main:a.txt") == "1\n2\n3", "no step was done again, none was left out"


async def test_the_session_of_an_agent_goes_on_on_another_host(shared: Shared) -> None:
    async with shared.open(shared.a) as a, shared.open(shared.b) as b:
        task = await a.add("In steps", description=PLAN, agent="scripted")
        stopped = await run_until(shared.a, a, shared.a.worktree(task.id) / "one.txt")
        assert stopped.interrupted
        await b.run()
        first, second = (await b.details(task.id)).attempts
    assert (first.host, second.host) == ("a", "b")
    assert (second.resumed, second.session_id) == ("restored", first.session_id)
    assert second.origin == "continued from the snapshot that a took at its end"
    assert shared.git("show", "main:one.txt", "main:two.txt") == "1\n2"
    assert shared.git("for-each-ref", "refs/drover") == ""


async def test_what_could_not_be_saved_is_begun_anew_elsewhere_and_kept_where_it_is(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise Unreachable("origin cannot be reached")

    async with shared.open(shared.a) as a, shared.open(shared.b) as b:
        task = await a.add("In steps", description=PLAN, agent="scripted")
        with monkeypatch.context() as patch:
            patch.setattr(carrying, "push_work", away)
            await run_until(shared.a, a, shared.a.worktree(task.id) / "one.txt")
        stopped = await run_until(shared.b, b, shared.b.worktree(task.id) / "one.txt")
        assert stopped.interrupted
        await a.run()
        _, second, third = (await a.details(task.id)).attempts
    assert (second.host, second.origin) == ("b", "begun anew: nothing of what a did was saved")
    assert (third.host, third.origin) == ("a", "continued from the snapshot that b took at its end")
    assert shared.a.git("show", f"refs/drover/snapshots/{task.id}/1:one.txt") == "1", "what gave way is on a ref"
    assert shared.landed() == {task.id: 1}


async def test_what_was_done_here_of_a_task_that_another_host_has_taken_is_kept_here(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.a.says(f"echo half > half.txt; echo > {shared.a.top}/begun; sleep 60")
    end_marked = workers.end_marked
    async with shared.open(shared.a) as a, shared.open(shared.b) as b:
        task = await a.add("Taken")

        async def slow_to_end(marker: str, grace_s: float) -> int:
            with anyio.fail_after(60):
                while (await b.task(task.id)).fence < 2:
                    await anyio.sleep(0.02)
            return await end_marked(marker, grace_s)

        monkeypatch.setattr(workers, "end_marked", slow_to_end)
        async with anyio.create_task_group() as group:
            group.start_soon(partial(a.run, workers=1))
            await shared.a.eventually(shared.a.top / "begun")
            await a.reset([task.id])
            group.start_soon(partial(b.run, workers=1))
        after = await a.task(task.id)
    assert (str(after.status), after.fence) == ("completed", 2)
    assert shared.a.git("show", f"refs/drover/snapshots/{task.id}/1:half.txt") == "half"
    assert shared.landed() == {task.id: 1}


async def test_who_was_overtaken_often_enough_is_tested_while_nobody_else_lands(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "OVERTAKEN_ENOUGH", 0)
    turns: list[bool] = []
    async with shared.open(shared.a) as a, shared.open(shared.b) as b:
        task = await a.add(
            "Slow", test_command=f"echo > {shared.a.top}/begun; until test -e {shared.a.top}/go; do :; done"
        )

        async def others() -> None:
            await shared.a.eventually(shared.a.top / "begun")
            turns.append(await b.store.landings.take_lane("main", "somebody else", for_ms=1000))
            (shared.a.top / "go").touch()

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(others)
                await a.run(workers=1)
        assert str((await a.task(task.id)).status) == "completed"
    assert turns == [False]
    assert shared.landed() == {task.id: 1}


async def test_a_stranger_who_pushes_in_between_is_built_upon(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs: list[str] = []
    push = remote_lane.push

    async def late(*given: Any, **named: Any) -> bool:
        if len(theirs) < 2:
            theirs.append(shared.strangers_push(shared.b, f"theirs-{len(theirs)}"))
        return await push(*given, **named)

    monkeypatch.setattr(remote_lane, "push", late)
    async with shared.open(shared.a) as a:
        task = await a.add("Task")
        await a.run(workers=1)
        landed = (await a.task(task.id)).landed_commit
    assert shared.git("rev-list", "--first-parent", "main").split()[:3] == [landed, *reversed(theirs)]
    assert shared.landed() == {task.id: 1}
    assert shared.a.git("rev-parse", "main") == landed, "the branch here has followed"


async def test_commits_and_edits_of_one_host_stay_its_own_and_hold_nothing_up(shared: Shared) -> None:
    shared.a.write("mine.txt", "not to be seen yet\n")
    shared.a.commit("not pushed")
    shared.a.write("README.md", "an edit\n")
    async with shared.open(shared.a) as a:
        task = await a.add("Task")
        await a.run(workers=1)
        assert str((await a.task(task.id)).status) == "completed"
    assert "mine.txt" not in shared.git("ls-tree", "--name-only", "main")
    assert shared.landed() == {task.id: 1}
    assert shared.a.git("log", "-1", "--format=%s", "main") == "not pushed"
    assert (shared.a.root / "README.md").read_text() == "an edit\n"


async def test_hosts_have_to_land_in_one_place(shared: Shared) -> None:
    async with shared.open(shared.a) as a, shared.open(shared.a, **{"landing.push": None}) as alone:
        run = Run(id="run-b", host="b", push="origin", target="main")
        worker = Worker(id="b-1", host="b", process=ProcessIdentity(boot_id="b", pid=1, started=1), run_id=run.id)
        await a.store.workers.start_run(run, [worker])
        with pytest.raises(UsageError, match="b is at work on this backlog, and this run would land where it cannot"):
            await alone.run()
        await a.run()
        await a.store.workers.finish_run(run, [worker], {})
        await alone.run()
        blind = run.model_copy(update={"id": "run-c", "host": "c", "push": None})
        await a.store.workers.start_run(
            blind, [worker.model_copy(update={"id": "c-1", "host": "c", "run_id": "run-c"})]
        )
        with pytest.raises(UsageError, match="c is at work on this backlog and lands where no other host sees it"):
            await a.run()


async def test_a_clone_that_cannot_land_with_the_others_is_refused(shared: Shared) -> None:
    async with shared.open(shared.a) as a:
        assert [c.level for c in await a.doctor() if c.name == "remote"] == ["ok"]
        (shared.a.root / ".git" / "shallow").write_text(shared.a.git("rev-parse", "main") + "\n")
        with pytest.raises(UsageError, match="this clone is shallow"):
            await a.run()
        (shared.a.root / ".git" / "shallow").unlink()
        shared.a.git("remote", "rename", "origin", "upstream")
        with pytest.raises(UsageError, match="'origin', which is no remote of this clone"):
            await a.run()
        assert [c.level for c in await a.doctor() if c.name == "remote"] == ["problem"]


async def test_another_machine_of_the_same_name_is_not_judged_by_its_boot(shared: Shared) -> None:
    async with shared.open(shared.a) as a:
        task = await a.add("Elsewhere")
        elsewhere = ProcessIdentity(boot_id=f"not {boot_id()}", pid=1, started=1)
        worker = Worker(id="a-1", host="a", process=elsewhere, run_id=None)
        await a.store.workers.start_run(Run(id="run-x", host="a", push="origin"), [worker])
        claim = await a.store.claims.claim(worker)
        assert claim is not None and claim.task_id == task.id
        tools = await a.tools()
        assert await reaper.rescue_from_dead(tools, "a") == []
        assert await a.store.claims.holds(claim), "only the end of its lease tells"

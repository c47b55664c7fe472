"""The lane of one host: what lands is found or landed once, and what stands in its way is told and waited for."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from drover.app.drover import Drover
from drover.domain import verdicts
from drover.domain.errors import GitError
from drover.domain.models import Task
from drover.domain.states import Status
from drover.engine import landing, lane
from drover.engine.workers import Stop
from drover.git.landing import raise_lease, read_lease
from drover.store.landings import Landings
from tests.engine.places import Site
from tests.engine.test_leases import failing, running

pytestmark = pytest.mark.anyio

LANE = "refs/drover/target/main"


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried at once."""
    monkeypatch.setattr(verdicts, "backoff_ms", lambda *_: 10)


async def lived(site: Site, title: str = "First", **more: Any) -> Task:
    """A task that was added and driven as far as it goes."""
    async with site.open() as drover:
        task = await drover.add(title, **more)
        await drover.run(workers=1)
        return await drover.task(task.id)


def landings(site: Site, branch: str = "main") -> list[str]:
    form = "--format=%(trailers:key=Drover-Task,valueonly,separator=%x2c)"
    return site.git("log", form, branch).split()


async def until(drover: Drover, task: Task, status: Status) -> None:
    with anyio.fail_after(60):
        while (await drover.task(task.id)).status is not status:
            await anyio.sleep(0.02)


async def told(drover: Drover, type: str) -> list[Any]:
    return [event async for event in drover.events(types=[type])]


# ------------------------------------------------------------ once


@pytest.mark.parametrize("by", ["ledger", "history"])
async def test_what_has_landed_without_a_record_is_found_and_recorded(
    site: Site, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """By its intent, and where the ledger has none (a backup was restored) by what its commit says."""
    monkeypatch.setattr(Landings, "landed", failing(Landings.landed, GitError("cut off")))
    if by == "history":
        monkeypatch.setattr(Landings, "of_task", _none)
    async with site.open() as drover:
        task = await drover.add("First")
        await drover.run(workers=1)
        after = await drover.task(task.id)
        (event,) = await told(drover, "task.landed")
    assert (after.status, after.failures) == (Status.COMPLETED, 0)
    assert landings(site) == [task.id]
    assert event.data["found"] == 1
    assert event.data["commit"] == after.landed_commit == site.git("rev-parse", "main")


async def _none(*_: Any) -> list[Any]:
    return []


async def test_a_lane_that_moved_in_between_is_landed_on_and_no_intent_is_left(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap, moved = landing.swap_lane, []

    async def overtaken(repo: Any, **named: Any) -> Any:
        if not moved:
            moved.append(site.commit_on(LANE, "theirs.txt"))
        return await swap(repo, **named)

    monkeypatch.setattr(landing, "swap_lane", overtaken)
    async with site.open() as drover:
        task = await drover.add("First")
        await drover.run(workers=1)
        after = await drover.task(task.id)
        left = await drover.store.landings.open("main")
    assert (after.status, after.failures) == (Status.COMPLETED, 0)
    assert site.git("rev-parse", "main^") == moved[0]
    assert left == []


async def test_who_was_overtaken_by_a_conflict_leaves_no_intent(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    swap = landing.swap_lane
    site.says("echo mine > theirs.txt")

    async def overtaken(repo: Any, **named: Any) -> Any:
        site.commit_on(LANE, "theirs.txt")
        return await swap(repo, **named)

    monkeypatch.setattr(landing, "swap_lane", overtaken)
    async with site.open(**{"landing.conflict_attempts": 0}) as drover:
        task = await drover.add("First")
        await drover.run(workers=1)
        after = await drover.task(task.id)
        left = await drover.store.landings.open("main")
    assert after.status is Status.FAILED
    assert after.error is not None and after.error.error_class == "conflict"
    assert left == []
    assert landings(site, LANE) == []


async def test_a_later_claim_that_git_knows_keeps_an_earlier_one_from_landing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restored backup: the database counts on from where git is, and the work lands by that claim."""
    swap, done = landing.swap_lane, []

    async def later(repo: Any, **named: Any) -> Any:
        if not done:
            done.append(await raise_lease(repo, named["task_id"], 7))
        return await swap(repo, **named)

    monkeypatch.setattr(landing, "swap_lane", later)
    async with site.open(claim_timeout="1s") as drover:
        task = await drover.add("First")
        async with running(drover):
            pass
        after = await drover.task(task.id)
        known = await read_lease((await drover.tools()).repo, task.id)
        assert await drover.store.landings.open("main") == []
    assert after.status is Status.COMPLETED
    assert after.fence == 8 and known is not None and known.fence == 8
    assert landings(site) == [task.id]


@pytest.mark.parametrize("style", ["squash", "merge"])
async def test_a_landing_stands_on_the_lane_and_on_the_work_where_that_is_wanted(site: Site, style: str) -> None:
    site.configure(f'[landing]\nstyle = "{style}"\n')
    before = site.git("rev-parse", "main")
    task = await lived(site)
    first, *others = site.git("log", "-1", "--format=%P", "main").split()
    assert first == before
    assert len(others) == (1 if style == "merge" else 0)
    assert task.landed_commit == site.git("rev-parse", "main")


# ------------------------------------------------------------ what a crash left open


async def parked(site: Site) -> Task:
    """A task that landed in the lane, and waits because the operator has changed the same file."""
    site.says("echo theirs > README.md")
    site.write("README.md", "mine\n")
    task = await lived(site)
    assert (task.status, task.reason) == (Status.WAITING, "publish")
    return task


async def test_what_landed_is_published_as_soon_as_the_checkout_allows(site: Site) -> None:
    task = await parked(site)
    assert "README.md" in str(task.detail)
    assert (site.root / "README.md").read_text() == "mine\n"
    site.git("checkout", "-q", "README.md")
    async with site.open() as drover:
        await drover.run(workers=1)
        assert (await drover.task(task.id)).status is Status.COMPLETED
    assert (site.root / "README.md").read_text() == "theirs\n"
    assert site.git("status", "--porcelain") == ""


async def test_a_run_that_stays_publishes_when_the_operator_is_done(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drover.engine.workers.PUBLISH_EVERY_S", 0.05)
    task = await parked(site)
    stop = Stop()
    async with site.open() as drover, running(drover, forever=True, stop=stop):
        site.says("echo x > x.txt")
        second = await drover.add("Second")
        await until(drover, second, Status.WAITING)
        site.git("checkout", "-q", "README.md")  # whatever the run does at its start, and when something lands, is done
        await until(drover, task, Status.COMPLETED)
        await until(drover, second, Status.COMPLETED)
        stop.soft()
    assert (site.root / "README.md").read_text() == "theirs\n"


async def test_a_lane_that_went_back_is_moved_on_again_and_one_that_went_elsewhere_is_told(site: Site) -> None:
    task = await parked(site)
    old = site.git("rev-parse", "main")
    landed = str(task.landed_commit)
    site.git("update-ref", LANE, old)
    async with site.open() as drover:
        assert await landing.reconcile(await drover.tools()) == [
            f"{task.id}: the lane of main had gone back; {landed[:12]} is in it again"
        ]
        assert site.git("rev-parse", LANE) == landed
        assert await landing.reconcile(await drover.tools()) == [], "a second call changes nothing"
        site.git("update-ref", LANE, old)
        elsewhere = site.commit_on(LANE, "elsewhere.txt")
        (said,) = await landing.reconcile(await drover.tools())
        assert "was landed and is no longer in main; nothing was changed" in said
        assert site.git("rev-parse", LANE) == elsewhere
        assert (await drover.task(task.id)).detail == task.detail, "what it waits for is still said"


async def test_commits_of_the_operator_that_conflict_with_what_landed_are_named(site: Site) -> None:
    task = await parked(site)
    site.commit("my own")
    async with site.open() as drover:
        await drover.run(workers=1)
        after = await drover.task(task.id)
        assert after.detail == "your commits on main conflict with what landed in README.md"
        assert (site.root / "README.md").read_text() == "mine\n"
        site.git("merge", "-q", "-X", "ours", "-m", "both", LANE)
        await drover.run(workers=1)
        assert (await drover.task(task.id)).status is Status.COMPLETED
    assert (site.root / "README.md").read_text() == "mine\n"
    assert site.git("rev-parse", "main") == site.git("rev-parse", LANE)


@pytest.mark.parametrize("made", [False, True])
async def test_a_branch_to_land_on_that_is_gone_is_named(site: Site, made: bool) -> None:
    async with site.open() as drover:
        tools = await drover.tools()
        if made:
            await lane.standing(tools)
        site.git("checkout", "-q", "--detach")
        site.git("branch", "-D", "main")
        with pytest.raises(GitError, match="there is no branch main"):
            await lane.standing(tools)


# ------------------------------------------------------------ tests of a tree


async def test_red_tests_keep_work_out_and_say_the_last_of_what_they_said(site: Site) -> None:
    command = "printf 'the begin%s' ning; yes filler | head -c 20000; echo the end; exit 7"
    task = await lived(site, test_command=command, max_attempts=1)
    assert task.status is Status.FAILED and task.error is not None
    assert task.error.error_class == "verify"
    assert "(exit 7)" in task.error.message
    assert "the end" in task.error.message and "the beginning" not in task.error.message
    assert landings(site) == []
    assert not list((site.root / ".drover" / "verify").rglob("README.md")), "nothing is left of the place of the tests"


@pytest.mark.parametrize(
    ("command", "timeout", "said"),
    [("kill -KILL $$", "60s", "(exit -9)"), ("echo begun; sleep 60", "1s", "begun")],
    ids=["a signal", "their time"],
)
async def test_tests_that_something_else_ends_are_red_and_say_so(
    site: Site, command: str, timeout: str, said: str
) -> None:
    site.configure(f'[verify]\ntimeout = "{timeout}"\n')
    task = await lived(site, test_command=command, max_attempts=1)
    assert task.status is Status.FAILED and task.error is not None
    assert said in task.error.message


@pytest.mark.parametrize(
    ("given", "runs"), [({"test_mode": "lenient"}, 1), ({"test_mode": "disabled"}, 0), ({"test_scope": "skip"}, 0)]
)
async def test_red_tests_only_warn_where_they_are_lenient_and_are_not_run_where_nobody_wants_them(
    site: Site, given: dict[str, str], runs: int
) -> None:
    ran = site.top / "ran"
    ran.touch()
    task = await lived(site, test_command=f"echo >> {ran}; exit 1", **given)
    assert task.status is Status.COMPLETED
    assert ran.read_text() == "\n" * runs


async def test_tests_see_the_tree_that_lands_and_a_tree_that_passed_is_not_tested_again(site: Site) -> None:
    ran = site.top / "ran"
    command = f"cat README.md work.txt >> {ran}; pwd >> {site.top}/where"
    site.says("echo work > work.txt")
    first = await lived(site, test_command=command)
    assert ran.read_text() == "# A site\nwork\n"
    assert (site.top / "where").read_text().strip() != str(site.worktree(first.id))
    async with site.open() as drover:
        site.git("reset", "-q", "--hard", "main^")
        site.git("update-ref", LANE, "main")
        again = await drover.add("Again", test_command=command)
        await drover.run(workers=1)
        assert (await drover.task(again.id)).status is Status.COMPLETED
        tree = site.git("rev-parse", "main^{tree}")
        proof = await drover.store.landings.find_proof(tree, command)
    assert ran.read_text() == "# A site\nwork\n"
    assert proof is not None and proof.passed and json.loads(proof.model_dump_json())["exit_code"] == 0

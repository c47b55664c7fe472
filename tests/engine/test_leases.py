"""A claim while it is worked on: its lease is renewed, is let go in time, and whoever loses it ends quietly."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest

from drover.app.drover import Drover
from drover.domain import verdicts
from drover.domain.errors import DiskFull, LeaseLost, OutcomeUnknown, SchemaError, StoreUnavailable
from drover.domain.models import RunReport
from drover.domain.states import State, Status
from drover.engine import reaper, result, workers
from drover.engine.workers import Stop
from drover.process import find_marked
from drover.store.claims import Claims
from drover.store.sqlite import SqliteDatabase
from drover.testing import FakeClock
from tests.engine.places import Site

pytestmark = pytest.mark.anyio

HOLDS = """\
echo half > half.txt; echo >> {begun}
until test -e {go}; do sleep 0.02; done
echo $DROVER_TASK_ID > $DROVER_TASK_ID.txt"""


@pytest.fixture
def held(site: Site) -> Site:
    """A site whose agent has done half when ``begun`` is there, and goes on when ``go`` is."""
    site.says(HOLDS.format(begun=site.top / "begun", go=site.top / "go"))
    return site


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at now and then is looked at often."""
    monkeypatch.setattr(reaper, "PATROL_S", 0.05)


@asynccontextmanager
async def running(drover: Drover, **more: Any) -> AsyncIterator[list[RunReport]]:
    """A run beside the test; its report is there at the end."""
    reports: list[RunReport] = []

    async def run() -> None:
        reports.append(await drover.run(**{"workers": 1, **more}))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            yield reports


async def until(true: Callable[[], Awaitable[Any]]) -> None:
    with anyio.fail_after(60):
        while not await true():
            await anyio.sleep(0.01)


async def lease_of(drover: Drover, task_id: str) -> int:
    """When the lease ends, by the store's clock."""

    async def verb(tx: Any) -> int:
        return int((await tx.one("find_task", id=task_id))["lease_until"] or 0)

    return int(await drover.store.database.read(verb))


def away(*_: Any, **__: Any) -> Any:
    raise StoreUnavailable("the database does not answer")


def failing(work: Callable[..., Awaitable[Any]], error: Exception, *, times: int = 1, after: bool = False) -> Any:
    """The verb, but that its first calls raise; ``after``: when they have done what they do."""
    left = [error] * times

    async def call(*given: Any, **named: Any) -> Any:
        if not left:
            return await work(*given, **named)
        if after:
            await work(*given, **named)
        raise left.pop()

    return call


def counting(work: Callable[..., Awaitable[Any]], calls: list[int]) -> Any:
    """The verb, and a call more in the list each time."""

    async def call(*given: Any, **named: Any) -> Any:
        calls.append(1)
        return await work(*given, **named)

    return call


# ------------------------------------------------------------ the heartbeat


async def test_a_lease_is_renewed_while_the_agent_works(held: Site) -> None:
    clock = FakeClock()
    async with held.open(clock, claim_timeout="500ms") as drover:
        task = await drover.add("Long")
        async with running(drover) as reports:
            await held.eventually(held.top / "begun")
            for _ in range(4):  # twice as long as one lease
                clock.advance(0.25)
                await until(lambda: _renewed(drover, clock, task.id))
            (held.top / "go").touch()
        after = await drover.task(task.id)
    assert reports[0].completed == (task.id,)
    assert (after.fence, after.interruptions, after.executions) == (1, 0, 1)


async def _renewed(drover: Drover, clock: FakeClock, task_id: str) -> bool:
    return await lease_of(drover, task_id) >= clock.boottime() + 500


async def test_who_cannot_renew_stops_in_time_and_the_task_goes_on_from_there(
    held: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent goes on as long as what it does can be recorded, and is ended before anybody else may begin."""
    clock = FakeClock()
    async with held.open(clock, claim_timeout="3s") as drover:
        task = await drover.add("Long")
        marker = drover.places.marker(task.id)
        renewals: list[int] = []

        async def renew(*_: Any, **__: Any) -> int:
            renewals.append(clock.boottime())
            raise StoreUnavailable("the database does not answer")

        async with running(drover) as reports:
            await held.eventually(held.top / "begun")
            with monkeypatch.context() as patch:
                patch.setattr(drover.store.claims, "renew", renew)
                end = await lease_of(drover, task.id)
                clock.advance((end - clock.boottime()) / 1000 - 1.2)  # a beat is half a second, and two are kept
                now = clock.boottime()
                await until(lambda: _holds_for(renewals, now))
                assert find_marked(marker), "there is time left"
                clock.advance(0.4)
                await until(lambda: _gone(marker))
                assert await lease_of(drover, task.id) > clock.boottime(), "nobody else may begin yet"
                assert (await drover.task(task.id)).state is State.RUNNING
            (held.top / "go").touch()
            clock.advance(1)
        after = await drover.task(task.id)
    assert reports[0].completed == (task.id,)
    assert (after.fence, after.failures) == (2, 0)


async def _holds_for(renewals: list[int], now: int) -> bool:
    return renewals.count(now) >= 2


async def _gone(marker: str) -> bool:
    return not find_marked(marker)


async def test_a_hiccup_of_the_store_costs_no_claim(held: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async with held.open(FakeClock(), claim_timeout="500ms") as drover:
        task = await drover.add("Long")
        claims, calls = drover.store.claims, list[int]()
        flaky = failing(claims.renew, StoreUnavailable("away"), times=2)
        monkeypatch.setattr(claims, "renew", counting(flaky, calls))
        async with running(drover):
            await until(lambda: _at_least(calls, 4))
            (held.top / "go").touch()
        after = await drover.task(task.id)
    assert (after.status, after.fence) == (Status.COMPLETED, 1)


async def test_a_lease_is_not_renewed_more_often_than_a_sixth_of_it_asks_for(
    held: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with held.open(FakeClock(), claim_timeout="1200ms") as drover:
        await drover.add("Long")
        claims, calls, began = drover.store.claims, list[int](), anyio.current_time()
        monkeypatch.setattr(claims, "renew", counting(claims.renew, calls))
        async with running(drover):
            await until(lambda: _at_least(calls, 4))
            assert len(calls) <= (anyio.current_time() - began) / 0.2 + 1
            (held.top / "go").touch()


async def _at_least(calls: list[int], number: int) -> bool:
    return len(calls) >= number


@pytest.mark.parametrize("trouble", [SchemaError("migrated by a newer drover"), LeaseLost("taken")])
async def test_a_heartbeat_that_fails_for_good_ends_the_life_and_nothing_else(
    held: Site, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    clock = FakeClock()
    async with held.open(clock, claim_timeout="500ms") as drover:
        task = await drover.add("Long")
        marker, claims, ports, left = (
            drover.places.marker(task.id),
            drover.store.claims,
            drover.store.ports,
            anyio.Event(),
        )
        free = ports.free

        async def leave(claim: Any) -> None:
            await free(claim)
            left.set()

        async with running(drover) as reports:
            await held.eventually(held.top / "begun")
            with monkeypatch.context() as patch:
                patch.setattr(claims, "renew", failing(claims.renew, trouble))
                patch.setattr(ports, "free", leave)
                await left.wait()
            assert not find_marked(marker)
            assert (await drover.task(task.id)).state is State.RUNNING, "nothing was written for it"
            (held.top / "go").touch()
            clock.advance(1)
        after = await drover.task(task.id)
    assert reports[0].completed == (task.id,)
    assert (after.fence, after.failures) == (2, 0)


async def test_a_claim_whose_steps_cannot_be_read_is_let_go_with_its_lease(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No heartbeat watches it yet: who waits for a server that is away waits no longer than the claim lasts."""
    async with site.open(claim_timeout="1s") as drover:
        task = await drover.add("First")
        recall, asked = Claims.recall, []

        async def silent(claims: Claims, claim: Any) -> Any:
            asked.append(claim.fence)
            if len(asked) == 1:
                await anyio.sleep_forever()
            return await recall(claims, claim)

        monkeypatch.setattr(Claims, "recall", silent)
        async with running(drover) as reports:
            pass
    assert reports[0].completed == (task.id,)
    assert asked[:2] == [1, 2]


async def test_who_met_a_conflict_resolves_it_before_anything_else_is_begun(site: Site) -> None:
    """While the place is reserved for it."""
    site.says(
        f"grep -q '<<<' README.md && echo both > README.md; echo x > $DROVER_TASK_ID.txt;"
        f" test -e {site.top}/first && exit 0; echo > {site.top}/first;"
        f" echo theirs > README.md; until test -e {site.top}/go; do sleep 0.02; done"
    )
    async with site.open() as drover:
        task = await drover.add("First")
        async with running(drover) as reports:
            await site.eventually(site.top / "first")
            site.write("README.md", "mine\n")
            site.commit("in the way")
            urgent = await drover.add("Urgent", priority=9)
            (site.top / "go").touch()
        claims = [e.task_id async for e in drover.events(types=["task.claimed"])]
    assert claims == [task.id, task.id, urgent.id]
    assert set(reports[0].completed) == {task.id, urgent.id}


@pytest.mark.parametrize("order", ["pause", "cancel"])
async def test_who_is_told_to_stop_stops_at_once_and_keeps_what_was_done(held: Site, order: str) -> None:
    """Long before its heartbeat: the bell has rung."""
    async with held.open() as drover:
        task = await drover.add("Long")
        async with running(drover) as reports:
            await held.eventually(held.top / "begun")
            await (drover.pause([task.id]) if order == "pause" else drover.cancel([task.id]))
        assert not find_marked(drover.places.marker(task.id))
        after = await drover.task(task.id)
        usages = (await drover.details(task.id)).attempts
    assert reports[0].completed == ()
    assert after.state is (State.PAUSED if order == "pause" else State.CANCELLED)
    assert held.saved(task.id, 1, "half.txt") == "half"
    assert [one.ended_at is not None for one in usages] == [True]


async def test_a_ring_of_the_bell_takes_nothing_from_who_holds_its_claim(held: Site) -> None:
    async with held.open() as drover:
        task = await drover.add("Long")
        async with running(drover):
            await held.eventually(held.top / "begun")
            for number in range(2):
                await drover.add(f"Rings {number}", blocked_by=[task])
                drover.store.bell.ring()
                await anyio.sleep(0)
            (held.top / "go").touch()
        after = await drover.task(task.id)
    assert (after.status, after.fence) == (Status.COMPLETED, 1)


# ------------------------------------------------------------ a claim that is in doubt


async def test_a_claim_whose_answer_was_lost_is_found_and_lived(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site.open() as drover:
        task = await drover.add("First")
        claims = drover.store.claims
        lost = failing(claims.claim, OutcomeUnknown("no answer"), after=True)
        monkeypatch.setattr(claims, "claim", lost)
        monkeypatch.setattr(workers, "IDLE_LOOK_S", 0.05)
        async with running(drover) as reports:
            pass
        after = await drover.task(task.id)
    assert reports[0].completed == (task.id,)
    assert (after.fence, after.executions) == (1, 1)


@pytest.mark.parametrize("trouble", [StoreUnavailable("away"), DiskFull("full")])
async def test_a_store_that_is_away_for_a_moment_is_asked_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: Exception
) -> None:
    async with site.open() as drover:
        task = await drover.add("First")
        store = drover.store
        monkeypatch.setattr(store.claims, "claim", failing(store.claims.claim, trouble, times=3))
        monkeypatch.setattr(store.tasks, "outlook", failing(store.tasks.outlook, trouble, times=2))
        monkeypatch.setattr(workers, "IDLE_LOOK_S", 0.05)
        async with running(drover) as reports:
            pass
        after = await drover.task(task.id)
    assert reports[0].completed == (task.id,)
    assert after.fence == 1
    assert caplog.text.count("no claim can be made now") == 1, "told once, not at each try"


@pytest.mark.parametrize("verb", ["complete_step", "settle"])
async def test_a_full_disk_is_waited_out_by_whoever_holds_the_claim(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, verb: str
) -> None:
    """Nobody has to take the task up when its lease has ended."""
    left = [DiskFull("full")] * 3

    async def write(database: SqliteDatabase, work: Any) -> Any:
        if verb in work.__qualname__ and left:
            raise left.pop()
        return await real(database, work)

    real = SqliteDatabase.write
    monkeypatch.setattr(SqliteDatabase, "write", write)
    async with site.open() as drover:
        task = await drover.add("First")
        report = await drover.run(workers=1)
        after = await drover.task(task.id)
    assert not left, "it was refused"
    assert (report.completed, after.fence, after.executions) == ((task.id,), 1, 1)
    assert caplog.text.count("waiting for the database: full") == 1, "told once, not at each try"


async def test_what_could_not_be_settled_is_taken_up_from_its_last_step(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    async with site.open(clock, claim_timeout="30s") as drover:
        task = await drover.add("First")
        tried = anyio.Event()
        settle = failing(Claims.settle, StoreUnavailable("away"), times=2)

        async def tell(*given: Any) -> Any:
            tried.set()
            return await settle(*given)

        monkeypatch.setattr(Claims, "settle", tell)
        async with running(drover) as reports:
            await tried.wait()
            clock.advance(31)
        after = await drover.task(task.id)
    assert (reports[0].completed, reports[0].continued) == ((task.id,), 1)
    assert (after.fence, after.executions) == (2, 1)
    assert site.git("log", "--format=%s", "main").splitlines().count("First") == 1


async def _told(drover: Drover, type: str) -> bool:
    return bool([e async for e in drover.events(types=[type])])


# ------------------------------------------------------------ snapshots and farewells


async def test_what_an_agent_writes_is_saved_while_it_works(held: Site) -> None:
    async with held.open(snapshot_every="100ms") as drover:
        task = await drover.add("Long")
        async with running(drover):
            await held.eventually(held.top / "begun")
            await until(lambda: _saved(held, task.id))
            (held.top / "go").touch()
    assert held.saved(task.id, 1, "half.txt") == "half"


async def _saved(site: Site, task_id: str) -> bool:
    return bool(site.git("for-each-ref", f"refs/drover/wip/{task_id}"))


async def test_work_of_a_failed_attempt_is_saved_and_landed_work_is_not(site: Site) -> None:
    site.says("echo $DROVER_TASK_ID > work.txt; cat > prompt; ! grep -q Fails prompt && rm prompt")
    async with site.open(max_attempts=1) as drover:
        fails, lands = await drover.add("Fails"), await drover.add("Lands")
        async with running(drover):
            pass
        assert (await drover.task(fails.id)).status is Status.FAILED
        assert (await drover.task(lands.id)).status is Status.COMPLETED
    assert site.saved(fails.id, 1, "work.txt") == fails.id
    assert not await _saved(site, lands.id)


@pytest.mark.parametrize(
    ("error", "times", "reason", "is_told"),
    [
        (RuntimeError("a bug of ours"), 1, "internal", True),
        # However often: it is no trouble of the task's.
        (OSError(errno.ENOSPC, "no space left"), verdicts.TROUBLES_LIMIT + 1, "disk_full", False),
    ],
    ids=["a bug", "a full disk"],
)
async def test_an_error_that_is_not_the_tasks_uses_up_no_attempt(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, times: int,
    reason: str, is_told: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(verdicts, "backoff_ms", lambda *_: 20)
    monkeypatch.setattr(result, "take", failing(result.take, error, times=times))
    async with site.open() as drover:
        task = await drover.add("First")
        async with running(drover):
            pass
        after = await drover.task(task.id)
        waited = [e.data["reason"] async for e in drover.events(types=["task.waiting"])]
    assert (after.status, after.failures, after.executions) == (Status.COMPLETED, 0, 1)
    assert waited == [reason] * times
    assert ("Traceback" in caplog.text and str(error) in caplog.text) is is_told


async def test_a_run_waits_no_longer_than_until_the_next_task_is_due(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "backoff_ms", lambda *_: 300)
    monkeypatch.setattr(workers, "IDLE_LOOK_S", 600.0)
    site.says(f"test -e {site.top}/again || {{ touch {site.top}/again; exit 1; }}; echo x > x.txt")
    async with site.open() as drover:
        task = await drover.add("First")
        async with running(drover) as reports:
            pass
    assert reports[0].completed == (task.id,)


async def test_a_stop_gives_back_what_is_at_work_and_begins_nothing_more(held: Site) -> None:
    stop = Stop()
    async with held.open() as drover:
        first, second = await drover.add("First", priority=1), await drover.add("Second")
        async with running(drover, stop=stop) as reports:
            await held.eventually(held.top / "begun")
            stop.soft()
        assert not find_marked(drover.places.marker(first.id))
        after, other = await drover.task(first.id), await drover.task(second.id)
        (attempt,) = (await drover.details(first.id)).attempts
    assert reports[0].interrupted
    assert (after.status, after.attempt, after.failures, after.interruptions) == (Status.READY, 1, 0, 1)
    assert attempt.outcome == "interrupted"
    assert other.fence == 0
    assert held.saved(first.id, 1, "half.txt") == "half"


async def test_a_hurry_gives_no_grace_to_an_agent_that_does_not_listen(site: Site) -> None:
    site.says(f"trap '' TERM INT; echo > {site.top}/begun; while :; do sleep 0.05; done")
    stop = Stop()
    async with site.open() as drover:
        task = await drover.add("Deaf")
        async with running(drover, stop=stop) as reports:
            await site.eventually(site.top / "begun")
            stop.hard()
        assert not find_marked(drover.places.marker(task.id))
    assert reports[0].interrupted


@pytest.mark.parametrize(("where", "how"), [("agent", "redone"), ("tests", "continued")])
async def test_a_run_tells_whether_it_went_on_with_what_was_cut_off_or_did_it_again(
    held: Site, where: str, how: str
) -> None:
    stop = Stop()
    holds = f"echo >> {held.top}/begun; until test -e {held.top}/go; do sleep 0.02; done"
    if where == "tests":
        held.says("echo $DROVER_TASK_ID > done.txt")
    async with held.open() as drover:
        task = await drover.add("First", test_command="true" if where == "agent" else holds)
        async with running(drover, stop=stop):
            await held.eventually(held.top / "begun")
            stop.soft()
        (held.top / "go").touch()
        async with running(drover) as reports:
            pass
        async with running(drover) as empty:
            pass
    assert reports[0].completed == (task.id,)
    assert (reports[0].continued, reports[0].redone) == ((1, 0) if how == "continued" else (0, 1))
    assert (empty[0].continued, empty[0].redone) == (0, 0)


async def test_an_attempt_after_a_failed_one_takes_nothing_up(site: Site) -> None:
    """Of an interruption that lies further back it is not said again that it was gone on with."""
    clock, begun = FakeClock(), site.top / "begun"
    site.says(f"echo >> {begun}; sleep 60")
    async with site.open(clock) as drover:
        task = await drover.add("First")
        async with running(drover, stop=(stop := Stop())):
            await site.eventually(begun)
            stop.soft()
        site.says("exit 1")
        async with running(drover, stop=(stop := Stop())):
            await until(lambda: _told(drover, "task.retrying"))
            stop.soft()
        site.says("echo x > x.txt")
        clock.advance(60)
        async with running(drover) as reports:
            pass
    assert reports[0].completed == (task.id,)
    assert (reports[0].continued, reports[0].redone) == (0, 0)


async def test_a_claim_that_is_got_while_the_run_is_told_to_stop_is_given_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody had looked at it yet, and this process lives on: nothing else would free it before its lease ends."""
    stop = Stop()
    async with site.open() as drover:
        task = await drover.add("First")
        claims = drover.store.claims
        claim = claims.claim

        async def stopped_meanwhile(*given: Any, **named: Any) -> Any:
            stop.soft()
            return await claim(*given, **named)

        with monkeypatch.context() as patch:
            patch.setattr(claims, "claim", stopped_meanwhile)
            async with running(drover, stop=stop):
                pass
        after = await drover.task(task.id)
        async with running(drover) as reports:
            pass
    assert (after.status, after.claimed_by, after.attempt) == (Status.READY, None, 1)
    assert reports[0].completed == (task.id,)


async def test_a_run_that_is_cancelled_from_outside_gives_back_what_it_has(held: Site) -> None:
    async with held.open() as drover:
        task = await drover.add("First")
        with anyio.fail_after(60), anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(partial(drover.run, workers=2))
                await held.eventually(held.top / "begun")
                scope.cancel()
        assert not find_marked(drover.places.marker(task.id))
        after = await drover.task(task.id)
    assert (after.status, after.claimed_by, after.fence, after.failures) == (Status.READY, None, 1, 0)
    assert held.saved(task.id, 1, "half.txt") == "half"

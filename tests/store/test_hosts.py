"""Hosts on one store: who is there, whose turn it is to land, and how work goes from one to another."""

from __future__ import annotations

import pytest

from drover.domain.errors import LeaseLost
from drover.domain.models import ProcessIdentity, Run, Worker
from drover.store import Store
from drover.testing import FakeClock
from tests.store.conftest import LEASE_MS
from tests.store.scenes import add, take

pytestmark = pytest.mark.anyio


async def start(store: Store, host: str, *, push: str | None = None) -> Run:
    run = Run(id=f"run-{host}", host=host, push=push, target="main")
    process = ProcessIdentity(boot_id=host, pid=1, started=1)
    await store.workers.start_run(run, [Worker(id=f"{host}-1", host=host, process=process, run_id=run.id)])
    return run


async def test_a_lane_is_one_holders_until_it_leaves_or_its_turn_is_over(store: Store, clock: FakeClock) -> None:
    landings = store.landings
    assert await landings.take_lane("main", "a", for_ms=1000)
    assert not await landings.take_lane("main", "b", for_ms=1000)
    assert await landings.take_lane("other", "b", for_ms=1000), "each target has its own"
    clock.advance(0.6)
    assert await landings.take_lane("main", "a", for_ms=1000), "its holder may keep it for longer"
    clock.advance(0.6)
    assert not await landings.take_lane("main", "b", for_ms=1000)
    clock.advance(0.4)
    assert await landings.take_lane("main", "b", for_ms=1000), "the turn of one that does not come back ends"
    await landings.leave_lane("main", "a")
    assert not await landings.take_lane("main", "a", for_ms=1000), "who has lost the lane cannot give it away"
    ticket = store.bell.ticket()
    await landings.leave_lane("main", "b")
    assert await store.bell.wait(ticket, 0), "whoever waits is woken"
    assert await landings.take_lane("main", "a", for_ms=1000)


async def test_hosts_see_each_other_as_long_as_they_say_that_they_are_there(store: Store, clock: FakeClock) -> None:
    mine, theirs = await start(store, "here", push="origin"), await start(store, "there")
    (other,) = await store.workers.others_at_work("here", within_ms=1000)
    assert (other.host, other.push, other.target) == ("there", None, "main")
    assert [o.push for o in await store.workers.others_at_work("there", within_ms=1000)] == ["origin"]
    clock.advance(1.001)
    assert await store.workers.others_at_work("here", within_ms=1000) == []
    await store.workers.note_seen(theirs.id, unseen_ms=5000)
    assert len(await store.workers.others_at_work("here", within_ms=1000)) == 1
    await store.workers.finish_run(theirs, [Worker(id="there-1", host="there", process=_nobody())], {})
    assert await store.workers.others_at_work("here", within_ms=1000) == []
    await store.workers.note_seen(mine.id, unseen_ms=5000)


async def test_a_worker_that_vanished_is_taken_for_gone_and_one_that_comes_back_is_there(
    store: Store, clock: FakeClock
) -> None:
    mine, theirs = await start(store, "here"), await start(store, "there")
    clock.advance(5.001)
    await store.workers.note_seen(mine.id, unseen_ms=5000)
    assert [w.id for w in await store.workers.list_workers()] == ["here-1"]
    await store.workers.note_seen(theirs.id, unseen_ms=10_000)
    assert [w.id for w in await store.workers.list_workers()] == ["here-1", "there-1"]


async def test_a_worker_that_holds_a_task_is_never_taken_for_gone(store: Store, clock: FakeClock) -> None:
    await add(store)
    claim = await take(store)
    mine = await start(store, "here")
    clock.advance(LEASE_MS / 100)
    await store.workers.note_seen(mine.id, unseen_ms=1)
    assert claim.worker_id in [w.id for w in await store.workers.list_workers()], "its claim is to be rescued first"


async def test_a_move_is_recorded_and_forgets_what_did_not_come_along(store: Store, clock: FakeClock) -> None:
    task = await add(store)
    claim = await take(store)
    await store.claims.complete_step(claim, "prepare_worktree", "{}", started_at=clock.now())
    await store.claims.move(claim, origin="continued from x", begin_anew=False, from_host="there")
    assert [s.name for s in await store.claims.steps(task.id, 1)] == ["prepare_worktree"]
    await store.claims.move(claim, origin="begun anew", begin_anew=True, from_host="there")
    assert await store.claims.steps(task.id, 1) == []
    assert [a.origin for a in await store.claims.attempts(task.id)] == ["begun anew"]
    moved = [e.data for e in await store.events.page(task_id=task.id) if e.type == "task.moved"]
    assert [(m["origin"], m["from_host"]) for m in moved] == [("continued from x", "there"), ("begun anew", "there")]
    await store.claims.complete_step(claim, "prepare_worktree", "{}", started_at=clock.now())


async def test_a_zombie_moves_nothing(store: Store, clock: FakeClock) -> None:
    task = await add(store)
    claim = await take(store)
    await store.claims.complete_step(claim, "prepare_worktree", "{}", started_at=clock.now())
    clock.advance(LEASE_MS / 1000)
    with pytest.raises(LeaseLost):
        await store.claims.move(claim, origin="late", begin_anew=True)
    assert len(await store.claims.steps(task.id, 1)) == 1


def _nobody() -> ProcessIdentity:
    return ProcessIdentity(boot_id="", pid=0, started=0)

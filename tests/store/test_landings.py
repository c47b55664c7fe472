"""The landing ledger: intents, outcomes, what waits to be published, proofs of trees."""

from __future__ import annotations

import pytest

from drover.domain.errors import LeaseLost, WrongState
from drover.domain.models import Proof
from drover.domain.states import State, Status
from drover.domain.verdicts import Completed, Failed, Outcome, Parked
from drover.store import Store
from drover.store.landings import Unpublished
from drover.testing import FakeClock
from tests.store.conftest import LEASE_MS
from tests.store.scenes import add, complete, land, landing_of, plain, take

pytestmark = pytest.mark.anyio


async def intend(store: Store, claim, commit: str, old: str = "old") -> None:
    await store.landings.intend(claim, target="main", old=old, commit=commit, tree="tree")


async def states(store: Store, task_id: str) -> list[tuple[int, str, str]]:
    return [(r.fence, r.commit, r.state) for r in await store.landings.of_task(task_id)]


async def test_an_intent_is_written_before_the_lane_moves_and_replaced_when_it_had_moved(store: Store) -> None:
    task = await add(store)
    claim = await take(store)
    await intend(store, claim, "c1")
    (row,) = await store.landings.open("main")
    assert (row.task_id, row.commit, row.old, row.tree, row.state) == (task.id, "c1", "old", "tree", "intent")
    await store.landings.abandon(claim)
    assert await store.landings.open("main") == []
    await intend(store, claim, "c2", old="newer")
    assert await states(store, task.id) == [(1, "c2", "intent")]
    assert await store.landings.open("other") == []


async def test_only_the_holder_of_a_lasting_claim_may_intend(store: Store, clock: FakeClock) -> None:
    await add(store)
    claim = await take(store)
    clock.advance(LEASE_MS)
    with pytest.raises(LeaseLost):
        await intend(store, claim, "late")
    assert await states(store, claim.task_id) == []


async def test_landing_closes_every_other_intent_of_the_task(store: Store) -> None:
    task = await add(store)
    first = await take(store)
    await intend(store, first, "c1")
    (held,) = await store.claims.running()
    await store.claims.rescue(held, dead=True)
    second = await take(store, task)
    await intend(store, second, "c2")
    await store.landings.landed(second, landing_of(second, "c2"))
    assert await states(store, task.id) == [(1, "c1", "abandoned"), (2, "c2", "landed")]


async def test_an_intent_of_a_dead_holder_that_did_land_is_found_by_the_next(store: Store) -> None:
    task = await add(store)
    first = await take(store)
    await intend(store, first, "c1")
    (held,) = await store.claims.running()
    await store.claims.rescue(held, dead=True)
    second = await take(store, task)
    await store.landings.landed(second, landing_of(second, "c1").model_copy(update={"found": True}))
    assert await states(store, task.id) == [(1, "c1", "landed")]
    assert (await store.tasks.get(task.id)).landed_commit == "c1"


async def test_a_landing_is_recorded_once_however_often_it_is_told(store: Store) -> None:
    task = await add(store)
    behind = await add(store, blocked_by=[task, await add(store)])
    claim = await take(store, task)
    landed = await land(store, claim)
    for _ in range(2):
        await store.landings.landed(claim, landed)
    (held,) = await store.claims.running()
    await store.claims.rescue(held, dead=True)
    later = await take(store, task)  # a later claim of the same attempt comes to the same step once more
    await store.landings.landed(later, landed)
    assert (await store.tasks.get(behind.id)).open_blockers == 1
    assert [e.type for e in await store.events.page()].count("task.landed") == 1
    with pytest.raises(LeaseLost):
        await store.landings.landed(claim, landed)
    assert await store.tasks.miscounted() == []


async def test_what_cannot_be_published_yet_waits_for_a_person(store: Store, clock: FakeClock) -> None:
    task = await add(store)
    behind = await add(store, blocked_by=[task])
    claim = await take(store)
    landed = await land(store, claim)
    parked = await store.claims.settle(claim, Parked(reason="publish", detail="in the way", landed=landed))
    assert (parked.status, parked.reason, parked.needs_person) == (Status.WAITING, "publish", True)
    assert (await store.tasks.get(behind.id)).status is Status.READY
    assert await store.landings.unpublished() == [Unpublished(task.id, None, 1, landed.commit)]
    await store.landings.describe_wait([task.id], "README.md is edited")
    assert (await store.tasks.get(task.id)).detail == "README.md is edited"
    clock.advance(3600)
    assert (await store.tasks.get(task.id)).status is Status.WAITING

    unpublished = await store.landings.unpublished()
    for _ in range(2):
        await store.landings.published(unpublished, "main")
    done = await store.tasks.get(task.id)
    assert (done.state, done.reason, done.detail, done.completed_at) == (State.COMPLETED, None, None, clock.now())
    assert await store.landings.open("main") == []
    assert [e.type for e in await store.events.page()].count("task.completed") == 1


async def test_publishing_completes_nothing_that_does_not_wait_for_it(store: Store) -> None:
    running, reset = await add(store), await add(store)
    claim = await take(store, running)
    landed = await land(store, claim)
    other = await take(store, reset)
    await store.claims.settle(other, Parked(reason="publish", landed=await land(store, other)))
    (stale,) = await store.landings.unpublished()
    await store.tasks.reset(reset.id)
    await store.landings.published([stale, Unpublished(running.id, None, 1, landed.commit)], "main")
    assert [(await store.tasks.get(t.id)).state for t in (running, reset)] == [State.RUNNING, State.QUEUED]


async def test_unpublished_landings_are_listed_in_the_order_they_landed(store: Store, clock: FakeClock) -> None:
    tasks = [await add(store) for _ in range(3)]
    for task in reversed(tasks):
        clock.advance(1)
        claim = await take(store, task)
        await store.claims.settle(claim, Parked(reason="publish", landed=await land(store, claim)))
    assert [u.task_id for u in await store.landings.unpublished()] == [t.id for t in reversed(tasks)]


# ------------------------------------------------------------ the operator's hand on what has landed


async def test_what_has_landed_cannot_be_cancelled(store: Store) -> None:
    task = await add(store)
    claim = await take(store)
    landed = await land(store, claim)
    with pytest.raises(WrongState, match="has landed already"):
        await store.tasks.cancel(task.id)
    await store.claims.settle(claim, Parked(reason="publish", landed=landed))
    with pytest.raises(WrongState, match="has landed already"):
        await store.tasks.cancel(task.id)
    with pytest.raises(WrongState, match="blockers come before the work"):
        await store.tasks.block(task.id, [(await add(store)).id])


async def test_a_reset_lets_a_landed_task_land_once_more_and_its_dependents_wait_again(store: Store) -> None:
    task = await add(store)
    behind = await add(store, blocked_by=[task])
    await complete(store, task)
    reset = await store.tasks.reset(task.id)
    assert (reset.state, reset.attempt, reset.first_attempt) == (State.QUEUED, 2, 2)
    assert (reset.landed_at, reset.landed_commit, reset.completed_at) == (None, None, None)
    assert (await store.tasks.get(behind.id)).open_blockers == 1
    await complete(store, task)
    assert (await store.tasks.get(behind.id)).status is Status.READY
    assert [r.state for r in await store.landings.of_task(task.id)] == ["published", "published"]


async def test_a_reset_of_what_waits_to_be_published_starts_it_over(store: Store) -> None:
    task = await add(store)
    behind = await add(store, blocked_by=[task])
    claim = await take(store)
    await store.claims.settle(claim, Parked(reason="publish", landed=await land(store, claim)))
    await store.tasks.reset(task.id)
    assert await store.landings.unpublished() == []
    assert (await store.tasks.get(behind.id)).status is Status.BLOCKED
    await complete(store, task)
    assert [(r.attempt, r.state) for r in await store.landings.of_task(task.id)] == [(1, "landed"), (2, "published")]
    assert await store.tasks.miscounted() == []


async def test_giving_up_an_intent_touches_no_other_and_no_outcome(store: Store) -> None:
    task = await add(store)
    first = await take(store, task)
    await intend(store, first, "c1")
    (held,) = await store.claims.running()
    await store.claims.rescue(held, dead=True)
    second = await take(store, task)
    await intend(store, second, "c2")
    await store.landings.abandon(second)
    assert await states(store, task.id) == [(1, "c1", "intent"), (2, "c2", "abandoned")]
    await store.landings.landed(second, landing_of(second, "c1"))
    await store.landings.abandon(first)
    assert await states(store, task.id) == [(1, "c1", "landed"), (2, "c2", "abandoned")]


async def test_what_landed_and_waits_for_something_else_is_not_to_be_published(store: Store) -> None:
    task = await add(store)
    claim = await take(store)
    landed = await land(store, claim)
    parked = await store.claims.settle(claim, Parked(reason="internal", detail="git", landed=landed))
    assert await store.landings.unpublished() == []
    await store.landings.published([Unpublished(task.id, None, 1, landed.commit)], "main")
    await store.landings.describe_wait([task.id], "not this one")
    assert plain(await store.tasks.get(task.id)) == plain(parked)


async def test_a_retry_of_what_failed_after_landing_does_not_land_again(store: Store) -> None:
    task = await add(store)
    behind = await add(store, blocked_by=[task])
    claim = await take(store, task)
    landed = await land(store, claim)
    failed = await store.claims.settle(claim, Failed(error_class=Outcome.INTERNAL, message="disk"))
    assert failed.landed_commit == landed.commit
    waits = await add(store, blocked_by=[task, await add(store)])
    assert not waits.stranded  # it waits for the other one alone
    (retried,) = await store.tasks.retry(task.id, max_attempts=3)
    assert (retried.attempt, retried.failures, retried.error, retried.landed_commit) == (1, 0, None, landed.commit)
    assert (await store.tasks.get(behind.id)).status is Status.READY
    again = await take(store, task)
    await store.landings.landed(again, landed)
    done = await store.claims.settle(again, Completed(landed=landed))
    assert plain(done)["state"] == "completed"
    assert await store.tasks.miscounted() == []


# ------------------------------------------------------------ proofs


async def test_a_verdict_on_a_tree_is_remembered_for_its_command(store: Store) -> None:
    proof = Proof(tree="t", passed=False, mode="strict", command="make", exit_code=2, seconds=1.5, log="l", retries=1)
    assert await store.landings.find_proof("t", "make") is None
    await store.landings.keep_proof(proof)
    assert await store.landings.find_proof("t", "make") == proof.model_copy(update={"known": True})
    assert await store.landings.find_proof("t", "make test") is None
    await store.landings.keep_proof(proof.model_copy(update={"passed": True, "exit_code": 0}))
    found = await store.landings.find_proof("t", "make")
    assert found is not None and found.passed

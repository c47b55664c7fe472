"""Orders and words as rows: what they move, what they refuse, and that no word is lost or told by a zombie."""

from __future__ import annotations

import pytest

from drover.domain.errors import LeaseLost, WrongState
from drover.domain.models import AgentReport
from drover.domain.states import State
from drover.domain.verdicts import Parked, Released
from drover.store import Store

from .conftest import LEASE_MS, Place
from .scenes import add, complete, start, take

pytestmark = pytest.mark.anyio


async def types(store: Store, task_id: str) -> list[str]:
    return [e.type for e in await store.events.page(task_id=task_id)]


async def test_a_pause_takes_the_claim_away_and_costs_no_attempt(store: Store) -> None:
    claim = await take(store, await add(store))
    await start(store, claim, session_id="s1")
    task = await store.orders.pause(claim.task_id, reason="lunch", by="ann")
    assert (task.state, task.failures, task.attempt) == (State.PAUSED, 0, 1)
    assert not await store.claims.holds(claim)
    with pytest.raises(LeaseLost):
        await store.claims.complete_step(claim, "let_agent_work", "{}", started_at=0)
    with pytest.raises(LeaseLost):
        await store.claims.settle(claim, Released())
    (attempt,) = await store.claims.attempts(task.id)
    assert (attempt.outcome, attempt.session_id) == ("paused", "s1")
    event = (await store.events.page(task_id=task.id))[-1]
    assert (event.type, event.data["by"], event.data["reason"]) == ("task.paused", "ann", "lunch")


async def test_a_paused_task_is_not_claimed_until_it_is_resumed(store: Store) -> None:
    task = await add(store)
    await store.orders.pause(task.id)
    outlook = await store.tasks.outlook()
    assert outlook.done
    assert outlook.person
    resumed = await store.orders.resume(task.id, hint="use tabs", by="ann")
    assert resumed.state is State.QUEUED
    assert (await take(store, task)).task_id == task.id
    (word,) = await store.orders.words(task.id)
    assert (word.kind, word.text, word.said_by, word.told_at) == ("hint", "use tabs", "ann", None)


async def test_only_what_is_unfinished_can_be_paused_and_only_what_is_paused_resumed(store: Store) -> None:
    task = await add(store)
    with pytest.raises(WrongState, match="not paused"):
        await store.orders.resume(task.id)
    await store.orders.pause(task.id)
    with pytest.raises(WrongState, match="is paused"):
        await store.orders.pause(task.id)
    done = await complete(store, await add(store))
    with pytest.raises(WrongState, match="is completed"):
        await store.orders.pause(done.id)
    with pytest.raises(WrongState, match="has landed"):
        await store.orders.hint(done.id, "too late")


async def asking(store: Store) -> str:
    claim = await take(store, await add(store))
    await start(store, claim, session_id="s1")
    await store.claims.report(claim, AgentReport(outcome="question", question="which colour?", session_id="s1"))
    await store.claims.settle(claim, Parked(reason="question", detail="which colour?"))
    return claim.task_id


async def test_an_answer_wakes_the_task_with_question_and_answer(store: Store) -> None:
    id = await asking(store)
    task = await store.orders.answer(id, "blue", by="ann")
    assert task.state is State.QUEUED
    (word,) = await store.orders.untold(id, fence=99)
    assert (word.kind, word.text, word.question, word.said_by) == ("answer", "blue", "which colour?", "ann")
    with pytest.raises(WrongState, match="asks nothing"):
        await store.orders.answer(id, "green")
    assert (await types(store, id))[-1] == "task.answered"


async def test_a_hint_does_not_answer_a_question(store: Store) -> None:
    id = await asking(store)
    await store.orders.hint(id, "by the way")
    assert (await store.tasks.get(id)).state is State.WAITING


async def test_a_question_outlives_a_pause_and_a_hint_on_resuming_is_its_answer(store: Store) -> None:
    id = await asking(store)
    await store.orders.pause(id)
    again = await store.orders.resume(id)
    assert (again.state, again.reason, again.detail) == (State.WAITING, "question", "which colour?")
    await store.orders.pause(id)
    assert (await store.orders.resume(id, hint="blue")).state is State.QUEUED
    (word,) = await store.orders.words(id)
    assert (word.kind, word.question) == ("answer", "which colour?")


async def test_words_are_told_once_unless_the_execution_that_was_told_was_cut_off(store: Store) -> None:
    task = await add(store)
    await store.orders.hint(task.id, "use tabs")
    first = await take(store, task)
    words = await store.orders.untold(task.id, first.fence)
    await store.orders.told(first, words, "turn")
    assert await store.orders.untold(task.id, first.fence) == []
    await store.claims.settle(first, Released())  # interrupted: nobody knows what the session has kept
    second = await take(store, task)
    assert [w.text for w in await store.orders.untold(task.id, second.fence)] == ["use tabs"]
    await store.orders.told(second, words, "session")
    await store.claims.report(second, AgentReport(outcome="rate_limited"))
    await store.claims.settle(second, Parked(reason="rate_limited", until=0))
    third = await take(store, task)
    assert await store.orders.untold(task.id, third.fence) == []
    (word,) = await store.orders.words(task.id)
    assert (word.told_how, word.told_fence) == ("session", second.fence)


async def test_a_zombie_cannot_say_that_its_agent_was_told(place: Place) -> None:
    async with place.open() as store:
        task = await add(store)
        word = await store.orders.hint(task.id, "use tabs")
        claim = await take(store, task)
        place.clock.advance(LEASE_MS / 1000 + 1)
        with pytest.raises(LeaseLost):
            await store.orders.told(claim, [word], "turn")
        assert (await store.orders.words(task.id))[0].told_at is None


async def test_that_an_order_was_obeyed_is_told_only_while_nobody_has_begun_anew(store: Store) -> None:
    claim = await take(store, await add(store))
    await store.orders.stopped(claim)  # it still stands
    await store.orders.pause(claim.task_id)
    await store.orders.stopped(claim)
    assert (await types(store, claim.task_id))[-2:] == ["task.paused", "task.stopped"]
    await store.orders.resume(claim.task_id)
    await take(store, await store.tasks.get(claim.task_id))
    await store.orders.stopped(claim)
    assert (await types(store, claim.task_id)).count("task.stopped") == 1

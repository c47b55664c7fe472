"""A step is done once and recalled afterwards, and none is begun on a lease that has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from drover.app.drover import Drover
from drover.domain.errors import LeaseLost
from drover.domain.models import AgentReport, Claim, Removed, Worker
from drover.domain.models import Run as Record
from drover.domain.verdicts import Outcome
from drover.engine.steps import Run, step
from drover.process import current_identity
from drover.testing import FakeClock
from tests.engine.places import Site

pytestmark = pytest.mark.anyio

done: list[str] = []


@step
async def clear(run: Run, path: str) -> Removed:
    """Remembers that it was done."""
    done.append(path)
    return Removed(path=path)


@step
async def ask(run: Run, outcome: Outcome) -> AgentReport:
    """An agent's step."""
    done.append(outcome)
    return AgentReport(outcome=outcome, summary="said")


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def drover(site: Site, clock: FakeClock) -> AsyncIterator[Drover]:
    async with site.open(clock, claim_timeout="30s") as opened:
        yield opened


async def claimed(drover: Drover) -> Claim:
    await drover.add("Task")
    worker = Worker(id="w-1", host="here", process=current_identity())
    await drover.store.workers.start_run(Record(id="run-w", host="here"), [worker])
    claim = await drover.store.claims.claim(worker, agent="command")
    assert claim is not None
    return claim


async def a_run(drover: Drover, claim: Claim) -> Run:
    return Run(claim, await drover.tools(), await drover.store.claims.recall(claim))


async def test_a_step_that_has_a_result_is_recalled_and_not_done_again(drover: Drover) -> None:
    claim = await claimed(drover)
    first = await (await a_run(drover, claim))(clear, "one")
    run = await a_run(drover, claim)
    assert await run(clear, "another") == first == Removed(path="one")
    assert run.results == {"clear": first}
    assert done == ["one"]


async def test_a_step_renews_the_lease_and_is_told(drover: Drover, clock: FakeClock) -> None:
    claim = await claimed(drover)
    run = await a_run(drover, claim)
    clock.advance(20)
    await run(clear, "one")
    assert run.doing == "clear"
    assert run.lease_until == clock.boottime() + 30_000
    clock.advance(20)
    run.renewed(clock.boottime())
    run.hold()  # an answer that comes late takes nothing from what is known
    assert await drover.store.claims.holds(claim)
    assert [e.data["step"] async for e in drover.events(types=["step.completed"])] == ["clear"]


async def test_no_step_is_begun_at_the_end_of_its_lease(drover: Drover, clock: FakeClock) -> None:
    """Here as in the store: at the very end it is over."""
    claim = await claimed(drover)
    run = await a_run(drover, claim)
    clock.advance(29.999)
    run.hold()
    assert await drover.store.claims.holds(claim)
    clock.advance(0.001)
    assert not await drover.store.claims.holds(claim)
    with pytest.raises(LeaseLost, match="ended while nobody looked"):
        await run(clear, "one")
    assert done == []


@pytest.mark.parametrize(("outcome", "kept"), [(Outcome.DONE, True), (Outcome.FAILED, True), (Outcome.QUESTION, False)])
async def test_what_waits_is_reported_but_is_no_result_so_the_step_goes_on_later(
    drover: Drover, outcome: Outcome, kept: bool
) -> None:
    claim = await claimed(drover)
    run = await a_run(drover, claim)
    report = await run(ask, outcome)
    assert (report.outcome, report.summary) == (outcome, "said")
    assert ("ask" in await drover.store.claims.recall(claim)) is kept
    assert ("ask" in run.results) is kept
    (attempt,) = await drover.store.claims.attempts(claim.task_id)
    assert attempt.outcome == outcome


async def test_who_works_is_the_claims_agent_then_the_tasks_then_the_settings(drover: Drover) -> None:
    claim = await claimed(drover)
    tools = await drover.tools()
    named = claim.task.model_copy(update={"agent": "scripted"})
    assert Run(claim.model_copy(update={"agent": "claude", "task": named}), tools, {}).agent == "claude"
    assert Run(claim.model_copy(update={"agent": None, "task": named}), tools, {}).agent == "scripted"
    assert Run(claim.model_copy(update={"agent": None}), tools, {}).agent == "command"

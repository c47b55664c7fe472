"""Waiting for a provider: a limit is waited out by every task of the agent, an overload by the task alone."""

from __future__ import annotations

from drover.domain.models import AgentLimit, AgentReport
from drover.domain.policy import backoff_ms
from drover.domain.verdicts import Outcome, Parked
from drover.engine.steps import Run
from drover.store.limits import choose_agent, wake_at

ALIKE = 3  # waits after refusals of too many requests that are not doubled yet
OF_THE_ACCOUNT = frozenset({Outcome.RATE_LIMITED.value, Outcome.USAGE_LIMIT.value})
ASKS = frozenset({Outcome.QUESTION.value, Outcome.PERMISSION.value})  # a person has to say something
OF_THE_PROVIDER = OF_THE_ACCOUNT | {Outcome.OVERLOADED.value}


async def wait_out(run: Run, report: AgentReport) -> Parked:
    """The wait that an execution's report asks for; a limit is made known to the tasks that have not begun.

    Until the time that the provider told, and at least later and later with each execution in a row that
    came to nothing but this: it may tell no time, or one after which it still refuses. Where another agent
    may stand in, the task goes on with that one at once.
    """
    tools, until = run.tools, report.until
    if report.outcome in OF_THE_PROVIDER or (report.outcome == Outcome.LATER and until is None):
        until = max(until or 0, tools.clock.now() + _backoff_ms(run, report.outcome, await _refusals(run)))
    if report.outcome in OF_THE_ACCOUNT and until is not None:
        limit = AgentLimit(agent=run.agent, until=until, reason=report.outcome)
        told = await tools.store.limits.note(run.agent, until, reason=report.outcome, detail=report.reason)
        if (other := await _stand_in(run)) is not None:
            return Parked(reason=report.outcome, detail=f"{report.reason}; {other} goes on", until=tools.clock.now())
        if not told:  # others ran into it, too: they do not all go on at once
            until = wake_at(limit, run.claim.task_id, tools.clock.now())
    reason = "question" if report.outcome in ASKS else report.outcome
    return Parked(reason=reason, detail=report.question or report.reason, until=until)


async def _stand_in(run: Run) -> str | None:
    """Who may go on with the task now that its agent is limited."""
    tools = run.tools
    limits = {limit.agent: limit for limit in await tools.store.limits.standing()}
    agents = dict.fromkeys((tools.agent_of(run.claim.task), *tools.settings.fallback))
    agent, limit = choose_agent(tuple(agents), limits)
    return agent if limit is None else None


def _backoff_ms(run: Run, outcome: str, refusals: int) -> int:
    """Later and later; for a refusal of too many requests as ``[backpressure]`` says.

    Providers count requests by the minute: within the first one a wait that is doubled only overshoots it.
    """
    if outcome != Outcome.RATE_LIMITED:
        return backoff_ms(refusals, run.tools.rng)
    table = run.tools.settings.backpressure
    first, limit = min(table.rate_limit_backoff_ms, table.max_backoff_ms), table.max_backoff_ms
    return backoff_ms(max(1, refusals - ALIKE + 1), run.tools.rng, first_ms=first, limit_ms=limit)


async def _refusals(run: Run) -> int:
    """How many executions of the task in a row, this one included, the provider has refused."""
    count = 0
    for attempt in reversed(await run.tools.store.claims.attempts(run.claim.task_id)):
        if attempt.outcome not in OF_THE_PROVIDER | {Outcome.LATER.value}:
            break
        count += 1
    return max(1, count)

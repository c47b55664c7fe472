"""Building by a plan: the task in one go, or the plan's steps one by one, each a turn of the same session.

A step that is done is on record, so whoever takes the task up begins with the next one. Between two steps the
task is given back and taken up at once, as one whose agent asked to be tried later; so each step's usage, log and
session are those of an execution like any other.
"""

from __future__ import annotations

import re

from drover.domain.models import AgentReport, Frozen, Worktree
from drover.domain.plans import Plan, PlanStep
from drover.domain.verdicts import Outcome
from drover.engine import session
from drover.engine.steps import Run

_NAME = re.compile(r"plan_step_(\d+)")


class StepDone(Frozen):
    """The record of one step of a plan."""

    plan_id: str
    title: str


async def hold(run: Run, tree: Worktree) -> AgentReport:
    """The agent's execution. With steps of a plan left, of the next one; its report then is to go on at once."""
    plan = await _plan_by_steps(run)
    number = await _next_step(run, tree) if plan is not None else 0
    if plan is None or number > len(plan.draft.steps):
        return await session.hold(run, tree)
    step, of = plan.draft.steps[number - 1], len(plan.draft.steps)
    started_at = run.tools.clock.now()
    report = await session.hold(run, tree, part=_part(step, number, of))
    if report.outcome != Outcome.DONE:
        return report
    record = StepDone(plan_id=plan.id, title=step.title).model_dump_json()
    await run.tools.store.claims.complete_step(run.claim, f"plan_step_{number}", record, started_at=started_at)
    if number == of:
        return report
    reason = f"step {number} of {of} of {plan.id} is done"
    return report.model_copy(update={"outcome": Outcome.LATER, "reason": reason, "until": run.tools.clock.now()})


async def part_now(run: Run, tree: Worktree) -> str:
    """What is asked for now beside the task: the next step of its plan, where it is built step by step."""
    plan = await _plan_by_steps(run)
    number = await _next_step(run, tree) if plan is not None else 0
    if plan is None or number > len(plan.draft.steps):
        return ""
    return _part(plan.draft.steps[number - 1], number, len(plan.draft.steps))


async def _plan_by_steps(run: Run) -> Plan | None:
    if run.claim.task.plan != "approved" or not run.tools.settings.building.verify_steps:
        return None
    return await run.tools.store.plans.newest(run.claim.task_id)


async def _next_step(run: Run, tree: Worktree) -> int:
    """One more than the last step that is done. Work of earlier attempts counts where it is in the clone."""
    task = run.claim.task
    done = [0]
    for attempt in range(task.first_attempt if tree.found else task.attempt, task.attempt + 1):
        for record in await run.tools.store.claims.steps(task.id, attempt):
            if (name := _NAME.fullmatch(record.name)) is not None:
                done.append(int(name[1]))
    return max(done) + 1


def _part(step: PlanStep, number: int, of: int) -> str:
    check = f" Then see that it is done: {step.verification}." if step.verification else ""
    return (
        f"# Now: step {number} of {of} of the plan\n\nDo this step and no other, {step.title!r}.{check} "
        "End when it is done; you will be told to go on."
    )

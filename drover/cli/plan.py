"""Plans: what agents mean to do, and the person's word on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, get_args

from cyclopts import App, Parameter

from drover.cli.options import NOTHING_SAID, Common, EpicOption, PlanStatus, Yes, checked_text, option, split
from drover.cli.output import Printer, Styled
from drover.cli.session import opened, printer_of
from drover.cli.shapes import plan_json
from drover.cli.text import counted, moment
from drover.domain.errors import UsageError

if TYPE_CHECKING:
    from drover.domain.plans import Plan

PlanId = Annotated[str, Parameter(name="ID", help="A plan's id, or the beginning of it that no other has.")]
StatusesOption = Annotated[
    tuple[str, ...],
    option(
        "--status",
        "-s",
        metavar="S",
        help="pending, approved, rejected, executing, completed or failed; a,b or repeated.",
    ),
]
TaskOption = Annotated[str | None, option("--task", metavar="ID", help="Only the plans of this task.")]
Feedback = Annotated[
    str | None, option("--feedback", "-f", metavar="TEXT", text=True, help="What is wrong with it; the agent reads it.")
]
PLAN_STYLES = {
    "pending": "yellow",
    "approved": "cyan",
    "rejected": "dim",
    "executing": "blue",
    "completed": "green",
    "failed": "red",
}

plan = App(name="plan", help="What agents mean to do: list, show, approve, reject, delete, review.")


@plan.command(name="list")
async def list_plans(
    *,
    status: StatusesOption = (),
    task: TaskOption = None,
    epic: EpicOption = None,
    common: Common = NOTHING_SAID,
) -> None:
    """One line a plan, in the order they were made."""
    statuses = _statuses(status)
    async with opened(common) as drover:
        plans = await drover.plans(statuses=statuses, task=task, epic=epic)
    out = printer_of(common)
    if common.json:
        out.document([plan_json(one) for one in plans])
    elif plans:
        out.table(
            [
                (one.id, status_of(one), one.task_id, counted(len(one.draft.steps), "step"), one.draft.complexity,
                 f"{one.task_title}" + (f"  (revision {one.revision})" if one.revision > 1 else ""))
                for one in plans
            ]
        )  # fmt: skip
    else:
        out.note("no plans; drover run --mode planning lets agents make them")


@plan.command
async def show(plan_id: PlanId, /, *, common: Common = NOTHING_SAID) -> None:
    """A plan, whole."""
    async with opened(common) as drover:
        found = await drover.plan(plan_id)
    out = printer_of(common)
    if common.json:
        out.document(plan_json(found))
    else:
        print_plan(out, found)


@plan.command
async def approve(plan_id: PlanId, /, *, common: Common = NOTHING_SAID) -> None:
    """Let the plan be carried out: its task is built by the next run, or by the one that is running."""
    async with opened(common) as drover:
        approved = await drover.approve_plan(plan_id)
    _say(printer_of(common), common, "approved", approved)


@plan.command
async def reject(plan_id: PlanId, /, *, feedback: Feedback = None, common: Common = NOTHING_SAID) -> None:
    """Send the plan back: an agent plans the task again, and is told what was wrong with this plan."""
    if feedback is None:
        raise UsageError("say what is wrong with it", hint=f'drover plan reject {plan_id} --feedback "…"')
    async with opened(common) as drover:
        rejected = await drover.reject_plan(plan_id, checked_text(feedback, "the feedback").strip())
    _say(printer_of(common), common, "rejected", rejected)


@plan.command
async def delete(plan_id: PlanId, /, *, yes: Yes = False, common: Common = NOTHING_SAID) -> None:
    """Forget a plan. Its task is as one that was never planned."""
    out = printer_of(common)
    async with opened(common) as drover:
        found = await drover.plan(plan_id)
        if not yes:
            out.confirm(f"delete {found.id} of {found.task_id} ({found.task_title})")
        deleted = await drover.delete_plan(found.id)
    _say(out, common, "deleted", deleted)


@plan.command
async def review(
    *, status: StatusesOption = ("pending",), epic: EpicOption = None, common: Common = NOTHING_SAID
) -> None:
    """Read plans on the terminal, and approve, reject or correct your word on each with a key."""
    from drover.cli.plan_review import review_plans

    out = printer_of(common)
    if not out.can_ask or not out.out.isatty():
        raise UsageError("a review needs a terminal", hint="drover plan list, then plan show, approve or reject")
    statuses = _statuses(status)
    async with opened(common) as drover:
        decided = await review_plans(drover, statuses=statuses, epic=epic)
    for verb, plan_id, title in decided:
        out.line(f"{verb} ", plan_id, "  ", title)
    if not decided:
        out.note("nothing was decided")


def status_of(plan: Plan) -> Styled:
    return Styled(plan.status, PLAN_STYLES.get(plan.status, "bold"))


def print_plan(out: Printer, found: Plan) -> None:
    """The plan as a person reads it."""
    draft = found.draft
    out.line(Styled(f"{found.id}  {found.task_title}", "bold"), "  ", status_of(found))
    by = f", {found.state} by {found.decided_by or 'somebody'} {moment(found.decided_at)}" if found.decided_at else ""
    out.line(f"{found.task_id}, revision {found.revision}, complexity {draft.complexity}", by)
    if found.feedback:
        out.line(Styled("what was wrong with it:", "yellow"))
        out.block(found.feedback, indent="  ")
    out.line()
    out.block(draft.summary)
    out.line()
    for number, step in enumerate(draft.steps, 1):
        out.line(Styled(f"{number:>3}. {step.title}", "bold"))
        if step.description:
            out.block(step.description, indent="     ")
        if step.files:
            out.line("     files: ", ", ".join(step.files))
        if step.verification:
            out.line("     done when: ", step.verification)
    for verb, files in (("create", draft.files_to_create), ("change", draft.files_to_modify)):
        for file in files:
            out.line(f"{verb}  ", file.path, f"  {file.reason}" if file.reason else "")
    for risk in draft.risk_factors:
        out.line(Styled("risk  ", "yellow"), risk)


def _say(out: Printer, common: Common, verb: str, decided: Plan) -> None:
    if common.json:
        out.document(plan_json(decided))
        return
    out.line(f"{verb} ", decided.id, "  ", decided.task_title)


def _statuses(given: tuple[str, ...]) -> tuple[str, ...]:
    known: tuple[str, ...] = get_args(PlanStatus)
    statuses = split(given)
    for one in statuses:
        if one not in known:
            raise UsageError(f"{one!r} is no status of a plan", hint=", ".join(known))
    return statuses

"""Everything about one task: info, diff."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drover.cli.listing import why_waiting
from drover.cli.options import NOTHING_SAID, Common, TaskId
from drover.cli.output import Part, Printer, Styled, status_word
from drover.cli.session import opened, printer_of
from drover.cli.shapes import attempts_used, details_json
from drover.cli.text import moment, spoken

if TYPE_CHECKING:
    from drover.app import TaskDetails
    from drover.domain.models import Attempt

_EVENTS = 20  # the newest that are shown; `drover stream --task` has them all


async def info(task_id: TaskId, /, *, common: Common = NOTHING_SAID) -> None:
    """Everything about a task: text, blockers, attempts, steps, landing, logs, events."""
    out = printer_of(common)
    async with opened(common) as drover:
        details = await drover.details(task_id)
        most = drover.settings.max_attempts
    if common.json:
        out.document(details_json(details, max_attempts=most))
        return
    _facts(out, details, most)
    _attempts(out, details)
    _history(out, details)


async def diff(task_id: TaskId, /, *, common: Common = NOTHING_SAID) -> None:
    """What a task changed, or has changed so far, as a patch."""
    out = printer_of(common)
    async with opened(common) as drover:
        patch = await drover.diff(task_id)
    if common.json:
        out.document({"task_id": task_id, "patch": patch})
    elif patch:
        out.block(patch)


def _facts(out: Printer, details: TaskDetails, most: int) -> None:
    task = details.task
    why = why_waiting(task)
    out.line(Styled(task.id, "bold"), "  ", task.title)
    rows: list[tuple[Part, ...]] = [("status", status_word(task.status)), *([("why", why)] if why else [])]
    limit = task.max_attempts if task.max_attempts is not None else most
    rows.append(("attempts", f"{attempts_used(task)} of {limit} used; {task.executions} executions"))
    if task.interruptions:
        rows.append(("interruptions", f"{task.interruptions}, which use up no attempt"))
    optional = {
        "epic": task.epic_id,
        "parent": task.parent_id,
        "priority": str(task.priority) if task.priority else None,
        "labels": ", ".join(task.labels),
        "agent": task.agent,
        "tests": task.test_command,
        "waits for": ", ".join(f"{b.id} ({b.status})" for b in details.blockers),
        "blocks": ", ".join(f"{b.id} ({b.status})" for b in details.dependents),
        "worktree": str(details.worktree) if details.worktree else None,
        "work is on": details.branch,
        "landed as": task.landed_commit,
        "added": f"{moment(task.created_at)} by {task.created_by or 'somebody'}",
        "completed": moment(task.completed_at) if task.completed_at else None,
    }
    rows += [(name, value) for name, value in optional.items() if value]
    out.table(rows, indent="  ")
    if task.error is not None:
        out.line(Styled("  last error", "red"), f" ({task.error.error_class})")
        out.block(task.error.message, indent="    ")
        if task.error.what_to_do:
            out.line(f"    what to do: {task.error.what_to_do}")
    if task.description:
        out.line("")
        out.block(task.description, indent="  ")


def _attempts(out: Printer, details: TaskDetails) -> None:
    if details.attempts:
        out.line("")
        out.line(Styled("executions", "bold"))
        out.table([_attempt_row(attempt) for attempt in details.attempts], indent="  ")
    if details.steps:
        out.line("")
        out.line(Styled(f"steps of attempt {details.steps[0].attempt}", "bold"))
        rows = [(s.name, "completed", spoken(s.finished_at - s.started_at)) for s in details.steps]
        out.table(rows, indent="  ")


def _attempt_row(attempt: Attempt) -> tuple[Part, ...]:
    took = spoken(attempt.ended_at - attempt.started_at) if attempt.ended_at else "now"
    used = f"{attempt.usage.tokens} tokens" + (f", ${attempt.usage.cost_usd:.4f}" if attempt.usage.cost_usd else "")
    return (
        f"attempt {attempt.attempt}",
        moment(attempt.started_at),
        took,
        f"{attempt.agent or '-'} ({attempt.resumed or 'not started'})",
        attempt.outcome or "running",
        f"{attempt.worker_id}@{attempt.host}",
        used + (f"; {attempt.error}" if attempt.error else ""),
    )


def _history(out: Printer, details: TaskDetails) -> None:
    if details.landings:
        out.line("")
        out.line(Styled("landings", "bold"))
        rows = [(ld.state, ld.target, ld.commit[:12], f"attempt {ld.attempt}") for ld in details.landings]
        out.table(rows, indent="  ")
    if details.log_paths:
        out.line("")
        out.line(Styled("logs", "bold"), f"  (drover logs {details.task.id})")
        for path in details.log_paths:
            out.line(f"  {path}")
    if details.events:
        out.line("")
        out.line(Styled("events", "bold"))
        out.table([(moment(e.at), e.type, e.worker or "") for e in details.events[-_EVENTS:]], indent="  ")

"""The operator's hand: edit, cancel, retry, reset, resolve."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from drover.cli.options import NOTHING_SAID, Common, TaskId, TaskIds, Yes, option
from drover.cli.output import Printer
from drover.cli.session import opened, printer_of
from drover.cli.shapes import task_json
from drover.domain.errors import NotFound, UsageError
from drover.domain.states import State, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drover.app import Drover
    from drover.domain.models import Task

FreshOption = Annotated[bool, option("--fresh", help="Without the work in progress, which stays on its ref.")]


async def edit(task_id: TaskId, /, *, common: Common = NOTHING_SAID) -> None:
    """Print where a task's worktree is, and nothing else: code $(drover edit ID)."""
    out = printer_of(common)
    async with opened(common) as drover:
        details = await drover.details(task_id)
    if details.worktree is None:
        raise NotFound(f"{details.task.id} has no worktree now", hint=f"drover diff {details.task.id}")
    if common.json:
        out.document({"task_id": details.task.id, "worktree": str(details.worktree)})
    else:
        out.line(str(details.worktree))


async def cancel(
    *task_ids: TaskIds,
    reason: Annotated[str, option("--reason", metavar="TEXT", text=True, help="Why, for the record.")] = "",
    common: Common = NOTHING_SAID,
) -> None:
    """Stop tasks for good, their agents and all that these started. What they wrote is kept on a ref."""
    async with opened(common) as drover:
        _told(printer_of(common), drover, await drover.cancel(_named(task_ids), reason), common)


async def retry(
    *task_ids: TaskIds,
    force: Annotated[bool, option("--force", help="Also when the attempts are used up.")] = False,
    fresh: FreshOption = False,
    common: Common = NOTHING_SAID,
) -> None:
    """Give failed or cancelled tasks another chance, with the work they have."""
    async with opened(common) as drover:
        _told(printer_of(common), drover, await drover.retry(_named(task_ids), force=force, fresh=fresh), common)


async def reset(
    *task_ids: TaskIds,
    completed: Annotated[bool, option("--completed", help="All completed tasks.")] = False,
    in_progress: Annotated[bool, option("--in-progress", help="All tasks an agent works on.")] = False,
    claimed: Annotated[bool, option("--claimed", help="All tasks a worker has claimed.")] = False,
    failed: Annotated[bool, option("--failed", help="All failed tasks.")] = False,
    fresh: FreshOption = False,
    yes: Yes = False,
    common: Common = NOTHING_SAID,
) -> None:
    """Put tasks back to the start, honouring blockers. Asks before it touches running or completed ones."""
    flags = {
        Status.COMPLETED: completed,
        Status.IN_PROGRESS: in_progress,
        Status.CLAIMED: claimed,
        Status.FAILED: failed,
    }
    statuses = [status for status, chosen in flags.items() if chosen]
    if not task_ids and not statuses:
        raise UsageError("nothing to reset was named", hint="name tasks, or statuses: drover reset --failed")
    async with opened(common) as drover:
        chosen = {t.id: t for t in [await drover.task(id) for id in task_ids]}
        if statuses:
            chosen |= {t.id: t for t in await drover.tasks(statuses=statuses)}
        careful = [t.id for t in chosen.values() if t.state in (State.RUNNING, State.COMPLETED)]
        if careful and not yes:
            _ask(f"{', '.join(careful)}: running or completed. Start over?")
        _told(printer_of(common), drover, await drover.reset(chosen, fresh=fresh), common)


async def resolve(
    task_id: TaskId,
    /,
    *,
    note: Annotated[str, option("--note", metavar="TEXT", text=True, help="Why, for the record.")] = "",
    common: Common = NOTHING_SAID,
) -> None:
    """Drop what a task still waits for, and record who did and why."""
    async with opened(common) as drover:
        _told(printer_of(common), drover, [await drover.resolve(task_id, note)], common)


def _named(task_ids: tuple[str, ...]) -> tuple[str, ...]:
    if not task_ids:
        raise UsageError("no task was named", hint="drover list shows their ids")
    return task_ids


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody is there to answer", hint="say --yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was changed")


def _told(out: Printer, drover: Drover, tasks: Sequence[Task], common: Common) -> None:
    if common.json:
        out.document([task_json(task, max_attempts=drover.settings.max_attempts) for task in tasks])
        return
    for task in tasks:
        out.line(f"{task.id} is {task.status}")

"""Tasks in lines: list, ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from drover.cli.options import NOTHING_SAID, Common, EpicOption, option, split
from drover.cli.output import Part, status_word
from drover.cli.session import opened, printer_of
from drover.cli.shapes import task_json
from drover.cli.text import moment
from drover.domain.errors import UsageError
from drover.domain.states import Status

if TYPE_CHECKING:
    from drover.domain.models import Task

LabelOption = Annotated[str | None, option("--label", metavar="L", help="Only tasks with this label.")]
LimitOption = Annotated[int | None, option("--limit", metavar="N", help="At most so many.")]


async def list_tasks(
    *,
    status: Annotated[
        tuple[str, ...], option("--status", metavar="S", help="Only tasks of these statuses; a,b or repeated.")
    ] = (),
    epic: EpicOption = None,
    label: LabelOption = None,
    ready: Annotated[bool, option("--ready", help="Only those that could start now.")] = False,
    limit: LimitOption = None,
    common: Common = NOTHING_SAID,
) -> None:
    """One line a task, in the order they were added."""
    wanted = [_status(word) for word in split(status)] + ([Status.READY] if ready else [])
    if limit is not None and limit < 0:
        raise UsageError(f"--limit: {limit} is out of range; it may be 0 or more")
    out = printer_of(common)
    async with opened(common) as drover:
        tasks = await drover.tasks(statuses=wanted, epic=epic, label=label, limit=limit)
        most = drover.settings.max_attempts
    if common.json:
        out.document([task_json(task, max_attempts=most) for task in tasks])
        return
    out.table([_row(task) for task in tasks])
    if not tasks:
        out.note("no such task" if wanted or epic or label else 'the backlog is empty; drover add "What is to be done"')


async def ready(*, epic: EpicOption = None, limit: LimitOption = None, common: Common = NOTHING_SAID) -> None:
    """The tasks that could start now."""
    await list_tasks(ready=True, epic=epic, limit=limit, common=common)


def why_waiting(task: Task) -> str:
    """What a task waits for, in a few words; nothing for one that waits for nothing."""
    if task.status is Status.BLOCKED:
        return ("stranded behind " if task.stranded else "behind ") + ", ".join(task.blocked_by)
    if task.status is Status.WAITING:
        until = f" until {moment(task.due_at)}" if task.due_at is not None else ""
        return f"{task.reason}{until}" + (f": {task.detail}" if task.detail else "")
    if task.status is Status.FAILED and task.error is not None:
        return f"{task.error.error_class}: {task.error.message.splitlines()[0] if task.error.message else ''}"
    return ""


def _row(task: Task) -> tuple[Part, ...]:
    why = why_waiting(task)
    return (task.id, status_word(task.status), f"{task.title}  ({why})" if why else task.title)


def _status(word: str) -> Status:
    try:
        return Status(word)
    except ValueError:
        known = ", ".join(Status)
        raise UsageError(f"--status: {word!r} is no status", hint=f"one of: {known}") from None

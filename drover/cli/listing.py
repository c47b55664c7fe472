"""One line a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, get_args

from drover.cli.options import NOTHING_SAID, Common, EpicOption, StatusName, option, positive, split
from drover.cli.output import Part, Printer, Styled, status_word
from drover.cli.session import opened, printer_of
from drover.cli.shapes import task_json
from drover.cli.text import moment
from drover.domain.errors import UsageError

if TYPE_CHECKING:
    from drover.domain.models import Task

StatusOption = Annotated[
    tuple[str, ...],
    option("--status", metavar="S", help=f"Only these, a,b or repeated: {', '.join(get_args(StatusName))}."),
]
LabelOption = Annotated[str | None, option("--label", metavar="L", help="Only tasks with this label.")]
LimitOption = Annotated[int | None, option("--limit", metavar="N", help="At most so many.")]


async def list_tasks(
    *,
    status: StatusOption = (),
    epic: EpicOption = None,
    label: LabelOption = None,
    ready: Annotated[bool, option("--ready", help="Only what could start now.")] = False,
    limit: LimitOption = None,
    common: Common = NOTHING_SAID,
) -> None:
    """One line a task, in the order they were added: id, status, priority, title, and what keeps it waiting."""
    wanted = _statuses(split(status))
    await _list((*wanted, "ready") if ready else wanted, epic, label, limit, common)


async def ready(
    *, epic: EpicOption = None, label: LabelOption = None, limit: LimitOption = None, common: Common = NOTHING_SAID
) -> None:
    """The tasks that could start now, one line each."""
    await _list(("ready",), epic, label, limit, common)


async def _list(
    statuses: Sequence[str], epic: str | None, label: str | None, limit: int | None, common: Common
) -> None:
    positive(limit, "--limit", most=10**9)
    out, printed = printer_of(common), 0
    async with opened(common) as drover:
        if common.json:
            tasks = await drover.tasks(statuses=statuses, epic=epic, label=label, limit=limit)
            out.document([task_json(task, drover) for task in tasks])
            return
        async for page in drover.pages(statuses=statuses, epic=epic, label=label):
            shown = page if limit is None else page[: limit - printed]
            print_tasks(out, shown)
            printed += len(shown)
            if printed == limit:
                break
    if not printed:
        out.note("no such tasks" if statuses or epic or label else 'no tasks; drover add "…" makes one')


def print_tasks(out: Printer, tasks: Sequence[Task]) -> None:
    """A line for each task."""
    rows: list[tuple[Part, ...]] = []
    for task in tasks:
        why = why_not(task)
        title: Part = f"{task.title}  ({why})" if why else task.title
        rows.append((task.id, status_word(str(task.status)), Styled(f"{task.priority:>3}", "dim"), title))
    if rows:
        out.table(rows)


def why_not(task: Task) -> str:
    """Why a task does not go on, in a few words; empty when it does or nothing more can come of it."""
    status = str(task.status)
    if task.stranded:
        return f"stranded behind {', '.join(task.blocked_by)}"
    if status == "blocked":
        return f"waits for {', '.join(task.blocked_by)}"
    if status == "waiting":
        until = f"until {moment(task.due_at)}" if task.due_at else ""
        return ": ".join(word for word in (task.reason, task.detail, until) if word)
    if status == "failed" and task.error:
        return f"{task.error.error_class}: {task.error.message.strip().partition(chr(10))[0]}"
    return ""


def _statuses(words: Sequence[str]) -> tuple[str, ...]:
    known = get_args(StatusName)
    for word in words:
        if word not in known:
            raise UsageError(f"--status: {word!r} is no status", hint=f"one of {', '.join(known)}")
    return tuple(words)

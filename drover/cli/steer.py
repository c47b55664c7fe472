"""The operator's hand on single tasks: pause, hint, answer, edit, cancel, retry, reset, resolve."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from drover.cli.listing import print_tasks
from drover.cli.options import NOTHING_SAID, Common, TaskId, TaskIds, Yes, checked_text, option, read_text, split
from drover.cli.output import Printer
from drover.cli.session import opened, printer_of
from drover.cli.shapes import task_json, word_json
from drover.cli.text import counted
from drover.domain.errors import UsageError, WrongState

if TYPE_CHECKING:
    from drover.app import Drover
    from drover.domain.models import Task

ReasonOption = Annotated[str, option("--reason", text=True, help="Why, for the record.")]
Words = Annotated[
    tuple[str, ...],
    Parameter(name="TEXT", help="What is said; or @FILE to read a file, or - to read standard input."),
]
FreshOption = Annotated[bool, option("--fresh", help="Without the work in progress that is there.")]
_EDITABLE = ("paused", "failed", "waiting", "cancelled")
_RUNNING = ("claimed", "in_progress")


async def edit(task_id: TaskId, /, *, common: Common = NOTHING_SAID) -> None:
    """Print the absolute path of a task's worktree and nothing else, for cd "$(drover edit ID)".

    For tasks that no agent works on and none will by itself: paused, failed, waiting and cancelled ones.
    """
    async with opened(common) as drover:
        details = await drover.details(task_id)
    task = details.task
    if str(task.status) not in _EDITABLE:
        raise WrongState(f"{task.id} is {task.status}", hint=f"only of {', '.join(_EDITABLE)} tasks")
    if details.worktree is None:
        raise WrongState(f"{task.id} has no worktree", hint=f"drover diff {task.id} shows what it changed")
    out = printer_of(common)
    if common.json:
        out.document({"task_id": task.id, "worktree": str(details.worktree.absolute())})
    else:
        out.line(str(details.worktree.absolute()))


async def pause(
    task_ids: TaskIds,
    /,
    *,
    reason: ReasonOption = "",
    common: Common = NOTHING_SAID,
) -> None:
    """Stop tasks until you let them go on; an agent at work is ended with all its children.

    What it has written stays where it is (drover edit ID), and no attempt is used up. drover resume-task goes on
    in the same session of the agent where there is one.
    """
    ids = _named(task_ids)
    async with opened(common) as drover:
        async with drover.stopping(ids) as left:
            tasks = await drover.pause(ids, checked_text(reason, "--reason"))
        _print_changed(printer_of(common), drover, "paused", tasks, left)


async def resume_task(
    task_id: TaskId,
    /,
    *,
    hint: Annotated[
        str, option("--hint", "-H", metavar="TEXT", text=True, help="What its agent is told as it goes on.")
    ] = "",
    common: Common = NOTHING_SAID,
) -> None:
    """Let a paused task go on: in the same session of its agent, with the work that is there."""
    async with opened(common) as drover:
        task = await drover.resume_task(task_id, checked_text(hint, "--hint").strip())
        _print_changed(printer_of(common), drover, "no longer paused", [task])


async def hint(
    task_id: TaskId,
    text: Words,
    /,
    *,
    common: Common = NOTHING_SAID,
) -> None:
    """Tell a task's agent something.

    Claude Code is told while it works; every agent with its next turn at the latest. drover info shows when.
    """
    words = _spoken(text)
    async with opened(common) as drover:
        word = await drover.hint(task_id, words)
        status = str((await drover.task(word.task_id)).status)
    out = printer_of(common)
    if common.json:
        out.document(word_json(word))
    else:
        how = "as it works, if it can hear; else with its next turn" if status in _RUNNING else "with its next turn"
        out.line(f"{word.task_id} is {status}; its agent will be told {how}")


async def answer(
    task_id: TaskId,
    text: Words,
    /,
    *,
    common: Common = NOTHING_SAID,
) -> None:
    """Answer the question that a task waits for; its agent goes on in the same session. drover inbox lists them."""
    words = _spoken(text)
    async with opened(common) as drover:
        task = await drover.answer(task_id, words)
        _print_changed(printer_of(common), drover, "answered", [task])


async def cancel(
    task_ids: TaskIds,
    /,
    *,
    reason: ReasonOption = "",
    common: Common = NOTHING_SAID,
) -> None:
    """Stop tasks for good, from any unfinished status; an agent at work is ended with all its children.

    What it had written is saved. With a task go its sub-tasks that have not landed. What waits for them is stranded
    until you retry or resolve.
    """
    ids = _named(task_ids)
    async with opened(common) as drover:
        async with drover.stopping(ids, subtasks=True) as left:
            tasks = await drover.cancel(ids, reason)
        _print_changed(printer_of(common), drover, "cancelled", tasks, left)


async def retry(
    task_ids: TaskIds,
    /,
    *,
    force: Annotated[bool, option("--force", help="Also when the attempts are used up.")] = False,
    fresh: FreshOption = False,
    common: Common = NOTHING_SAID,
) -> None:
    """Give failed or cancelled tasks another chance. They begin with the work that was saved, unless --fresh.

    With a task that was cancelled come its sub-tasks that were.
    """
    async with opened(common) as drover:
        tasks = await drover.retry(_named(task_ids), force=force, fresh=fresh)
        _print_changed(printer_of(common), drover, "eligible again", tasks)


async def reset(
    task_ids: TaskIds = (),
    /,
    *,
    completed: Annotated[bool, option("--completed", help="All completed tasks.")] = False,
    in_progress: Annotated[bool, option("--in-progress", help="All tasks in progress.")] = False,
    claimed: Annotated[bool, option("--claimed", help="All claimed tasks.")] = False,
    failed: Annotated[bool, option("--failed", help="All failed tasks.")] = False,
    fresh: FreshOption = False,
    yes: Yes = False,
    common: Common = NOTHING_SAID,
) -> None:
    """Put tasks back to the start, honouring what they wait for.

    With neither ids nor options: all that are claimed, in progress or completed. A completed task that is reset is
    done once more and lands once more, so drover asks before it touches completed or running ones.
    """
    chosen = {"completed": completed, "in_progress": in_progress, "claimed": claimed, "failed": failed}
    statuses = [status for status, wanted in chosen.items() if wanted]
    ids = split(task_ids)
    if not ids and not statuses:
        statuses = ["completed", *_RUNNING]
    out = printer_of(common)
    async with opened(common) as drover:
        tasks = {task.id: task for task in [await drover.task(one) for one in ids]}
        tasks |= {task.id: task for task in (await drover.tasks(statuses=statuses) if statuses else ())}
        if not yes:
            _ask(out, list(tasks.values()))
        _print_changed(out, drover, "back to the start", await drover.reset(list(tasks), fresh=fresh))


async def resolve(
    task_id: TaskId,
    /,
    *,
    note: Annotated[str, option("--note", text=True, help="Why, for the record.")],
    common: Common = NOTHING_SAID,
) -> None:
    """Drop everything that a task still waits for, and record who did so and why."""
    async with opened(common) as drover:
        task = await drover.resolve(task_id, note)
        _print_changed(printer_of(common), drover, "waits for nothing more", [task])


def _named(task_ids: tuple[str, ...]) -> tuple[str, ...]:
    ids = split(task_ids)
    if not ids:
        raise UsageError("no task is named", hint="drover list")
    return ids


def _ask(out: Printer, tasks: Sequence[Task]) -> None:
    """Let the operator confirm what would be done twice, or taken out of an agent's hands."""
    done = sum(str(task.status) == "completed" for task in tasks)
    running = sum(str(task.status) in _RUNNING for task in tasks)
    if done or running:
        parts = [counted(count, f"{word} task") for count, word in ((done, "completed"), (running, "running")) if count]
        out.confirm(f"put {' and '.join(parts)} back to the start")


def _spoken(text: tuple[str, ...]) -> str:
    words = read_text(" ".join(text)) or ""
    if not words.strip():
        raise UsageError("nothing is said", hint='for example: drover hint task-k3f9 "use the new API"')
    return words.strip()


def _print_changed(out: Printer, drover: Drover, what: str, tasks: Sequence[Task], left: Collection[str] = ()) -> None:
    """``left``: those whose agents nobody has said to be gone."""
    for id in sorted(left):
        out.warning(f"nobody has said yet that the agent of {id} has ended; its worker hears of it at its next step")
    if out.as_json:
        out.document([task_json(task, drover) for task in tasks])
        return
    out.note(f"{counted(len(tasks), 'task')} {what}" if tasks else "no such tasks")
    print_tasks(out, tasks)

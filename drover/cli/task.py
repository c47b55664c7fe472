"""Tasks as they are written down: add, quick, block, unblock, edit-task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from drover.cli.options import (
    NOTHING_SAID,
    Common,
    Description,
    LabelsOption,
    Quiet,
    TaskId,
    TaskType,
    TestMode,
    TestScope,
    Title,
    checked_title,
    duration_ms,
    option,
    positive,
    read_text,
    split,
)
from drover.cli.output import status_word
from drover.cli.session import opened, printer_of
from drover.cli.shapes import task_json
from drover.domain.errors import UsageError

if TYPE_CHECKING:
    from drover.app import Drover
    from drover.domain.models import Task

ParentOption = Annotated[str | None, option("--parent", "-P", metavar="ID", help="Make it a sub-task of this task.")]
InEpicOption = Annotated[str | None, option("--epic", "-e", metavar="ID", help="The epic it belongs to.")]
PriorityOption = Annotated[
    int | None, option("--priority", "-p", metavar="N", help="Higher goes first; 0 if not given.")
]
BlockedByOption = Annotated[
    tuple[str, ...], option("--blocked-by", metavar="IDS", help="Tasks that must be completed first; a,b or repeated.")
]
ModeOption = Annotated[
    TestMode | None, option("--test-mode", help="Whether failing tests keep it from landing, only warn, or do not run.")
]
ScopeOption = Annotated[
    TestScope | None, option("--test-scope", help="Test always, only where something changed, or never.")
]
TestOption = Annotated[
    str | None, option("--test-command", metavar="CMD", text=True, help="The tests to pass, instead of the project's.")
]
AgentOption = Annotated[
    str | None,
    option("--agent", metavar="TYPE", help="Who works on it: claude, codex, amp, opencode, command, scripted, ..."),
]
AttemptsOption = Annotated[
    int | None, option("--max-attempts", metavar="N", help="Failed executions after which it is given up.")
]
TimeoutOption = Annotated[
    str | None, option("--timeout", metavar="D", help="The longest one execution may take, like 90s or 1h30m.")
]
TypeOption = Annotated[TaskType | None, option("--type", help="What kind of work it is.")]
ByOption = Annotated[tuple[str, ...], option("--by", metavar="IDS", help="The tasks it waits for; a,b or repeated.")]


async def add(
    title: Title,
    /,
    *,
    description: Description = None,
    epic: InEpicOption = None,
    parent: ParentOption = None,
    priority: PriorityOption = None,
    blocked_by: BlockedByOption = (),
    test_mode: ModeOption = None,
    test_scope: ScopeOption = None,
    test_command: TestOption = None,
    agent: AgentOption = None,
    max_attempts: AttemptsOption = None,
    longest: TimeoutOption = None,
    type: TypeOption = None,
    label: LabelsOption = (),
    key: Annotated[str | None, option("--key", help="Adding twice with one key gives one task.")] = None,
    allow_no_change: Annotated[
        bool, option("--allow-no-change", help="Complete it also when its agent changes nothing.")
    ] = False,
    skip_validation: Annotated[bool, option("--skip-validation", help="Accepted; no title is ever refused.")] = False,
    quiet: Quiet = False,
    common: Common = NOTHING_SAID,
) -> None:
    """Add a task to the backlog and print its id.

    It is ready at once, unless it waits for tasks that are not completed yet. A title that begins with the id of
    a sub-task makes that sub-task. A description that begins with @@ begins with one @ and is no file.

    The scripted agent needs no model and no network: it does what a small plan in the description says (write
    these files, wait so long, fail so many times), and something sensible without one.

      drover add "Write the parser" -d @parser.md --blocked-by task-k3f9

      drover add "task-k3f9.2 Cover the corner cases"
    """
    async with opened(common) as drover:
        task = await drover.add(
            checked_title(title),
            description=read_text(description) or "",
            epic=epic,
            parent=parent,
            priority=priority or 0,
            blocked_by=split(blocked_by),
            test_mode=test_mode,
            test_scope=test_scope,
            test_command=test_command,
            agent=agent,
            max_attempts=positive(max_attempts, "--max-attempts", most=100),
            timeout_ms=duration_ms(longest, "--timeout"),
            type=type or "other",
            labels=split(label),
            key=key,
            allow_no_change=allow_no_change,
        )
        _say_added(drover, task, quiet, common)


async def quick(title: Title, /, *, quiet: Quiet = False, common: Common = NOTHING_SAID) -> None:
    """Add a task, nothing else asked, and print its id."""
    async with opened(common) as drover:
        _say_added(drover, await drover.add(checked_title(title)), quiet, common)


async def block(task_id: TaskId, /, *, by: ByOption, common: Common = NOTHING_SAID) -> None:
    """Let a task wait for others. A cycle is refused, and shown."""
    async with opened(common) as drover:
        _say_changed(drover, await drover.block(task_id, _blockers(by)), common)


async def unblock(task_id: TaskId, /, *, by: ByOption, common: Common = NOTHING_SAID) -> None:
    """Let a task wait no longer for others."""
    async with opened(common) as drover:
        _say_changed(drover, await drover.unblock(task_id, _blockers(by)), common)


async def edit_task(
    task_id: TaskId,
    /,
    *,
    title: Annotated[str | None, option("--title", text=True, help="Its new title.")] = None,
    description: Description = None,
    epic: InEpicOption = None,
    priority: PriorityOption = None,
    test_mode: ModeOption = None,
    test_scope: ScopeOption = None,
    test_command: TestOption = None,
    agent: AgentOption = None,
    max_attempts: AttemptsOption = None,
    longest: TimeoutOption = None,
    type: TypeOption = None,
    label: LabelsOption = (),
    common: Common = NOTHING_SAID,
) -> None:
    """Change a task that is not running. What is not named stays; labels are replaced as a whole."""
    if (
        all(
            given is None
            for given in (
                title,
                description,
                epic,
                priority,
                test_mode,
                test_scope,
                test_command,
                agent,
                max_attempts,
                longest,
                type,
            )
        )
        and not label
    ):
        raise UsageError("nothing to change was named", hint="drover edit-task --help")
    async with opened(common) as drover:
        changed = await drover.edit_task(
            task_id,
            title=checked_title(title) if title is not None else None,
            description=read_text(description),
            priority=priority,
            epic=epic,
            test_mode=test_mode,
            test_scope=test_scope,
            test_command=test_command,
            agent=agent,
            max_attempts=positive(max_attempts, "--max-attempts", most=100),
            timeout_ms=duration_ms(longest, "--timeout"),
            type=type,
            labels=split(label) or None,
        )
        _say_changed(drover, changed, common)


def _blockers(by: tuple[str, ...]) -> tuple[str, ...]:
    blockers = split(by)
    if not blockers:
        raise UsageError("--by names no task", hint="for example: --by task-k3f9,task-m2xa")
    return blockers


def _say_added(drover: Drover, task: Task, quiet: bool, common: Common) -> None:
    out = printer_of(common)
    if common.json:
        out.document(task_json(task, drover))
    elif quiet:
        out.line(task.id)
    else:
        waits = f", waits for {', '.join(task.blocked_by)}" if task.open_blockers else ""
        out.line("added ", task.id, "  ", task.title, "  (", status_word(task.status), waits, ")")


def _say_changed(drover: Drover, task: Task, common: Common) -> None:
    out = printer_of(common)
    if common.json:
        out.document(task_json(task, drover))
    else:
        waits = f", waits for {', '.join(task.blocked_by)}" if task.open_blockers else ""
        out.line(task.id, "  ", task.title, "  (", status_word(task.status), waits, ")")

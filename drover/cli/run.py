"""The run: started, watched, stopped and summed up."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import anyio

from drover.cli.options import NOTHING_SAID, Common, Mode, option, split
from drover.cli.output import Part, Printer, Styled, status_word
from drover.cli.progress import Progress, of_printer
from drover.cli.session import opened, printer_of
from drover.cli.shapes import event_json, resume_json, run_finished_json, task_json
from drover.cli.summary import print_summary
from drover.cli.text import counted
from drover.domain.errors import StoreUnavailable, UsageError

if TYPE_CHECKING:
    from drover.app import Drover, ResumeItem, StopSignal
    from drover.domain.models import Event, RunReport, Task

WorkersOption = Annotated[
    int | None, option("--workers", "-w", metavar="N", help="How many tasks at the same time (DROVER_WORKERS).")
]
EpicOption = Annotated[str | None, option("--epic", "-e", metavar="ID", help="Only the tasks of this epic.")]
TasksOption = Annotated[tuple[str, ...], option("--task", metavar="ID", help="Only these tasks; a,b or repeated.")]
TargetOption = Annotated[
    str | None, option("--target", metavar="BRANCH", help="Land on this branch, not on the project's.")
]
ModeOption = Annotated[
    Mode | None,
    option("--mode", help="planning: agents write plans, nothing is built; building: only what has an approved plan."),
]
WaitOption = Annotated[bool, option("--wait", help="Stay for what waits for a person, too.")]
ForeverOption = Annotated[bool, option("--forever", help="Go on serving a backlog that grows.")]
BudgetOption = Annotated[
    str | None, option("--budget", metavar="USD", help="What this run may cost, in US dollars ([budget] run_usd).")
]
PoolOption = Annotated[bool, option("--pool", help="Make worktrees ahead, set up (DROVER_POOL_ENABLED).")]
PoolMinOption = Annotated[
    int | None, option("--pool-min", metavar="N", help="How many to keep ahead at least (DROVER_POOL_MIN_SIZE).")
]
PoolMaxOption = Annotated[
    int | None, option("--pool-max", metavar="N", help="How many to keep ahead at most (DROVER_POOL_MAX_SIZE).")
]
VerboseOption = Annotated[bool, option("--verbose", "-v", help="Tell every event, not only the telling ones.")]
DryRunOption = Annotated[bool, option("--dry-run", help="Say what would be done, and do nothing.")]
YesOption = Annotated[
    bool, option("--yes", "-y", help="Approve the commands that the repository's own [hooks] want to run.")
]


@dataclass(frozen=True)
class _Asked:
    """What a run is asked for; None and empty mean: as the settings say, and everything."""

    workers: int | None
    epic: str | None
    tasks: tuple[str, ...]
    target: str | None
    mode: Mode | None
    wait: bool
    forever: bool
    verbose: bool


async def run(
    *,
    workers: WorkersOption = None,
    epic: EpicOption = None,
    task: TasksOption = (),
    target: TargetOption = None,
    mode: ModeOption = None,
    wait: WaitOption = False,
    forever: ForeverOption = False,
    budget: BudgetOption = None,
    pool: PoolOption = False,
    pool_min: PoolMinOption = None,
    pool_max: PoolMaxOption = None,
    verbose: VerboseOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    common: Common = NOTHING_SAID,
) -> int:
    """Drive every eligible task to completion, and return when nothing is ready, running or due.

    What waits for a person is listed at the end. A second run on the same project joins in: the two share the
    backlog and never a task. Ctrl+C stops: the agents' work is saved, nothing is used up, and drover resume goes
    on; Ctrl+C twice kills the agents at once, and still nothing is lost.

    Exit 0: all is done. 3: something failed, was cancelled, is stranded behind that, or waits for a person.
    130: it was stopped.

    Progress is told on stderr; the summary at the end, and the events with --json, go to stdout. What the agents
    say is in drover logs.
    """
    asked = _asked(workers, epic, task, target, mode, wait, forever, verbose)
    out = printer_of(common)
    async with opened(common, workers=workers, **_flags(budget, pool, pool_min, pool_max)) as drover:
        if dry_run:
            _print_plan(out, drover, await drover.plan_run(epic=epic, tasks=asked.tasks))
            return 0
        await _approve(drover, out, yes=yes)
        return await _drive(drover, out, asked)


async def resume(
    *,
    workers: WorkersOption = None,
    epic: EpicOption = None,
    task: TasksOption = (),
    target: TargetOption = None,
    mode: ModeOption = None,
    wait: WaitOption = False,
    forever: ForeverOption = False,
    budget: BudgetOption = None,
    pool: PoolOption = False,
    pool_min: PoolMinOption = None,
    pool_max: PoolMaxOption = None,
    verbose: VerboseOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    common: Common = NOTHING_SAID,
) -> int:
    """Go on with the last run: its epic, tasks, target, mode and number of workers, unless told otherwise.

    First says what it found. keep: landed, stays as it is. continue: the agent's session, or the step after the
    last that was finished, goes on. redo: the attempt begins again, with the work that was saved. ask: it needs a
    person first.
    """
    out = printer_of(common)
    async with opened(common, workers=workers, **_flags(budget, pool, pool_min, pool_max)) as drover:
        last = await drover.last_run()
        if last is not None:
            workers = workers or last.workers
            target = target or last.target
            mode = mode or last.mode
            if epic is None and not task:
                epic, task = last.epic_id, last.task_ids
        elif not common.json:
            out.note("there was no run yet; this is the first")
        asked = _asked(workers, epic, task, target, mode, wait, forever, verbose)
        items = await drover.plan_resume(epic=epic)
        if asked.tasks:
            chosen = {(await drover.task(one)).id for one in asked.tasks}
            items = [item for item in items if item.task_id in chosen]
        _print_found(out, items, dry_run=dry_run)
        if dry_run:
            return 0
        await _approve(drover, out, yes=yes)
        return await _drive(drover, out, asked)


def _flags(budget: str | None, pool: bool, pool_min: int | None, pool_max: int | None) -> dict[str, object]:
    return {
        "budget__run_usd": budget,
        "pool__enabled": pool or None,
        "pool__min_size": pool_min,
        "pool__max_size": pool_max,
    }


async def _approve(drover: Drover, out: Printer, *, yes: bool) -> None:
    """Ask once for what the repository's own hooks want to run. Where nobody can answer, the run refuses it."""
    unapproved = await drover.unapproved_hooks()
    if unapproved and not yes:
        if not out.can_ask:
            return
        out.note("the .drover.toml of this repository wants to run, in the worktrees of tasks:")
        for hook, commands in unapproved.items():
            for command in commands:
                out.note(f"  {hook}: {command}")
        out.confirm("approve these commands")
    await drover.approve_hooks()


def _asked(
    workers: int | None,
    epic: str | None,
    task: Sequence[str],
    target: str | None,
    mode: Mode | None,
    wait: bool,
    forever: bool,
    verbose: bool,
) -> _Asked:
    if wait and forever:
        raise UsageError("--wait and --forever exclude each other", hint="--forever stays anyway")
    return _Asked(workers, epic, split(task), target, mode, wait, forever, verbose)


async def _drive(drover: Drover, out: Printer, asked: _Asked) -> int:
    """The run itself, its progress and its summary; the exit code."""
    from drover import app

    for warning in drover.settings.warnings:
        out.warning(warning)
    if drover.store_vanishes:
        out.warning(
            "this is a CI runner and the backlog is a file on its disk: when the runner is gone, so is the backlog, "
            "and no later job can go on with it (docs/how-to/ci-runners.md says what can)"
        )
    stop = app.StopSignal()
    progress = of_printer(out, drover, verbose=asked.verbose, epic=asked.epic)
    _say_start(out, drover, asked)
    report = await _watched(drover, out, asked, stop, progress)
    try:
        if out.as_json:
            out.record(run_finished_json(report))
        else:
            await print_summary(out, drover, report, left=await _left(drover, asked, report))
            out.out.flush()
    except OSError:
        if not report.interrupted:
            raise
        out.give_up()  # the terminal was closed, or the pipe's reader left: that was what stopped the run
    return report.exit_code


async def _left(drover: Drover, asked: _Asked, report: RunReport) -> int:
    """How many tasks a run that was stopped would have gone on with."""
    if not report.interrupted:
        return 0
    try:
        planned = await drover.plan_run(epic=asked.epic, tasks=asked.tasks)
    except StoreUnavailable:
        return 0  # the run was stopped while the database was away; what it holds can be said another time
    return sum(task.id not in report.needs_person for task in planned)


async def _watched(drover: Drover, out: Printer, asked: _Asked, stop: StopSignal, progress: Progress) -> RunReport:
    async with anyio.create_task_group() as group:
        await group.start(_listen, stop, out)
        group.start_soon(progress.show)
        try:
            report = await drover.run(
                workers=asked.workers,
                epic=asked.epic,
                tasks=asked.tasks,
                target=asked.target,
                mode=asked.mode,
                wait=asked.wait,
                forever=asked.forever,
                on_event=_teller(out, stop, progress.event),
                stop=stop,
            )
        finally:
            group.cancel_scope.cancel()
            progress.end()
    return report


def _teller(out: Printer, stop: StopSignal, tell: Callable[[Event], None]) -> Callable[[Event], None]:
    """Tells each event to whoever reads; a reader that is gone stops the run as a closed terminal does."""

    def teller(event: Event) -> None:
        try:
            if not out.as_json:
                tell(event)
            elif event.type != "run.finished":  # the last line is ours, and says more
                out.record(event_json(event))
        except OSError:
            stop.soft()

    return teller


async def _listen(
    stop: StopSignal, out: Printer, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """The first Ctrl+C, SIGTERM or SIGHUP stops the run gently; a second Ctrl+C, or SIGTERM, at once."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup: the run is meant to outlive its terminal
        numbers.append(signal.SIGHUP)
    with anyio.open_signal_receiver(*numbers) as signals:
        task_status.started()
        asked = False
        async for number in signals:
            if not asked:
                stop.soft()
                _try_to_say(
                    out, "stopping: nothing more is claimed, the agents' work is saved; Ctrl+C again kills them"
                )
            elif number != signal.SIGHUP:  # a terminal that closes sends one after the other
                stop.hard()
                _try_to_say(out, "killing the agents; what they had written is still saved")
            asked = True


def _try_to_say(out: Printer, text: str) -> None:
    with suppress(OSError):  # after SIGHUP there is no terminal any more
        out.note(text)


def _say_start(out: Printer, drover: Drover, asked: _Asked) -> None:
    settings = drover.settings
    workers = asked.workers or settings.workers
    target = asked.target or settings.project.target
    of = f", epic {asked.epic}" if asked.epic else ""
    out.note(f"{counted(workers, 'worker')}, agent {settings.agent}, landing on {target}{of}")
    out.note("what the agents say: drover logs TASK --follow · stop: Ctrl+C")


def _print_plan(out: Printer, drover: Drover, tasks: Sequence[Task]) -> None:
    if out.as_json:
        out.document([task_json(task, drover) for task in tasks])
        return
    if not tasks:
        out.note("nothing to do")
        return
    planned = {task.id for task in tasks}
    rows: list[tuple[Part, ...]] = []
    for place, task in enumerate(tasks, 1):
        waits = [one for one in task.blocked_by if one in planned]
        title = f"{task.title}  (after {', '.join(waits)})" if waits else task.title
        rows.append((f"{place:>3}", task.id, status_word(str(task.status)), title))
    out.table(rows)


def _print_found(out: Printer, items: Sequence[ResumeItem], *, dry_run: bool) -> None:
    """What the last run left: the answer itself with --dry-run, otherwise said on the way."""
    if out.as_json:
        if dry_run:
            out.document(resume_json(items))
        else:
            out.record({"type": "resume.found", "data": {"tasks": resume_json(items)}})
        return
    if not items:
        out.note("nothing was begun yet")
        return
    styles = {"keep": "green", "continue": "blue", "redo": "yellow", "ask": "red"}
    out.table([(Styled(item.decision, styles[item.decision]), item.task_id, item.title, item.reason) for item in items])
    if not dry_run:
        out.line()
    out.out.flush()

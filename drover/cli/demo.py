"""`drover demo`: the whole promise in one command. A run is killed hard in its middle, resumed, and proved."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from drover.cli.options import NOTHING_SAID, Common, option
from drover.cli.output import Printer, Styled, status_word
from drover.cli.session import printer_of
from drover.domain.errors import DroverError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from drover.app import Drover
    from drover.domain.models import Task
    from drover.process.companion import Companion

WORK_S = 60.0  # the longest the demonstration waits for something to happen
PATIENCE_S = 15.0  # … for the agent to have written something
GIT_ENVIRONMENT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


async def demo(
    directory: Annotated[
        str | None, Parameter(name="DIR", help="Where to make the repository; a temporary one.")
    ] = None,
    /,
    *,
    agent: Annotated[
        str, option("--agent", metavar="TYPE", help="Who works; a real agent instead of the scripted one.")
    ] = "scripted",
    keep: Annotated[bool, option("--keep", help="Keep the repository afterwards.")] = False,
    postgres: Annotated[str | None, option("--postgres", metavar="URL", help="Keep the backlog there.")] = None,
    common: Common = NOTHING_SAID,
) -> int:
    """Show the whole promise with no agent, key or network: a run, a hard kill, a resume, a proof.

    Makes a throw-away repository and an epic: A, and behind it B and C. Runs it with two workers, kills the
    run with SIGKILL once A has landed and B or C is at work, shows the tree, resumes, and counts at the
    end what was done how often.
    """
    printer = printer_of(common)
    root = Path(directory).absolute() if directory else Path(tempfile.mkdtemp(prefix="drover-demo-"))
    if directory and root.exists() and any(root.iterdir()):
        raise UsageError(f"{root} is not empty", hint="name a directory that does not exist yet")
    root.mkdir(parents=True, exist_ok=True)
    try:
        return await _show(printer, root, agent, postgres)
    finally:
        if keep:
            printer.note(f"kept: {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)


async def _show(printer: Printer, root: Path, agent: str, postgres: str | None) -> int:
    from drover import app
    from drover.settings import load

    await _make_repository(printer, root)
    made = await app.init(root)
    environ = {**os.environ, "DROVER_AGENT_TYPE": agent}
    if postgres:
        environ["DROVER_DATABASE_URL"] = postgres
    settings = load(root, environ=environ, flags={})
    async with AsyncExitStack() as stack:
        drover = await stack.enter_async_context(app.open(project=made.project, settings=settings))
        epic, tasks = await _fill_backlog(printer, drover)
        _heading(printer, f"drover run --workers 2 --epic {epic}")
        await _run_and_kill(printer, drover, root, epic, tasks, environ)
        _heading(printer, "drover status --tree    (after kill -9)")
        await _show_tree(printer, drover, tasks)
        _heading(printer, "drover resume")
        code = await _resume(root, environ, printer)
        _heading(printer, "The proof")
        proved = await _prove(printer, drover, root, tasks)
    return 0 if proved and code == 0 else 1


async def _make_repository(printer: Printer, root: Path) -> None:
    _heading(printer, f"A repository of one commit in {root}")
    (root / "README.md").write_text("# A demonstration\n")
    who = {"user.name": "Demo Operator", "user.email": "demo@example.org"}
    await _git(root, "init", "-q", "-b", "main")
    for key, value in who.items():
        await _git(root, "config", key, value)
    await _git(root, "add", "-A")
    await _git(root, "commit", "-q", "-m", "A first commit")


async def _fill_backlog(printer: Printer, drover: Drover) -> tuple[str, list[Task]]:
    epic = await drover.add_epic("Crash recovery demo")
    steps = 'say "Beginning."\nwrite {0}.md "The work of {0}, part one."\nwait {1}\nappend {0}.md "Part two."\n'
    a = await drover.add("Task A: the base", description=steps.format("a", "500ms"), epic=epic)
    b = await drover.add("Task B: depends on A", description=steps.format("b", "3s"), epic=epic, blocked_by=[a])
    c = await drover.add("Task C: depends on A", description=steps.format("c", "3s"), epic=epic, blocked_by=[a])
    for task in (a, b, c):
        printer.line(f"  {task.id}  ", status_word(task.status.value), f"  {task.title}")
    return epic.id, [a, b, c]


async def _run_and_kill(
    printer: Printer, drover: Drover, root: Path, epic: str, tasks: list[Task], environ: dict[str, str]
) -> None:
    """Start a run of its own and kill its whole group once A has landed and B or C is at work."""
    import anyio

    from drover.process import spawn
    from drover.process.command import signal_group

    argv = [sys.executable, "-m", "drover", "run", "--workers", "2", "--epic", epic, "--json", "--project", str(root)]
    process = await spawn.start(argv, cwd=root, env=_reachable(environ), stdin=False)
    try:
        with anyio.fail_after(WORK_S):
            async with anyio.create_task_group() as group:
                group.start_soon(_must_not_end, process)
                async for event in drover.events(follow=True):
                    if event.type in ("task.claimed", "task.started", "task.landed", "task.ready", "task.completed"):
                        printer.line(f"  {event.type:15} {event.task_id}")
                    others = {t.id for t in tasks[1:]}
                    landed = (await drover.task(tasks[0].id)).landed_at is not None
                    if landed and event.type == "task.started" and event.task_id in others:
                        await _wait_for_work(drover, str(event.task_id))
                        break
                group.cancel_scope.cancel()
    except TimeoutError:
        raise DroverError(
            f"nothing landed within {WORK_S:.0f} s", hint="run it again with --keep and look at drover logs"
        ) from None
    finally:
        signal_group(process.pid, signal.SIGKILL)
        await process.end()
    printer.line(Styled("  kill -9", "red"), f" {process.pid}: the run is gone in the middle of its work")


async def _wait_for_work(drover: Drover, task_id: str) -> None:
    """Until the agent has changed something in its worktree: that is what "in the middle" means."""
    import anyio

    worktree = drover.places.worktree(task_id)
    with anyio.move_on_after(PATIENCE_S):  # a real agent may take its time, and is killed wherever it is then
        while not any((worktree / name).exists() for name in ("b.md", "c.md")):  # noqa: ASYNC110 - rings no bell
            await anyio.sleep(0.05)


async def _must_not_end(process: Companion) -> None:
    """Read what the run prints; raises DroverError with its last words if it ends by itself."""
    import anyio

    said: list[bytes] = []

    async def read(chunks: AsyncIterator[bytes]) -> None:
        async for chunk in chunks:
            said[:] = [*said[-20:], chunk]

    async with anyio.create_task_group() as group:
        group.start_soon(read, process.said())
        group.start_soon(read, process.complained())
    code = await process.wait()
    words = b"".join(said).decode(errors="replace").strip().splitlines()
    raise DroverError(f"the run ended by itself (exit {code}): {' '.join(words[-3:])}")


async def _show_tree(printer: Printer, drover: Drover, tasks: list[Task]) -> None:
    for task in [await drover.task(t.id) for t in tasks]:
        behind = f"   behind {', '.join(task.blocked_by)}" if task.open_blockers else ""
        printer.line("  ", status_word(task.status.value), f"  {task.id}  {task.title}{behind}")


async def _resume(root: Path, environ: dict[str, str], printer: Printer) -> int:
    from drover import process

    argv = [sys.executable, "-m", "drover", "resume", "--plain", "--project", str(root)]
    done = await process.run(argv, cwd=root, env=_reachable(environ), timeout_s=10 * WORK_S)
    printer.block(done.stdout.decode(errors="replace"), indent="  ")
    if done.returncode:
        printer.block(done.stderr.decode(errors="replace"), indent="  ")
    return done.returncode


async def _prove(printer: Printer, drover: Drover, root: Path, tasks: list[Task]) -> bool:
    """Count from the outside: what git has, what the ledger says, what still runs."""
    from drover.process import find_marked

    log = (
        await _git(
            root, "log", "--first-parent", "--format=%(trailers:key=Drover-Task,valueonly,separator=%x2c)", "main"
        )
    ).split()
    rows: list[tuple[str, ...]] = [("  task", "status", "agent ran", "continued", "commits on main")]
    good = True
    for position, task in enumerate(tasks):
        details = await drover.details(task.id)
        ran = [a for a in details.attempts if a.agent_started_at is not None]
        continued = sum(a.resumed == "continued" for a in ran)
        commits = log.count(task.id)
        rows.append((f"  {task.title}", details.task.status.value, str(len(ran)), str(continued), str(commits)))
        good = good and commits == 1 and details.task.status.value == "completed" and (position > 0 or len(ran) == 1)
        text = (root / f"{'abc'[position]}.md").read_text() if (root / f"{'abc'[position]}.md").exists() else ""
        if drover.settings.agent == "scripted":
            good = good and text.count("part one") == 1 and text.count("Part two") == 1
    printer.table(rows)
    left = find_marked(drover.places.marker_of_all)
    done = sum(row[1] == "completed" for row in rows[1:])
    printer.line("")
    printer.line(
        f"  {done} of {len(tasks)} tasks completed · {len(log)} task commits on main · {len(left)} processes left"
    )
    good = good and not left and len(log) == len(tasks)
    verdict = "Nothing was lost, nothing was done twice." if good else "This is not what was promised."
    printer.line("  ", Styled(verdict, "green" if good else "red"))
    return good


def _heading(printer: Printer, text: str) -> None:
    printer.line("")
    printer.line(Styled(f"── {text}", "bold"))


def _reachable(environ: dict[str, str]) -> dict[str, str]:
    """The environment of a child that runs this very drover, installed or not."""
    here = str(Path(__file__).parents[2])
    return {**environ, "PYTHONPATH": os.pathsep.join(p for p in (here, environ.get("PYTHONPATH")) if p)}


async def _git(root: Path, *argv: str) -> str:
    from drover import process

    done = await process.run(["git", *argv], cwd=root, env={**os.environ, **GIT_ENVIRONMENT})
    if done.returncode:
        raise DroverError(f"git {argv[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="replace")

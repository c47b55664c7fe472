"""The live session of one task's agent, as a person reads it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from drover.cli.logs import Reader
from drover.cli.options import NOTHING_SAID, Common, TaskId
from drover.cli.session import opened, printer_of
from drover.cli.text import spoken
from drover.domain.errors import WrongState

if TYPE_CHECKING:
    from drover.app import Drover
    from drover.domain.models import Attempt

_LOOK_S = 0.2
_SHOWN = (".jsonl", ".log", ".txt")


async def attach(task_id: TaskId, /, *, common: Common = NOTHING_SAID) -> None:
    """Show the live session of a task's agent, from its beginning on, until that execution ends.

    Ctrl+C leaves the agent alone: it only ends the looking. Type drover hint in another terminal to tell it
    something, drover pause to stop it.
    """
    out = printer_of(common)
    async with opened(common) as drover:
        task = await drover.task(task_id)
        execution = await drover.execution(task.id)
        if execution is None or _is_over(execution):
            raise WrongState(f"{task.id} is {task.status}: nobody works on it", hint=f"drover logs {task.id}")
        if execution.host != drover.host:
            raise WrongState(
                f"the agent of {task.id} works on {execution.host}, and so does its log", hint="attach to it there"
            )
        if not common.json:
            out.note(
                f"{task.id}  {task.title}  ·  attempt {execution.attempt}, {execution.worker_id}  ·  Ctrl+C leaves it"
            )
        ended = await _follow(drover, execution, Reader(out, raw=False))
    if common.json:
        out.record({"task_id": task.id, "attempt": ended.attempt, "outcome": ended.outcome})
    else:
        end = ended.ended_at or drover.clock.now()
        what = ended.outcome or "has ended"
        out.note(f"attempt {ended.attempt}: {what} after {spoken(end - ended.started_at)}; next: drover info {task.id}")


async def _follow(drover: Drover, execution: Attempt, reader: Reader) -> Attempt:
    """Read along until the agent's part of the execution is over; the execution as it is then."""
    while True:
        now = await drover.execution(execution.task_id, execution.fence) or execution
        # Asked before the files were read: what was written before the end is read once more.
        over = _is_over(now)
        reader.read(_files(now))
        reader.flush()
        if over:
            reader.end()
            return now
        await anyio.sleep(_LOOK_S)


def _is_over(execution: Attempt) -> bool:
    """Its agent has ended, whatever drover still does with the result."""
    return execution.ended_at is not None or execution.outcome is not None


def _files(execution: Attempt) -> list[Path]:
    """What the agent prints in this execution, oldest first."""
    folder = Path(execution.log) if execution.log else None
    if folder is None or not folder.is_dir():
        return []
    found = [file for file in folder.iterdir() if file.suffix in _SHOWN]
    return sorted(found, key=lambda file: file.stat().st_mtime_ns)

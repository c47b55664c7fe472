"""How a run is told while it goes: redrawn in place on a terminal, a line an event elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import anyio

from drover.cli.output import Printer, Styled
from drover.cli.text import clock

if TYPE_CHECKING:
    from drover.app import Drover
    from drover.domain.models import Event

# What tells a person something; the rest is for --verbose.
_TELLING = {
    "task.started": "started",
    "task.completed": "completed",
    "task.failed": "failed",
    "task.retrying": "tried again",
    "task.waiting": "waits",
    "task.cancelled": "cancelled",
    "task.paused": "paused",
    "task.resumed": "goes on",
    "task.hinted": "hint",
    "task.answered": "answered",
    "task.told": "was told",
    "task.stopped": "stopped",
    "task.released": "given back",
    "task.rescued": "taken over",
    "task.moved": "moved here",
    "run.throttled": "throttled",
    "run.recovered": "recovered",
    "budget.low": "budget",
    "budget.used_up": "budget",
}
_STYLES = {
    "task.completed": "green",
    "task.failed": "red",
    "task.retrying": "yellow",
    "task.waiting": "yellow",
    "run.throttled": "yellow",
}
_WHY = ("reason", "detail", "message", "error", "note", "origin", "text", "hint")
_REDRAW_S = 0.5


class Progress(Protocol):
    """Tells of a run. ``event`` is called for each event, ``show`` runs beside the run until it is cancelled."""

    def event(self, event: Event) -> None: ...

    async def show(self) -> None: ...

    def end(self) -> None: ...


def of_printer(out: Printer, drover: Drover, *, verbose: bool, epic: str | None) -> Progress:
    """The fitting way for this terminal, or pipe."""
    if out.live and out.err.isatty():
        from drover.cli.live import Live

        return Live(out, drover, verbose=verbose, epic=epic)
    return Lines(out, verbose=verbose)


class Lines:
    """A line for each event on stderr, with the time of day."""

    def __init__(self, out: Printer, *, verbose: bool) -> None:
        self._out = out
        self._verbose = verbose

    def event(self, event: Event) -> None:
        line = line_of(event, verbose=self._verbose)
        if line:
            self._out.note("".join(part.text if isinstance(part, Styled) else part for part in line))

    async def show(self) -> None:
        await anyio.sleep_forever()

    def end(self) -> None:
        """Every line has been told already."""


def line_of(event: Event, *, verbose: bool) -> list[Styled | str]:
    """What to say of an event: time, what happened, to which task, why; nothing if it tells nothing."""
    word = _TELLING.get(event.type) or (event.type if verbose else None)
    if word is None:
        return []
    title = str(event.data.get("title") or "")
    why = ": ".join(str(event.data[key]) for key in _WHY if event.data.get(key))
    if event.type == "step.completed":
        why = str(event.data.get("name") or event.data.get("step") or why)
    told = f"  {event.task_id or event.epic_id or ''}  {title}" + (f"  ({why})" if why else "")
    return [f"{clock(event.at)}  ", Styled(f"{word:<11}", _STYLES.get(event.type, "bold")), told.rstrip()]

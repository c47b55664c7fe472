"""The picture of a run, or of a backlog, that is redrawn in place on a terminal."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
from rich.console import Console, Group
from rich.live import Live as Redrawn
from rich.text import Text

from drover.cli.output import Printer, Styled
from drover.cli.overview import overview, progress_lines, running_rows
from drover.cli.progress import line_of
from drover.cli.text import clean, fit
from drover.domain.errors import DroverError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from drover.app import Drover, StatusReport
    from drover.cli.output import Part
    from drover.domain.models import Event

_LOOK_S = 0.7


class Picture:
    """Lines on a terminal that are drawn over by the next ones; what is said above them stays."""

    def __init__(self, file: TextIO) -> None:
        self._console = Console(file=file, highlight=False, markup=False, emoji=False, force_terminal=True)
        self._redrawn = Redrawn(console=self._console, auto_refresh=False, transient=True)

    def start(self) -> None:
        """Begin to draw."""
        self._redrawn.start()
        # Not hidden: after kill -9 nobody would be there to show it again.
        self._console.show_cursor(True)

    def stop(self) -> None:
        """Take the picture away and leave the terminal as it was found."""
        with suppress(OSError):  # a terminal that was closed needs no tidying
            self._redrawn.stop()

    @property
    def columns(self) -> int:
        return self._console.width

    @property
    def rows(self) -> int:
        return self._console.height

    def draw(self, lines: Sequence[Sequence[Part]]) -> None:
        """Replace the picture; a line that is too long is cut, not wrapped, and so are too many lines."""
        room = max(3, self.rows - 1)
        shown = [_text(line, self.columns) for line in lines[:room]]
        if len(lines) > room:
            shown[-1] = Text(f"… {len(lines) - room + 1} more lines", style="dim")
        self._redrawn.update(Group(*shown), refresh=True)

    def say(self, line: Sequence[Part]) -> None:
        """One line above the picture, for good."""
        self._console.print(_text(line, 10_000), soft_wrap=True)


class Live:
    """The progress of a run: events scroll by above, the workers and the counts stay below."""

    def __init__(self, out: Printer, drover: Drover, *, verbose: bool, epic: str | None) -> None:
        self._drover = drover
        self._verbose = verbose
        self._epic = epic
        self._picture = Picture(out.err)
        self._picture.start()

    def event(self, event: Event) -> None:
        line = line_of(event, verbose=self._verbose)
        if line:
            self._picture.say(line)

    async def show(self) -> None:
        """Redraw until cancelled; a database that is busy leaves the last picture standing."""
        while True:
            try:
                self._draw(await self._drover.status(self._epic))
            except DroverError:
                pass
            except OSError:
                return  # the terminal is gone; the run goes on or ends without it
            await anyio.sleep(_LOOK_S)

    def end(self) -> None:
        """Leave the terminal as it was found."""
        self._picture.stop()

    def _draw(self, report: StatusReport) -> None:
        now = self._drover.clock.now()
        lines: list[list[Part]] = [["  ".join(row)] for row in running_rows(report, now)]
        self._picture.draw([*lines, *progress_lines(report)])


async def watch_status(out: Printer, drover: Drover, epic: str | None) -> None:
    """The status, redrawn in place until cancelled."""
    picture = Picture(out.out)
    picture.start()
    try:
        while True:
            report = await drover.status(epic)
            picture.draw(overview(report, drover.clock.now()))
            await anyio.sleep(_LOOK_S)
    finally:
        picture.stop()


def _text(line: Sequence[Part], columns: int) -> Text:
    text, room = Text(no_wrap=True), columns
    for part in line:
        styled = part if isinstance(part, Styled) else Styled(part, "")
        inner = fit(clean_keeping_edges(styled.text), room)
        text.append(inner, style=styled.style)
        room -= len(inner)
        if room <= 0:
            break
    return text


def clean_keeping_edges(text: str) -> str:
    """As :func:`drover.cli.text.clean`, with the spaces at both ends that stand between two parts."""
    core = clean(text)
    lead, trail = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
    return text if not text.strip() else " " * lead + core + " " * trail

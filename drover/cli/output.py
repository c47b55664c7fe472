"""The one printer: everything that drover says on a terminal or into a pipe goes through it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from drover.cli.text import clean, clean_block, fit, pad, width
from drover.domain.errors import DroverError, UsageError

Json = Mapping[str, object] | Sequence[object]

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
STATUS_STYLES = {
    "ready": "cyan",
    "blocked": "dim",
    "waiting": "yellow",
    "claimed": "blue",
    "in_progress": "blue",
    "paused": "yellow",
    "completed": "green",
    "failed": "red",
    "cancelled": "dim",
}

_HINTS = {
    "usage": "drover --help",
    "settings": "correct it there; `drover config show` prints what is set",
    "not_found": "`drover list` and `drover epic list` show every id",
    "wrong_state": "`drover info ID` shows its state",
    "cycle": "leave one of these blockers out",
    "store": "`drover doctor` looks into it",
    "store_unavailable": "try again; `drover doctor` looks into it",
    "schema": "use the version of drover that the project was last used with, or a newer one",
    "agent": "`drover doctor` checks the agent",
    "disk_full": "make room, then type: drover resume",
    "git": "`drover doctor` checks the repository",
    "internal": "run it again with --debug and report what it prints",
    "interrupted": "`drover status` shows where things stand",
}
_ANY_HINT = "`drover doctor` checks what drover needs"


@dataclass(frozen=True)
class Styled:
    """Text that is shown in a colour where there are colours."""

    text: str
    style: str


Part = str | Styled


def status_word(status: str) -> Styled:
    return Styled(status, STATUS_STYLES.get(status, "bold"))


class Printer:
    """Speaks to people or, with ``as_json``, to programs.

    Every text is cleaned here of what could steer a terminal, so no caller can forget it. What was asked for
    goes to ``out``; what is said on the way goes to ``err``.
    """

    def __init__(
        self, *, as_json: bool = False, plain: bool = False, out: TextIO | None = None, err: TextIO | None = None
    ) -> None:
        self.as_json = as_json
        self._out = out
        self._err = err
        fancy = not plain and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.colour = fancy and self.out.isatty()
        self.live = self.colour and not as_json

    @property
    def out(self) -> TextIO:
        return self._out or sys.stdout

    @property
    def err(self) -> TextIO:
        return self._err or sys.stderr

    @property
    def columns(self) -> int:
        """How long a line may be; practically endless where nobody would see it wrapped."""
        return shutil.get_terminal_size().columns if self.out.isatty() else 100_000

    # ------------------------------------------------------------ for people

    def line(self, *parts: Part) -> None:
        """One line on stdout, whatever line ends its parts hold."""
        self.out.write("".join(self._shown(part) for part in parts).rstrip() + "\n")

    def block(self, text: str, *, indent: str = "") -> None:
        """Foreign text of several lines on stdout."""
        for line in clean_block(text).rstrip("\n").split("\n"):
            self.out.write(f"{indent}{line}".rstrip() + "\n")

    def raw(self, data: bytes) -> None:
        """Bytes on stdout as they are; never called for a terminal."""
        self.out.flush()
        self.out.buffer.write(data)

    def table(self, rows: Sequence[Sequence[Part]], *, indent: str = "", cut: bool = True) -> None:
        """Rows under one another; the last column takes the room that is left and, with ``cut``, never more."""
        texts = [[clean(part.text if isinstance(part, Styled) else part) for part in row] for row in rows]
        widths = [max(width(row[at]) for row in texts) for at in range(len(texts[0]) - 1)] if texts else []
        room = max(20, self.columns - sum(widths) - 2 * len(widths) - len(indent))
        for row, parts in zip(texts, rows, strict=True):
            cells = [pad(text, columns) for text, columns in zip(row, widths, strict=False)] + [
                fit(row[-1], room) if cut else row[-1]
            ]
            styles = [part.style if isinstance(part, Styled) else "" for part in parts]
            shown = [self._painted(cell, style) for cell, style in zip(cells, styles, strict=True)]
            self.out.write((indent + "  ".join(shown)).rstrip() + "\n")

    def note(self, text: str) -> None:
        """Something said on the way, on stderr; programs are not told."""
        if not self.as_json:
            self.err.write(clean(text) + "\n")

    @property
    def can_ask(self) -> bool:
        """Whether a person is there to answer."""
        return not self.as_json and sys.stdin.isatty() and self.err.isatty()

    def confirm(self, what: str) -> None:
        """Ask whether to do that; raises UsageError where nobody can answer, and when the answer is not yes."""
        if not self.can_ask:
            raise UsageError(f"this would {clean(what)}", hint="add -y if that is meant")
        self.err.write(f"{clean(what)}? [y/N] ")
        self.err.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise DroverError(f"did not {clean(what)}", hint="nothing was changed")

    def warning(self, text: str) -> None:
        self.note(f"warning: {text}")

    def give_up(self) -> None:
        """Stdout's reader is gone: say nothing more, and let the interpreter's own last flush not complain."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.out.fileno())
        os.close(null)

    # ------------------------------------------------------------ for programs

    def document(self, value: Json) -> None:
        """The one JSON document of a command."""
        # ASCII only: what could steer a terminal is escaped and nothing is lost.
        self.out.write(json.dumps(value, indent=2) + "\n")

    def record(self, value: Json) -> None:
        """One line of JSON Lines, there at once for who reads along."""
        self.out.write(json.dumps(value, separators=(",", ":")) + "\n")
        self.out.flush()

    # ------------------------------------------------------------ for both

    def error(self, code: str, message: str, hint: str | None) -> None:
        """What went wrong, with which value, and what to type next; on stderr."""
        message, hint = clean(message), clean(hint or _HINTS.get(code, _ANY_HINT))
        if self.as_json:
            self.err.write(json.dumps({"error": {"code": code, "message": message, "hint": hint}}) + "\n")
        else:
            self.err.write(f"error: {message}\nhint: {hint}\n")

    def drover_error(self, error: DroverError) -> None:
        self.error(error.code, error.message, error.hint)

    def _shown(self, part: Part) -> str:
        if isinstance(part, Styled):
            return self._painted(_clean_inner(part.text), part.style)
        return _clean_inner(part)

    def _painted(self, text: str, style: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.colour and style in _STYLES and text.strip() else text


def _clean_inner(text: str) -> str:
    """As :func:`clean`, keeping the spaces that stand between two parts of a line."""
    return clean_block(text).replace("\n", " ").replace("\t", " ")

"""How ``--help`` looks: plain paragraphs and two columns, the same on every terminal."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

_LABELS = 30  # columns of the left side; what is longer gets a line of its own
_WIDEST = 100


class Columns:
    """A formatter for cyclopts: no boxes, no markup, at most 100 columns."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """One panel: its title, then a line or more for each entry."""
        if not panel.entries:
            return
        lines = [f"{panel.title}:"]
        for entry in panel.entries:
            lines += _entry_lines(entry, _width(console))
        _write(console, [*lines, ""])

    def render_usage(self, console: Console, options: ConsoleOptions, usage: object) -> None:
        """The line that says how to type it."""
        text = _plain(usage)
        if text:
            _write(console, [text if text.startswith("Usage:") else f"Usage: {text}", ""])

    def render_description(self, console: Console, options: ConsoleOptions, description: object) -> None:
        """Paragraphs, filled; what is indented (examples) is left as it is."""
        for paragraph in _plain(description).split("\n\n"):
            if paragraph.startswith(" "):
                _write(console, [*paragraph.split("\n"), ""])
            elif paragraph:
                _write(console, [*textwrap.wrap(paragraph, _width(console)), ""])


def _entry_lines(entry: HelpEntry, width: int) -> list[str]:
    label = "  " + ", ".join(entry.display_labels_with_metavar)
    text = _plain(entry.description).replace("\n", " ")
    if entry.choices:
        text = f"{text} One of: {', '.join(entry.choices)}."
    wrapped = textwrap.wrap(text.strip(), width - _LABELS) or [""]
    if len(label) < _LABELS - 1:
        wrapped[0] = label.ljust(_LABELS) + wrapped[0]
        return [wrapped[0], *(" " * _LABELS + line for line in wrapped[1:])]
    return [label, *(" " * _LABELS + line for line in wrapped if line)]


def _plain(text: object) -> str:
    """The text of what cyclopts hands over: a string, or one of rich's renderables that holds one."""
    plain = getattr(text, "plain", None)
    if plain is None:
        plain = getattr(getattr(text, "primary_renderable", None), "plain", None)
    return str(plain if plain is not None else text or "").strip("\n")


def _width(console: Console) -> int:
    return min(console.width, _WIDEST)


def _write(console: Console, lines: list[str]) -> None:
    console.file.write("".join(f"{line.rstrip()}\n" for line in lines))

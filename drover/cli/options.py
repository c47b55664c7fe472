"""The options that several commands share, and how their values are read."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from drover.domain.errors import UsageError
from drover.domain.quantities import parse_duration

GLOBAL = Group("Options of every command", sort_key=9)

TaskType = Literal["feature", "bug", "refactor", "test", "docs", "research", "fix", "other"]
TestMode = Literal["strict", "lenient", "disabled"]
TestScope = Literal["all", "diff", "skip"]
Mode = Literal["combined", "planning", "building"]
PlanStatus = Literal["pending", "approved", "rejected", "executing", "completed", "failed"]
StatusName = Literal[
    "ready", "blocked", "waiting", "claimed", "in_progress", "paused", "completed", "failed", "cancelled"
]
LARGEST_TEXT = 10 << 20  # bytes of a description; more than any model reads


def option(*names: str, help: str, metavar: str | None = None, text: bool = False) -> Parameter:
    """An option; one whose value is free ``text`` takes what follows even if that begins with a dash."""
    return Parameter(name=names or None, help=help, metavar=metavar, allow_leading_hyphen=text)


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """What every command understands."""

    project: Annotated[
        str | None,
        Parameter(group=GLOBAL, metavar="DIR", help="Work on the project in DIR (DROVER_PROJECT), not the one around."),
    ] = None
    json: Annotated[bool, Parameter(group=GLOBAL, help="Print JSON for programs; errors too, on stderr.")] = False
    plain: Annotated[bool, Parameter(group=GLOBAL, help="No colour, nothing redrawn (as NO_COLOR).")] = False
    debug: Annotated[bool, Parameter(group=GLOBAL, help="Show the traceback of an error.")] = False


NOTHING_SAID = Common()

Title = Annotated[str, Parameter(help='What is to be done, in a line. After `--` it may begin with "-".')]
TaskId = Annotated[str, Parameter(name="ID", help="A task's id, or the beginning of it that no other has.")]
TaskIds = Annotated[tuple[str, ...], Parameter(name="ID", help="Tasks' ids, or beginnings of them that no other has.")]
EpicId = Annotated[str, Parameter(name="ID", help="An epic's id, or the beginning of it that no other has.")]
EpicOption = Annotated[str | None, option("--epic", "-e", metavar="ID", help="Only the tasks of this epic.")]
LabelsOption = Annotated[tuple[str, ...], option("--label", metavar="L", help="A label; may be given several times.")]
Quiet = Annotated[bool, option("--quiet", "-q", help="Print the id alone.")]
Yes = Annotated[bool, option("--yes", "-y", help="Do not ask.")]
Description = Annotated[
    str | None,
    option(
        "--description",
        "-d",
        metavar="TEXT",
        text=True,
        help="The whole order for the agent: TEXT, or @FILE to read a file, or - to read standard input.",
    ),
]


def split(values: Iterable[str]) -> tuple[str, ...]:
    """``a,b`` and ``a`` ``b`` are the same two values, each once, in their order."""
    return tuple(dict.fromkeys(part.strip() for value in values for part in value.split(",") if part.strip()))


def duration_ms(text: str | None, name: str) -> int | None:
    """The value of the option ``name`` in milliseconds, None as None; raises UsageError."""
    if text is None:
        return None
    try:
        milliseconds = parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None
    if milliseconds == 0:
        raise UsageError(f"{name}: {text!r} is no time at all", hint=f"for example: {name} 30m")
    return milliseconds


def positive(value: int | None, name: str, *, most: int) -> int | None:
    """A count from 1 to ``most``, None as None; raises UsageError."""
    if value is not None and not 1 <= value <= most:
        raise UsageError(f"{name}: {value} is out of range; it may be from 1 to {most}")
    return value


def checked_text(text: str, what: str) -> str:
    """Text that every database and JSON can hold; raises UsageError."""
    if re.search("[\ud800-\udfff]", text):  # what Python makes of argv that is not UTF-8
        raise UsageError(f"{what} is not UTF-8: {text.encode('utf-8', 'backslashreplace').decode()}")
    if "\x00" in text:
        raise UsageError(f"{what} holds a NUL character")
    return text


def checked_title(title: str) -> str:
    """A title that says something; raises UsageError."""
    if not title.strip():
        raise UsageError("the title is empty", hint='for example: drover add "Write the parser"')
    return checked_text(title, "the title").strip()


def read_text(description: str | None) -> str | None:
    """The text that ``-d`` means: itself, @FILE, or - for standard input; raises UsageError if it cannot be read."""
    if description == "-":
        return _decoded(sys.stdin.buffer.read(LARGEST_TEXT + 1), "standard input")
    if description is None or not description.startswith("@"):
        return description if description is None else checked_text(description, "the description")
    if description.startswith("@@"):
        return checked_text(description[1:], "the description")
    name = description[1:]
    try:
        with Path(name).open("rb") as file:
            return _decoded(file.read(LARGEST_TEXT + 1), name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"the description cannot be read from {name or '@'}: {reason}") from None


def _decoded(data: bytes, where: str) -> str:
    if len(data) > LARGEST_TEXT:
        raise UsageError(f"the description from {where} is larger than {LARGEST_TEXT >> 20} MB")
    try:
        return checked_text(data.decode("utf-8-sig"), f"the description from {where}")
    except UnicodeDecodeError as error:
        raise UsageError(f"the description from {where} is not UTF-8: {error}") from None

"""What agents and tests have said, and what they say now."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio

from drover.cli.options import NOTHING_SAID, Common, TaskId, option, positive
from drover.cli.output import Printer, Styled
from drover.cli.session import opened, printer_of
from drover.cli.words import words_of
from drover.domain.errors import NotFound, UsageError

if TYPE_CHECKING:
    from drover.app import Drover

_CHUNK = 256 << 10
_LONGEST_LINE = 1 << 20  # characters; a longer line is shown cut, so that 1 GB without an end needs no memory
_LOOK_S = 0.3
_FINISHED = ("completed", "failed", "cancelled")


async def logs(
    task_id: TaskId,
    /,
    *,
    attempt: Annotated[int | None, option("--attempt", metavar="N", help="Only of this attempt.")] = None,
    follow: Annotated[bool, option("--follow", "-f", help="Go on until the task is finished, or Ctrl+C.")] = False,
    raw: Annotated[bool, option("--raw", help="Every byte as it was written, into a pipe or a file.")] = False,
    common: Common = NOTHING_SAID,
) -> None:
    """Print the agent's words and the tests' output, oldest first.

    What agents print for programs (JSON Lines) is shown as words; --raw leaves it as it is.
    """
    positive(attempt, "--attempt", most=10**9)
    out = printer_of(common)
    if raw and (common.json or out.out.isatty()):
        raise UsageError("--raw is for a pipe or a file", hint=f"drover logs {task_id} --raw > output.log")
    async with opened(common) as drover:
        task = await drover.task(task_id)
        reader = Reader(out, raw=raw)
        if follow:
            await _follow(drover, task.id, attempt, reader)
        elif not reader.read(await drover.log_files(task.id, attempt)):
            of = f" in attempt {attempt}" if attempt else ""
            raise NotFound(f"{task.id} has said nothing yet{of}", hint=f"drover info {task.id}")
        reader.end()


async def _follow(drover: Drover, task_id: str, attempt: int | None, reader: Reader) -> None:
    """Read along until the task is finished; files of later attempts too."""
    finished = False
    while True:
        if reader.read(await drover.log_files(task_id, attempt)):
            reader.flush()
            continue
        if finished:
            return
        # Asked after the files were found empty: what was written before the end is read once more.
        finished = str((await drover.task(task_id)).status) in _FINISHED
        if not finished:
            await anyio.sleep(_LOOK_S)


class Reader:
    """Prints what files hold that it has not printed yet."""

    def __init__(self, out: Printer, *, raw: bool) -> None:
        self._out = out
        self._raw = raw
        self._tails: dict[Path, Tail] = {}
        self._last: Path | None = None

    def read(self, paths: list[Path]) -> bool:
        """Whether there was anything new."""
        new = False
        for path in paths:
            tail = self._tails.setdefault(path, Tail(path))
            while data := tail.read():
                new = True
                self._show(path, tail, data)
        return new

    def flush(self) -> None:
        self._out.out.flush()

    def end(self) -> None:
        """Show the lines that were begun and never ended."""
        for path, tail in self._tails.items():
            for line in [] if self._raw else tail.rest():
                self._show_line(path, line)

    def _show(self, path: Path, tail: Tail, data: bytes) -> None:
        if self._raw:
            self._out.raw(data)
            return
        for line in tail.lines(data):
            self._show_line(path, line)

    def _show_line(self, path: Path, line: str) -> None:
        if self._out.as_json:
            self._out.record({"file": str(path), "line": line})
            return
        if path != self._last:
            self._out.line(Styled(f"── {path.parent.name}/{path.name}", "dim"))
            self._last = path
        for said in words_of(line) if path.suffix == ".jsonl" else [line]:
            self._out.block(said)


class Tail:
    """What is new in one file. A multi-byte character that is only half there yet is waited for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._begun = ""
        self._cut = False

    def read(self) -> bytes:
        """The next piece; empty at the end of what there is now."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(_CHUNK)
        except FileNotFoundError:
            return b""
        self._offset += len(data)
        return data

    def lines(self, data: bytes) -> Iterator[str]:
        """The lines that this piece completes, each at most 1 Mi characters long."""
        *ended, self._begun = (self._begun + self._decoder.decode(data)).split("\n")
        for line in ended:
            if not self._cut:
                yield line
            self._cut = False
        if len(self._begun) > _LONGEST_LINE:
            if not self._cut:
                yield f"{self._begun[:_LONGEST_LINE]}… (a very long line; see {self._path})"
            self._begun, self._cut = "", True

    def rest(self) -> Iterator[str]:
        rest = self._begun + self._decoder.decode(b"", final=True)
        if rest and not self._cut:
            yield rest

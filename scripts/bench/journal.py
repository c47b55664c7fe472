"""What a runner's tasks tell of themselves, and the figures read from it.

One line an event, written with one system call and never synced: ``<ns> begin|end|mark <task or name>``.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import NamedTuple


class Journal:
    """The writing end. A kill -9 loses nothing of it, for it is the kernel's from the first byte."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def begin(self, task: int) -> None:
        os.write(self._file, b"%d begin %d\n" % (time.time_ns(), task))

    def end(self, task: int) -> None:
        os.write(self._file, b"%d end %d\n" % (time.time_ns(), task))

    def mark(self, name: str) -> None:
        os.write(self._file, b"%d mark %s\n" % (time.time_ns(), name.encode()))


class Line(NamedTuple):
    at: int
    kind: str
    what: str


def read(path: Path) -> list[Line]:
    """Every whole line."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [Line(int(at), kind, what) for at, kind, what in (line.split(" ", 2) for line in lines)]


class Figures(NamedTuple):
    """Seconds from handing in the first task to the end of the last; hops in milliseconds."""

    seconds: float
    done: int
    repeated: int
    too_early: int  # tasks that began before a blocker had ended: always 0
    hop_ms: float | None
    hop_ms_p95: float | None
    marks: dict[str, str]


def figures(lines: list[Line], blockers: list[list[int]]) -> Figures:
    begun: dict[int, int] = {}
    ended: dict[int, int] = {}
    starts: Counter[int] = Counter()
    for line in lines:
        if line.kind == "begin":
            starts[int(line.what)] += 1
            begun.setdefault(int(line.what), line.at)
        elif line.kind == "end":
            ended[int(line.what)] = line.at
    since = next(line.at for line in lines if line.kind == "mark")
    hops = sorted(
        (begun[task] - max(ended[b] for b in mine)) / 1e6
        for task, mine in enumerate(blockers)
        if mine and task in begun and all(b in ended for b in mine)
    )
    return Figures(
        seconds=(max(ended.values(), default=since) - since) / 1e9,
        done=len(ended),
        repeated=sum(starts.values()) - len(starts),
        too_early=sum(hop < 0 for hop in hops),
        hop_ms=median(hops) if hops else None,
        hop_ms_p95=hops[int(len(hops) * 0.95)] if hops else None,
        marks=dict(line.what.split("=", 1) for line in lines if line.kind == "mark" and "=" in line.what),
    )

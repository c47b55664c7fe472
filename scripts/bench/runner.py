"""Starting a runner in a process of its own, killing it half-way where that is asked, and reading its journal."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scripts.bench import journal
from scripts.bench.shapes import blockers_of

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LIMIT_S = 240.0
# Compiled files are kept between starts, as they are for everybody who has installed drover.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
    "PYTHONPATH": str(ROOT),
}


class Broken(Exception):
    """A runner did not do its work."""


def run(program: str, shape: str, *, ms: float = 0, python: str = sys.executable, url: str = "") -> journal.Figures:
    """Run ``program`` (a file of this directory) on a shape once; every task is done, none before its blockers."""
    with tempfile.TemporaryDirectory(prefix="drover-bench-") as place:
        child = _start(program, shape, ms, python, url, place, resume=False)
        _wait(child, place)
        found = journal.figures(journal.read(Path(place, "journal")), blockers_of(shape))
    if found.done != len(blockers_of(shape)) or found.too_early or found.repeated:
        raise Broken(f"{program} on {shape}: {found}")
    return found


def crash(program: str, shape: str, *, ms: float, python: str = sys.executable, url: str = "") -> dict[str, Any]:
    """Kill -9 when half of the tasks have ended, start again at once, wait until all have."""
    blockers = blockers_of(shape)
    with tempfile.TemporaryDirectory(prefix="drover-bench-") as place:
        child = _start(program, shape, ms, python, url, place, resume=False)
        before = _kill_at(child, Path(place, "journal"), len(blockers) // 2)
        completed = _completed(Path(place, "drover.db"))
        again = time.time_ns()
        _wait(_start(program, shape, ms, python, url, place, resume=True), place)
        after = journal.read(Path(place, "journal"))[len(before) :]
    ended = {line.what for line in before if line.kind == "end"}
    begun = [line for line in after if line.kind == "begin"]
    finished = [line for line in after if line.kind == "end"]
    if len(ended | {line.what for line in finished}) != len(blockers):
        raise Broken(f"{program} lost tasks in the crash")
    return {
        "first_start_s": (min(line.at for line in begun) - again) / 1e9,
        "all_done_s": (max(line.at for line in finished) - again) / 1e9,
        "ended_run_again": len(ended & {line.what for line in begun}),  # their results were not committed yet
        "completed_run_again": len(completed & {line.what for line in begun}),
        "ended_at_kill": len(ended),
    }


def _completed(database: Path) -> set[str]:
    """Tasks of drover whose result was committed before the kill."""
    if not database.exists():
        return set()
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as db:
        found = {str(title) for (title,) in db.execute("SELECT title FROM tasks WHERE state = 'completed'")}
    db.close()
    return found


def _start(
    program: str, shape: str, ms: float, python: str, url: str, place: str, *, resume: bool
) -> subprocess.Popen[bytes]:
    argv = [python, str(HERE / program), shape, str(ms), url, "resume" if resume else "new"]
    with Path(place, "errors").open("ab") as errors:
        return subprocess.Popen(
            argv,
            cwd=place,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )  # fmt: skip


def _wait(child: subprocess.Popen[bytes], place: str) -> None:
    try:
        code = child.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        raise Broken(f"{child.args!r} took longer than {LIMIT_S:g} s") from None
    if code:
        raise Broken(f"{child.args!r} ended with {code}:\n{Path(place, 'errors').read_text()[-2000:]}")


def _kill_at(child: subprocess.Popen[bytes], path: Path, count: int) -> list[journal.Line]:
    """Kill the runner and its group once ``count`` tasks have ended; what it had written."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and child.poll() is None:
        if path.exists() and path.read_bytes().count(b" end ") >= count:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return journal.read(path)
        time.sleep(0.002)
    raise Broken(f"{child.args!r} was not half done in time, or ended before it could be killed")

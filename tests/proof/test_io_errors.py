"""Each write, sync and cut of the database's files is refused, once or for ever: said or done, and never half of it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.proof.plugin import Tally

ROOT = Path(__file__).parents[2]
WRITER = ROOT / "tests" / "store" / "writing.py"
CALLS = ("pwrite64", "fdatasync", "ftruncate")
MOST = 24  # of one call, of which there are hundreds that are alike

pytestmark = [
    pytest.mark.suite("T16"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]


class Refusal(NamedTuple):
    file: str
    call: str
    error: str
    when: str  # strace's words: 3 is the third, 3+ the third and all after it

    def __str__(self) -> str:
        return f"{self.error} at {self.call} {self.when} of {self.file}"


def refused(refusal: Refusal, home: Path) -> tuple[bool, list[str]]:
    """Whether it came to that, and what is wrong afterwards."""
    path, log = home / "drover.db", home / "trace"
    done = subprocess.run(
        ["strace", "-f", "-qq", "-o", log, "-P", f"{path}{refusal.file}", "-e", f"trace={refusal.call}",
         "-e", f"inject={refusal.call}:error={refusal.error}:when={refusal.when}", sys.executable, WRITER, path],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    if "INJECTED" not in log.read_text():
        return False, []
    return True, [f"{refusal}: {what}" for what in wrong(done, path)]


def wrong(done: subprocess.CompletedProcess[str], path: Path) -> Iterator[str]:
    """The program's words beside what the file holds."""
    lines = done.stdout.splitlines()
    promised = [line for line in lines if line.isdigit()]
    if done.returncode and "Error" not in done.stderr:
        yield f"ended with {done.returncode} and did not say why"
    if done.returncode < 0:
        yield f"was killed by signal {-done.returncode}"
    with closing(sqlite3.connect(path)) as db:
        if db.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            yield "the file is damaged"
        if db.execute("PRAGMA foreign_key_check").fetchall():
            yield "rows point nowhere"
        try:
            titles = [title for (title,) in db.execute("SELECT title FROM tasks ORDER BY number")]
        except sqlite3.OperationalError:
            titles = []  # it did not come as far as its tables
    if titles[: len(promised)] != promised:
        yield f"promised {promised} and holds {titles}"
    if len(titles) > len(promised) + 1:
        yield f"holds {len(titles) - len(promised)} that nobody was promised"


def sweep(call: str, file: str, error: str, home: Path, tally: Tally, *, points: Iterator[int], for_ever: bool) -> None:
    tried = 0
    for n in points:
        where = home / f"{n}"
        where.mkdir()
        hit, violations = refused(Refusal(file, call, error, f"{n}{'+' if for_ever else ''}"), where)
        if not hit:
            break
        tried += 1
        tally(points=1, violations=violations)
        shutil.rmtree(where)
    if not tried:
        pytest.skip(f"there is no {call} of drover.db{file} here")


@pytest.mark.parametrize(("call", "error"), [("pwrite64", "ENOSPC"), ("fdatasync", "EIO")])
def test_a_database_that_is_refused_something_says_so_and_keeps_what_it_promised(
    tmp_path: Path, call: str, error: str, tally: Tally
) -> None:
    sweep(call, "-wal", error, tmp_path, tally, points=iter([9]), for_ever=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("file", ["-wal", "", "-shm"])
def test_a_database_that_is_refused_anything_says_so_and_keeps_what_it_promised(
    tmp_path: Path, file: str, call: str, error: str, for_ever: bool, tally: Tally
) -> None:
    sweep(call, file, error, tmp_path, tally, points=iter(range(1, MOST + 1)), for_ever=for_ever)

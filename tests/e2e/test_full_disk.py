"""The disk of a project, full at many levels while a run is under way: it stops or waits, and goes on without a hand.

The project has a small disk in memory to itself, and a file that leaves so much of it and no more. Needs root.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.conftest import Project, make_project
from tests.proof.plugin import Tally
from tests.small_disk import small_disk

LEVELS = 20
MOST = 600_000  # bytes left at the first level; less than two lives take
FULL_S = 4.0  # how long somebody takes to notice and make room

# It has books of its own elsewhere, and waits for room itself: what fails is drover's.
AGENT = """\
import os, pathlib, sys, time
sys.stdin.read()
id = os.environ["DROVER_TASK_ID"]
with open(os.environ["LEDGER"], "a") as books:
    books.write(id + "\\n")
while True:
    try:
        pathlib.Path(id + ".txt").write_text((id + "\\n") * 2_000)
        break
    except OSError:
        time.sleep(0.1)
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Project]:
    with small_disk(tmp_path / "small", "64m") as where:
        project = make_project(where)
        project.ledger = tmp_path / "books"
        (tmp_path / "agent.py").write_text(AGENT)
        project.env |= {"LEDGER": str(project.ledger), "DROVER_AGENT_PATH": f"{sys.executable} {tmp_path / 'agent.py'}"}
        with (project.root / ".drover.toml").open("a") as file:
            file.write("\n[disk]\nfloor = 0\n")
        project.git("commit", "-q", "-a", "-m", "no floor")
        yield project
        project.eventually(lambda: not project.living(), "nothing to be alive on the disk")


def run_with_so_much_left(project: Project, spare: int) -> bool:
    """One run on a disk that has so many bytes left, until somebody makes room. Whether it noticed."""
    ballast = project.root.parent / "ballast"
    ballast.write_bytes(b"x" * max(0, shutil.disk_usage(project.root).free - spare))
    process = project.start("run", "--workers", "2")
    waited = False
    try:
        process.wait(FULL_S)
    except subprocess.TimeoutExpired:
        waited = True
    ballast.unlink()
    said, _ = process.communicate(timeout=120)
    assert "Traceback" not in said, said
    assert process.returncode in (0, 1, 3), said
    return waited or process.returncode != 0 or "space" in said


@pytest.mark.suite("T15")
@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_a_run_on_a_full_disk_goes_on_without_a_hand_when_there_is_room(small: Project, tally: Tally) -> None:
    ids: list[str] = []
    for level in range(LEVELS):
        ids += [small.add(f"Task {level} {n}") for n in range(2)]
        spare = int(MOST * (1 - level / (LEVELS - 1)) ** 2)
        noticed = run_with_so_much_left(small, spare)
        small.drover("run", timeout=120)
        assert small.landed() == Counter(ids), f"{spare} bytes left"
        assert small.statuses() == {"completed": len(ids)}
        tally(points=1, hit=int(noticed))
    assert small.git("status", "--porcelain") == ""
    small.git("fsck", "--strict", "--no-dangling")
    with closing(sqlite3.connect(small.root / ".drover" / "drover.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    for id in ids:
        assert small.git("show", f"main:{id}.txt").split() == [id] * 2_000


@pytest.mark.suite("T15")
def test_a_command_on_a_disk_without_a_byte_says_so_and_another_goes_on_when_there_is_room(small: Project) -> None:
    id = small.add("One")
    ballast = small.root.parent / "ballast"
    ballast.write_bytes(b"x" * shutil.disk_usage(small.root).free)
    for command in (["status"], ["add", "Another"], ["run"], ["doctor"]):
        done = small.drover(*command, code=1)
        assert "no space left" in done.stderr + done.stdout, command
        assert "I/O error" not in done.stderr + done.stdout, command
    ballast.unlink()
    small.drover("run", timeout=120)
    assert small.landed() == Counter([id])
    assert small.statuses() == {"completed": 1}

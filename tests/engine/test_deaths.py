"""A run is killed at every transaction and around every git command; the next one finishes the work.

After each death the history is judged from git, the database and a ledger that the agents keep outside.
The gate runs a seeded sample of the points; all of them run with ``-m slow``.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]
SEED = 7
SAMPLE = 12  # points of each kind that the gate tries

AGENT = """#!/bin/sh
echo "start $DROVER_TASK_ID" >> {ledger}
echo "$DROVER_TASK_ID $$" > "$DROVER_TASK_ID.txt"
echo "end $DROVER_TASK_ID" >> {ledger}
"""


def environment(root: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "DROVER_AGENT_TYPE": "command",
        "DROVER_AGENT_PATH": str(root / "agent.sh"),
    }


def git(where: Path, *argv: str) -> str:
    return subprocess.run(["git", *argv], cwd=where, capture_output=True, text=True, check=True).stdout.strip()


FILL = """
import anyio, sys
from drover import app
async def main():
    async with app.open(repo=sys.argv[1]) as d:
        a = await d.add("A")
        b, c = await d.add("B", blocked_by=[a]), await d.add("C", blocked_by=[a])
        await d.add("D", blocked_by=[b, c])
anyio.run(main)
"""


def make_template(root: Path) -> Path:
    """A diamond of four tasks, ready to run. Its path is written into it, so it is made anew for every death."""
    repo = root / "repo"
    repo.mkdir(parents=True)
    (root / "agent.sh").write_text(AGENT.format(ledger=root / "ledger"))
    (root / "agent.sh").chmod(0o755)
    git(repo, "init", "-q", "-b", "main")
    git(repo, "config", "user.name", "Olive Operator")
    git(repo, "config", "user.email", "olive@example.org")
    (repo / "README.md").write_text("# x\n")
    (repo / ".gitignore").write_text(".drover.toml\n")
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "first")
    subprocess.run([sys.executable, "-c", FILL, str(repo)], env=environment(root), check=True, timeout=60)
    return repo


def run(root: Path, kind: str, when: str, at: int, points: Path | None = None) -> int:
    driver = Path(__file__).with_name("dying_run.py")
    argv = [sys.executable, str(driver), str(root / "repo"), kind, when, str(at), *([str(points)] if points else [])]
    done = subprocess.run(
        argv, env=environment(root), capture_output=True, text=True, timeout=120, start_new_session=True, check=False
    )
    assert done.returncode in (0, -9), done.stderr
    return done.returncode


def judge(root: Path) -> None:
    """The invariants, read from outside: git, the database file, the ledger."""
    repo = root / "repo"
    with sqlite3.connect(f"file:{repo}/.drover/drover.db?mode=ro", uri=True) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        tasks = db.execute("SELECT id, state, landed_commit, failures, fence FROM tasks").fetchall()
        steps = db.execute("SELECT task_id, attempt, name, count(*) FROM steps GROUP BY 1, 2, 3").fetchall()
        edges = db.execute("SELECT task_id, blocker_id FROM blockers").fetchall()
        bases = dict(db.execute("SELECT task_id, base FROM attempts WHERE base IS NOT NULL").fetchall())
        left = db.execute("SELECT count(*) FROM landings WHERE state IN ('intent', 'landed')").fetchone()[0]
        again = db.execute(
            "SELECT count(*) FROM attempts a JOIN steps s ON s.task_id = a.task_id AND s.attempt = a.attempt"
            " WHERE s.name = 'let_agent_work' AND a.agent_started_at > s.finished_at"
        ).fetchone()[0]
        wrong = db.execute(
            "SELECT count(*) FROM tasks t WHERE open_blockers <> (SELECT count(*) FROM blockers b JOIN tasks x"
            " ON x.id = b.blocker_id WHERE b.task_id = t.id AND x.landed_at IS NULL)"
        ).fetchone()[0]
    assert [state for _, state, *_ in tasks] == ["completed"] * 4
    assert wrong == 0
    assert all(count == 1 for *_, count in steps), "no completed step repeats"
    assert all(failures == 0 for *_, failures, _ in tasks), "a death uses up no attempt"
    chain = git(
        repo, "log", "--first-parent", "--format=%H %(trailers:key=Drover-Task,valueonly,separator=%x2c)", "main"
    )
    landed = [line.split() for line in chain.splitlines() if len(line.split()) == 2]
    assert Counter(task for _, task in landed) == Counter(task for task, *_ in tasks), "each lands exactly once"
    assert {(oid, task) for oid, task in landed} == {(oid, task) for task, _, oid, *_ in tasks}
    for task, blocker in edges:
        commit = next(oid for t, _, oid, *_ in tasks if t == blocker)
        subprocess.run(["git", "merge-base", "--is-ancestor", commit, bases[task]], cwd=repo, check=True)
    for oid, task in landed:
        changed = git(repo, "diff-tree", "-r", "--name-only", f"{oid}^", oid).split()
        assert changed == [f"{task}.txt"], "a landing changes only its own"
    assert left == 0
    git(repo, "fsck", "--strict", "--no-dangling")
    assert git(repo, "status", "--porcelain") == ""
    residue = [p for p in (repo / ".git").rglob("*.lock") if p.name not in ("publish.lock",)]
    assert residue == []
    starts = Counter(line.split()[1] for line in (root / "ledger").read_text().splitlines() if line.startswith("start"))
    assert all(1 <= count <= 2 for count in starts.values()), "a repetition is paid for by a death"
    assert again == 0, "no agent is started once its step is complete"


def die_and_finish(root: Path, kind: str, when: str, at: int) -> bool:
    """Whether the point was reached; the work is finished and judged either way."""
    make_template(root)
    hit = run(root, kind, when, at) == -9
    assert run(root, kind, when, 0) == 0
    judge(root)
    shutil.rmtree(root)
    return hit


def count_points(root: Path, kind: str) -> int:
    make_template(root)
    assert run(root, kind, "before", 0, root / "points") == 0
    judge(root)
    return int((root / "points").read_text())


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["write", "git"])
@pytest.mark.timeout(300)
def test_a_run_killed_at_some_points_finishes_as_if_nothing_had_been(tmp_path: Path, kind: str, when: str) -> None:
    points = count_points(tmp_path / "count", kind)
    assert points > 20
    chosen = random.Random(f"{SEED}{kind}{when}").sample(range(1, points + 1), SAMPLE // 2)
    hits = sum(die_and_finish(tmp_path / str(at), kind, when, at) for at in chosen)
    assert hits >= len(chosen) - 1, "two workers race, so the last points may not come; but a sweep must hit"


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["write", "git"])
@pytest.mark.timeout(7200)
def test_a_run_killed_at_every_point_finishes_as_if_nothing_had_been(
    tmp_path: Path, kind: str, when: str, capsys: pytest.CaptureFixture[str]
) -> None:
    points = count_points(tmp_path / "count", kind)
    hits = sum(die_and_finish(tmp_path / str(at), kind, when, at) for at in range(1, points + 1))
    with capsys.disabled():
        print(f"\n{kind} {when}: {points} points, {hits} hit, 0 violations")
    assert hits >= points - 5

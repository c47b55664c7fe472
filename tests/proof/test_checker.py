"""The judge itself: a good history passes, and each of the bad ones that are planted is seen for what it is."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.proof.checker import CHECKS, Evidence, judge, read_ledger, rows_of_sqlite
from tests.proof.plugin import Tally
from tests.proof.story import DIAMOND, GIT, Story


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """A backlog of four tasks that was driven to its end; told by a process of its own, because it forks."""
    root = tmp_path_factory.mktemp("good") / "story"
    tell = (
        "import sys; from pathlib import Path; from tests.proof.story import Story\n"
        "story = Story(Path(sys.argv[1])); story.begin(); sys.exit(story.run()); "
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", tell, str(root)], env=env, check=True, timeout=120)
    return Story(root, DIAMOND)


class Past:
    """A history that can be changed."""

    def __init__(self, root: Path) -> None:
        self.root, self.repo, self.ledger = root, root / "repo", root / "ledger.jsonl"
        self.orphan: subprocess.Popen[bytes] | None = None
        self.evidence = Evidence(self.repo, rows_of_sqlite(self.repo / ".drover" / "drover.db"), [])
        self.ids = [row["id"] for row in self.evidence.rows("SELECT id FROM tasks ORDER BY number")]

    def git(self, *argv: str, stdin: str | None = None) -> str:
        env = {**os.environ, **GIT}
        return subprocess.run(
            ["git", *argv], cwd=self.repo, env=env, input=stdin, text=True, capture_output=True, check=True
        ).stdout.strip()

    def sql(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self.repo / ".drover" / "drover.db")) as db:
            db.execute(statement, values)
            db.commit()

    def note(self, **what: object) -> None:
        with self.ledger.open("a") as file:
            file.write(json.dumps(what) + "\n")

    def move(self, commit: str) -> None:
        """The target and its lane, and the checkout with them."""
        self.git("update-ref", "refs/drover/target/main", commit)
        self.git("reset", "-q", "--hard", commit)

    def land(self, task: str, tree: str | None = None) -> str:
        """One more commit with that task's trailer on the target."""
        tree = tree or self.git("rev-parse", "main^{tree}")
        commit = self.git("commit-tree", tree, "-p", "main", stdin=f"again\n\nDrover-Task: {task}\n")
        self.move(commit)
        return commit

    def commit_of(self, task: str) -> str:
        return str(self.evidence.rows(f"SELECT landed_commit FROM tasks WHERE id = '{task}'")[0]["landed_commit"])

    def judged(self) -> dict[str, str]:
        evidence = replace(self.evidence, ledger=read_ledger(self.ledger))
        return dict(judge(evidence))


def landed_twice(past: Past) -> None:
    past.land(past.ids[1])


def a_landing_is_lost(past: Past) -> None:
    past.move(past.git("rev-parse", "main~1"))


def a_neighbour_is_reverted(past: Past) -> None:
    """What the second landing changed is changed back by the third, which has it in its own tree."""
    first, last = past.git("rev-list", "--first-parent", "--reverse", "main").split()[1], past.ids[3]
    path = f"tasks/{past.ids[0]}.txt"
    assert past.git("show", f"{first}:{path}")
    past.git("rm", "-q", path)
    tree = past.git("write-tree")
    commit = past.git("commit-tree", tree, "-p", "main~1", stdin=f"last\n\nDrover-Task: {last}\n")
    past.move(commit)
    past.sql("UPDATE tasks SET landed_commit = ? WHERE id = ?", commit, last)


def a_step_is_repeated(past: Past) -> None:
    past.sql(
        "INSERT INTO events (type, at, task_id, attempt, worker, data) SELECT type, at, task_id, attempt, worker, data"
        " FROM events WHERE type = 'step.completed' AND task_id = ? LIMIT 1",
        past.ids[0],
    )


def a_stale_holder_writes(past: Past) -> None:
    past.sql("UPDATE steps SET fence = 0 WHERE task_id = ? AND name = 'land'", past.ids[1])


def a_process_is_left(past: Past) -> None:
    """It is asked for by what its environment holds."""
    past.evidence = replace(past.evidence, marked=f"PLANTED={past.root}")
    past.orphan = subprocess.Popen(["sleep", "60"], env={**os.environ, "PLANTED": str(past.root)})


def the_log_has_a_gap(past: Past) -> None:
    past.sql("DELETE FROM events WHERE type = 'task.landed' AND task_id = ?", past.ids[2])


def a_lock_is_left(past: Past) -> None:
    (past.repo / ".git" / "refs" / "heads" / "main.lock").touch()


def a_merge_is_left_half_done(past: Past) -> None:
    (past.repo / ".git" / "MERGE_HEAD").write_text(past.git("rev-parse", "main") + "\n")


def a_clone_is_left(past: Past) -> None:
    (past.repo / ".drover" / "worktrees" / past.ids[0]).mkdir(parents=True)


def an_end_is_taken_back(past: Past) -> None:
    past.sql("INSERT INTO events (type, at, task_id, data) VALUES ('task.failed', 1, ?, '{}')", past.ids[0])


def what_was_done_is_stopped(past: Past) -> None:
    past.sql("INSERT INTO events (type, at, task_id, data) VALUES ('task.stopped', 1, ?, '{}')", past.ids[0])


def what_was_cancelled_waits(past: Past) -> None:
    for type in ("task.reset", "task.cancelled", "task.waiting"):
        past.sql("INSERT INTO events (type, at, task_id, data) VALUES (?, 1, ?, '{}')", type, past.ids[0])


def an_agent_runs_after_the_end(past: Past) -> None:
    past.note(event="start", task=past.ids[0], attempt=2, fence=9, at=time.time() + 60)


def an_agent_that_had_begun_begins_again_after_the_end(past: Past) -> None:
    first = next(line for line in read_ledger(past.ledger) if line["task"] == past.ids[0] and line["event"] == "start")
    past.note(**{**first, "at": time.time() + 60})


def an_agent_runs_twice_for_nothing(past: Past) -> None:
    first = next(line for line in read_ledger(past.ledger) if line["event"] == "start")
    past.note(**first)


def work_is_lost(past: Past) -> None:
    past.note(event="fail", task=past.ids[0], attempt=7, path="tasks/lost.txt", blob="0" * 40)


def a_dependent_begins_too_early(past: Past) -> None:
    past.sql(
        "UPDATE attempts SET base = ? WHERE task_id = ?", past.git("rev-list", "--max-parents=0", "main"), past.ids[3]
    )


def a_counter_is_wrong(past: Past) -> None:
    past.sql("UPDATE tasks SET open_blockers = 1 WHERE id = ?", past.ids[3])


def a_tip_is_gone(past: Past) -> None:
    past.note(event="tip", oid=past.git("commit-tree", "main^{tree}", "-p", "main", stdin="of the operator\n"), at=1)


def it_landed_elsewhere(past: Past) -> None:
    past.sql("UPDATE tasks SET landed_commit = ? WHERE id = ?", past.git("rev-parse", "main~4"), past.ids[1])


def done_without_a_landing(past: Past) -> None:
    past.sql("UPDATE tasks SET landed_commit = NULL WHERE id = ?", past.ids[1])


def a_fence_falls(past: Past) -> None:
    past.sql("UPDATE tasks SET fence = 0 WHERE id = ?", past.ids[1])


PLANTED: list[tuple[str, Callable[[Past], None]]] = [
    ("I3", landed_twice),
    ("I2", a_landing_is_lost),
    ("I4", a_neighbour_is_reverted),
    ("I7", a_step_is_repeated),
    ("I11", a_stale_holder_writes),
    ("I20", a_process_is_left),
    ("I24", the_log_has_a_gap),
    ("I20", a_lock_is_left),
    ("I20", a_merge_is_left_half_done),
    ("I20", a_clone_is_left),
    ("I1", an_end_is_taken_back),
    ("I1", what_was_done_is_stopped),
    ("I1", what_was_cancelled_waits),
    ("I6", an_agent_runs_after_the_end),
    ("I6", an_agent_that_had_begun_begins_again_after_the_end),
    ("I8", an_agent_runs_twice_for_nothing),
    ("I9", work_is_lost),
    ("I15", a_dependent_begins_too_early),
    ("I15", a_counter_is_wrong),
    ("I5", a_tip_is_gone),
    ("I3", it_landed_elsewhere),
    ("I2", done_without_a_landing),
    ("I11", a_fence_falls),
]


@pytest.fixture
def past(good: Story, tmp_path: Path) -> Iterator[Past]:
    shutil.copytree(good.root, tmp_path / "past", symlinks=True)
    found = Past(tmp_path / "past")
    yield found
    if found.orphan is not None:
        found.orphan.kill()
        found.orphan.wait()


@pytest.mark.suite("T0")
@pytest.mark.parametrize(("law", "plant"), PLANTED, ids=[plant.__name__ for _, plant in PLANTED])
def test_the_judge_sees_a_bad_history(past: Past, law: str, plant: Callable[[Past], None]) -> None:
    plant(past)
    assert law in past.judged()


def test_the_judge_finds_nothing_in_a_good_history(past: Past) -> None:
    assert past.judged() == {}


def test_the_first_word_of_an_agent_that_had_been_told_to_begin_may_follow_the_end(past: Past) -> None:
    lines = read_ledger(past.ledger)
    first = next(line for line in lines if line["task"] == past.ids[0] and line["event"] == "start")
    first["at"] = time.time() + 60
    past.ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "I6" not in past.judged()


def test_the_last_word_of_a_cancelled_execution_is_no_new_beginning(past: Past) -> None:
    for type in ("task.reset", "task.cancelled", "task.stopped"):
        past.sql("INSERT INTO events (type, at, task_id, data) VALUES (?, 1, ?, '{}')", type, past.ids[0])
    past.sql("UPDATE tasks SET state = 'cancelled', completed_at = NULL WHERE id = ?", past.ids[0])
    assert not [what for law, what in judge(past.evidence) if law == "I1"]


@pytest.mark.suite("T0")
def test_every_law_has_a_bad_history(tally: Tally) -> None:
    assert {law for law, _ in PLANTED} == set(CHECKS)
    tally(points=len(CHECKS))


def test_the_judge_knows_nothing_of_drover() -> None:
    source = (Path(__file__).parent / "checker.py").read_text()
    assert "import drover" not in source and "from drover" not in source and "from tests" not in source

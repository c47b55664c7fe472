"""Landings in numbers: red ones, one region that all edit, renames and deletes, a target or a remote that moves."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import Project
from tests.e2e.three_way import wrong_paths
from tests.proof.plugin import Tally

AGENT = Path(__file__).with_name("crafty_agent.py")

FILL = """
import anyio, json, sys
from drover import app
async def main():
    async with app.open(repo=".") as drover:
        ids = []
        for task in json.load(sys.stdin):
            blockers = [ids[number] for number in task.pop("blocked_by", [])]
            ids.append((await drover.add(**task, blocked_by=blockers)).id)
        print(json.dumps(ids))
anyio.run(main)
"""


def fill(project: Project, tasks: Sequence[dict[str, object]]) -> list[str]:
    """Add them all in one process. ``blocked_by`` are places in the list."""
    done = subprocess.run(
        [sys.executable, "-c", FILL], cwd=project.root, env=project.env, input=json.dumps(tasks), text=True,
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    return list(json.loads(done.stdout))


@pytest.fixture
def crafty(project: Project) -> Project:
    project.env["DROVER_AGENT_PATH"] = f"{sys.executable} {AGENT}"
    return project


def commit(project: Project, **files: str) -> None:
    for name, text in files.items():
        (project.root / name.replace("_", ".")).write_text(text)
    project.git("add", "-A")
    project.git("commit", "-q", "-m", "prepare")


def landings(project: Project, branch: str = "main") -> list[tuple[str, str]]:
    """Commit and task of each landing on the branch's first-parent chain, oldest first."""
    form = "--format=%H %(trailers:key=Drover-Task,valueonly,separator=%x2c)"
    lines = project.git("log", "--first-parent", "--reverse", form, branch).splitlines()
    return [(line.split()[0], line.split()[1]) for line in lines if len(line.split()) == 2]


def in_order(project: Project) -> None:
    project.git("fsck", "--strict", "--no-dangling")
    assert project.git("status", "--porcelain") == ""
    assert all(count == 1 for count in project.landed().values()), "each has landed at most once"


# ---------------------------------------------------------------- red ones


def land_some_of_which_fail(project: Project, good: int, bad: int, seconds: float) -> None:
    with (project.root / ".drover.toml").open("a") as file:
        file.write("\n[landing]\nparallel = 8\n")
    commit(project)
    script = project.root.parent / "tests.sh"
    script.write_text(
        f"#!/bin/sh\nsleep {seconds}\n"
        'for bad in tasks/*.bad; do [ -e "$bad" ] && { echo "$bad is refused"; exit 1; }; done\nexit 0\n'
    )
    script.chmod(0o755)
    every = (good + bad) // bad
    titles = [f"BROKEN {n}" if n % every == every - 1 and n // every < bad else f"Good {n}" for n in range(good + bad)]
    tasks = [{"title": title, "test_command": str(script), "max_attempts": 1} for title in titles]
    ids = fill(project, tasks)
    project.env["DROVER_MAX_ATTEMPTS"] = "1"
    project.drover("run", "--workers", "8", code=3, timeout=300)
    broken = [id for id, title in zip(ids, titles, strict=True) if title.startswith("BROKEN")]
    assert len(broken) == bad
    landed = landings(project)
    assert sorted(task for _, task in landed) == sorted(set(ids) - set(broken))
    for oid, _ in landed:
        names = project.git("ls-tree", "-r", "--name-only", oid).splitlines()
        assert not [name for name in names if name.endswith(".bad")], "the target is green at every commit"
    assert project.statuses() == {"completed": good, "failed": bad}
    for id in broken:
        error = project.json("info", id)["last_error"]
        assert error["class"] == "verify"
        assert f"tasks/{id}.bad is refused" in error["message"]
        assert project.git("show", f"refs/drover/wip/{id}/1:tasks/{id}.bad") == id, "its work is kept"
    in_order(project)


@pytest.mark.timeout(180)
def test_five_of_thirty_fail_while_eight_land_at_once(crafty: Project) -> None:
    land_some_of_which_fail(crafty, good=25, bad=5, seconds=0.1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_of_many_fail_under_a_slow_test_command(crafty: Project) -> None:
    land_some_of_which_fail(crafty, good=80, bad=20, seconds=1.0)


# ---------------------------------------------------------------- one region


def edit_one_region(project: Project, count: int) -> None:
    commit(project, region_txt="# everybody writes below\n")
    ids = fill(project, [{"title": f"REGION {n}"} for n in range(count)])
    project.drover("run", "--workers", "8", timeout=600)
    assert project.statuses() == {"completed": count}
    assert project.landed() == Counter(ids), "one commit each"
    lines = project.git("show", "main:region.txt").splitlines()
    assert sorted(lines[1:]) == sorted(ids), "the content of each is there, once"
    in_order(project)


@pytest.mark.timeout(180)
def test_tasks_that_all_edit_one_region_all_land(crafty: Project) -> None:
    edit_one_region(crafty, 12)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_forty_tasks_that_all_edit_one_region_all_land(crafty: Project) -> None:
    edit_one_region(crafty, 40)


# ---------------------------------------------------------------- content


def land_a_random_graph(project: Project, tally: Tally, count: int, seed: int) -> None:
    rng = random.Random(seed)
    pile = project.root / "pile"
    pile.mkdir()
    for number in range(15):
        (pile / f"file{number:02}.txt").write_text("".join(f"line {n} of {number}\n" for n in range(30)))
    commit(project)
    tasks: list[dict[str, object]] = []
    for number in range(count):
        blockers = rng.sample(range(number), min(number, rng.choice([0, 0, 1, 2])))
        tasks.append({"title": f"SHUFFLE:{seed}x{number}", "blocked_by": blockers})
    ids = fill(project, tasks)
    project.drover("run", "--workers", "8", timeout=900)
    assert project.landed() == Counter(ids)
    judged = wrong = 0
    for oid, task in landings(project):
        judged += 1
        wrong += len(wrong_paths(project, oid, task))
    assert (judged, wrong) == (count, 0), "a landing changes only its own"
    in_order(project)
    tally(points=judged, seed=seed)


@pytest.mark.suite("T22")
def test_the_judge_sees_a_landing_that_changed_a_neighbour(project: Project) -> None:
    def made(parent: str, **files: str) -> str:
        project.git("checkout", "-q", "--detach", parent)
        commit(project, **files)
        return project.git("rev-parse", "HEAD")

    base = made("main", a="1\n", b="1\n")
    ours = made(base, b="2\n")
    project.git("update-ref", "refs/drover/attempts/task-x/1", made(base, a="2\n"))
    assert wrong_paths(project, made(ours, a="2\n"), "task-x") == []
    assert wrong_paths(project, made(ours, a="2\n", b="1\n"), "task-x") == ["b"], "a neighbour's work was taken back"
    assert wrong_paths(project, made(ours, a="2\n", c="1\n"), "task-x") == ["c"], "something came from nowhere"
    assert wrong_paths(project, made(ours, a="3\n"), "task-x") == ["a"], "its own is not what it was"


@pytest.mark.suite("T22")
def test_the_judge_follows_each_of_two_files_that_moved_with_an_edit(project: Project) -> None:
    def made(parent: str, gone: str = "", **files: str) -> str:
        project.git("checkout", "-q", "--detach", parent)
        if gone:
            project.git("rm", "-q", *gone.split())
        commit(project, **files)
        return project.git("rev-parse", "HEAD")

    one, two = ("".join(f"line {n} of {name}\n" for n in range(10)) for name in ("one", "two"))
    base = made("main", **{"of-task-1": one, "of-task-2": two})
    moved = {"of-task--a": f"theirs\n{one}", "of-task--b": f"theirs\n{two}"}
    ours = made(base, "of-task-1 of-task-2", **moved)
    project.git("update-ref", "refs/drover/attempts/task-x/1", made(base, **{"of-task-2": f"{two}mine\n"}))
    followed = made(ours, **{"of-task--b": f"{moved['of-task--b']}mine\n"})
    assert wrong_paths(project, followed, "task-x") == []
    assert wrong_paths(project, made(ours, c="1\n"), "task-x") == ["c", "of-task-2"], "its edit is lost"
    astray = made(ours, **{"of-task--a": f"{moved['of-task--a']}mine\n"})
    assert wrong_paths(project, astray, "task-x") == ["of-task--a", "of-task-2"], "its edit is in another's file"


@pytest.mark.suite("T22")
@pytest.mark.timeout(180)
def test_a_random_graph_with_renames_modes_and_deletes_lands_as_a_three_way_merge_would(
    crafty: Project, tally: Tally
) -> None:
    land_a_random_graph(crafty, tally, 20, seed=20261122)


@pytest.mark.suite("T22")
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_tasks_with_renames_modes_and_deletes_land_as_a_three_way_merge_would(
    crafty: Project, tally: Tally
) -> None:
    land_a_random_graph(crafty, tally, 200, seed=22)


# ---------------------------------------------------------------- others move the target


@contextmanager
def every_second(act: object) -> Iterator[None]:
    """Do something once a second until the block ends; it is done at least once."""
    over = threading.Event()

    def go() -> None:
        while True:
            act()  # type: ignore[operator]
            if over.wait(1.0):
                return

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.suite("T23")
@pytest.mark.timeout(180)
def test_somebody_commits_to_the_target_once_a_second_and_nothing_is_lost(crafty: Project, tally: Tally) -> None:
    own: list[str] = []

    def move() -> None:
        name = f"own{len(own)}.txt"
        (crafty.root / name).write_text("mine\n")
        for _ in range(200):  # drover's update of the checkout holds the index for moments
            try:
                crafty.git("add", name)
                crafty.git("commit", "-q", "-m", f"own {len(own)}", "--", name)
                own.append(crafty.git("rev-parse", "HEAD"))
                return
            except subprocess.CalledProcessError:
                time.sleep(0.05)
        raise AssertionError("the operator could not commit")

    ids = fill(crafty, [{"title": f"Task {n}", "test_command": "sleep 0.7"} for n in range(10)])
    with every_second(move):
        ended = crafty.drover("run", "--workers", "4", timeout=150, code=None)
    assert ended.returncode in (0, 3), "3: their git held the index when the last one was to be published"
    crafty.drover("run")
    assert len(own) >= 3
    assert crafty.statuses() == {"completed": len(ids)}
    history = set(crafty.git("rev-list", "main").split())
    assert set(own) <= history, "every commit of theirs is still there"
    tally(points=len(own))
    tasks = Counter(crafty.git("log", "--format=%(trailers:key=Drover-Task,valueonly,separator=%x2c)", "main").split())
    assert tasks == Counter(ids), "and each task landed once"
    crafty.git("fsck", "--strict", "--no-dangling")
    assert crafty.git("status", "--porcelain") == ""


# ---------------------------------------------------------------- a remote


def with_remote(project: Project) -> Path:
    bare = project.root.parent / "origin.git"
    with (project.root / ".drover.toml").open("a") as file:
        file.write('\n[landing]\npush = "origin"\n')
    project.git("add", "-A")
    project.git("commit", "-q", "-m", "push")
    project.git("clone", "-q", "--bare", ".", str(bare))
    project.git("remote", "add", "origin", str(bare))
    return bare


@pytest.mark.suite("T23")
@pytest.mark.timeout(180)
def test_a_remote_that_another_clone_moves_gets_everything_and_loses_nothing(crafty: Project, tally: Tally) -> None:
    bare = with_remote(crafty)
    other = crafty.root.parent / "other"
    crafty.git("clone", "-q", str(bare), str(other))
    for name, value in (("user.name", "Other"), ("user.email", "other@example.org")):
        crafty.git("-C", str(other), "config", name, value)
    theirs: list[str] = []

    def push() -> None:
        name = f"theirs{len(theirs)}.txt"
        (other / name).write_text("theirs\n")
        crafty.git("-C", str(other), "add", name)
        crafty.git("-C", str(other), "commit", "-q", "-m", name)
        for _ in range(100):
            try:
                crafty.git("-C", str(other), "pull", "-q", "--no-rebase", "--no-edit", "origin", "main")
                oid = crafty.git("-C", str(other), "rev-parse", "HEAD")
                crafty.git("-C", str(other), "push", "-q", "origin", "main")
                theirs.append(oid)
                return
            except subprocess.CalledProcessError:
                continue  # drover was faster
        raise AssertionError("the other clone could not push")

    ids = fill(crafty, [{"title": f"Task {n}"} for n in range(12)])
    with every_second(push):
        crafty.drover("run", "--workers", "3", timeout=150)
    assert crafty.statuses() == {"completed": len(ids)}
    history = set(crafty.git("--git-dir", str(bare), "rev-list", "main").split())
    assert theirs
    assert set(theirs) <= history, "their history is intact"
    tally(points=len(theirs))
    form = "--format=%(trailers:key=Drover-Task,valueonly,separator=%x2c)"
    assert Counter(crafty.git("--git-dir", str(bare), "log", form, "main").split()) == Counter(ids), "so is ours"
    crafty.git("fsck", "--strict", "--no-dangling")
    assert crafty.git("status", "--porcelain") == ""


@pytest.mark.suite("T23")
@pytest.mark.timeout(120)
def test_a_remote_that_is_away_stops_nobody_and_gets_it_later(crafty: Project) -> None:
    bare = with_remote(crafty)
    away = bare.rename(bare.with_name("away.git"))
    first, second = fill(crafty, [{"title": "First"}, {"title": "Second", "blocked_by": [0]}])
    crafty.drover("run", code=3)
    assert crafty.landed() == Counter([first, second]), "work went on, dependents too"
    for id in (first, second):
        info = crafty.json("info", id)
        assert (info["status"], info["reason"]) == ("waiting", "publish")
        assert "origin cannot be reached" in info["detail"]
    away.rename(bare)
    crafty.drover("run")
    assert crafty.statuses() == {"completed": 2}
    assert crafty.git("--git-dir", str(bare), "rev-parse", "main") == crafty.git("rev-parse", "main")


# ---------------------------------------------------------------- deaths and company


@pytest.mark.suite("T2")
@pytest.mark.timeout(180)
def test_a_run_killed_again_and_again_in_its_train_lands_each_once_here_and_there(crafty: Project) -> None:
    bare = with_remote(crafty)
    rng = random.Random(3)
    ids = fill(crafty, [{"title": f"Task {n}", "test_command": "sleep 0.2"} for n in range(10)])
    kills = 0
    for _ in range(4):
        before = len(landings(crafty))
        process = crafty.start("run", "--workers", "4")
        crafty.eventually(lambda p=process, n=before: p.poll() is not None or len(landings(crafty)) > n, "a landing")
        time.sleep(rng.uniform(0, 0.4))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 2, "a story without kills proves nothing"
    crafty.drover("run", "--workers", "4")
    assert crafty.landed() == Counter(ids)
    assert crafty.git("--git-dir", str(bare), "rev-parse", "main") == crafty.git("rev-parse", "main")
    in_order(crafty)
    crafty.eventually(lambda: not crafty.living(), "no test and no agent to be alive")


@pytest.mark.timeout(180)
def test_two_runs_with_a_train_each_share_one_lane(crafty: Project) -> None:
    script = crafty.root.parent / "tests.sh"
    script.write_text('#!/bin/sh\nsleep 0.3\nfor bad in tasks/*.bad; do [ -e "$bad" ] && exit 1; done\nexit 0\n')
    script.chmod(0o755)
    titles = ["BROKEN" if n in (3, 7) else f"Good {n}" for n in range(10)]
    ids = fill(crafty, [{"title": t, "test_command": str(script), "max_attempts": 1} for t in titles])
    first, second = crafty.start("run", "--workers", "3"), crafty.start("run", "--workers", "3")
    assert {first.wait(150), second.wait(150)} <= {0, 3}
    good = [id for id, title in zip(ids, titles, strict=True) if title != "BROKEN"]
    assert crafty.landed() == Counter(good)
    assert crafty.statuses() == {"completed": 8, "failed": 2}
    for oid, _ in landings(crafty):
        assert ".bad" not in crafty.git("ls-tree", "-r", "--name-only", oid), "tested as it stands, whoever was faster"
    in_order(crafty)

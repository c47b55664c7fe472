"""The promise, tried as a user would break it: nothing done twice, nothing lost, whatever is killed when."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter

import pytest

from tests.e2e.conftest import MakeProject, Project


def ends_in_order(project: Project) -> None:
    """What must hold at the end of every story here."""
    tasks = project.json("list")
    assert {t["status"] for t in tasks} == {"completed"}
    assert project.landed() == Counter(t["id"] for t in tasks), "each task has landed exactly once"
    ended = Counter(b["task"] for b in project.books() if b["event"] == "end")
    assert set(ended) == {t["id"] for t in tasks}
    for task in tasks:
        assert project.git("show", f"main:tasks/{task['id']}.txt")
    project.git("fsck", "--strict", "--no-dangling")
    assert project.git("status", "--porcelain") == ""


def test_a_backlog_runs_to_its_end_and_returns(project: Project) -> None:
    a = project.add("First")
    project.add("Second", "--blocked-by", a)
    project.add("Third", "--blocked-by", a)
    project.drover("run", "--workers", "2")
    ends_in_order(project)
    assert Counter(b["event"] for b in project.books()) == {"start": 3, "end": 3}
    assert project.drover("run").returncode == 0, "an empty backlog returns at once"


@pytest.mark.suite("T2")
@pytest.mark.timeout(600)
def test_a_graph_killed_again_and_again_lands_every_task_once(project: Project) -> None:
    rng = random.Random(20261122)
    ids: list[str] = []
    for number in range(20):
        blockers = rng.sample(ids, min(len(ids), rng.randint(0, 2)))
        ids.append(project.add(f"Task {number}", *(["--blocked-by", ",".join(blockers)] if blockers else [])))
    project.env["WORK_SECONDS"] = "0.1,0.6"
    kills = 0
    finished: dict[str, int] = {}  # task → how many lines the books had when it was known to be completed
    while len(finished) < len(ids):
        assert kills < 60
        process = project.start("run", "--workers", "4")
        wanted = len(project.books()) + rng.randint(4, 10)  # however busy the machine is, each run gets somewhere
        while process.poll() is None and len(project.books()) < wanted:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 0.4))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
        done = [t["id"] for t in project.json("list", "--status", "completed")]
        lines = len(project.books())
        finished = {id: finished.get(id, lines) for id in done}
    assert kills >= 3, "a story without kills proves nothing"
    ends_in_order(project)
    books = project.books()
    for task, line in finished.items():
        again = [b for b in books[line:] if b["task"] == task and b["event"] == "start"]
        assert not again, f"{task}'s agent ran again after the task was completed"
    starts = Counter(b["task"] for b in books if b["event"] == "start")
    assert sum(starts.values()) - len(ids) <= 4 * kills, "a repetition is paid for by a kill"
    project.eventually(lambda: not project.living(), "no process of any execution to be alive")


def test_two_runs_share_one_backlog(project: Project) -> None:
    for number in range(12):
        project.add(f"Task {number}")
    first = project.start("run", "--workers", "2")
    second = project.start("run", "--workers", "2")
    assert first.wait(200) == 0
    assert second.wait(200) == 0
    ends_in_order(project)
    assert max(Counter(b["task"] for b in project.books() if b["event"] == "start").values()) == 1


def test_a_killed_run_is_taken_over_by_the_other_at_once(project: Project) -> None:
    project.env["WORK_SECONDS"] = "2,2"
    for number in range(4):
        project.add(f"Task {number}")
    first = project.start("run", "--workers", "2")
    project.eventually(lambda: sum(b["event"] == "start" for b in project.books()) == 2, "the first to be at work")
    second = project.start("run", "--workers", "2")
    project.eventually(lambda: sum(b["event"] == "start" for b in project.books()) == 4, "the second to be at work")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert second.wait(200) == 0, "well before any lease has ended"
    ends_in_order(project)


@pytest.mark.suite("T25")
@pytest.mark.parametrize("branch", ["master", "trunk"])
def test_ctrl_c_gives_everything_back_and_resume_goes_on(project_on: MakeProject, branch: str) -> None:
    project = project_on(branch)
    a = project.add("Task A")
    b = project.add("Task B", "--blocked-by", a)
    project.add("Task C", "--blocked-by", a)
    project.env["WORK_SECONDS"] = "6,6"
    process = project.start("run", "--workers", "2")
    project.eventually(lambda: any(x["task"] == b for x in project.books()), "B to be at work")
    project.eventually(lambda: project.json("info", a)["status"] == "completed", "A to be out of the way")
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    statuses = {t["id"]: t["status"] for t in project.json("list")}
    assert statuses[a] == "completed"
    assert statuses[b] == "ready", "its lease was given back"
    info = project.json("info", b)
    assert info["attempts"] == 0, "an interruption uses up no attempt"
    project.eventually(lambda: not project.living(), "the agents to be gone")
    project.env["WORK_SECONDS"] = "0,0"
    project.drover("resume")
    assert project.statuses() == {"completed": 3}
    assert all(n == 1 for n in project.landed().values())
    assert sum(x["event"] == "start" and x["task"] == a for x in project.books()) == 1


@pytest.mark.suite("T25")
def test_a_second_ctrl_c_kills_at_once_and_still_nothing_is_lost(project: Project) -> None:
    project.env["DROVER_AGENT_PATH"] = (
        "/bin/sh -c \"trap '' TERM INT; echo kept > kept.txt; while :; do sleep 1; done\""
    )
    task = project.add("Stubborn")
    process = project.start("run")
    tree = project.root / ".drover" / "worktrees" / task
    project.eventually((tree / "kept.txt").exists, "the agent to have written")
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    assert "kept" in project.git("show", f"refs/drover/wip/{task}/1:kept.txt")
    project.eventually(lambda: not project.living(), "the agent to be gone")


def test_what_fails_strict_tests_never_reaches_the_target(project: Project) -> None:
    good = project.add("Good", "--test-command", "test -d tasks")
    bad = project.add("Bad", "--test-command", "echo the tests say no; false", "--max-attempts", "2")
    lenient = project.add("Lenient", "--test-command", "false", "--test-mode", "lenient")
    behind = project.add("Behind", "--blocked-by", bad)
    done = project.drover("run", "--workers", "2", code=3)
    assert bad in done.stdout
    assert project.landed() == Counter([good, lenient])
    info = project.json("info", bad)
    assert info["status"] == "failed"
    assert info["last_error"]["class"] == "verify"
    assert "the tests say no" in info["last_error"]["message"]
    assert info["attempts"] == 2, "exactly max_attempts executions failed"
    assert sum(b["event"] == "start" and b["task"] == bad for b in project.books()) == 2
    assert project.json("info", behind)["stranded"] is True
    assert "the tests say no" in project.drover("logs", bad).stdout
    assert project.git("show", f"refs/drover/wip/{bad}/2:tasks/{bad}.txt"), "its work is kept"


def test_the_operators_edits_stop_nobody_and_lose_nothing(project: Project) -> None:
    project.env["DROVER_AGENT_PATH"] = '/bin/sh -c "echo $DROVER_TASK_ID >> README.md"'
    project.env.pop("WORK_SECONDS", None)
    (project.root / "README.md").write_text("# A project\nmy own unfinished words\n")
    a = project.add("Touches the README")
    b = project.add("So does this", "--blocked-by", a)
    done = project.drover("run", code=3)
    assert (project.root / "README.md").read_text() == "# A project\nmy own unfinished words\n"
    assert project.landed() == Counter()
    assert project.landed("refs/drover/target/main") == Counter([a, b]), "dependents went on from the lane"
    assert project.json("info", b)["reason"] == "publish"
    assert "README.md" in done.stdout + project.drover("status").stdout
    project.git("checkout", "--", "README.md")
    project.drover("run")
    assert project.landed() == Counter([a, b])
    assert project.statuses() == {"completed": 2}
    assert (project.root / "README.md").read_text().splitlines()[-2:] == [a, b]


def test_a_conflict_is_explained_to_the_agent_and_resolved(project: Project) -> None:
    agent = project.root.parent / "resolver.sh"
    agent.write_text(
        "#!/bin/sh\nsleep 0.5\nif grep -q '<<<<<<<' shared.txt 2>/dev/null; then\n"
        "  grep -v -e '^<<<<<<<' -e '^|||||||' -e '^=======' -e '^>>>>>>>' shared.txt | sort -u > new\n"
        "  mv new shared.txt\n"
        'else echo "$DROVER_TASK_ID" >> shared.txt; fi\n'
    )
    agent.chmod(0o755)
    project.env["DROVER_AGENT_PATH"] = str(agent)
    ids = [project.add(f"Edits one place {n}") for n in range(4)]
    project.drover("run", "--workers", "4")
    assert project.landed() == Counter(ids)
    assert sorted(project.git("show", "main:shared.txt").split()) == sorted(ids), "the content of each is there"


@pytest.mark.suite("T24")
def test_cancel_stops_the_agent_and_its_children(project: Project) -> None:
    project.env["WORK_SECONDS"] = "30,30"
    task = project.add("Long")
    process = project.start("run")
    project.eventually(lambda: bool(project.books()), "the agent to be at work")
    project.drover("cancel", task, "--reason", "not wanted")
    project.eventually(lambda: not project.living(), "the agent to be gone", 10)
    assert process.wait(60) == 3
    assert project.statuses() == {"cancelled": 1}

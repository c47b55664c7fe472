"""The built-in agent: its plan, its sessions, and what a kill in the middle leaves."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import anyio
import pytest

from drover.agents.base import AgentSettings
from drover.agents.scripted import Scripted
from drover.agents.scripted_plan import parse, seconds
from drover.domain.models import AgentReport
from drover.domain.verdicts import Outcome
from drover.process import find_marked

from .conftest import Host, MakeJob

pytestmark = pytest.mark.anyio


def task(*lines: str) -> str:
    return (
        "# Task task-x: A title\n\n" + "\n".join(lines) + "\n\n# How to work\n\n- write x y: not a step\nwrite no no\n"
    )


@pytest.fixture
def worktree(make_job: MakeJob, tmp_path: Path) -> Path:
    return tmp_path / "worktree"


async def work(make_job: MakeJob, host: Host, *lines: str, **more: object) -> AgentReport:
    return await Scripted().work(make_job(task(*lines), **more), host)


async def test_without_a_plan_it_writes_the_title(make_job: MakeJob, host: Host, worktree: Path) -> None:
    report = await work(make_job, host, "Some prose that's no plan.")
    assert report.outcome == Outcome.DONE
    assert (worktree / "task-x.md").read_text() == "A title\n"
    assert report.session_id == host.starts[0][0]


async def test_it_does_what_the_plan_says(make_job: MakeJob, host: Host, worktree: Path) -> None:
    report = await work(
        make_job, host, 'write a/b.txt "one\\ntwo"', "append a/b.txt and three", "wait 10ms", "say all done"
    )
    assert (worktree / "a" / "b.txt").read_text() == "one\ntwo\nand three\n"
    assert (report.outcome, report.summary, report.usage.turns) == (Outcome.DONE, "all done", 4)
    assert [path.name for path in worktree.iterdir()] == ["a"]


async def test_it_fails_as_often_as_the_plan_says(make_job: MakeJob, host: Host, worktree: Path) -> None:
    plan = ("write a.txt a", "fail 2 not yet", "write b.txt b")
    first = await work(make_job, host, *plan, attempt=1)
    assert (first.outcome, first.reason) == (Outcome.FAILED, "not yet")
    second = await work(make_job, host, *plan, attempt=2, session_id=first.session_id)
    assert (second.outcome, second.resumed) == (Outcome.FAILED, "continued")
    third = await work(make_job, host, *plan, attempt=3, session_id=first.session_id)
    assert third.outcome == Outcome.DONE
    assert (worktree / "b.txt").exists()


async def test_a_question_and_a_wait_are_met_once(make_job: MakeJob, host: Host) -> None:
    plan = ("ask which colour?", "later 60s", "say done")
    asked = await work(make_job, host, *plan)
    assert (asked.outcome, asked.question) == (Outcome.QUESTION, "which colour?")
    later = await work(make_job, host, *plan, session_id=asked.session_id)
    assert later.outcome == Outcome.LATER
    assert later.until is not None
    done = await work(make_job, host, *plan, session_id=asked.session_id)
    assert (done.outcome, done.summary) == (Outcome.DONE, "done")


async def test_killed_in_the_middle_it_goes_on_where_it_was(make_job: MakeJob, host: Host, worktree: Path) -> None:
    plan = ("append log.txt one", "wait 60s", "append log.txt two")
    job = make_job(task(*plan))
    reports: list[AgentReport] = []

    async def go() -> None:
        reports.append(await Scripted().work(job, host))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(go)
        session = job.log_dir.parent / "session-none.json"
        with anyio.fail_after(60):
            while not (session.exists() and json.loads(session.read_text())["done"] == 1):
                await anyio.sleep(0.01)
                if host.starts:
                    session = job.log_dir.parent / f"session-{host.starts[0][0]}.json"
        for identity in find_marked(job.marker):
            if identity.pid != host.processes[0].pid:
                os.kill(identity.pid, signal.SIGKILL)
    assert reports[0].outcome == Outcome.CRASHED
    kept = json.loads(session.read_text())
    kept["plan"][1][1] = "10ms"  # so that the second half of the test does not take a minute
    session.write_text(json.dumps(kept))
    again = await work(make_job, host, *plan, session_id=reports[0].session_id)
    assert (again.outcome, again.resumed) == (Outcome.DONE, "continued")
    assert (worktree / "log.txt").read_text() == "one\ntwo\n"


async def test_an_append_that_was_made_but_not_noted_is_not_made_twice(
    make_job: MakeJob, host: Host, worktree: Path
) -> None:
    job = make_job(task("append log.txt one"), session_id="s-1")
    (job.log_dir.parent / "session-s-1.json").write_text(
        json.dumps({"plan": [["append", "log.txt", "one"]], "done": 0, "begun": True, "conflicts": []})
    )
    (worktree / "log.txt").write_text("zero\none\n")
    assert (await Scripted().work(job, host)).outcome == Outcome.DONE
    assert (worktree / "log.txt").read_text() == "zero\none\n"


async def test_a_session_it_does_not_know_is_begun_anew(make_job: MakeJob, host: Host, worktree: Path) -> None:
    report = await work(make_job, host, "write a.txt a", session_id="never-heard-of")
    assert (report.outcome, report.resumed) == (Outcome.DONE, "fresh")
    assert (worktree / "a.txt").exists()
    assert [resumed for _, resumed in host.starts] == ["continued", "fresh"]
    assert report.session_id == host.starts[1][0] != "never-heard-of"


async def test_it_keeps_both_sides_of_a_conflict(make_job: MakeJob, host: Host, worktree: Path) -> None:
    (worktree / "a.txt").write_text(
        "top\n<<<<<<< theirs\nred\n||||||| base\ngrey\n=======\nblue\n>>>>>>> yours\nmiddle\n"
        "<<<<<<< theirs\n1\n=======\n2\n>>>>>>> yours\n"
    )
    (worktree / "a.txt").chmod(0o755)
    first = await work(make_job, host, "say nothing to do")
    report = await work(make_job, host, session_id=first.session_id, follow_up="# Conflicts to resolve\n\n- a.txt\n")
    assert report.outcome == Outcome.DONE
    assert (worktree / "a.txt").read_text() == "top\nred\nblue\nmiddle\n1\n2\n"
    assert (worktree / "a.txt").stat().st_mode & 0o777 == 0o755


async def test_it_writes_nowhere_but_in_its_worktree(make_job: MakeJob, host: Host, tmp_path: Path) -> None:
    report = await work(make_job, host, "write ../outside.txt x")
    assert report.outcome == Outcome.CRASHED
    assert "not below the worktree" in report.reason
    assert not (tmp_path / "outside.txt").exists()


async def test_a_package_named_like_ours_in_the_worktree_is_not_imported(
    make_job: MakeJob, host: Host, worktree: Path
) -> None:
    for name in ("drover", "json"):
        (worktree / name).mkdir()
        (worktree / name / "__init__.py").write_text("raise SystemExit('imported')")
    assert (await work(make_job, host, "say hello")).outcome == Outcome.DONE


def test_prose_is_no_plan() -> None:
    assert parse(task("write", "fail often", "wait a moment", "say", "don't", "later maybe")) == [
        ["write", "task-x.md", "A title\n"]
    ]
    assert parse("no task") == [["say", "there is no task here"]]


def test_durations_are_what_they_say() -> None:
    assert [seconds(text) for text in ("200ms", "1.5s", "2m", "1h")] == [0.2, 1.5, 120, 3600]


async def test_it_is_always_there() -> None:
    found = await Scripted().check(AgentSettings(type="scripted"))
    assert (found.problem, found.program) == (None, "scripted")

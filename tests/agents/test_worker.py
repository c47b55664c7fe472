"""An agent behind drover-worker: drover's own program, and one that speaks as the original's did."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from drover.agents.base import AgentSettings
from drover.agents.worker import Worker
from drover.domain.models import AgentReport
from drover.domain.verdicts import Outcome
from drover.process import find_marked

from .conftest import Host, MakeJob

pytestmark = pytest.mark.anyio

SCRIPTED = AgentSettings(type="worker", args=("--agent", "scripted"))


async def work(make_job: MakeJob, host: Host, *lines: str, **more: object) -> AgentReport:
    prompt = "# Task task-x: A title\n\n" + "\n".join(lines) + "\n"
    return await Worker().work(make_job(prompt, **{"settings": SCRIPTED, **more}), host)


def program(tmp_path: Path, *lines: str) -> AgentSettings:
    path = tmp_path / "their-worker"
    path.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    path.chmod(0o755)
    return AgentSettings.of("worker", path=str(path))


async def test_the_agent_behind_it_does_the_work(make_job: MakeJob, host: Host, tmp_path: Path) -> None:
    report = await work(make_job, host, "write a.txt one", "say did it")
    assert (report.outcome, report.summary, report.usage.turns) == (Outcome.DONE, "did it", 2)
    assert (tmp_path / "worktree" / "a.txt").read_text() == "one\n"
    assert report.session_id


@pytest.mark.parametrize(
    ("line", "outcome", "words"),
    [
        ("fail 9 not today", Outcome.FAILED, "not today"),
        ('ask "which one?"', Outcome.QUESTION, "which one?"),
        ("later 60s", Outcome.LATER, ""),
    ],
)
async def test_what_it_came_to_is_told_in_drover_s_words(
    make_job: MakeJob, host: Host, line: str, outcome: Outcome, words: str
) -> None:
    report = await work(make_job, host, line)
    assert report.outcome == outcome
    assert words in report.reason + report.question
    assert (report.until is not None) == (outcome is Outcome.LATER)


async def test_its_session_goes_on(make_job: MakeJob, host: Host, tmp_path: Path) -> None:
    first = await work(make_job, host, "append a.txt one", "fail 1", "append a.txt two")
    second = await work(
        make_job, host, "append a.txt one", "fail 1", "append a.txt two",
        session_id=first.session_id, env={"DROVER_ATTEMPT": "2"},
    )  # fmt: skip
    assert second.outcome == Outcome.DONE
    assert (tmp_path / "worktree" / "a.txt").read_text() == "one\ntwo\n"


async def test_stopped_it_leaves_nobody(make_job: MakeJob, host: Host) -> None:
    job = make_job("# Task task-x: A title\n\nwait 10m\n", settings=SCRIPTED)
    async with anyio.create_task_group() as group:
        group.start_soon(Worker().work, job, host)
        with anyio.fail_after(60):
            while len(find_marked(job.marker)) < 4:  # a supervisor and its program, twice
                await anyio.sleep(0.05)
        group.cancel_scope.cancel()
    assert find_marked(job.marker) == []


async def test_a_worker_of_the_original_is_understood(make_job: MakeJob, host: Host, tmp_path: Path) -> None:
    result = {"success": False, "task_id": "task-x", "output": "o", "error": "429", "signal": "rate_limited"}
    theirs = program(
        tmp_path, f"cat > {tmp_path}/order", "echo what the agent said", f"cat <<'X'\n{json.dumps(result, indent=2)}\nX"
    )
    report = await work(make_job, host, "anything", settings=theirs)
    assert (report.outcome, report.reason, report.summary) == (Outcome.RATE_LIMITED, "429", "o")
    order = json.loads((tmp_path / "order").read_text())
    assert (order["id"], order["title"], order["timeout"]) == ("task-x", "A title", "60s")
    assert order["worktree"] == str(tmp_path / "worktree")


async def test_one_that_says_nothing_has_crashed(make_job: MakeJob, host: Host, tmp_path: Path) -> None:
    report = await work(make_job, host, "x", settings=program(tmp_path, "echo broken >&2; exit 1"))
    assert report.outcome == Outcome.CRASHED
    assert "broken" in report.reason


# ---------------------------------------------------------------- the program by itself


def drover_worker(*argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "drover.cli.worker", "execute", *argv]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)


def test_it_takes_its_order_from_options_and_as_json(tmp_path: Path) -> None:
    given = ("--task-id", "t-1", "--worktree", str(tmp_path), "--title", "A title", "--agent", "scripted")
    done = drover_worker(*given, "--description", "write a.txt a", "--memory-limit", "1G", "--timeout", "1m")
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (0, "pass")
    order = {"id": "t-2", "title": "T", "worktree": str(tmp_path), "description": "fail 5 no", "timeout": 60 * 10**9}
    done = drover_worker("-", "--agent", "scripted", stdin=json.dumps(order))
    result = json.loads(done.stdout)
    assert (done.returncode, result["success"], result["error"], result["signal"]) == (1, False, "no", "ok")
    assert '"heartbeat"' in done.stderr


@pytest.mark.parametrize(
    ("argv", "stdin", "words"),
    [
        (("-",), "{", "Expecting"),
        (("-",), "[]", "no JSON object"),
        (("-",), '{"id": "x"}', "title"),
        (("--task-id", "x", "--title", "t", "--worktree", "/nowhere"), "", "no directory /nowhere"),
        (("--task-id", "x", "--title", "t", "--worktree", "/", "--memory-limit", "many"), "", "not a size"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(argv: tuple[str, ...], stdin: str, words: str) -> None:
    done = drover_worker(*argv, stdin=stdin)
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_asked_to_stop_it_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "drover.cli.worker", "execute", "--agent", "scripted", "--task-id", "t-1"]
    command += ["--worktree", str(tmp_path), "--title", "T", "--description", "write begun b\nwait 10m"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            process.stderr.readline()  # it has started its agent
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    result = json.loads(out)
    assert (process.returncode, result["success"], result["outcome"]) == (1, False, "interrupted")

"""The real Codex, OpenCode, Gemini CLI, Qwen Code and Copilot CLI: run, killed, resumed, limited, refused."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from drover.agents.base import AgentJob
from drover.domain.models import AgentReport
from drover.domain.verdicts import Outcome
from drover.engine.places import Places
from drover.process import adopt, find_marked
from tests.conftest import Git

from .conftest import Host, MakeJob
from .fakellm import FakeModel
from .real import prompt
from .rig import REAL, Real

pytestmark = [pytest.mark.anyio, pytest.mark.slow]  # a minute and a half on two cores

# Slow only when it is run for the first time: an agent that forgets the call it was killed in makes it again.
SLOW = "test -e started || { echo > started; setsid sleep 300 & sleep 300; }; echo SLEPT"
MakeRealJob = Callable[..., AgentJob]


def each(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("real", names or sorted(REAL.keys() - {"claude"}), indirect=True)


@pytest.fixture
def real(request: pytest.FixtureRequest) -> Real:
    found = REAL[request.param]
    if found.missing:
        pytest.skip(found.missing)
    return found


@pytest.fixture
def model(tmp_path: Path, real: Real) -> Iterator[FakeModel]:
    with FakeModel(tmp_path / "model.jsonl") as model:
        yield model


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """For their temporary files; Codex wants its own home to be outside of it."""
    place = tmp_path / "scratch"
    place.mkdir()
    return place


@pytest.fixture
def make_real_job(make_job: MakeJob, real: Real, model: FakeModel, scratch: Path) -> MakeRealJob:
    def make(*turns: dict[str, Any], **more: object) -> AgentJob:
        env = {**real.env(model.url), "TERM": "dumb", "TMPDIR": str(scratch)}
        job = make_job(prompt(*turns), env=env, settings=real.settings, timeout_s=100.0, **more)
        real.configure(Path(job.env["HOME"]), model.url)
        return job

    return make


def write(path: str) -> dict[str, Any]:
    return {"write": [path, "x\n"]}


async def in_the_slow_tool(job: AgentJob) -> None:
    with anyio.fail_after(60):
        while not (job.worktree / "started").exists():
            await anyio.sleep(0.02)
        await anyio.sleep(1.0)  # the call it is in is saved a moment after it began, and nothing tells when


def agent_of(host: Host) -> int:
    """The pid of the agent itself: the supervisor's only child."""
    supervisor = host.processes[-1].pid
    return int(Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()[0])


@each()
async def test_a_task_is_done(real: Real, make_real_job: MakeRealJob, model: FakeModel, host: Host) -> None:
    job = make_real_job(
        {"say": "Working.", **write("a.txt")},
        {"sh": "echo $DROVER_TASK_ID > id.txt"},
        {"say": "All done."},
    )
    report = await real.agent.work(job, host)
    assert (report.outcome, report.summary, report.resumed) == (Outcome.DONE, "All done.", "fresh")
    assert (job.worktree / "a.txt").exists()
    assert (job.worktree / "id.txt").read_text() == "task-x\n"
    assert model.turns == [0, 1, 2]
    assert report.session_id in (host.starts[0][0], *host.sessions)
    assert report.usage.turns == 3
    if real.agent.name != "copilot":  # which tells no tokens of a provider of one's own
        assert (report.usage.input_tokens, report.usage.output_tokens) == (3000, 150)
    assert find_marked(job.marker) == []


@each()
async def test_killed_in_mid_turn_the_same_session_goes_on(
    real: Real, make_real_job: MakeRealJob, model: FakeModel, host: Host
) -> None:
    turns = (write("one.txt"), {"sh": SLOW}, write("two.txt"), {"say": "All done."})
    job = make_real_job(*turns)
    reports: list[AgentReport] = []

    async def go() -> None:
        reports.append(await real.agent.work(job, host))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(go)
        await in_the_slow_tool(job)
        os.kill(agent_of(host), signal.SIGKILL)
    assert find_marked(job.marker) == []
    assert reports[0].outcome == Outcome.CRASHED
    before = model.turns
    report = await real.agent.work(make_real_job(*turns, session_id=reports[0].session_id), host)
    assert (report.outcome, report.resumed) == (Outcome.DONE, "continued")
    assert report.session_id == reports[0].session_id
    assert (job.worktree / "two.txt").exists()
    assert before == [0, 1]
    assert 0 not in model.turns[2:]  # the model was sent what had been done


@each()
async def test_killed_together_with_drover_the_same_session_goes_on(
    real: Real, model: FakeModel, repository: Path, scratch: Path, git: Git
) -> None:
    home = Path(os.environ["HOME"])
    real.configure(home, model.url)
    env = {
        "PATH": os.environ["PATH"], "HOME": str(home), "TERM": "dumb", "TMPDIR": str(scratch), **real.env(model.url),
    }  # fmt: skip

    def drover(*argv: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "drover", *argv]
        return subprocess.Popen(command, cwd=repository, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True)  # fmt: skip

    def finished(*argv: str) -> str:
        said, _ = (process := drover(*argv)).communicate(timeout=90)
        assert process.returncode == 0, said
        return said

    finished("init")
    settings = f'\n[agents.{real.agent.name}]\npath = "{shlex.join(real.argv)}"\nmodel = "{real.model or ""}"\n'
    with (repository / ".drover.toml").open("a") as file:
        file.write(settings if real.model else settings.replace('model = ""\n', ""))
    turns = (write("one.txt"), {"sh": SLOW}, write("two.txt"), {"say": "All done."})
    finished("add", "A task", "--agent", real.agent.name, "--description", prompt(*turns))
    run = drover("run")
    with anyio.fail_after(60):
        while not list((repository / ".drover" / "worktrees").glob("*/started")):
            await anyio.sleep(0.05)
    await anyio.sleep(1.0)  # as above: until the call it is in is saved
    run.kill()
    run.communicate()
    assert "session goes on where it was cut off" in finished("resume")
    assert "two.txt" in git(repository, "ls-tree", "--name-only", "main").split()
    assert 0 not in model.turns[2:]
    assert find_marked(Places(repository / ".drover").marker_of_all) == []


@each()
async def test_a_session_that_it_does_not_know_is_begun_anew(
    real: Real, make_real_job: MakeRealJob, model: FakeModel, host: Host
) -> None:
    unknown = {"opencode": "ses_dfafaf053ffeU7bRLCfwMfGhZ7"}.get(
        real.agent.name, "00000000-0000-4000-8000-000000000000"
    )
    report = await real.agent.work(make_real_job({"say": "All done."}, session_id=unknown), host)
    assert (report.outcome, report.resumed) == (Outcome.DONE, "fresh")
    assert [resumed for _, resumed in host.starts] == ["continued", "fresh"]


@each()
async def test_stopped_at_work_it_leaves_nothing_running(
    real: Real, make_real_job: MakeRealJob, model: FakeModel, host: Host
) -> None:
    job = make_real_job({"sh": SLOW}, {"say": "All done."})
    with anyio.fail_after(90):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(real.agent.work, job, host)
            await in_the_slow_tool(job)
            tasks.cancel_scope.cancel()
    exit = adopt(job.log_dir / "exit.json")
    assert exit is not None
    assert exit.stopped == "order"
    assert find_marked(job.marker) == []


@each("codex", "gemini")
async def test_a_usage_limit_is_understood(real: Real, make_real_job: MakeRealJob, host: Host) -> None:
    began = time.time()
    fault = {"limit": "five_hour", "times": -1}
    report = await real.agent.work(make_real_job({"say": "x", "fault": fault}), host)
    assert report.outcome == Outcome.USAGE_LIMIT
    if real.agent.name == "codex":
        assert report.until is not None
        assert began + 3500 < report.until / 1000 < time.time() + 3600  # told to the minute, an hour ahead


@each("opencode")
async def test_one_that_would_sleep_a_limit_out_is_stopped(real: Real, make_real_job: MakeRealJob, host: Host) -> None:
    fault = {"status": 429, "message": "Monthly usage limit reached", "headers": {"retry-after": 3600}, "times": -1}
    with anyio.fail_after(60):
        report = await real.agent.work(make_real_job({"say": "x", "fault": fault}), host)
    assert report.outcome == Outcome.USAGE_LIMIT


@each("gemini")
async def test_the_end_of_a_limit_is_read_from_its_complaints(
    real: Real, make_real_job: MakeRealJob, host: Host
) -> None:
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "12010s"}
    error = {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED", "details": [retry]}
    fault = {"status": 429, "body": {"error": error}, "times": -1}
    began = time.time()
    report = await real.agent.work(make_real_job({"say": "x", "fault": fault}), host)
    assert report.outcome == Outcome.RATE_LIMITED
    assert report.until is not None
    assert began + 12_010 <= report.until / 1000 <= time.time() + 12_010


@each("codex", "copilot", "opencode", "qwen")
async def test_a_key_that_is_refused_is_told_apart(real: Real, make_real_job: MakeRealJob, host: Host) -> None:
    fault = {"status": 401, "message": "invalid api key", "times": -1}
    report = await real.agent.work(make_real_job({"say": "x", "fault": fault}), host)
    assert report.outcome == Outcome.AUTH
    assert "sign in" in report.advice


@each("codex", "opencode")
async def test_tokens_of_a_session_that_goes_on_are_not_counted_twice(
    real: Real, make_real_job: MakeRealJob, host: Host
) -> None:
    first = await real.agent.work(make_real_job({**write("a.txt")}, {"say": "All done."}), host)
    job = make_real_job({"say": "x"}, session_id=first.session_id, prior_usage=first.usage)
    again = await real.agent.work(job, host)
    assert (first.usage.input_tokens, first.usage.output_tokens) == (2000, 100)
    assert (again.usage.input_tokens, again.usage.output_tokens) == (1000, 50)


@each("copilot", "opencode")
async def test_a_tool_that_is_not_allowed_is_named(real: Real, make_real_job: MakeRealJob, host: Host) -> None:
    job = make_real_job(write("a.txt"), {"sh": "curl -s http://127.0.0.1:1/; echo > b.txt"}, {"say": "I could not."})
    settings = real.settings.model_copy(update={"permissions": "accept-edits"})
    report = await real.agent.work(job.model_copy(update={"settings": settings}), host)
    assert (report.outcome, report.reason) == (Outcome.PERMISSION, "it was not allowed to use bash")
    assert (job.worktree / "a.txt").exists()
    assert not (job.worktree / "b.txt").exists()


@each("codex", "gemini", "qwen")
async def test_what_is_not_offered_or_held_in_a_sandbox_is_not_done_and_nobody_is_asked(
    real: Real, make_real_job: MakeRealJob, host: Host
) -> None:
    outside = Path(f"/var/tmp/drover-{uuid.uuid4().hex}")  # what is below /tmp a sandbox may well let be written
    job = make_real_job(write("a.txt"), {"sh": f"echo > {outside}"}, {"say": "I could not."})
    settings = real.settings.model_copy(update={"permissions": "accept-edits"})
    report = await real.agent.work(job.model_copy(update={"settings": settings}), host)
    assert (report.outcome, report.summary) == (Outcome.DONE, "I could not.")
    assert (job.worktree / "a.txt").exists()
    assert not outside.exists()


@each()
async def test_its_check_knows_its_version(real: Real) -> None:
    found = await real.agent.check(real.settings)
    assert found.problem is None
    assert found.version.split(".")[0].isdecimal()
    assert not any("unverified" in note for note in found.notes)

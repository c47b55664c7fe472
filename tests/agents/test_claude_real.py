"""The real Claude Code against the scripted model: sessions that survive, limits understood, nothing left running."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread

from drover.agents.base import AgentJob, AgentSettings
from drover.agents.claude import Claude
from drover.domain.models import AgentReport
from drover.domain.verdicts import Outcome
from drover.process import adopt, find_marked

from .conftest import Host, MakeJob
from .fakellm import FakeModel
from .real import CLAUDE, needs_claude, prompt, reach

pytestmark = [pytest.mark.anyio, needs_claude]

# Claude refuses a bare sleep; the grandchild in a session of its own is what a group's signal does not reach.
SLOW = "echo started > started; setsid sleep 300 & sleep 300; echo SLEPT"


@pytest.fixture
def model(tmp_path: Path) -> Iterator[FakeModel]:
    with FakeModel(tmp_path / "model.jsonl") as model:
        yield model


MakeClaudeJob = Callable[..., AgentJob]


@pytest.fixture
def make_claude_job(make_job: MakeJob, model: FakeModel) -> MakeClaudeJob:
    def make(*turns: dict[str, Any], env: dict[str, str] | None = None, **more: object) -> AgentJob:
        settings = AgentSettings(type="claude", argv=(str(CLAUDE),), model="sonnet")
        return make_job(prompt(*turns), env=reach(model.url, **(env or {})), settings=settings, **more)

    return make


async def in_the_slow_tool(job: AgentJob, call: str) -> None:
    """Return when the tool runs and Claude has saved that it called it, which it does a moment later."""
    with anyio.fail_after(60):
        while True:
            saved = (Path(job.env["HOME"]) / ".claude" / "projects").glob("*/*.jsonl")
            if (job.worktree / "started").exists() and any(call in path.read_text() for path in saved):
                return
            await anyio.sleep(0.02)


def agent_of(host: Host) -> int:
    """The pid of the agent itself: the supervisor's only child."""
    supervisor = host.processes[-1].pid
    return int(Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()[0])


@pytest.mark.slow  # the row of tests/conformance looks at the same in the gate
async def test_a_task_is_done(make_claude_job: MakeClaudeJob, model: FakeModel, host: Host, tmp_path: Path) -> None:
    job = make_claude_job(
        {"say": "Working.", "write": ["a.txt", "a\n"]}, {"sh": "echo $DROVER_TASK_ID"}, {"say": "Done."}
    )
    report = await Claude().work(job, host)
    assert (report.outcome, report.summary) == (Outcome.DONE, "Done.")
    assert (tmp_path / "worktree" / "a.txt").read_text() == "a\n"
    assert model.turns == [0, 1, 2]
    assert host.starts == [(report.session_id, "fresh")]
    assert (report.usage.input_tokens, report.usage.output_tokens, report.usage.turns) == (3000, 150, 3)
    assert report.usage.cost_usd > 0


@pytest.mark.slow  # the row of tests/conformance looks at the same in the gate
async def test_killed_in_mid_turn_the_same_session_goes_on(
    make_claude_job: MakeClaudeJob, model: FakeModel, host: Host, tmp_path: Path
) -> None:
    worktree = tmp_path / "worktree"
    turns = ({"write": ["one.txt", "1"]}, {"sh": SLOW}, {"write": ["two.txt", "2"]}, {"say": "Done."})
    job = make_claude_job(*turns)
    reports: list[AgentReport] = []

    async def go() -> None:
        reports.append(await Claude().work(job, host))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(go)
        await in_the_slow_tool(job, "toolu_t1x")
        os.kill(agent_of(host), signal.SIGKILL)
    first = reports[0]
    assert find_marked(job.marker) == []
    assert first.outcome == Outcome.CRASHED
    assert model.turns == [0, 1]
    job = make_claude_job(*turns, session_id=first.session_id)
    report = await Claude().work(job, host)
    assert (report.outcome, report.resumed, report.session_id) == (Outcome.DONE, "continued", first.session_id)
    assert (worktree / "two.txt").exists()
    assert model.turns == [0, 1, 2, 3]  # nothing was asked twice: the model saw what had been done
    assert host.starts == [(first.session_id, "fresh"), (first.session_id, "continued")]
    assert report.usage.turns == 2


async def test_killed_before_its_first_words_it_is_told_everything_again(
    make_claude_job: MakeClaudeJob, model: FakeModel, host: Host
) -> None:
    job = make_claude_job({"say": "Done."}, session_id="00000000-0000-4000-8000-000000000000")
    report = await Claude().work(job, host)
    assert (report.outcome, report.resumed) == (Outcome.DONE, "fresh")
    assert [resumed for _, resumed in host.starts] == ["continued", "fresh"]
    assert model.turns == [0]


@pytest.mark.slow  # the row of tests/conformance looks at the same in the gate
async def test_a_usage_limit_tells_when_it_ends_and_the_session_goes_on_after_it(
    make_claude_job: MakeClaudeJob, model: FakeModel, host: Host, tmp_path: Path
) -> None:
    turns = ({"write": ["a.txt", "a"]}, {"fault": {"limit": "five_hour", "reset_s": 20}, "say": "Done."})
    token = {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-dummy"}
    began = int(time.time())
    limited = await Claude().work(make_claude_job(*turns, env=token), host)
    assert limited.outcome == Outcome.USAGE_LIMIT
    assert limited.until is not None
    assert began + 20 <= limited.until / 1000 <= time.time() + 20
    again = await Claude().work(make_claude_job(*turns, env=token, session_id=limited.session_id), host)
    assert (again.outcome, again.resumed) == (Outcome.DONE, "continued")
    assert model.turns == [0, 1, 1]


async def test_a_bad_key_is_not_tried_for_ever(make_claude_job: MakeClaudeJob, host: Host) -> None:
    fault = {"status": 401, "kind": "authentication_error", "message": "invalid x-api-key", "times": -1}
    env = {"ANTHROPIC_API_KEY": "sk-ant-dummy-123456", "CLAUDE_CODE_MAX_RETRIES": "1"}
    job = make_claude_job({"fault": fault}, env=env)
    report = await Claude().work(job, host)
    assert report.outcome == Outcome.AUTH
    assert "ANTHROPIC_API_KEY" in report.advice
    written = b"".join(path.read_bytes() for path in job.log_dir.iterdir())
    assert b"sk-ant-dummy-123456" not in written


async def test_a_short_overload_is_sat_out_by_the_agent_itself(
    make_claude_job: MakeClaudeJob, model: FakeModel, host: Host
) -> None:
    job = make_claude_job({"fault": {"status": 529, "kind": "overloaded_error", "times": 1}, "say": "Done."})
    assert (await Claude().work(job, host)).outcome == Outcome.DONE
    assert [request.status for request in model.requests if request.turn == 0] == [529, 200]


@pytest.mark.slow  # the row of tests/conformance looks at the same in the gate
async def test_stopped_at_work_it_leaves_nothing_running_and_can_go_on(
    make_claude_job: MakeClaudeJob, model: FakeModel, host: Host
) -> None:
    turns = ({"sh": SLOW}, {"say": "Done."})
    job = make_claude_job(*turns)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Claude().work, job, host)
            await in_the_slow_tool(job, "toolu_t0x")
            tasks.cancel_scope.cancel()
    exit = adopt(job.log_dir / "exit.json")
    assert exit is not None
    assert (exit.returncode, exit.stopped) == (143, "order")
    assert find_marked(job.marker) == []
    report = await Claude().work(make_claude_job(*turns, session_id=host.starts[0][0]), host)
    assert (report.outcome, report.resumed) == (Outcome.DONE, "continued")
    assert model.turns == [0, 1]


@pytest.mark.slow  # the row of tests/conformance looks at the same in the gate
async def test_one_that_waits_for_a_silent_model_is_stopped(
    make_claude_job: MakeClaudeJob, model: FakeModel, host: Host
) -> None:
    job = make_claude_job({"hang": True}, timeout_s=3.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(to_thread.run_sync, model.wait_for_turn, 0)
        report = await Claude().work(job, host)
    assert report.outcome == Outcome.TIMEOUT
    assert find_marked(job.marker) == []


async def test_what_a_person_says_joins_the_running_turn(
    make_claude_job: MakeClaudeJob, model: FakeModel, host: Host
) -> None:
    job = make_claude_job(
        {"sh": "echo started > started; while [ ! -e heard ]; do sleep 0.1; done"}, {"sh": "ls"}, {"say": "Done."}
    )
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Claude().work, job, host)
            await in_the_slow_tool(job, "toolu_t0x")
            host.say("Use tabs.")
            while "Use tabs." not in (job.log_dir / "output.jsonl").read_text() and not queued(job):
                await anyio.sleep(0.02)
            (job.worktree / "heard").touch()
    assert host.told == ["Use tabs."]
    assert model.turns == [0, 1, 2]  # no turn more than planned: it was heard in the one that ran
    assert "Use tabs." in (job.log_dir / "output.jsonl").read_text().split("toolu_t1x")[0]


def queued(job: AgentJob) -> bool:
    """Whether it has read two messages: its prompt, and one more."""
    return (job.log_dir / "output.jsonl").read_text().count('"state":"queued"') > 1


async def test_what_is_said_as_it_ends_is_still_heard(
    make_claude_job: MakeClaudeJob, model: FakeModel, host: Host
) -> None:
    host.say("Use tabs.")
    report = await Claude().work(make_claude_job({"say": "Done."}), host)
    assert report.outcome == Outcome.DONE
    assert host.told == ["Use tabs."]


async def test_a_tool_that_is_not_allowed_is_named(make_claude_job: MakeClaudeJob, host: Host) -> None:
    settings = AgentSettings(type="claude", argv=(str(CLAUDE),), permissions="accept-edits")
    job = make_claude_job({"sh": "npm install x"}, {"say": "I could not."}).model_copy(update={"settings": settings})
    report = await Claude().work(job, host)
    assert (report.outcome, report.reason) == (Outcome.PERMISSION, "it was not allowed to use Bash")


async def test_its_check_knows_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "dummy")
    found = await Claude().check(AgentSettings(type="claude", argv=(str(CLAUDE),)))
    assert found.problem is None
    assert found.version.split(".")[0].isdecimal()

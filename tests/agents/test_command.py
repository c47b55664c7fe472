"""Any program as an agent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from drover.agents.base import AgentSettings
from drover.agents.command import Command
from drover.domain.errors import AgentError
from drover.domain.models import AgentReport
from drover.domain.verdicts import Outcome

from .conftest import Host, MakeJob

pytestmark = pytest.mark.anyio


def shell(script: str) -> AgentSettings:
    return AgentSettings(type="command", argv=("/bin/sh", "-c", script))


async def work(make_job: MakeJob, host: Host, script: str, **more: object) -> AgentReport:
    return await Command().work(make_job(settings=shell(script), **more), host)


async def leave(make_job: MakeJob, host: Host, result: object, code: int = 0) -> AgentReport:
    """A program that leaves that result and exits with that code."""
    text = result if isinstance(result, str) else json.dumps(result)
    return await work(make_job, host, f"cat > $DROVER_RESULT <<'END'\n{text}\nEND\nexit {code}")


@pytest.mark.parametrize(
    ("script", "outcome", "reason"),
    [
        ("exit 0", Outcome.DONE, ""),
        ("exit 75", Outcome.LATER, "it asked to be tried later"),
        ("echo broken >&2; exit 3", Outcome.FAILED, "exit 3: broken"),
        ("echo last words; exit 1", Outcome.FAILED, "exit 1: last words"),
        ("kill -SEGV $$", Outcome.CRASHED, "ended by signal 11, which drover did not send"),
        ("echo 'NEEDS_HUMAN: red or blue?'", Outcome.QUESTION, "red or blue?"),
    ],
)
async def test_the_exit_code_is_the_verdict(
    make_job: MakeJob, host: Host, script: str, outcome: Outcome, reason: str
) -> None:
    report = await work(make_job, host, script)
    assert (report.outcome, report.reason) == (outcome, reason)


async def test_it_gets_the_prompt_on_its_input_and_the_worktree_around_it(
    make_job: MakeJob, host: Host, tmp_path: Path
) -> None:
    prompt = "# Task\n" + "'\"$(touch pwned) -x\n" * 50_000  # a megabyte, with everything that a shell would like
    report = await work(make_job, host, "cat > copy; pwd; echo $DROVER_TASK_ID", prompt=prompt)
    assert report.outcome == Outcome.DONE
    assert (tmp_path / "worktree" / "copy").read_text() == prompt
    assert report.summary.split() == [str(tmp_path / "worktree"), "task-x"]
    assert [path.name for path in (tmp_path / "worktree").iterdir()] == ["copy"]


async def test_the_prompt_is_not_among_the_arguments(make_job: MakeJob, host: Host) -> None:
    report = await work(make_job, host, "tr '\\0' '\\n' < /proc/$$/cmdline", prompt="the plan")
    assert "the plan" not in report.summary


@pytest.mark.parametrize(
    ("verdict", "code", "outcome"),
    [
        ("done", 3, Outcome.DONE),
        ("failed", 0, Outcome.FAILED),
        ("blocked", 0, Outcome.QUESTION),
        ("later", 0, Outcome.LATER),
    ],
)
async def test_the_result_file_wins_over_the_exit_code(
    make_job: MakeJob, host: Host, verdict: str, code: int, outcome: Outcome
) -> None:
    report = await leave(make_job, host, {"verdict": verdict, "reason": "why", "summary": "what"}, code)
    assert report.outcome == outcome
    assert report.summary == "what"
    assert report.reason == ("" if verdict == "done" else "why")


async def test_the_result_file_tells_all_that_it_may(make_job: MakeJob, host: Host) -> None:
    report = await leave(
        make_job,
        host,
        {
            "verdict": "later", "summary": "s", "reason": "r", "retry_at": "2026-11-22T12:00:00Z",
            "tokens": 123, "cost_usd": 0.5, "session_id": "mine", "and": "more",
        },
    )  # fmt: skip
    assert report.until == 1795348800000
    assert (report.usage.tokens, report.usage.cost_usd, report.session_id) == (123, 0.5, "mine")


async def test_without_a_verdict_the_exit_code_decides(make_job: MakeJob, host: Host) -> None:
    report = await leave(make_job, host, {"summary": "s", "tokens": 5}, 75)
    assert (report.outcome, report.summary, report.usage.tokens) == (Outcome.LATER, "s", 5)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo '{\"verdict\": ' > $DROVER_RESULT", "does not parse"),
        ('echo \'{"verdict": "perhaps"}\' > $DROVER_RESULT', "does not parse: verdict"),
        ("echo '{\"tokens\": -1}' > $DROVER_RESULT", "does not parse: tokens"),
        ("echo '[1]' > $DROVER_RESULT", "does not parse"),
        ("ln -s /etc/hostname $DROVER_RESULT", "a symbolic link"),
        ("mkfifo $DROVER_RESULT", "not a regular file"),
        ("mkdir $DROVER_RESULT", "not a regular file"),
        ("head -c 2000000 /dev/zero > $DROVER_RESULT", "larger than"),
    ],
)
async def test_a_result_file_that_is_none_fails_the_attempt(
    make_job: MakeJob, host: Host, script: str, reason: str
) -> None:
    report = await work(make_job, host, script)
    assert report.outcome == Outcome.FAILED
    assert reason in report.reason


async def test_a_result_file_of_a_killed_program_is_no_result(make_job: MakeJob, host: Host) -> None:
    report = await work(make_job, host, 'echo \'{"verdict": "done"}\' > $DROVER_RESULT; kill -9 $$')
    assert report.outcome == Outcome.CRASHED


async def test_the_session_it_named_is_given_back_to_it_with_everything_it_was_told(
    make_job: MakeJob, host: Host
) -> None:
    report = await work(
        make_job, host, "echo $DROVER_SESSION_ID; cat", prompt="first", follow_up="then", session_id="mine"
    )
    assert report.summary.split() == ["mine", "first", "then"]
    assert (report.resumed, report.session_id) == ("continued", "mine")


async def test_without_a_program_it_says_what_to_set(make_job: MakeJob, host: Host) -> None:
    with pytest.raises(AgentError, match="no program") as caught:
        await Command().work(make_job(settings=AgentSettings(type="command")), host)
    assert "DROVER_AGENT_PATH" in str(caught.value.hint)
    assert (await Command().check(AgentSettings(type="command"))).problem == "agent command has no program"


async def test_a_program_that_is_not_there_cannot_be_started(make_job: MakeJob, host: Host) -> None:
    with pytest.raises(AgentError, match="cannot be started: no such program: nowhere-at-all"):
        await Command().work(make_job(settings=AgentSettings(type="command", argv=("nowhere-at-all",))), host)


async def test_a_check_finds_the_program_without_running_it() -> None:
    found = await Command().check(AgentSettings(type="command", argv=("sh", "-c", "exit 1")))
    assert found.problem is None
    assert os.path.isabs(found.program)

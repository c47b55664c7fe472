"""Claude Code: what it is asked, and what its events mean. The events were printed by the real one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drover.agents.base import AgentSettings
from drover.agents.claude import Claude, ClaudeReading
from drover.agents.program import Ended, Start
from drover.agents.stream import events
from drover.domain.errors import SettingsError
from drover.domain.models import AgentReport, Usage
from drover.domain.verdicts import Outcome
from drover.process import Exit

from .conftest import Host, MakeJob

EVENTS = Path(__file__).with_name("events")


def reading_of(text: str) -> ClaudeReading:
    reading = ClaudeReading()
    for line in text.splitlines():
        for event in events(line.encode()):
            reading.event(event)
    return reading


def captured(case: str) -> str:
    return (EVENTS / f"claude.{case}.jsonl").read_text()


def report_of(make_job: MakeJob, text: str, exit: Exit, *, errors: str = "", prior: float = 0.0) -> AgentReport:
    job = make_job(prior_cost_usd=prior)
    reading = reading_of(text)
    start = Start(session_id=reading.session_id, resumed="continued" if prior else "fresh")
    return Claude().report(job, Ended(start, exit, reading, errors))


@pytest.mark.parametrize(
    ("case", "code", "outcome"),
    [
        ("done", 0, Outcome.DONE),
        ("background", 0, Outcome.DONE),
        ("overloaded_then_done", 0, Outcome.DONE),
        ("refused", 0, Outcome.PERMISSION),
        ("question", 0, Outcome.QUESTION),
        ("five_hours", 1, Outcome.USAGE_LIMIT),
        ("week", 1, Outcome.USAGE_LIMIT),
        ("rate_limited", 1, Outcome.RATE_LIMITED),
        ("overloaded", 1, Outcome.OVERLOADED),
        ("unreachable", 1, Outcome.OVERLOADED),
        ("bad_key", 1, Outcome.AUTH),
        ("no_key", 1, Outcome.AUTH),
        ("no_credit", 1, Outcome.AUTH),
        ("too_long", 1, Outcome.CONTEXT_OVERFLOW),
    ],
)
def test_each_ending_is_told_apart(make_job: MakeJob, case: str, code: int, outcome: Outcome) -> None:
    report = report_of(make_job, captured(case), Exit(returncode=code))
    assert report.outcome == outcome
    assert report.reason or outcome is Outcome.DONE


def test_a_usage_limit_is_waited_out_until_the_time_the_provider_gave(make_job: MakeJob) -> None:
    text = captured("five_hours")
    told = [json.loads(line).get("rate_limit_info", {}) for line in text.splitlines()]
    resets = next(info["resetsAt"] for info in told if info.get("status") == "rejected")
    assert report_of(make_job, text, Exit(returncode=1)).until == resets * 1000


def test_without_the_event_the_words_of_a_limit_tell_its_end(make_job: MakeJob) -> None:
    result = {
        "type": "result",
        "subtype": "success",
        "is_error": True,
        "result": "Claude AI usage limit reached|1795384110",
    }
    report = report_of(make_job, json.dumps(result), Exit(returncode=1))
    assert (report.outcome, report.until) == (Outcome.USAGE_LIMIT, 1795384110000)


def test_exit_0_without_a_result_is_no_success(make_job: MakeJob) -> None:
    text = "".join(line for line in captured("done").splitlines(keepends=True) if '"type": "result"' not in line)
    assert report_of(make_job, text, Exit(returncode=0)).outcome == Outcome.CRASHED


def test_a_good_result_before_a_bad_exit_is_no_success(make_job: MakeJob) -> None:
    assert report_of(make_job, captured("done"), Exit(returncode=1)).outcome == Outcome.FAILED
    assert report_of(make_job, captured("done"), Exit(signal=9)).outcome == Outcome.CRASHED


def test_a_result_of_a_run_that_was_stopped_is_no_success(make_job: MakeJob) -> None:
    assert report_of(make_job, captured("done"), Exit(returncode=0, stopped="order")).outcome == Outcome.INTERRUPTED


def test_what_it_complained_about_is_the_reason_when_there_is_nothing_else(make_job: MakeJob) -> None:
    report = report_of(make_job, "", Exit(returncode=1), errors="error: unknown option '--fast'")
    assert report.outcome == Outcome.CRASHED
    assert "unknown option '--fast'" in report.reason


def test_the_tool_that_was_refused_is_named(make_job: MakeJob) -> None:
    assert "Bash" in report_of(make_job, captured("refused"), Exit(returncode=0)).reason


def test_the_last_of_several_results_counts_and_their_use_is_added_up(make_job: MakeJob) -> None:
    report = report_of(make_job, captured("background"), Exit(returncode=0))
    assert report.summary == "Last end"
    assert report.usage == Usage(input_tokens=3000, output_tokens=150, cost_usd=0.015, turns=3, model="claude-opus-5-5")


def test_what_the_session_had_cost_before_is_not_counted_again(make_job: MakeJob) -> None:
    assert report_of(make_job, captured("done"), Exit(returncode=0), prior=0.01).usage.cost_usd == 0.005
    assert report_of(make_job, captured("done"), Exit(returncode=0), prior=1.0).usage.cost_usd == 0.015  # it was blank


def test_a_run_that_was_cut_short_still_tells_what_it_used(make_job: MakeJob) -> None:
    text = "\n".join(captured("done").splitlines()[:-1])
    usage = report_of(make_job, text, Exit(signal=15, timed_out=True)).usage
    assert (usage.input_tokens, usage.turns) == (3000, 3)


def test_it_is_started_with_our_session_id_and_without_the_prompt(make_job: MakeJob) -> None:
    job = make_job("a secret plan", settings=AgentSettings(type="claude", model="sonnet", args=("--max-turns", "9")))
    started = Claude().command(job, Start(session_id="id-1"))
    assert started == (
        "claude", "-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose",
        "--replay-user-messages", "--dangerously-skip-permissions", "--model", "sonnet", "--session-id", "id-1",
        "--max-turns", "9",
    )  # fmt: skip
    resumed = Claude().command(job, Start(session_id="id-1", resumed="continued"))
    assert resumed[-4:] == ("--resume", "id-1", "--max-turns", "9")


@pytest.mark.parametrize(
    ("permissions", "flags"),
    [(None, "--dangerously-skip-permissions"), ("accept-edits", "--permission-mode acceptEdits"), ("allow-list", "")],
)
def test_permissions_are_what_the_settings_say(make_job: MakeJob, permissions: str | None, flags: str) -> None:
    job = make_job(settings=AgentSettings(type="claude", permissions=permissions))
    command = " ".join(Claude().command(job, Start(session_id="i")))
    assert command.endswith(f"--replay-user-messages {flags} --session-id i".replace("  ", " "))


def test_unknown_permissions_are_refused(make_job: MakeJob) -> None:
    job = make_job(settings=AgentSettings(type="claude", permissions="everything"))
    with pytest.raises(SettingsError, match="everything"):
        Claude().command(job, Start(session_id="i"))


def test_only_where_bypass_is_meant_root_is_told_to_be_in_a_sandbox(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    careful = make_job(settings=AgentSettings(type="claude", permissions="accept-edits"))
    assert "IS_SANDBOX" not in Claude().environment(careful)
    assert Claude().environment(make_job())["IS_SANDBOX"] == "1"
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "IS_SANDBOX" not in Claude().environment(make_job())


def test_the_operators_own_values_win_over_ours(make_job: MakeJob) -> None:
    job = make_job(env={"DISABLE_AUTOUPDATER": "0"})
    assert Claude().environment(job)["DISABLE_AUTOUPDATER"] == "0"


@pytest.mark.anyio
async def test_a_check_without_the_program_says_how_to_get_it(tmp_path: Path) -> None:
    found = await Claude().check(AgentSettings.of("claude", path=str(tmp_path / "claude")))
    assert found.problem is not None
    assert found.hint == "npm install -g @anthropic-ai/claude-code"


@pytest.mark.anyio
async def test_a_check_tells_version_permissions_and_what_is_not_verified(tmp_path: Path) -> None:
    program = tmp_path / "claude"
    program.write_text("#!/bin/sh\necho '9.9.9 (Claude Code)'\n")
    program.chmod(0o755)
    found = await Claude().check(AgentSettings.of("claude", path=str(program), permissions="accept-edits"))
    assert (found.problem, found.version) == (None, "9.9.9")
    assert any("may change files in the clone" in note for note in found.notes)
    assert any("unverified" in note for note in found.notes)


@pytest.mark.anyio
async def test_a_wrapper_that_reads_its_input_to_the_end_gets_its_end(
    make_job: MakeJob, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drover.agents.program.SILENCE_S", 0.2)
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(
        '#!/bin/sh\ncat > read\necho \'{"type":"result","subtype":"success","is_error":false,"result":"Done."}\'\n'
    )
    wrapper.chmod(0o755)
    job = make_job(settings=AgentSettings.of("claude", path=str(wrapper)))
    report = await Claude().work(job, host)
    assert (report.outcome, report.summary) == (Outcome.DONE, "Done.")
    assert "# Task task-x" in (job.worktree / "read").read_text()

"""Codex, OpenCode, Gemini, Qwen, Copilot and Amp: what they are asked, and what their events mean.

The events were printed by the real ones (see capture_others.py), but for Amp's and qwen.refused, which are
written by hand after their documentation.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from drover.agents import registry
from drover.agents.base import AgentJob, AgentSettings
from drover.agents.codex import Codex
from drover.agents.copilot import Copilot
from drover.agents.gemini import Gemini
from drover.agents.opencode import OpenCode, title
from drover.agents.program import Ended, Start
from drover.agents.qwen import Qwen
from drover.agents.stream import events
from drover.agents.talk import Talker
from drover.domain.errors import SettingsError
from drover.domain.models import AgentReport, Usage
from drover.domain.verdicts import Outcome
from drover.process import Exit, find_marked

from .conftest import Host, MakeJob

EVENTS = Path(__file__).with_name("events")
NAMES = ("amp", "codex", "copilot", "gemini", "opencode", "qwen")


def driver(name: str) -> Talker[Any]:
    found = registry.find(name)
    assert isinstance(found, Talker)
    return found


def ended(agent: Talker[Any], text: str, exit: Exit, *, errors: str = "", start: Start | None = None) -> Ended[Any]:
    reading = agent.read()
    for line in text.splitlines():
        for event in events(line.encode()):
            reading.event(event)
    return Ended(start or Start(), exit, reading, errors)


def report_of(job: AgentJob, case: str, exit: Exit, **more: Any) -> AgentReport:
    agent = driver(case.split(".")[0])
    return agent.report(job, ended(agent, (EVENTS / f"{case}.jsonl").read_text(), exit, **more))


@pytest.mark.parametrize(
    ("case", "code", "outcome"),
    [
        ("codex.done", 0, Outcome.DONE),
        ("codex.question", 0, Outcome.QUESTION),
        ("codex.bad_key", 1, Outcome.AUTH),
        ("codex.usage", 1, Outcome.USAGE_LIMIT),
        ("codex.overloaded", 1, Outcome.OVERLOADED),
        ("opencode.done", 0, Outcome.DONE),
        ("opencode.question", 0, Outcome.QUESTION),
        ("opencode.refused", 0, Outcome.PERMISSION),
        ("opencode.bad_key", 1, Outcome.AUTH),
        ("gemini.done", 0, Outcome.DONE),
        ("gemini.question", 0, Outcome.QUESTION),
        ("gemini.bad_key", 145, Outcome.AUTH),
        ("gemini.daily", 173, Outcome.USAGE_LIMIT),
        ("qwen.done", 0, Outcome.DONE),
        ("qwen.question", 0, Outcome.QUESTION),
        ("qwen.refused", 0, Outcome.PERMISSION),
        ("qwen.bad_key", 1, Outcome.AUTH),
        ("copilot.done", 0, Outcome.DONE),
        ("copilot.question", 0, Outcome.QUESTION),
        ("copilot.refused", 0, Outcome.PERMISSION),
        ("copilot.bad_key", 1, Outcome.AUTH),
        ("copilot.rate_limited", 1, Outcome.RATE_LIMITED),
        ("copilot.overloaded", 1, Outcome.OVERLOADED),
        ("amp.done", 0, Outcome.DONE),
        ("amp.failed", 1, Outcome.AUTH),
    ],
)
def test_each_ending_is_told_apart(make_job: MakeJob, case: str, code: int, outcome: Outcome) -> None:
    report = report_of(make_job(), case, Exit(returncode=code))
    assert report.outcome == outcome
    assert report.reason or outcome == Outcome.DONE


@pytest.mark.parametrize("name", NAMES)
def test_a_result_of_a_run_that_exits_otherwise_is_no_success(make_job: MakeJob, name: str) -> None:
    assert report_of(make_job(), f"{name}.done", Exit(returncode=1)).outcome != Outcome.DONE
    assert report_of(make_job(), f"{name}.done", Exit(returncode=0, stopped="order")).outcome == Outcome.INTERRUPTED


@pytest.mark.parametrize("name", NAMES)
def test_exit_zero_without_a_result_is_no_success(make_job: MakeJob, name: str) -> None:
    lines = (EVENTS / f"{name}.done.jsonl").read_text().splitlines()
    agent = driver(name)
    report = agent.report(make_job(), ended(agent, "\n".join(lines[:-1]), Exit(returncode=0)))
    assert report.outcome == Outcome.CRASHED


@pytest.mark.parametrize("name", NAMES)
def test_the_last_words_and_the_session_are_kept(name: str) -> None:
    reading = ended(driver(name), (EVENTS / f"{name}.done.jsonl").read_text(), Exit(returncode=0)).reading
    assert reading.words == "All done."
    assert reading.session_id


@pytest.mark.parametrize(("case", "tool"), [("opencode", "bash"), ("qwen", "run_shell_command"), ("copilot", "bash")])
def test_a_tool_that_was_refused_is_named(make_job: MakeJob, case: str, tool: str) -> None:
    report = report_of(make_job(), f"{case}.refused", Exit(returncode=0))
    assert report.reason == f"it was not allowed to use {tool}"
    assert f"[agents.{case}]" in report.advice


@pytest.mark.parametrize(("name", "read"), [("codex", 3000), ("opencode", 3000), ("gemini", 3000), ("qwen", 3000)])
def test_tokens_are_counted(make_job: MakeJob, name: str, read: int) -> None:
    usage = report_of(make_job(), f"{name}.done", Exit(returncode=0)).usage
    assert (usage.input_tokens, usage.output_tokens, usage.turns) == (read, 150, 3)


def test_codex_tells_the_tokens_of_the_whole_thread(make_job: MakeJob) -> None:
    job = make_job(prior_usage=Usage(input_tokens=2000, output_tokens=100))
    text = (EVENTS / "codex.done.jsonl").read_text()
    id = ended(Codex(), text, Exit(returncode=0)).reading.session_id
    on = report_of(job, "codex.done", Exit(returncode=0), start=Start(session_id=id, resumed="continued"))
    assert (on.usage.input_tokens, on.usage.output_tokens) == (1000, 50)
    anew = report_of(job, "codex.done", Exit(returncode=0))
    assert anew.usage.input_tokens == 3000
    blank = report_of(job, "codex.done", Exit(returncode=0), start=Start(session_id="other", resumed="continued"))
    assert blank.usage.input_tokens == 3000


def test_gemini_waits_a_daily_quota_out_to_the_end_of_its_providers_day(make_job: MakeJob) -> None:
    report = report_of(make_job(), "gemini.daily", Exit(returncode=173))
    assert report.until is not None
    assert report.until % 3_600_000 == 0


def test_codex_is_not_left_to_wait_for_the_network_for_ever(make_job: MakeJob) -> None:
    waits = json.dumps({"type": "error", "message": "Reconnecting... waiting for network (tcp connect error)"})
    works = json.dumps({"type": "item.completed", "item": {"type": "agent_message", "text": "Working."}})
    agent = driver("codex")
    assert not ended(agent, "\n".join([waits, waits, waits, works, waits]), Exit()).reading.in_vain
    given_up = ended(agent, "\n".join([works, waits, waits, waits, waits]), Exit(returncode=1, stopped="order"))
    assert given_up.reading.in_vain
    assert agent.report(make_job(), given_up).outcome == Outcome.OVERLOADED


def test_gemini_that_stopped_itself_is_not_done_whatever_its_result_says(make_job: MakeJob) -> None:
    said = {"type": "error", "severity": "warning", "message": "Loop detected, stopping execution"}
    text = "\n".join([json.dumps(said), json.dumps({"type": "result", "status": "success", "stats": {}})])
    report = driver("gemini").report(make_job(), ended(driver("gemini"), text, Exit(returncode=0)))
    assert (report.outcome, report.reason) == (Outcome.FAILED, "Loop detected, stopping execution")


def test_opencode_that_slept_after_a_refusal_was_not_stalled(make_job: MakeJob) -> None:
    said = 'level=ERROR run=2 message="stream error" providerID=x error.error="AI_APICallError: slow down"'
    report = driver("opencode").report(make_job(), ended(driver("opencode"), "", Exit(stalled=True), errors=said))
    assert report.outcome == Outcome.OVERLOADED


@pytest.mark.parametrize(("tries", "outcome"), [(1, Outcome.RATE_LIMITED), (6, Outcome.OVERLOADED)])
def test_qwen_is_not_left_to_wait_for_capacity(make_job: MakeJob, tries: int, outcome: Outcome) -> None:
    said = f"[qwen-code] Waiting for API capacity... attempt {tries}, retry in 3570s"
    run = ended(driver("qwen"), "", Exit(signal=15, stopped="order"))
    run.reading.complaint(said)
    report = driver("qwen").report(make_job(), run)
    assert run.reading.in_vain
    assert report.outcome == outcome
    assert (report.until is not None) == (outcome == Outcome.RATE_LIMITED)


def test_one_that_waited_in_vain_for_the_network_was_not_stalled(make_job: MakeJob) -> None:
    said = "Reconnecting... waiting for network (tcp connect error)"
    agent = driver("codex")
    told = json.dumps({"type": "error", "message": said})
    report = agent.report(make_job(), ended(agent, told, Exit(returncode=1, stalled=True)))
    assert (report.outcome, report.reason) == (Outcome.OVERLOADED, said)


@pytest.mark.parametrize("name", ["gemini", "opencode", "qwen"])
def test_one_that_slept_a_limit_out_was_limited_and_not_stalled(make_job: MakeJob, name: str) -> None:
    said = {
        "gemini": "Your quota will reset after 3h20m10s.. Retrying after 12651537ms...",
        "opencode": 'level=ERROR message="stream error" error.error="AI_APICallError: Monthly usage limit reached"',
        "qwen": "Retrying in 3600s (attempt 1/10): [API Error: 429 slow down]",
    }[name]
    agent = driver(name)
    stalled = Exit(signal=15, stalled=True)
    report = agent.report(make_job(), ended(agent, "", stalled, errors=said))
    assert report.outcome in (Outcome.USAGE_LIMIT, Outcome.RATE_LIMITED)
    assert report.until is not None or name == "opencode"
    assert agent.report(make_job(), ended(agent, "", stalled)).outcome == Outcome.STALLED


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("codex", "Error: thread/resume: thread/resume failed: no rollout found for thread id 0 (code -32600)"),
        ("opencode", "\x1b[91m\x1b[1mError: \x1b[0mSession not found"),
        ("gemini", 'Error resuming session: Invalid session identifier "0".'),
        ("qwen", "No saved session found with ID 0. Run `qwen --resume` without an ID"),
        ("copilot", "Error: No session, task, or name matched '0'."),
    ],
)
def test_a_forgotten_session_is_recognised(name: str, said: str) -> None:
    assert driver(name).forgot(ended(driver(name), "", Exit(returncode=1), errors=said))
    assert not driver(name).forgot(ended(driver(name), "", Exit(returncode=1), errors="something else"))


@pytest.mark.parametrize("name", NAMES)
def test_no_prompt_and_no_secret_is_among_its_arguments(make_job: MakeJob, name: str) -> None:
    agent = driver(name)
    secret = {variable: f"secret-{variable}" for variable in agent.sign_in}
    settings = AgentSettings(type=name, model="a-model", args=("--more",), set=secret)
    for start in (Start(session_id="id-1"), Start(session_id="id-1", resumed="continued")):
        argv = agent.command(make_job("the prompt", env=secret, settings=settings), start)
        assert argv[0] == name
        assert "--more" in argv
        assert not any("the prompt" in word or "secret" in word for word in argv)
        assert name == "amp" or any("a-model" in word for word in argv)
        known = start.continues or name not in ("amp", "codex", "opencode")
        assert any("id-1" in word for word in argv) == known


@pytest.mark.parametrize("name", NAMES)
def test_each_word_of_permissions_means_something_else(make_job: MakeJob, name: str) -> None:
    agent = driver(name)
    made = set()
    for word in agent.modes:
        job = make_job(settings=AgentSettings(type=name, permissions=word))
        env = agent.environment(job)
        made.add((agent.allowed(job.settings), env.get("OPENCODE_PERMISSION")))
    assert len(made) == len(agent.modes)
    with pytest.raises(SettingsError, match=f"agents.{name}.permissions"):
        agent.mode(AgentSettings(type=name, permissions="everything"))


def test_codex_is_stopped_by_its_interrupt_and_tells_times_in_utc(make_job: MakeJob) -> None:
    assert Codex().stop_signal == "INT"
    assert Codex().environment(make_job(env={"TZ": "Europe/Rome"}))["TZ"] == "UTC"
    assert {agent.stop_signal for agent in (OpenCode(), Gemini(), Qwen(), Copilot())} == {"TERM"}


async def _check(name: str, path: Path) -> tuple[str | None, tuple[str, ...]]:
    found = await driver(name).check(AgentSettings(type=name, argv=(str(path),)))
    return found.problem, found.notes


@pytest.mark.anyio
async def test_amp_is_called_unverified(tmp_path: Path) -> None:
    path = tmp_path / "amp"
    path.write_text("#!/bin/sh\necho 0.0.1790142911\n")
    path.chmod(0o755)
    problem, notes = await _check("amp", path)
    assert problem is None
    assert any("unverified" in note for note in notes)
    problem, _ = await _check("amp", tmp_path / "nowhere")
    assert problem is not None


@pytest.mark.anyio
async def test_opencode_finds_the_session_of_a_run_that_was_killed_before_its_first_event(
    make_job: MakeJob, host: Host, tmp_path: Path
) -> None:
    job = make_job()
    other = job.log_dir.parent / "0"
    other.mkdir()
    (other / "start.json").write_text("{}")
    place = job.worktree.resolve()
    listed = f'[{{"id":"ses_1","title":"{title(job)}","directory":"/elsewhere"}},' + (
        f'{{"id":"ses_2","title":"{title(job)}","directory":"{place}"}}]'
    )
    program = tmp_path / "opencode"
    done = (EVENTS / "opencode.done.jsonl").as_posix()
    program.write_text(f"#!/bin/sh\nif test $1 = session; then echo '{listed}'; else cat {done}; fi\n")
    program.chmod(0o755)
    settings = AgentSettings(type="opencode", argv=(str(program),))
    await OpenCode().work(job.model_copy(update={"settings": settings}), host)
    assert host.starts == [("ses_2", "continued")]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gemini", "Your quota will reset after 1h0m0s.. Retrying after 3600000ms..."),
        ("opencode", 'level=ERROR error.error="AI_APICallError: Monthly usage limit reached"'),
    ],
)
async def test_one_that_goes_to_sleep_for_hours_is_stopped_and_its_limit_is_told(
    make_job: MakeJob, host: Host, tmp_path: Path, name: str, said: str
) -> None:
    program = tmp_path / name
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\nexec sleep 300\n")
    program.chmod(0o755)
    job = make_job(settings=AgentSettings(type=name, argv=(str(program),)))
    began = time.time()
    with anyio.fail_after(60):
        report = await driver(name).work(job, host)
    assert report.outcome == Outcome.USAGE_LIMIT
    assert find_marked(job.marker) == []
    if name == "gemini":
        assert report.until is not None
        assert began + 3599 < report.until / 1000 < time.time() + 3601

"""What all agents that are programs have in common: starting, following, adopting, ending."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import anyio
import pytest

from drover.agents import endings
from drover.agents.base import AgentJob
from drover.agents.program import Ended, Program, Reading, Start
from drover.agents.stream import Json
from drover.domain.errors import LeaseLost
from drover.domain.models import AgentReport, Usage
from drover.domain.verdicts import Outcome
from drover.process import adopt, find_marked

from .conftest import Host, MakeJob

pytestmark = pytest.mark.anyio


class Words(Reading):
    def __init__(self) -> None:
        self.session_id = None
        self.words: list[str] = []
        self.lines = 0

    def event(self, event: Json) -> None:
        self.session_id = event.text("session") or self.session_id
        self.words += [event.text("say")] if event.text("say") else []

    def line(self, text: str) -> None:
        self.lines += 1


class Actor(Program[Words]):
    """Runs a Python program; with a session it says so to the program, which may answer that it knows none."""

    name = "actor"
    env_names = ("ACTOR_KEY",)
    grace_s = 0.5

    def __init__(self, script: str) -> None:
        self.script = "import json, os, sys, time\nsay = lambda **k: print(json.dumps(k), flush=True)\n" + script

    def command(self, job: AgentJob, start: Start) -> tuple[str, ...]:
        return (sys.executable, "-I", "-S", "-c", self.script, str(start.session_id), start.resumed)

    def read(self) -> Words:
        return Words()

    def new_session(self) -> str | None:
        return "chosen"

    def forgot(self, ended: Ended[Words]) -> bool:
        return "who?" in ended.errors

    def report(self, job: AgentJob, ended: Ended[Words]) -> AgentReport:
        report = endings.of_process(ended.exit)
        outcome = Outcome.DONE if ended.exit.returncode == 0 else Outcome.FAILED
        words = " ".join(ended.reading.words)
        return (report or AgentReport(outcome=outcome)).model_copy(update={"summary": words})


async def test_what_it_says_is_read_to_the_last_line_even_without_its_end(make_job: MakeJob, host: Host) -> None:
    script = 'say(say="one"); print("noise"); sys.stdout.write(json.dumps({"say": "two"}))'
    report = await Actor(script).work(make_job(), host)
    assert (report.outcome, report.summary, report.session_id) == (Outcome.DONE, "one two", "chosen")
    assert host.starts == [("chosen", "fresh")]
    assert host.lives


async def test_its_last_words_are_heard_behind_a_flood(make_job: MakeJob, host: Host) -> None:
    script = 'for i in range(60): sys.stdout.write("x" * 100_000 + "\\n" * (i % 2))\nprint()\nsay(say="last")'
    job = make_job(output_limit_bytes=1_000_000)
    report = await Actor(script).work(job, host)
    assert report.summary == "last"
    assert (job.log_dir / "output.jsonl").stat().st_size < 1_001_000


async def test_prompt_and_output_are_for_the_operator_alone(make_job: MakeJob, host: Host) -> None:
    job = make_job("a prompt")
    await Actor('say(say="x")').work(job, host)
    assert (job.log_dir / "prompt.md").read_text() == "a prompt"
    for path in job.log_dir.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


async def test_who_may_not_start_does_not(make_job: MakeJob, host: Host, tmp_path: Path) -> None:
    host.refusal = LeaseLost()
    with pytest.raises(LeaseLost):
        await Actor('open("was-here", "w")').work(make_job(), host)
    assert list((tmp_path / "worktree").iterdir()) == []


async def test_a_session_learned_at_work_is_told_at_once(make_job: MakeJob, host: Host, tmp_path: Path) -> None:
    script = 'say(session="learned")\nwhile not os.path.exists("told"): time.sleep(0.01)'
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Actor(script).work, make_job(), host)
            await host.seen.wait()
            (tmp_path / "worktree" / "told").touch()
    assert host.sessions == ["learned"]


async def test_a_lease_lost_at_work_stops_the_agent(
    make_job: MakeJob, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(session_id: str) -> None:
        raise LeaseLost()

    monkeypatch.setattr(host, "session", refuse)
    job = make_job()
    with anyio.fail_after(60), pytest.raises(LeaseLost):
        await Actor('say(session="learned"); time.sleep(60)').work(job, host)
    assert find_marked(job.marker) == []


async def test_a_forgotten_session_is_begun_anew_with_the_whole_prompt(make_job: MakeJob, host: Host) -> None:
    script = 'if sys.argv[2] == "continued": sys.exit("who?")\nsay(say=sys.stdin.read())'
    job = make_job("all of it", session_id="old", follow_up="go on")
    report = await Actor(script).work(job, host)
    assert (report.summary, report.resumed, report.session_id) == ("all of it", "fresh", "chosen")
    assert host.starts == [("old", "continued"), ("chosen", "fresh")]
    assert (job.log_dir / "prompt.1.md").read_text() == "go on"
    assert (job.log_dir / "errors.1.txt").read_text().strip() == "who?"


async def test_a_known_session_is_told_only_to_go_on(make_job: MakeJob, host: Host) -> None:
    report = await Actor("say(say=sys.stdin.read())").work(make_job(session_id="old", follow_up="go on"), host)
    assert (report.summary, report.resumed, report.session_id) == ("go on", "continued", "old")


async def test_a_resume_that_silently_began_blank_is_reported_as_what_it_was(make_job: MakeJob, host: Host) -> None:
    report = await Actor('say(session="another")').work(make_job(session_id="old"), host)
    assert (report.resumed, report.session_id) == ("fresh", "another")


async def test_an_agent_that_ended_unseen_is_not_run_again(make_job: MakeJob, host: Host, tmp_path: Path) -> None:
    script = 'say(say="once", session="s"); open("runs", "a").write("x")'
    first = await Actor(script).work(make_job(log_dir=tmp_path / "log"), host)
    again = await Actor(script).work(make_job(log_dir=tmp_path / "log", session_id="old"), host)
    assert again == first
    assert len(host.starts) == 1
    assert (tmp_path / "worktree" / "runs").read_text() == "x"


@pytest.mark.parametrize(
    "change", [{"stopped": "orphaned"}, {"timed_out": True}, {"stalled": True}, {"returncode": None, "signal": 9}]
)
async def test_an_agent_that_was_ended_is_run_again(
    make_job: MakeJob, host: Host, tmp_path: Path, change: dict[str, object]
) -> None:
    log = tmp_path / "log"
    await Actor('say(say="once")').work(make_job(log_dir=log), host)
    record = json.loads((log / "exit.json").read_text())
    (log / "exit.json").write_text(json.dumps(record | change))
    report = await Actor('say(say="twice")').work(make_job(log_dir=log), host)
    assert report.summary == "twice"
    assert json.loads((log / "output.1.jsonl").read_text()) == {"say": "once"}


async def test_its_keys_are_not_in_what_is_reported(make_job: MakeJob, host: Host) -> None:
    job = make_job(env={"ACTOR_KEY": "sk-very-secret"})
    report = await Actor('say(say="my key is " + os.environ["ACTOR_KEY"])').work(job, host)
    assert report.summary == "my key is [secret]"
    assert "sk-very-secret" not in repr(job)


async def test_an_agent_without_a_sign_of_life_is_stopped(make_job: MakeJob, host: Host) -> None:
    with anyio.fail_after(60):
        report = await Actor('say(say="hello"); time.sleep(60)').work(make_job(stall_s=0.4), host)
    assert (report.outcome, report.summary) == (Outcome.STALLED, "hello")


async def test_an_agent_that_only_changes_files_is_alive(make_job: MakeJob, host: Host) -> None:
    loop = 'os.mkdir("deep")\nfor i in range(40): open("deep/file", "w").write(str(i)); time.sleep(0.05)'
    script = loop + '\nsay(say="done")'
    report = await Actor(script).work(make_job(stall_s=0.4), host)
    assert (report.outcome, report.summary) == (Outcome.DONE, "done")


async def test_an_agent_that_takes_too_long_is_stopped(make_job: MakeJob, host: Host) -> None:
    with anyio.fail_after(60):
        report = await Actor("time.sleep(60)").work(make_job(timeout_s=0.3, stall_s=0), host)
    assert report.outcome == Outcome.TIMEOUT


async def test_a_cancelled_driver_leaves_nothing_running(make_job: MakeJob, host: Host) -> None:
    job = make_job()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Actor("time.sleep(60)").work, job, host)
            await host.started.wait()
            tasks.cancel_scope.cancel()
    assert find_marked(job.marker) == []
    exit = adopt(job.log_dir / "exit.json")
    assert exit is None or exit.stopped == "order"  # None: it had not begun


async def test_a_session_that_tells_less_of_itself_than_before_was_blank(make_job: MakeJob, host: Host) -> None:
    """The id is the same; what it has done is not. What came back from a snapshot may lack the last turns."""
    script = 'say(session=sys.argv[1]); say(say="x")'

    class Forgetful(Actor):
        def lost_turns(self, job: AgentJob, ended: Ended[Words]) -> bool:
            return len(ended.reading.words) < job.prior_usage.turns

    for turns, restored, resumed in ((1, False, "continued"), (2, False, "fresh"), (2, True, "restored")):
        job = make_job(session_id="old", prior_usage=Usage(turns=turns), restored=restored)
        assert (await Forgetful(script).work(job, host)).resumed == resumed


async def test_what_was_done_before_is_told_to_a_session_that_begins(make_job: MakeJob, host: Host) -> None:
    script = 'if sys.argv[2] in ("continued", "restored"): sys.exit("who?")\nsay(say=sys.stdin.read())'
    job = make_job("all of it", session_id="old", follow_up="go on", handover="the diff", restored=True)
    report = await Actor(script).work(job, host)
    assert (report.summary, report.resumed) == ("all of it\nthe diff", "soft")
    assert [resumed for _, resumed in host.starts] == ["restored", "soft"]


async def test_what_all_runs_of_an_execution_used_is_read_back_from_its_log(make_job: MakeJob, host: Host) -> None:
    class Counting(Actor):
        def report(self, job: AgentJob, ended: Ended[Words]) -> AgentReport:
            return super().report(job, ended).model_copy(update={"usage": Usage(turns=len(ended.reading.words))})

    script = 'say(session="one"); say(say="x " + os.environ["ACTOR_KEY"]); sys.exit(len(sys.argv[2]) == 5)'
    job = make_job(env={"ACTOR_KEY": "hush-hush"})
    await Counting(script).work(job, host)
    await Counting(script).work(job.model_copy(update={"session_id": "one", "reported": True}), host)
    (job.log_dir / "exit.json").unlink()  # nobody saw how the second one ended
    report = await Counting(script).read_back(job)
    assert report is not None
    assert (report.usage.turns, report.session_id, report.summary) == (2, "one", "x [secret]")
    assert await Counting(script).read_back(make_job()) is None

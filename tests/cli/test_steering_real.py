"""Orders from a second process to the real Claude Code at work, against the scripted model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agents.fakellm import FakeModel
from tests.agents.real import CLAUDE, needs_claude, reach
from tests.cli.conftest import Cli, Start
from tests.cli.test_run import eventually
from tests.cli.test_steering import git, running, status

pytestmark = [pytest.mark.slow, needs_claude]

WITHIN = 120.0
UNTIL_GO = {"sh": "echo begun > $DROVER_TASK_ID.begun; while [ ! -e go ]; do sleep 0.1; done; rm go"}


@pytest.fixture
def model(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeModel]:
    with FakeModel(tmp_path / "model.jsonl") as model:
        settings = {"DROVER_AGENT_TYPE": "claude", "DROVER_AGENT_PATH": str(CLAUDE)}
        for name, value in (settings | reach(model.url)).items():
            monkeypatch.setenv(name, value)
        yield model


def at_work(cli: Cli, task: str) -> bool:
    return (cli.root / ".drover" / "worktrees" / task / f"{task}.begun").exists()


def plan(*turns: dict[str, Any]) -> str:
    return f"<plan>{json.dumps(turns)}</plan>"


def test_hint_pause_resume_cancel_and_answer_reach_claude_at_work(cli: Cli, start: Start, model: FakeModel) -> None:
    task = cli.add("Told", "-d", plan(UNTIL_GO, {"write": ["a.txt", "a"]}, {"say": "Done."}))
    run = start("run", "--workers", "1", "--forever")
    eventually(lambda: at_work(cli, task), "Claude in its tool", WITHIN)
    output = cli.root / ".drover" / "logs" / task / "1" / "output.jsonl"
    cli("hint", task, "use tabs")
    eventually(lambda: output.read_text().count('"queued"') > 1, "the hint in its hands", WITHIN)
    worktree = cli.root / ".drover" / "worktrees" / task
    (worktree / "go").touch()
    eventually(lambda: status(cli, task) == "completed", "the hinted task landed", WITHIN)
    info = cli.json("info", task)
    assert (info["words"][0]["told_how"], info["executions"]) == ("session", 1)

    task = cli.add("Paused", "-d", plan(UNTIL_GO, {"write": ["b.txt", "b"]}, {"say": "Done."}))
    eventually(lambda: at_work(cli, task), "Claude in its tool", WITHIN)
    assert running(cli, task)
    cli("pause", task)
    assert running(cli, task) == []
    (cli.root / ".drover" / "worktrees" / task / "go").touch()
    cli("resume-task", task, "--hint", "it may go now")
    eventually(lambda: status(cli, task) == "completed", "the paused task landed", WITHIN)
    told = cli.json("info", task)["attempts_log"]
    assert [one["resumed"] for one in told] == ["fresh", "continued"]
    assert len({one["session_id"] for one in told}) == 1

    task = cli.add("Cancelled", "-d", plan(UNTIL_GO, {"say": "Done."}))
    eventually(lambda: at_work(cli, task), "Claude in its tool", WITHIN)
    cli("cancel", task)
    assert running(cli, task) == []
    assert git(cli, "show", f"refs/drover/wip/{task}/1:{task}.begun") == "begun\n"

    task = cli.add(
        "Asks",
        "-d",
        plan({"write": ["c.txt", "c"]}, {"say": "NEEDS_HUMAN: blue?"}, {"write": ["d.txt", "d"]}, {"say": "Done."}),
    )
    eventually(lambda: status(cli, task) == "waiting", "the question", WITHIN)
    before = len(model.turns)
    cli("answer", task, "yes, blue")
    eventually(lambda: status(cli, task) == "completed", "the answered task landed", WITHIN)
    assert model.turns[before:] == [2, 3]  # it went on where it was
    run.terminate()
    run.wait(WITHIN)

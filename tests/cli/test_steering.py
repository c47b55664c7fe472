"""Orders from a second process while a run is at work: each does what it says to the agent, and is on record."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from drover.engine.places import Places
from drover.process import find_marked
from tests.cli.conftest import Cli, Start
from tests.cli.test_run import LONG, at_work, eventually

WITHIN = 90.0  # seconds; generous, for a machine that does much else


def running(cli: Cli, task: str) -> list[int]:
    """The processes of a task's executions, by what they carry."""
    return find_marked(Places(cli.root / ".drover").marker(task))


def git(cli: Cli, *argv: str) -> str:
    return subprocess.run(["git", *argv], cwd=cli.root, check=True, capture_output=True, text=True).stdout


def events(cli: Cli, task: str) -> list[dict[str, Any]]:
    return cli("stream", "--task", task, "--json").lines


def types(cli: Cli, task: str) -> list[str]:
    return [event["type"].removeprefix("task.") for event in events(cli, task)]


def prompt(cli: Cli, task: str, fence: int) -> str:
    return (cli.root / ".drover" / "logs" / task / str(fence) / "prompt.md").read_text()


def status(cli: Cli, task: str) -> str:
    return str(cli("info", task, "--json").json["status"])


def test_a_pause_ends_the_agent_and_resuming_goes_on_in_its_session(cli: Cli, start: Start) -> None:
    task = cli.add("Long", "-d", 'write begun.txt "begun"\nwait 8s\nwrite end.txt "end"')
    run = start("run", "--wait")
    eventually(lambda: at_work(cli, task), "the agent at work", WITHIN)
    answer = cli("pause", task, "--reason", "lunch")
    assert "1 task paused" in answer.err
    assert "nobody has said" not in answer.err
    assert running(cli, task) == []
    assert "drover resume-task " + task in cli("inbox").out
    assert Path(cli("edit", task).out.strip(), "begun.txt").exists()
    cli("resume-task", task, "--hint", "be quick")
    eventually(lambda: status(cli, task) == "completed", "the task landed", WITHIN)
    run.wait(WITHIN)
    info = cli("info", task, "--json").json
    assert (info["attempts"], info["executions"], info["interruptions"]) == (1, 2, 0)
    assert [one["resumed"] for one in info["attempts_log"]] == ["fresh", "continued"]
    assert "be quick" in prompt(cli, task, 2)
    (word,) = info["words"]
    assert (word["kind"], word["text"], word["by"], word["told_how"]) == ("hint", "be quick", "Olive Operator", "turn")
    told = events(cli, task)
    paused = next(event for event in told if event["type"] == "task.paused")
    assert (paused["data"]["by"], paused["data"]["reason"]) == ("Olive Operator", "lunch")
    assert git(cli, "show", "main:end.txt") == "end\n"


@pytest.mark.parametrize("sub_task", [False, True], ids=["itself", "with its parent"])
def test_cancelled_it_is_ended_and_what_it_did_changes_nothing_and_is_kept_on_a_ref(
    cli: Cli, start: Start, sub_task: bool
) -> None:
    named = task = cli.add("Whole" if sub_task else "Long", "-d", LONG)
    if sub_task:
        task = cli.add("Long", "-d", LONG, "--parent", named)
    run = start("run")
    eventually(lambda: at_work(cli, task), "the agent at work", WITHIN)
    before = git(cli, "rev-parse", "main")
    answer = cli("cancel", named, "--reason", "not wanted")
    assert "nobody has said" not in answer.err
    assert running(cli, task) == []
    assert run.wait(WITHIN) == 3
    assert types(cli, task)[-2:] == ["cancelled", "stopped"]
    assert git(cli, "rev-parse", "main") == before
    assert git(cli, "show", f"refs/drover/wip/{task}/1:begun.txt") == "begun\n"
    (execution,) = cli("info", task, "--json").json["attempts_log"]
    assert execution["outcome"] == "cancelled"


def test_a_hint_to_one_that_cannot_hear_is_its_next_turn_before_it_counts_as_done(cli: Cli, start: Start) -> None:
    task = cli.add("Long", "-d", 'write begun.txt "begun"\nwait 8s')
    run = start("run")
    eventually(lambda: at_work(cli, task), "the agent at work", WITHIN)
    assert "will be told" in cli("hint", task, "use", "tabs").out
    assert run.wait(WITHIN) == 0
    assert "use tabs" not in prompt(cli, task, 1)
    assert "use tabs" in prompt(cli, task, 2)
    info = cli("info", task, "--json").json
    assert info["status"] == "completed"
    assert info["words"][0]["told_at"] is not None
    shown = cli("info", task).out
    assert "What its agent was told" in shown
    assert "with its turn" in shown


def test_a_question_is_answered_and_the_same_session_goes_on(cli: Cli, start: Start) -> None:
    task = cli.add("Asks", "-d", 'write a.txt "a"\nask "which colour?"\nwrite b.txt "b"')
    other = cli.add("Other")
    run = start("run", "--workers", "1", "--wait")
    eventually(lambda: status(cli, task) == "waiting" and status(cli, other) == "completed", "both", WITHIN)
    assert "which colour?" in cli("status").out.split("Needs you")[1]
    (item,) = cli("inbox", "--json").json
    assert item["kind"] == "question"
    assert item["says"] == "which colour?"
    assert item["command"] == f'drover answer {task} "…"'
    cli("answer", task, "blue")
    assert run.wait(WITHIN) == 0
    assert git(cli, "show", "main:b.txt") == "b\n"
    info = cli("info", task, "--json").json
    assert [one["resumed"] for one in info["attempts_log"]] == ["fresh", "continued"]
    assert len({one["session_id"] for one in info["attempts_log"]}) == 1
    assert "which colour?" in prompt(cli, task, 2)
    assert "blue" in prompt(cli, task, 2)
    assert "interrupted" not in prompt(cli, task, 2)
    assert cli("inbox").err == "nothing needs you\n"


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("answer", "{}", "blue"), "asks nothing"),
        (("resume-task", "{}"), "not paused"),
        (("hint", "nothing", "x"), "no task 'nothing'"),
        (("attach", "{}"), "nobody works on it"),
    ],
)
def test_an_order_that_does_not_fit_says_why_and_is_exit_4(cli: Cli, argv: tuple[str, ...], why: str) -> None:
    task = cli.add("Quiet")
    assert why in cli.error(*[word.format(task) for word in argv], code=4)["message"]


def test_words_that_say_nothing_are_refused(cli: Cli) -> None:
    task = cli.add("Quiet")
    assert "nothing is said" in cli.error("hint", task, "  ", code=2)["message"]


def test_the_inbox_is_oldest_first_and_names_what_settles_each(cli: Cli) -> None:
    failed = cli.add("Fails", "-d", 'fail 9 "no good"', "--max-attempts", "1")
    cli("run", code=3)
    time.sleep(0.002)  # times are in milliseconds
    paused = cli.add("Paused")
    cli("pause", paused)
    items = cli("inbox", "--json").json
    assert [(item["task_id"], item["kind"]) for item in items] == [(failed, "failed"), (paused, "paused")]
    assert items[0]["command"] == f"drover retry --force {failed}"
    assert "no good" in items[0]["says"]


def test_attached_to_an_agent_one_reads_along_until_it_ends(cli: Cli, start: Start) -> None:
    agent, go = cli.root.parent / "agent.sh", cli.root.parent / "go"
    agent.write_text(
        f"#!/bin/sh\necho hello; echo begun > begun.txt; until test -e {go}; do sleep 0.05; done; echo good bye\n"
    )
    agent.chmod(0o755)
    with (cli.root / ".drover.toml").open("a") as settings:
        settings.write(f'\n[agents.command]\npath = "{agent}"\n')
    task = cli.add("Talks", "--agent", "command")
    run = start("run")
    eventually(lambda: at_work(cli, task), "the agent at work", WITHIN)
    beside = start("attach", task)
    assert beside.stdout is not None
    heard = [beside.stdout.readline() for _ in range(2)]  # which log it is, and what it says
    go.touch()
    out, err = beside.communicate(timeout=WITHIN)
    out = "".join(heard) + out
    assert beside.returncode == 0, err
    assert out.index("hello") < out.index("good bye")
    assert "attempt 1: done after" in err
    assert run.wait(WITHIN) == 0
    assert cli("info", task, "--json").json["executions"] == 1


def test_who_looks_away_leaves_the_agent_alone(cli: Cli, start: Start) -> None:
    task = cli.add("Talks", "-d", 'say "hello"\nwrite begun.txt "begun"\nwait 60s')
    run = start("run")
    eventually(lambda: at_work(cli, task), "the agent at work", WITHIN)
    beside = start("attach", task, "--json")
    assert beside.stdout is not None
    assert "hello" in beside.stdout.readline() + beside.stdout.readline()
    beside.send_signal(signal.SIGINT)
    assert beside.wait(WITHIN) == 130
    assert running(cli, task)
    cli("cancel", task)
    run.wait(WITHIN)


def test_a_recap_says_in_a_screen_what_happened(cli: Cli) -> None:
    done = cli.add("Writes", "-d", 'write a.txt "a"\nsay "All is well. "')
    failed = cli.add("Fails", "-d", 'fail 9 "no good"', "--max-attempts", "1")
    asks = cli.add("Asks", "-d", 'ask "which colour?"')
    cli("run", code=3)
    cli("hint", asks, "look at the style guide")
    told = cli("recap").out
    assert told.splitlines()[0].startswith("12h: 1 landed, 1 failed, 2 need you, 1 run · now ")
    landed, rest = told.split("\nLanded\n")[1].split("\nFailed\n")
    assert done in landed
    assert "1 path" in landed
    assert "All is well." in landed
    assert "no good" in rest.split("Needs you")[0]
    assert f"drover retry --force {failed}" in rest
    assert f'drover answer {asks} "…"' in rest
    assert "look at the style guide" in rest.split("What people ordered")[1]
    assert len(told.splitlines()) < 24
    found = cli.json("recap", "--since", "1h")
    assert [one["task_id"] for one in found["landed"]] == [done]
    assert found["happened"]["runs"] == 1
    assert cli.json("recap", "--since", "1ms")["landed"] == []
    assert "has not come yet" in cli.error("recap", "--since", "2999-01-01T00:00:00Z", code=2)["message"]


def test_a_recap_of_much_is_still_a_screen(cli: Cli) -> None:
    for number in range(10):
        cli("pause", cli.add(f"Task {number}"))
    told = cli("recap").out
    assert len(told.splitlines()) < 30
    assert "and 2 more: drover inbox" in told

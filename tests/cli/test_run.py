"""Running from the command line: progress, summary, exit codes, signals, resuming."""

from __future__ import annotations

import json
import os
import pty
import random
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pexpect
import pytest

from drover.cli import main
from tests.cli.conftest import Cli, Start, child_environment
from tests.conftest import Git
from tests.proof.plugin import Tally

SEED, SIGNALS = 7, 90
LONG = 'write begun.txt "begun"\nwait 60s'


def eventually(true: Any, what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds} s for: {what}"
        time.sleep(0.05)


def at_work(cli: Cli, task: str) -> bool:
    return (cli.root / ".drover" / "worktrees" / task / "begun.txt").exists()


def test_an_empty_backlog_returns_at_once_and_says_so(cli: Cli) -> None:
    answer = cli("run")
    assert "nothing was to be done" in answer.out
    assert "Ctrl+C" in answer.err
    assert "drover logs" in answer.err


def test_a_run_tells_events_on_stderr_and_sums_up_on_stdout(cli: Cli) -> None:
    a = cli.add("First")
    b = cli.add("Second", "--blocked-by", a)
    answer = cli("run", "--workers", "2")
    assert answer.out.startswith("2 tasks: 2 landed, nothing lost\n")
    told = [tuple(line.split()[1:3]) for line in answer.err.splitlines() if "started" in line or "completed" in line]
    assert told[0] == ("started", a)
    assert set(told) == {("started", a), ("completed", a), ("started", b), ("completed", b)}
    assert "step.completed" not in answer.err
    cli.add("Third")
    assert "step.completed" in cli("run", "-v").err


def test_what_is_not_done_is_listed_with_its_reason_and_is_exit_3(cli: Cli) -> None:
    bad = cli.add("Bad", "-d", 'fail 9 "no good"', "--max-attempts", "1")
    behind = cli.add("Behind", "--blocked-by", bad)
    asks = cli.add("Asks", "-d", 'ask "which colour?"')
    cli.add("Good")
    answer = cli("run", code=3)
    assert answer.out.startswith("4 tasks: 1 landed, 1 waits for you, 1 failed, 1 stranded behind them, nothing lost\n")
    lines = {
        line.split()[-1] if "behind" in line else line.strip().split("  ")[0]: line for line in answer.out.splitlines()
    }
    assert bad in lines["failed"]
    assert "no good" in lines["failed"]
    assert asks in lines["waits for you"]
    assert "which colour?" in lines["waits for you"]
    assert f"behind {bad}" in answer.out
    assert behind in answer.out
    assert cli("run", code=3).out.startswith("4 tasks: 1 had landed before, 1 waits for you")


def test_a_run_in_json_is_its_events_and_then_its_end(cli: Cli) -> None:
    task = cli.add("First")
    answer = cli("run", "--json")
    *events, end = answer.lines
    assert answer.err == ""
    assert {"seq", "type", "at", "task_id", "epic_id", "attempt", "worker", "host", "data"} == set(events[0])
    assert [event["type"] for event in events if event["task_id"] == task][-1] == "task.completed"
    assert [event["seq"] for event in events] == sorted({event["seq"] for event in events})
    assert end["type"] == "run.finished"
    assert set(end["data"]) >= {
        "completed", "failed", "cancelled", "stranded", "kept", "continued", "redone", "seconds", "cost_usd",
        "exit_code",
    }  # fmt: skip
    assert (end["data"]["completed"], end["data"]["exit_code"], end["data"]["tasks"]["completed"]) == (1, 0, [task])


def test_a_dry_run_tells_the_order_and_does_nothing(cli: Cli) -> None:
    a = cli.add("A")
    b = cli.add("B", "--blocked-by", a)
    c = cli.add("C", "-p", "5")
    assert [line.split()[1] for line in cli("run", "--dry-run").out.splitlines()] == [c, a, b]
    assert [task["id"] for task in cli.json("run", "--dry-run")] == [c, a, b]
    assert [task["id"] for task in cli.json("run", "--dry-run", "--task", f"{a},{c}")] == [c, a]
    assert {task["executions"] for task in cli.json("list")} == {0}


def test_a_run_of_one_epic_or_task_leaves_the_others(cli: Cli) -> None:
    epic = cli("epic", "add", "E", "-q").out.strip()
    inside, outside, third = cli.add("In", "--epic", epic), cli.add("Out"), cli.add("Third")
    cli("run", "--epic", epic)
    assert {task["id"]: task["status"] for task in cli.json("list")} == {
        inside: "completed", outside: "ready", third: "ready",
    }  # fmt: skip
    cli("run", "--task", third)
    assert cli.json("info", outside)["status"] == "ready"
    assert cli.json("info", third)["status"] == "completed"


def test_work_lands_on_the_branch_that_is_named(cli: Cli, git) -> None:
    git(cli.root, "branch", "trunk")
    task = cli.add("On trunk")
    assert "no branch" in cli.error("run", "--target", "nowhere", code=2)["message"]
    cli("run", "--target", "trunk")
    assert cli.json("info", task)["landed_commit"] == git(cli.root, "rev-parse", "trunk")


def test_an_agent_that_cannot_be_started_stops_the_run_before_it_begins(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DROVER_AGENT_TYPE", "command")
    monkeypatch.setenv("DROVER_AGENT_PATH", "/nowhere/agent")
    cli.add("T")
    assert "/nowhere/agent" in cli.error("run", code=1)["message"]
    assert cli.json("list")[0]["executions"] == 0


# ---------------------------------------------------------------- stopping


@pytest.mark.suite("T25")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_gently_and_says_how_to_go_on(cli: Cli, start: Start, number: signal.Signals) -> None:
    task = cli.add("Long", "-d", LONG)
    cli.add("Next")
    process = start("run", "--workers", "1")
    eventually(lambda: at_work(cli, task), "the agent to be at work")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "drover resume" in out
    assert "still to do" in out
    assert "stopping" in err
    info = cli.json("info", task)
    assert (info["status"], info["attempts"], info["interruptions"]) == ("ready", 0, 1)


@pytest.mark.suite("T25")
def test_a_second_signal_kills_what_will_not_end(cli: Cli, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROVER_AGENT_TYPE", "command")
    monkeypatch.setenv(
        "DROVER_AGENT_PATH", "/bin/sh -c \"trap '' TERM INT; touch begun.txt; while :; do sleep 1; done\""
    )
    task = cli.add("Stubborn")
    process = start("run")
    eventually(lambda: at_work(cli, task), "the agent to be at work")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    for line in process.stderr:
        if "stopping" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "killing" in err


@pytest.mark.suite("T25")
@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_a_signal_at_any_moment_ends_the_run_and_loses_nothing(cli: Cli, git: Git, start: Start, tally: Tally) -> None:
    """While it begins, in the middle of a task or a landing, while it ends; and often a second one close behind."""
    rng, stopped, ids = random.Random(SEED), 0, []
    for n in range(SIGNALS):
        ids.append(cli.add(f"Task {n}", "-d", f'write {n}.txt "x"\nwait 800ms'))
        process = start("run", "--workers", "2")
        time.sleep(rng.uniform(0.2, 1.8))
        for number in rng.choices((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), k=rng.choice((1, 1, 2))):
            process.send_signal(number)
            time.sleep(rng.uniform(0, 0.3))
        _, err = process.communicate(timeout=60)
        if process.returncode < 0:  # before Python has taken the signal over nothing has begun
            continue
        assert process.returncode in (0, 130), err
        assert "Traceback" not in err or "KeyboardInterrupt" in err.splitlines()[-1], err
        stopped += process.returncode == 130
    cli("run")
    found = cli.json("list")
    assert {task["id"]: task["status"] for task in found} == dict.fromkeys(ids, "completed")
    assert {task["attempts"] for task in found} == {1}, "an interruption uses up no attempt"
    landed = git(
        cli.root, "log", "--first-parent", "--format=%(trailers:key=Drover-Task,valueonly,separator=%x2c)", "main"
    )
    assert sorted(landed.split()) == sorted(ids)
    tally(points=SIGNALS, hit=stopped, seed=SEED)


@pytest.mark.suite("T25")
def test_a_terminal_that_is_closed_stops_the_run_as_ctrl_c_does(cli: Cli) -> None:
    task = cli.add("Long", "-d", LONG)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "import os, sys, fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
         "os.execv(sys.executable, [sys.executable, '-m', 'drover', 'run'])"],
        cwd=cli.root, env=child_environment({"TERM": "xterm"}), start_new_session=True,
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    eventually(lambda: at_work(cli, task), "the agent to be at work")
    os.close(ours)
    assert process.wait(60) == 130
    assert cli.json("info", task)["status"] == "ready"


def test_a_run_under_nohup_outlives_its_terminal(cli: Cli) -> None:
    task = cli.add("Long", "-d", LONG)
    process = subprocess.Popen(
        ["nohup", sys.executable, "-m", "drover", "run"],
        cwd=cli.root, env=child_environment(), start_new_session=True, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    eventually(lambda: at_work(cli, task), "the agent to be at work")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "killing" not in err, "the SIGHUP before did not count as the first"
    assert err.count("stopping") == 1


def test_a_reader_of_events_that_leaves_stops_the_run(cli: Cli, start: Start) -> None:
    task = cli.add("Long", "-d", LONG)
    process = start("run", "--json")
    eventually(lambda: at_work(cli, task), "the agent to be at work")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    cli.add("Another, so that there is an event to tell")
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert cli.json("info", task)["status"] == "ready"


def test_who_interrupts_is_not_told_of_a_thread_that_found_its_loop_gone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(words: list[str]) -> int:
        raise KeyboardInterrupt

    def ends(error: Exception) -> None:
        raise error

    monkeypatch.setattr("drover.cli._run", interrupted)
    monkeypatch.setattr(threading, "excepthook", lambda told: sys.stderr.write(f"{told.exc_value}\n"))
    assert main(["run"]) == 130
    for error in (RuntimeError("Event loop is closed"), RuntimeError("something else")):
        thread = threading.Thread(target=ends, args=(error,))
        thread.start()
        thread.join()
    assert capsys.readouterr().err == "something else\n"


# ---------------------------------------------------------------- resuming


def test_resume_says_what_it_found_and_goes_on_as_the_last_run_did(cli: Cli, start: Start) -> None:
    epic = cli("epic", "add", "E", "-q").out.strip()
    done = cli.add("Done", "--epic", epic)
    long = cli.add("Long", "--epic", epic, "-d", 'write begun.txt "begun"\nwait 2s', "--blocked-by", done)
    bad = cli.add("Bad", "--epic", epic, "-d", "fail 9", "--max-attempts", "1")
    other = cli.add("Of no epic")
    process = start("run", "--epic", epic, "--workers", "2")
    eventually(lambda: at_work(cli, long), "the agent to be at work")
    eventually(lambda: cli.json("info", done)["status"] == "completed", "the first to be completed")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    found = {item["task_id"]: item["decision"] for item in cli.json("resume", "--dry-run")}
    assert found == {done: "keep", long: "continue", bad: "ask"}
    assert [line.split()[0] for line in cli("resume", "--dry-run").out.splitlines()] == ["keep", "continue", "ask"]
    answer = cli("resume", code=3)
    assert "taken up after an interruption: 1 continued" in answer.out
    assert answer.out.index("keep") < answer.out.index("landed, ")
    assert cli.json("info", long)["status"] == "completed"
    assert cli.json("info", other)["status"] == "ready", "the last run was of the epic"
    first, *_ = cli("resume", "--json", code=3).lines
    assert (first["type"], len(first["data"]["tasks"])) == ("resume.found", 3)


def test_resume_without_a_run_before_is_a_run(cli: Cli) -> None:
    task = cli.add("First")
    assert "no run yet" in cli("resume").err
    assert cli.json("info", task)["status"] == "completed"


# ---------------------------------------------------------------- on a terminal


@pytest.mark.suite("T25")
def test_on_a_terminal_the_workers_are_drawn_and_the_terminal_is_left_clean(cli: Cli) -> None:
    cli.add("Task \x1b[31mred\u202e", "-d", "write a.txt x\nwait 1s")
    typed = pexpect.spawn(
        sys.executable, ["-m", "drover", "run"], cwd=str(cli.root), encoding="utf-8", dimensions=(24, 100),
        env=child_environment({"TERM": "xterm-256color"}), timeout=60,
    )  # fmt: skip
    typed.expect("agent at work")
    typed.expect("1 task: 1 landed, nothing lost")
    rest = typed.read()
    typed.close()
    assert typed.exitstatus == 0
    assert "\x1b[?25l" not in rest
    assert "\u202e" not in rest


@pytest.mark.suite("T34")
def test_plain_output_on_a_terminal_has_no_escape_at_all(cli: Cli) -> None:
    cli.add("Task")
    typed = pexpect.spawn(
        sys.executable, ["-m", "drover", "run", "--plain"], cwd=str(cli.root), encoding="utf-8",
        env=child_environment({"TERM": "xterm-256color"}), timeout=60,
    )  # fmt: skip
    said = typed.read()
    typed.close()
    assert typed.exitstatus == 0
    assert "completed" in said
    assert "\x1b" not in said


def test_watch_is_redrawn_until_ctrl_c(cli: Cli) -> None:
    cli.add("Task")
    typed = pexpect.spawn(
        sys.executable, ["-m", "drover", "watch"], cwd=str(cli.root), encoding="utf-8", dimensions=(24, 100),
        env=child_environment({"TERM": "xterm-256color"}), timeout=60,
    )  # fmt: skip
    typed.expect("0/1 0%")
    cli.add("Another")
    typed.expect("0/2 0%")
    typed.sendintr()
    typed.read()
    typed.close()
    assert typed.exitstatus == 130


# ---------------------------------------------------------------- reading along


def test_the_log_and_the_events_are_followed_while_they_are_written(cli: Cli, start: Start) -> None:
    task = cli.add("Talks", "-d", 'say "the first word"\nwrite begun.txt x\nwait 2s\nsay "the last word"')
    words, events = start("logs", task, "--follow"), start("stream", "--follow", "--json", "--limit", "6")
    start("run", "--plain")
    said, _ = words.communicate(timeout=60)
    assert words.returncode == 0, "it ends when the task is finished"
    assert said.index("the first word") < said.index("the last word")
    told, _ = events.communicate(timeout=60)
    assert [json.loads(line)["type"] for line in told.splitlines()][:1] == ["task.created"]


def test_following_ends_quietly_on_ctrl_c(cli: Cli, start: Start) -> None:
    cli.add("Waits")
    process = start("stream", "--follow")
    assert process.stdout is not None
    assert "task.created" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")


def test_tests_and_agent_are_both_in_the_logs(cli: Cli) -> None:
    task = cli.add("Tested", "-d", 'say "words"\nwrite a.txt x', "--test-command", "echo tested; test -f a.txt")
    cli("run")
    out = cli("logs", task).out
    assert "words" in out
    assert "tested" in out
    lines = cli("logs", task, "--json").lines
    assert {"file", "line"} == set(lines[0])
    raw = cli("logs", task, "--raw").out
    assert '"type"' in raw
    assert cli.error("logs", task, "--attempt", "7", code=4)["message"].endswith("in attempt 7")

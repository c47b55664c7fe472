"""Sub-tasks from the command line: in their order, each landed once, their parent after them."""

from __future__ import annotations

import os
import signal
import subprocess

from tests.cli.conftest import Cli, Start
from tests.cli.test_run import eventually

WITHIN = 90.0


def landed(cli: Cli) -> list[str]:
    """The tasks whose commits are on main, in that order."""
    argv = ["git", "log", "--reverse", "--format=%(trailers:key=Drover-Task,valueonly,separator=%x20)", "main"]
    return subprocess.run(argv, cwd=cli.root, check=True, capture_output=True, text=True).stdout.split()


def test_killed_after_the_second_of_four_sub_tasks_the_first_two_are_not_run_again(cli: Cli, start: Start) -> None:
    parent = cli.add("The whole")
    plans = {1: "", 2: "", 3: 'write begun.txt "begun"\nwait 8s\nwrite third.txt "done"', 4: ""}
    for number, plan in plans.items():
        assert cli.add(f"{parent}.{number} Part {number}", "-d", plan) == f"{parent}.{number}"
    run = start("run", "--workers", "3")
    third = cli.root / ".drover" / "worktrees" / f"{parent}.3" / "begun.txt"
    eventually(third.exists, "the third at work", WITHIN)
    assert landed(cli) == [f"{parent}.1", f"{parent}.2"]
    os.killpg(run.pid, signal.SIGKILL)
    run.wait(WITHIN)
    tree = cli("status", "--tree").out
    assert [line for line in tree.splitlines() if f"{parent}.2" in line and "completed" in line]
    cli("resume")
    order = [*(f"{parent}.{number}" for number in plans), parent]
    assert landed(cli) == order  # once each
    told = {task["id"]: task for task in cli.json("list")}
    assert [told[id]["executions"] for id in order] == [1, 1, 2, 1, 1]
    assert {told[id]["status"] for id in order} == {"completed"}
    assert [told[id]["attempts"] for id in order] == [1, 1, 1, 1, 1]


def test_a_parent_that_finds_nothing_left_to_do_is_completed(cli: Cli) -> None:
    parent = cli.add("The whole", "-d", 'say "nothing is left to do"')
    part = cli.add("Part", "--parent", parent)
    cli("run")
    assert landed(cli) == [part]
    assert cli.json("info", parent)["status"] == "completed"
    prompt = (cli.root / ".drover" / "logs" / parent / "1" / "prompt.md").read_text()
    assert f"{part}: Part" in prompt


def test_a_failed_sub_task_strands_its_parent_and_a_retry_finishes_both(cli: Cli) -> None:
    parent = cli.add("The whole")
    first = cli.add("First", "--parent", parent)
    second = cli.add("Second", "--parent", parent, "-d", 'fail 1 "no good"\nwrite b.txt "b"', "--max-attempts", "1")
    cli("run", code=3)
    assert cli.json("info", parent)["stranded"] is True
    assert f"stranded behind {first}, {second}" in cli("list").out
    cli("retry", "--force", second)
    cli("run")
    assert landed(cli) == [first, second, parent]
    assert cli.json("info", first)["executions"] == 1


def test_a_sub_task_has_no_sub_tasks(cli: Cli) -> None:
    parent = cli.add("The whole")
    child = cli.add("Part", "--parent", parent)
    assert "is a sub-task itself" in cli.error("add", "Deeper", "--parent", child, code=2)["message"]

"""Plans on the command line, and their review on a real terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, child_environment

PLANS = ("drover", "plan")


@pytest.fixture
def planned(cli: Cli) -> Cli:
    """Two tasks whose plans wait to be judged."""
    cli.add("First", "-d", "write a.txt one")
    cli.add("Second", "-d", "write b.txt two\nwrite c.txt three")
    cli("run", "--mode", "planning", code=3)
    return cli


def test_plans_are_listed_shown_judged_and_deleted(planned: Cli) -> None:
    first, second = planned.json("plan", "list")
    assert {first["title"], second["title"]} == {"First", "Second"}
    if first["title"] == "Second":
        first, second = second, first
    assert (first["status"], first["revision"], first["complexity"]) == ("pending", 1, "medium")
    assert [step["title"] for step in second["steps"]] == ["write b.txt two", "write c.txt three"]
    shown = planned("plan", "show", second["id"]).out
    assert "  2. write c.txt three" in shown
    assert planned("plan", "approve", first["id"]).out == f"approved {first['id']}  First\n"
    assert planned("plan", "reject", second["id"], "-f", "too much").out.startswith("rejected")
    assert planned.json("plan", "show", second["id"])["feedback"] == "too much"
    statuses = {plan["id"]: plan["status"] for plan in planned.json("plan", "list", "-s", "approved,rejected")}
    assert statuses == {first["id"]: "approved", second["id"]: "rejected"}
    assert "too much" in planned("plan", "show", second["id"]).out
    planned("run", "--mode", "building")
    assert planned.json("plan", "show", first["id"])["status"] == "completed"
    assert planned("plan", "delete", second["id"], "-y").out.startswith("deleted")
    assert [plan["id"] for plan in planned.json("plan", "list")] == [first["id"]]


def test_the_inbox_says_which_plans_wait(planned: Cli) -> None:
    items = planned.json("inbox")
    assert {(item["title"], item["kind"], item["command"]) for item in items} == {
        ("First", "plan", "drover plan review"),
        ("Second", "plan", "drover plan review"),
    }
    assert all("waits to be judged" in item["says"] for item in items)


def test_what_cannot_be_done_with_a_plan_is_said(planned: Cli) -> None:
    (plan, _) = planned.json("plan", "list")
    assert "no plan" in planned.error("plan", "show", "plan-none", code=4)["message"]
    assert "say what is wrong" in planned.error("plan", "reject", plan["id"], code=2)["message"]
    assert "no status" in planned.error("plan", "list", "-s", "great", code=2)["message"]
    assert "needs a terminal" in planned.error("plan", "review", code=2)["message"]
    assert "delete" in planned.error("plan", "delete", plan["id"], code=2)["message"]
    planned("plan", "reject", plan["id"], "-f", "no")
    assert "was rejected already" in planned.error("plan", "approve", plan["id"], code=4)["message"]


def test_a_resume_goes_on_planning(planned: Cli) -> None:
    for plan in planned.json("plan", "list"):
        planned("plan", "reject", plan["id"], "-f", "once more")
    planned("resume", code=3)
    assert [plan["revision"] for plan in planned.json("plan", "list", "-s", "pending")] == [2, 2]


class Terminal:
    """A person at a terminal: keys in, and all that was ever on the screen."""

    def __init__(self, cli: Cli, *argv: str, **env: str) -> None:
        self._ours, theirs = pty.openpty()
        os.set_blocking(self._ours, False)
        env = {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30", **env}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "drover", *argv], cwd=cli.root, env=child_environment(env),
            start_new_session=True, stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        self.seen = ""

    def keys(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def until(self, true: Callable[[str], bool], what: str) -> None:
        end = time.monotonic() + 60
        while not true(self.seen):
            assert time.monotonic() < end, f"waited for {what}; there was: {self.seen[-2000:]}"
            if select.select([self._ours], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self._ours, 1 << 16).decode(errors="replace")
                except OSError:
                    time.sleep(0.05)

    def shows(self, text: str) -> None:
        self.until(lambda seen: text in seen, f"{text!r} on the screen")
        self.seen = self.seen.split(text, 1)[1]

    def ends(self) -> int:
        self.until(lambda _: self.process.poll() is not None, "the end")
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminals(planned: Cli) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(*argv: str, **env: str) -> Terminal:
        made.append(Terminal(planned, *argv, **env))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_person_reviews_plans_with_keys(planned: Cli, terminals: Callable[..., Terminal]) -> None:
    def statuses() -> list[tuple[str, str]]:
        return sorted((plan["title"], plan["status"]) for plan in planned.json("plan", "list"))

    order = [plan["title"] for plan in planned.json("plan", "list")]
    terminal = terminals("plan", "review")
    terminal.shows("plan-")
    terminal.keys("?")
    terminal.shows("the one before")
    terminal.keys("?")
    terminal.shows("plan-")
    terminal.keys("j")
    terminal.keys("\r")
    terminal.shows("complexity medium")
    terminal.keys("a")
    terminal.until(lambda _: (order[1], "approved") in statuses(), "the second to be approved")
    terminal.keys("r")
    terminal.shows("What is wrong with")
    terminal.keys("quite long\r")
    terminal.until(lambda _: (order[0], "rejected") in statuses(), "the first to be rejected")
    terminal.shows("No plan waits")
    terminal.keys("q")
    assert terminal.ends() == 0
    (feedback,) = [plan["feedback"] for plan in planned.json("plan", "list", "-s", "rejected")]
    assert feedback == "quite long"


def test_a_plan_is_edited_in_the_editor(planned: Cli, terminals: Callable[..., Terminal], tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/write [ab].txt [a-z]*/write it by hand/' \"$1\"\n")
    editor.chmod(0o755)
    terminal = terminals("plan", "review", EDITOR=str(editor), VISUAL="")
    terminal.shows("plan-")
    terminal.keys("e")
    terminal.until(lambda _: "write it by hand" in json.dumps(planned.json("plan", "list")), "the edited plan")
    terminal.keys("q")
    assert terminal.ends() == 0

"""Seeing and steering a backlog after something has happened in it: info, status, tree, diff, retry, reset, …"""

from __future__ import annotations

import contextlib
import io
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from drover.cli import main
from tests.cli.conftest import Cli
from tests.cli.test_backlog import TASK_KEYS
from tests.conftest import GIT_ENVIRONMENT
from tests.engine.test_gate import somebody_in, stopped

Seen = tuple[Cli, dict[str, str]]

ATTEMPT_KEYS = {
    "attempt", "worker", "host", "pid", "started_at", "ended_at", "outcome", "resumed", "session_id", "tokens",
    "cost_usd", "log",
}  # fmt: skip


def make_history(type_: Callable[..., str]) -> dict[str, str]:
    """A backlog after its first run: one landed, one failed, one stranded behind it, one that asks."""
    epic = type_("epic", "add", "Epic", "-q")
    done = type_("add", "Done", "-q", "--epic", epic, "-d", 'say "hello"\nwrite done.txt "done"')
    plan = 'write half.txt "half"\nfail 9 "no good"'
    bad = type_("add", "Bad", "-q", "--epic", epic, "-d", plan, "--max-attempts", "1")
    behind = type_("add", "Behind", "-q", "--blocked-by", f"{done},{bad}")
    asks = type_("add", "Asks", "-q", "-d", 'ask "which colour?"')
    type_("run", code=3)
    return {"epic": epic, "done": done, "bad": bad, "behind": behind, "asks": asks}


@pytest.fixture
def after(cli: Cli) -> dict[str, str]:
    """Such a backlog, to be changed."""
    return make_history(lambda *argv, code=0: cli(*argv, code=code).out.strip())


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Such a backlog that many tests look at and none changes."""
    root = tmp_path_factory.mktemp("history")

    def type_(*argv: str, code: int = 0) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            assert main([*argv, "--project", str(root)]) == code
        return out.getvalue().strip()

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**GIT_ENVIRONMENT, "HOME": str(root), "DROVER_AGENT_TYPE": "scripted"}.items():
            patch.setenv(name, value)
        for words in (
            ["init", "-q", "-b", "main"],
            ["config", "user.name", "Olive"],
            ["config", "user.email", "o@example.org"],
            ["commit", "-q", "--allow-empty", "-m", "first"],
        ):
            subprocess.run(["git", *words], cwd=root, check=True)
        patch.setenv("HOME", str(root.parent))
        type_("init")
        return root, make_history(type_)


@pytest.fixture
def seen(history: tuple[Path, dict[str, str]], outside: Cli) -> tuple[Cli, dict[str, str]]:
    outside.root = history[0]
    return outside, history[1]


def test_info_has_the_keys_of_the_contract_and_the_whole_story(seen: Seen, git) -> None:
    cli, after = seen
    done = cli.json("info", after["done"])
    assert set(done) >= TASK_KEYS | {"attempts_log", "steps"}
    assert (done["status"], done["attempts"], done["executions"], done["interruptions"]) == ("completed", 1, 1, 0)
    assert done["landed_commit"] == git(cli.root, "rev-parse", "main")
    (attempt,) = done["attempts_log"]
    assert set(attempt) >= ATTEMPT_KEYS
    assert (attempt["attempt"], attempt["outcome"], attempt["resumed"]) == (1, "done", "fresh")
    assert Path(attempt["log"]).exists()
    assert all(set(step) >= {"name", "state", "started_at", "finished_at", "result"} for step in done["steps"])
    steps = {step["name"]: step for step in done["steps"]}
    assert steps["land"]["result"]["commit"] == done["landed_commit"]
    assert datetime.fromisoformat(done["completed_at"]) >= datetime.fromisoformat(done["created_at"])
    bad = cli.json("info", after["bad"])
    assert bad["last_error"]["message"] == "no good"
    assert set(bad["last_error"]) == {"class", "message", "what_to_do"}
    assert (bad["attempts"], bad["max_attempts"]) == (1, 1)
    behind = cli.json("info", after["behind"])
    assert (behind["status"], behind["stranded"]) == ("blocked", True)
    asks = cli.json("info", after["asks"])
    states = {step["name"]: step["state"] for step in asks["steps"]}
    assert (states["prepare_worktree"], states["land"]) == ("completed", "pending")
    assert asks["worktree"].endswith(asks["id"])
    assert (asks["status"], asks["reason"], asks["until"], asks["attempts"]) == ("waiting", "question", None, 0)


def test_info_tells_a_person_the_same(seen: Seen) -> None:
    cli, after = seen
    out = cli("info", after["bad"]).out
    for word in ("Bad", "failed", "no good", "1 of 1", "half.txt", after["epic"], after["behind"], "scripted", "Logs"):
        assert word in out
    assert "which colour?" in cli("info", after["asks"]).out


def test_status_has_the_keys_of_the_contract(seen: Seen) -> None:
    cli, after = seen
    status = cli.json("status")
    assert set(status) >= {"total", "by_status", "progress", "running", "needs_attention", "epics"}
    assert status["total"] == 4
    assert {name: count for name, count in status["by_status"].items() if count} == {
        "completed": 1, "failed": 1, "blocked": 1, "waiting": 1,
    }  # fmt: skip
    assert status["progress"] == 0.25
    assert {item["task_id"] for item in status["needs_attention"]} == {after["bad"], after["asks"]}
    assert status["epics"] == [{"id": after["epic"], "title": "Epic", "total": 2, "completed": 1}]
    assert cli.json("status", "--epic", after["epic"])["total"] == 2


def test_status_tells_a_person_the_same(seen: Seen) -> None:
    cli, _ = seen
    out = cli("status").out
    for word in ("1/4 25%", "completed 1", "failed 1", "Needs you", "no good", "which colour?", "Epics", "1/2"):
        assert word in out
    line = cli("status", "--oneline").out
    assert line == "completed 1/4 25% · running 0 · ready 0 · blocked 1 · failed 1\n"
    assert cli("watch", "--oneline").out == line == cli("status", "--oneline", "--plain").out


def test_the_tree_has_epics_tasks_subtasks_and_what_they_wait_for(cli: Cli, after: dict[str, str]) -> None:
    child = cli.json("add", f"{after['asks']}.1 Child")["id"]
    lines = cli("status", "--tree").out.splitlines()
    assert lines[0].startswith(f"{after['epic']}  Epic  1/2")
    shown = {line.split()[1] if "─" in line.split()[0] else line.split()[2]: line for line in lines if "─" in line}
    assert "completed" in shown[after["done"]]
    assert "failed" in shown[after["bad"]]
    assert "blocked" in shown[after["behind"]]
    assert "stranded" in shown[after["behind"]]
    assert "ready" in shown[child]
    assert shown[child].startswith("   └─")
    first, loose = cli.json("status", "--tree")
    assert [task["id"] for task in first["tasks"]] == [after["done"], after["bad"]]
    assert loose["epic"] is None
    assert [task["id"] for task in loose["tasks"][-1]["children"]] == [child]


def test_the_event_log_is_narrowed_by_type_task_epic_and_time(seen: Seen) -> None:
    cli, after = seen
    everything = cli("stream", "--jsonl").lines
    assert [event["seq"] for event in everything] == sorted(event["seq"] for event in everything)
    assert set(everything[0]) == {"seq", "type", "at", "task_id", "epic_id", "attempt", "worker", "host", "data"}
    assert all(isinstance(event["data"], dict) for event in everything)
    failed = cli("stream", "--json", "--type", "failed,task.cancelled").lines
    assert [event["task_id"] for event in failed] == [after["bad"]]
    assert {event["task_id"] for event in cli("stream", "--json", "--task", after["done"]).lines} == {after["done"]}
    assert {event["epic_id"] for event in cli("stream", "--json", "--epic", after["epic"]).lines} == {after["epic"]}
    assert len(cli("stream", "--json", "--limit", "3").lines) == 3
    assert cli("stream", "--json", "--since", "1h").lines == everything
    assert cli("stream", "--json", "--until", "1h").lines == []
    assert cli("stream", "--json", "--until", "2020-01-01T00:00:00Z").lines == []
    assert "task.failed" in cli("stream").out


def test_a_diff_is_shown_and_can_be_applied(cli: Cli, after: dict[str, str], git) -> None:
    assert "+done" in cli("diff", after["done"]).out
    assert "+half" in cli("diff", after["bad"]).out
    assert cli.json("diff", after["done"])["task_id"] == after["done"]
    assert cli.error("diff", after["behind"], code=4)["code"] == "not_found"
    (cli.root / "half.patch").write_text(cli("diff", after["bad"], "--raw").out)
    git(cli.root, "apply", "half.patch")
    assert (cli.root / "half.txt").read_text() == "half\n"


def test_a_patch_keeps_its_bytes_where_the_shown_diff_is_cleaned(cli: Cli) -> None:
    task = cli.add("Colours", "-d", "write c.txt '\x1b[31mred\x1b[0m\u202e'")
    cli("run")
    assert "\x1b" not in cli("diff", task).out
    assert "\x1b[31mred" in cli("diff", task, "--raw").out
    assert "\x1b[31mred" in cli.json("diff", task)["diff"]


# ---------------------------------------------------------------- steering


def test_edit_prints_the_path_and_nothing_else(seen: Seen) -> None:
    cli, after = seen
    out = cli("edit", after["bad"]).out
    assert (Path(out.strip()) / "half.txt").read_text() == "half\n"
    assert out == f"{cli.root}/.drover/worktrees/{after['bad']}\n"
    assert cli("edit", after["asks"]).out.endswith(f"{after['asks']}\n")
    error = cli.error("edit", after["done"], code=4)
    assert error["code"] == "wrong_state"


def test_a_failed_task_gets_another_chance_with_force(cli: Cli, after: dict[str, str]) -> None:
    assert "--force" in cli.error("retry", after["bad"], code=4)["hint"]
    (task,) = cli.json("retry", after["bad"], "--force")
    assert (task["id"], task["status"], task["attempts"]) == (after["bad"], "ready", 0)
    assert cli.json("info", after["behind"])["stranded"] is False


def test_cancelling_strands_what_is_behind_and_resolving_frees_it(cli: Cli) -> None:
    a = cli.add("A")
    b = cli.add("B", "--blocked-by", a)
    (cancelled,) = cli.json("cancel", a, "--reason", "-not wanted")
    assert cancelled["status"] == "cancelled"
    assert cli.json("info", b)["stranded"] is True
    assert cli.error("cancel", a, code=4)["code"] == "wrong_state"
    (freed,) = cli.json("resolve", b, "--note", "done by hand")
    assert freed["status"] == "ready"
    assert "done by hand" in cli("stream", "--task", b).out
    assert cli("run", code=None).code == 0, "cancelled before the run, not under it"


def test_several_tasks_are_steered_at_once(cli: Cli) -> None:
    a, b, c = cli.add("A"), cli.add("B"), cli.add("C")
    assert len(cli.json("cancel", f"{a},{b}", c)) == 3
    assert [task["status"] for task in cli.json("retry", a, b, c)] == ["ready"] * 3


def test_a_parent_is_cancelled_and_retried_with_its_sub_tasks(cli: Cli) -> None:
    parent = cli.add("Whole")
    subs = [cli.add(f"Part {n}", "--parent", parent) for n in range(2)]
    assert [task["id"] for task in cli.json("cancel", parent, subs[0])] == [parent, *subs]
    assert {task["status"] for task in cli.json("list")} == {"cancelled"}
    assert [task["id"] for task in cli.json("retry", subs[1], parent, subs[0])] == [subs[1], parent, subs[0]]
    answer = cli("cancel", parent)
    assert answer.err.startswith("3 tasks cancelled") and all(id in answer.out for id in subs)


def test_reset_asks_before_it_does_landed_work_again(cli: Cli, after: dict[str, str]) -> None:
    error = cli.error("reset", after["done"], code=2)
    assert "1 completed task" in error["message"]
    assert "-y" in error["hint"]
    assert cli.json("info", after["done"])["status"] == "completed"
    assert cli.error("reset", code=2)["message"].startswith("this would")
    (again,) = cli.json("reset", after["done"], "-y")
    assert (again["status"], again["attempts"]) == ("ready", 0)


def test_reset_of_what_failed_asks_nothing(cli: Cli, after: dict[str, str]) -> None:
    assert [task["id"] for task in cli.json("reset", "--failed")] == [after["bad"]]
    assert cli.json("reset", "--failed") == []


def test_worktrees_are_listed_with_why_they_are_there_and_whether_they_may_go(seen: Seen) -> None:
    cli, after = seen
    rows = {row["task_id"]: row for row in cli.json("worktree", "list")}
    assert set(rows) == {after["bad"], after["asks"]}
    assert set(rows[after["bad"]]) == {"path", "task_id", "status", "why", "bytes", "removable", "proof"}
    assert rows[after["asks"]]["removable"] is False
    assert cli.json("worktree", "prune") == []
    assert after["bad"] in cli("worktree", "list", "-v").out
    assert Path(rows[after["asks"]]["path"]).is_dir()


def test_cleanup_asks_and_leaves_what_is_not_finished(cli: Cli, after: dict[str, str]) -> None:
    would_go = [row["task_id"] for row in cli.json("worktree", "cleanup", "--dry-run")]
    if would_go:
        assert "-y" in cli.error("worktree", "cleanup", code=2)["hint"]
    gone = [row["task_id"] for row in cli.json("worktree", "cleanup", "-y")]
    assert gone == would_go
    assert (cli.root / ".drover" / "worktrees" / after["asks"]).is_dir()


def test_a_process_that_is_stopped_in_the_lane_is_told_by_status_and_doctor(cli: Cli) -> None:
    cli.add("One")
    quiet = cli("status").out
    with somebody_in(cli.root / ".drover" / "lane.lock") as holder:
        assert cli("status").out == quiet
        with stopped(holder):
            (note,) = cli.json("status")["notes"]
            assert note.startswith(
                f"landings wait: process {holder.pid}, which is stopped, has been at lane.lock since"
            )
            assert note in cli("status").out
            checks = cli("doctor", "--json", code=1).json["checks"]
            (check,) = [c for c in checks if c["message"].startswith("landings wait")]
            assert check["level"] == "problem" and f"kill -CONT {holder.pid}" in check["fix"]
    assert cli("status").out == quiet

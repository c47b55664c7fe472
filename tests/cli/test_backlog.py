"""Writing a backlog down: add, quick, epic, block, edit-task, and every kind of bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cli.conftest import Cli

TASK_KEYS = {
    "id", "title", "description", "epic_id", "parent_id", "status", "stranded", "reason", "until", "priority",
    "blocked_by", "blocks", "attempts", "max_attempts", "executions", "interruptions", "labels", "type", "created_at",
    "updated_at", "started_at", "completed_at", "last_error", "branch", "worktree", "landed_commit",
}  # fmt: skip


def test_quiet_prints_the_id_alone(cli: Cli) -> None:
    task = cli("add", "One", "-q").out
    assert task.startswith("task-")
    assert task == task.strip() + "\n"
    assert cli("quick", "Two", "--quiet").out.startswith("task-")
    assert cli("epic", "add", "Three", "-q").out.startswith("epic-")


def test_added_is_told_with_its_id_title_and_status(cli: Cli) -> None:
    a = cli.add("First")
    out = cli("add", "Second", "--blocked-by", a).out
    assert "Second" in out
    assert f"blocked, waits for {a}" in out
    assert "(ready)" in cli("quick", "Third").out


def test_a_task_has_the_keys_of_the_contract(cli: Cli) -> None:
    epic = cli("epic", "add", "E", "-q").out.strip()
    a = cli.add("First")
    task = cli.json(
        "add", "Second", "-d", "What to do", "-e", epic, "-p", "-3", "--blocked-by", a, "--label", "x,y",
        "--label", "z",
        "--test-mode", "lenient", "--test-scope", "all", "--test-command", "-v", "--agent", "command",
        "--max-attempts", "7", "--timeout", "1h30m", "--type", "bug", "--key", "k",
    )  # fmt: skip
    assert set(task) >= TASK_KEYS
    assert (task["title"], task["description"], task["epic_id"], task["priority"]) == ("Second", "What to do", epic, -3)
    assert (task["status"], task["stranded"], task["blocked_by"], task["blocks"]) == ("blocked", False, [a], [])
    assert (task["max_attempts"], task["attempts"], task["executions"]) == (7, 0, 0)
    assert (sorted(task["labels"]), task["type"]) == (["x", "y", "z"], "bug")
    assert (task["test_mode"], task["test_command"], task["timeout_seconds"]) == ("lenient", "-v", 5400)
    assert task["created_at"].endswith("Z")
    assert task["started_at"] is task["last_error"] is task["landed_commit"] is None
    assert cli.json("list")[0]["max_attempts"] == 3, "the setting stands in for a task that names no number"


def test_the_same_key_twice_is_the_same_task(cli: Cli) -> None:
    assert cli.add("Once", "--key", "k") == cli.add("Once", "--key", "k")
    assert len(cli.json("list")) == 1


def test_blockers_are_given_with_commas_or_one_by_one(cli: Cli) -> None:
    a, b = cli.add("A"), cli.add("B")
    together = cli.json("add", "C", "--blocked-by", f"{a}, {b}")
    apart = cli.json("add", "D", "--blocked-by", a, "--blocked-by", b)
    assert sorted(together["blocked_by"]) == sorted(apart["blocked_by"]) == sorted([a, b])


def test_a_title_that_begins_with_an_id_makes_that_sub_task(cli: Cli) -> None:
    parent = cli.add("Parent")
    child = cli.json("add", f"{parent}.4 Child")
    assert (child["id"], child["title"], child["parent_id"]) == (f"{parent}.4", "Child", parent)
    assert cli.json("add", "Other child", "-P", parent)["parent_id"] == parent
    assert cli.error("add", f"{parent}.5", code=2)["code"] == "usage"


@pytest.mark.parametrize(
    "title",
    [
        "-x",
        "--help",
        'it\'s "quoted"',
        "two\nlines",
        "bell\x07 and \x1b[31mred",
        "\u202egnp.exe",
        "書く",
        "$(rm -rf /)",
        "a" * 4000,
    ],
)
def test_any_title_is_kept_as_it_is_and_shown_in_one_safe_line(cli: Cli, title: str) -> None:
    task = cli("add", "--json", "--", title).json
    assert task["title"] == title
    for out in (cli("list").out, cli("info", task["id"]).out, cli("status", "--tree").out, cli("stream").out):
        assert "\x1b" not in out
        assert "\x07" not in out
        assert "\u202e" not in out
    assert len(cli("list").out.splitlines()) == 1


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=80))
def test_no_title_breaks_add_or_list(cli: Cli, title: str) -> None:
    answer = cli("add", "--json", "--", title, code=None)
    if not title.strip():
        assert answer.code == 2
    elif answer.code == 0:
        assert answer.json["title"] in title
        assert cli("list").code == 0
    else:
        assert "task-" in title, "only what looks like a sub-task's id may be refused"


# ---------------------------------------------------------------- descriptions


def test_a_description_is_text_a_file_or_standard_input(cli: Cli) -> None:
    Path(cli.root, "order.md").write_text("# From a file\n")
    assert cli.json("add", "A", "-d", "-- text -x")["description"] == "-- text -x"
    assert cli.json("add", "B", "-d", "@order.md")["description"] == "# From a file\n"
    assert (
        cli.json("add", "C", "-d", "-", stdin="von der Eingabe: ü\n".encode())["description"] == "von der Eingabe: ü\n"
    )
    assert cli.json("add", "D", "-d", "@@home")["description"] == "@home"


def test_a_description_of_a_megabyte_is_kept_whole(cli: Cli) -> None:
    text = "0123456789abcdef" * (1 << 16)
    task = cli("add", "Large", "-q", "-d", "-", stdin=text.encode()).out.strip()
    assert cli.json("info", task)["description"] == text


@pytest.mark.parametrize(
    ("argument", "stdin", "words"),
    [
        ("@missing.md", b"", "missing.md"),
        ("@.", b"", "directory"),
        ("@", b"", "cannot be read"),
        ("-", b"\xff\xfe", "UTF-8"),
        ("-", b"nul\x00", "NUL"),
        ("-", b"x" * ((10 << 20) + 1), "larger than 10 MB"),
    ],
)
def test_a_description_that_cannot_be_read_is_exit_2(cli: Cli, argument: str, stdin: bytes, words: str) -> None:
    assert words in cli.error("add", "T", "-d", argument, code=2, stdin=stdin)["message"]
    assert cli.json("list") == []


# ---------------------------------------------------------------- what does not exist, or may not be


@pytest.mark.parametrize(
    "argv",
    [
        ["info", "task-none"],
        ["logs", "task-none"],
        ["diff", "task-none"],
        ["edit", "task-none"],
        ["cancel", "task-none"],
        ["retry", "task-none"],
        ["reset", "task-none"],
        ["resolve", "task-none", "--note", "x"],
        ["edit-task", "task-none", "--title", "x"],
        ["block", "task-none", "--by", "task-other"],
        ["add", "T", "--blocked-by", "task-none"],
        ["add", "T", "--epic", "epic-none"],
        ["add", "T", "--parent", "task-none"],
        ["epic", "show", "epic-none"],
        ["epic", "close", "epic-none"],
        ["status", "--epic", "epic-none"],
        ["status", "--tree", "--epic", "epic-none"],
        ["list", "--epic", "epic-none"],
        ["stream", "--task", "task-none"],
        ["run", "--epic", "epic-none"],
        ["run", "--task", "task-none"],
        ["run", "--task", "task-none", "--dry-run"],
        ["info", "'; DROP TABLE tasks; --"],
        ["info", "%"],
    ],
)
def test_what_does_not_exist_is_exit_4_and_named(cli: Cli, argv: list[str]) -> None:
    error = cli.error(*argv, code=4)
    assert error["code"] == "not_found"
    assert any(word in error["message"] for word in argv if "none" in word or "%" in word or "DROP" in word)
    assert cli.json("list") == []


def test_an_unknown_agent_is_refused_when_it_is_named(cli: Cli) -> None:
    assert "robot" in cli("add", "T", "--agent", "robot", code=None).err
    assert cli.json("list") == []


def test_ids_may_be_shortened_where_only_one_fits(cli: Cli) -> None:
    a = cli.add("A")
    assert cli.json("info", a[:7])["id"] == a or len(a) == 7
    b = cli.add("B")
    assert cli.error("info", "task-", code=4)["message"].count("task-") >= 2
    assert cli.json("block", b, "--by", a[:-1] if a[:-1] != b[:-1] else a)["blocked_by"] == [a]


def test_a_cycle_is_refused_and_printed(cli: Cli) -> None:
    a = cli.add("A")
    b = cli.add("B", "--blocked-by", a)
    error = cli.error("block", a, "--by", b, code=1)
    assert error["code"] == "cycle"
    assert " → " in error["message"]
    assert error["message"].count(a) + error["message"].count(b) >= 3
    assert cli.json("info", a)["blocked_by"] == []


def test_edges_are_edited_later(cli: Cli) -> None:
    a, b = cli.add("A"), cli.add("B")
    assert cli.json("block", b, "--by", a)["status"] == "blocked"
    assert cli.json("info", a)["blocks"] == [b]
    assert cli.json("unblock", b, "--by", a)["status"] == "ready"


def test_a_task_is_edited_and_what_is_not_named_stays(cli: Cli) -> None:
    task = cli.add("Old", "-d", "text", "-p", "3", "--label", "a")
    changed = cli.json("edit-task", task, "--title", "-New", "--timeout", "90s", "--label", "b")
    assert (changed["title"], changed["description"], changed["priority"]) == ("-New", "text", 3)
    assert (changed["labels"], changed["timeout_seconds"]) == (["b"], 90)
    assert "-New" in cli("edit-task", task, "-p", "0").out
    assert cli.json("info", task)["priority"] == 0


# ---------------------------------------------------------------- lists


def test_a_list_is_one_line_a_task_and_can_be_narrowed(cli: Cli) -> None:
    epic = cli("epic", "add", "E", "-q").out.strip()
    a = cli.add("A", "--epic", epic)
    b = cli.add("B", "--blocked-by", a, "--label", "x")
    assert [line.split()[0] for line in cli("list").out.splitlines()] == [a, b]
    assert [task["id"] for task in cli.json("list", "--status", "ready,failed")] == [a]
    assert [task["id"] for task in cli.json("list", "--epic", epic)] == [a]
    assert [task["id"] for task in cli.json("list", "--label", "x")] == [b]
    assert [task["id"] for task in cli.json("list", "--limit", "1")] == [a]
    assert [task["id"] for task in cli.json("list", "--ready")] == [task["id"] for task in cli.json("ready")] == [a]
    assert f"waits for {a}" in cli("list").out


def test_an_empty_backlog_says_so_on_stderr_alone(cli: Cli) -> None:
    answer = cli("list")
    assert answer.out == ""
    assert "drover add" in answer.err
    assert cli("list", "--json").out == "[]\n"
    assert cli.json("epic", "list") == []


def test_epics_show_their_progress_and_tasks(cli: Cli) -> None:
    epic = cli.json("epic", "add", "An epic", "-d", "with words")
    assert set(epic) >= {"id", "title", "description", "state", "total", "completed", "created_at"}
    task = cli.add("A", "--epic", epic["id"])
    shown = cli.json("epic", "show", epic["id"])
    assert (shown["total"], shown["completed"], [one["id"] for one in shown["tasks"]]) == (1, 0, [task])
    out = cli("epic", "show", epic["id"]).out
    assert "An epic" in out
    assert "with words" in out
    assert task in out
    assert "0/1" in cli("epic", "list").out
    assert cli.json("epic", "list")[0]["id"] == epic["id"]


@pytest.mark.suite("T35")
def test_settings_are_shown_with_their_sources_and_no_secret(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROVER_DATABASE_URL", "postgresql://u:hunter2@h/d")
    file = cli.root / ".drover.toml"
    file.write_text(file.read_text() + '[agents.claude.set]\nTOKEN = "hunter3"\n')
    shown = cli.json("config", "show")
    assert shown["database_url"] == {"value": "postgresql://u:***@h/d", "source": "environment DROVER_DATABASE_URL"}
    assert shown["task_timeout"] == {"value": "1h", "source": "default"}
    assert shown["project.target"] == {"value": "main", "source": str(cli.root / ".drover.toml")}
    assert shown["agent"]["value"] == "scripted"
    for out in (json.dumps(shown), cli("config", "show").out):
        assert "hunter" not in out
    assert cli("config", "path").out.splitlines()[0] == str(cli.root / ".drover.toml")
    assert cli.json("config", "path")["project"]["exists"] is True


def test_settings_are_shown_outside_of_any_project(outside: Cli) -> None:
    assert outside.json("config", "show")["workers"] == {"value": 3, "source": "default"}
    assert outside.json("config", "path")["project"] is None


def test_a_warning_about_settings_is_told_where_they_are_shown(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROVER_WORKER", "9")
    assert "warning: DROVER_WORKER is not read; DROVER_WORKERS is" in cli("config", "show").err
    assert cli("list").err.count("warning") == 0


def test_init_is_safe_to_repeat_and_says_what_it_made(cli: Cli) -> None:
    again = cli.json("init")
    assert (again["created"], again["root"], again["target"]) == (False, str(cli.root), "main")
    assert "already" in cli("init").out


def test_init_refuses_what_cannot_work(outside: Cli, git) -> None:
    assert outside.error("init", code=1)["hint"]
    git(outside.root, "init", "-q", "-b", "main")
    assert "no commit" in outside.error("init", code=1)["message"]
    assert not (outside.root / ".drover").exists()


def test_the_doctor_names_each_check_with_a_level(cli: Cli) -> None:
    report = cli("doctor", "--json", code=None).json
    assert {check["level"] for check in report["checks"]} <= {"ok", "warning", "problem"}
    assert all(set(check) == {"name", "level", "message", "fix"} for check in report["checks"])
    assert report["ok"] is not any(check["level"] == "problem" for check in report["checks"])


@pytest.mark.parametrize(("permitted", "level"), [(("words",), "ok"), (None, "problem")])
def test_the_doctor_says_whether_agents_can_be_contained(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, permitted: object, level: str
) -> None:
    monkeypatch.setattr("drover.app.doctor.find_containment", lambda: permitted)
    with (cli.root / ".drover.toml").open("a") as file:
        file.write("\n[worker]\ncontain = true\n")
    checks = cli("doctor", "--json", code=None).json["checks"]
    assert [check["level"] for check in checks if check["name"] == "containment"] == [level]


def test_the_doctor_ends_with_exit_1_when_there_is_a_problem(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROVER_AGENT_TYPE", "claude")
    monkeypatch.setenv("DROVER_AGENT_PATH", "/nowhere/claude")
    answer = cli("doctor", code=1)
    assert "problem" in answer.out
    assert cli("doctor", "--json", code=1).json["ok"] is False

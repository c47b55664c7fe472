"""What is typed wrong, how help looks, and what is imported to say so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from drover import __version__
from tests.cli.conftest import Cli, child_environment

GOLDEN = Path(__file__).parent / "golden"
HEAVY = ("pydantic", "anyio", "asyncio", "sqlite3", "aiosqlite", "psutil", "asyncpg")


@pytest.mark.parametrize("name", ["", "add", "run", "status", "reset"])
def test_help_is_as_it_was_agreed(outside: Cli, name: str) -> None:
    """To agree to a change: GOLDEN_FILES=write pytest tests/cli/test_parsing.py"""
    shown = outside(*([name] if name else []), "--help").out
    golden = GOLDEN / f"help-{name or 'drover'}.txt"
    if os.environ.get("GOLDEN_FILES") == "write":
        golden.write_text(shown)
    assert shown == golden.read_text()


def test_every_command_has_a_page_and_the_global_options(outside: Cli) -> None:
    from drover.cli.commands import NAMES

    for name in NAMES:
        page = outside(name, "--help").out
        assert page.startswith(f"Usage: drover {name}")
        if name not in ("agent", "epic", "config", "db", "plan", "worktree"):
            for option in ("--project", "--json", "--plain", "--debug"):
                assert option in page


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys; from drover.cli import main;"
        "codes = [main(words) for words in (['--version'], ['--help'], ['add', '--help'])];"
        f"sys.stderr.write(repr((codes, sorted(set({HEAVY!r}) & set(sys.modules)))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=child_environment(), capture_output=True, text=True, check=True
    )
    assert done.stderr == "([0, 0, 0], [])"
    assert done.stdout.startswith(f"drover {__version__}\n")


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["ad"], "no command 'ad'", "add"),
        (["epic", "ad"], "no command 'ad'", "drover epic --help"),
        (["add"], "needs TITLE", "drover add --help"),
        (["add", "Write", "it"], "no use for 'it'", "quotes"),
        (["add", "T", "--priorty", "3"], "no option --priorty", "--priority"),
        (["add", "-x y"], "no option -x y", "--"),
        (["add", "T", "-p"], "-p needs a value", "drover add --help"),
        (["add", "T", "-p", "high"], "high", "drover add --help"),
        (["add", "T", "--test-mode", "loose"], "loose", "drover add --help"),
        (["add", "T", "--type", "novel"], "novel", "drover add --help"),
        (["add", "T", "-q", "-q"], "-q", "drover add --help"),
        (["block", "task-x"], "needs --by", "drover block --help"),
        (["block", "task-x", "--by", ","], "--by names no task", "--by"),
        (["resolve", "task-x"], "needs --note", "drover resolve --help"),
        (["cancel"], "needs ID", "drover cancel --help"),
        (["cancel", ","], "no task is named", "drover list"),
        (["run", "--wait", "--forever"], "exclude", "--forever"),
        (["status", "--tree", "--oneline"], "exclude", "one of them"),
        (["edit-task", "task-x"], "nothing to change", "--help"),
        (["stream", "--since", "yesterday"], "yesterday", "--since"),
        (["list", "--status", "done"], "'done' is no status", "completed"),
        (["list", "--limit", "0"], "--limit", "--"),
        (["add", "T", "--timeout", "90"], "unit", "--"),
        (["add", "T", "--timeout", "0"], "no time", "30m"),
        (["add", "T", "--max-attempts", "0"], "out of range", "--"),
        (["add", " "], "the title is empty", "drover add"),
        (["add", "bad \udcff"], "not UTF-8", "--"),
        (["run", "-w", "0"], "workers (flag --workers): 0 is out of range", "correct"),
        (["watch"], "live status", "drover stream --follow"),
        (["status", "--watch"], "live status", "drover stream --follow"),
    ],
)
def test_what_is_typed_wrong_is_exit_2_with_what_to_type_next(
    cli: Cli, argv: list[str], message: str, hint: str
) -> None:
    error = cli.error(*argv, code=2)
    assert message in error["message"]
    assert "\n" not in error["message"] + error["hint"]
    assert hint in error["hint"]


def test_global_options_may_stand_before_the_command(cli: Cli) -> None:
    assert cli("--json", "list").json == []
    assert cli("--project", str(cli.root), "--json", "list").json == []
    assert cli("--project=" + str(cli.root), "list", "--json").json == []
    assert cli("help", "add").out == cli("add", "--help").out


def test_outside_of_a_project_is_exit_1_and_says_how_to_make_one(outside: Cli) -> None:
    error = outside.error("list", code=1)
    assert error["code"] == "no_project"
    assert "drover init" in error["hint"]
    assert outside.error("list", "--project", "nowhere", code=1)["code"] == "no_project"


def test_a_project_is_found_from_below_and_by_name(cli: Cli, outside: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    (cli.root / "deep" / "er").mkdir(parents=True)
    cli.add("One")
    below = Cli(cli.root / "deep" / "er", outside._capsys, monkeypatch)
    assert len(below.json("list")) == 1
    assert len(outside.json("list", "--project", str(cli.root))) == 1
    monkeypatch.setenv("DROVER_PROJECT", str(cli.root))
    assert len(outside.json("list")) == 1


def test_a_bad_setting_stops_every_command_with_exit_2(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROVER_STALL_TIMEOUT", "soon")
    for command in (["list"], ["add", "T"], ["run"], ["config", "show"], ["doctor"]):
        error = cli.error(*command, code=2)
        assert error["code"] == "settings"
        assert "DROVER_STALL_TIMEOUT" in error["message"]


def test_a_reader_that_has_had_enough_is_no_error(cli: Cli) -> None:
    for number in range(30):
        cli.add(f"Task {number} " + "x" * 3000)
    done = subprocess.run(
        f"'{sys.executable}' -m drover list --json | head -c 10; echo ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", cwd=cli.root, env=child_environment(), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1].endswith("0")
    assert done.stderr == ""


def test_debug_shows_the_traceback_and_keeps_the_exit_code(outside: Cli) -> None:
    with pytest.raises(AssertionError, match="Traceback"):
        outside("list", "--debug", code=1)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_for_each_shell(outside: Cli, tmp_path: Path, shell: str) -> None:
    script = tmp_path / "completion"
    outside("--install-completion", "--shell", shell, "--output", str(script))
    text = script.read_text()
    for word in ("edit-task", "--blocked-by", "worktree", "prune"):
        assert word in text

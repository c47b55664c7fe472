"""Settings: the order of the five places, what is refused, and the project file."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drover.domain.errors import NoProject, SettingsError
from drover.domain.quantities import format_duration, parse_duration, parse_size, parse_switch
from drover.settings import Settings, find_project, get_project, load, redact, user_file, write_project_file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def loaded(
    root: Path, text: str = "", environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> Settings:
    (root / ".drover.toml").write_text(text)
    return load(root, environ=environ or {}, flags=flags or {})


def refused(root: Path, text: str = "", environ: Mapping[str, str] | None = None, **flags: object) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        loaded(root, text, environ, flags)
    assert caught.value.exit_code == 2
    return caught.value


# ---------------------------------------------------------------- where a value comes from


def test_without_any_setting_the_documented_defaults_hold(root: Path) -> None:
    settings = load(None, environ={}, flags={})
    assert settings.workers == 3
    assert settings.agent == "claude"
    assert settings.task_timeout_ms == 60 * 60_000
    assert settings.claim_timeout_ms == 5 * 60_000
    assert settings.stall_timeout_ms == 15 * 60_000
    assert settings.max_attempts == 3
    assert settings.verify.timeout_ms == 30 * 60_000
    assert settings.landing.conflict_attempts == 2
    assert settings.logs.limit == 64 * 1024 * 1024
    assert set(settings.sources.values()) == {"default"}
    assert settings.store_url(root) == f"sqlite:///{root}/.drover/drover.db"


def test_a_flag_wins_over_the_environment_over_the_project_over_the_user(root: Path, tmp_path: Path) -> None:
    own = tmp_path / "xdg" / "drover" / "config.toml"
    own.parent.mkdir(parents=True)
    own.write_text('workers = 5\nmax_attempts = 6\noperator = "Uma"\nagent = "codex"\n')
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "xdg"), "DROVER_WORKERS": "7", "DROVER_OPERATOR": "Enid"}
    settings = loaded(root, 'workers = 6\nmax_attempts = 9\noperator = "Pia"\n', environ, {"workers": 8})
    assert (settings.workers, settings.operator, settings.max_attempts, settings.agent) == (8, "Enid", 9, "codex")
    assert settings.sources["workers"] == "flag --workers"
    assert settings.sources["operator"] == "environment DROVER_OPERATOR"
    assert settings.sources["max_attempts"] == str(root / ".drover.toml")
    assert settings.sources["agent"] == str(own)
    assert settings.sources["task_timeout"] == "default"


def test_tables_are_merged_key_by_key(root: Path, tmp_path: Path) -> None:
    own = tmp_path / "home" / ".config" / "drover" / "config.toml"
    own.parent.mkdir(parents=True)
    own.write_text('[verify]\ncommand = "make test"\nretries = 2\n[agents.claude.set]\nA = "1"\nB = "2"\n')
    text = '[verify]\nretries = 3\n[agents.claude]\nmodel = "opus"\n[agents.claude.set]\nB = "3"\n'
    settings = loaded(root, text, {"HOME": str(tmp_path / "home")})
    assert (settings.verify.command, settings.verify.retries) == ("make test", 3)
    assert settings.agent_table("claude").model == "opus"
    assert settings.agent_table("claude").set == {"A": "1", "B": "3"}
    assert settings.sources["agents.claude.set.A"] == str(own)


def test_a_none_flag_and_an_empty_variable_are_not_given(root: Path) -> None:
    settings = loaded(root, "workers = 4", {"DROVER_WORKERS": ""}, {"workers": None})
    assert (settings.workers, settings.sources["workers"]) == (4, str(root / ".drover.toml"))


def test_the_original_names_of_the_database_and_workers_are_honoured(root: Path) -> None:
    settings = loaded(root, "max_workers = 4", {"DBOS_SYSTEM_DATABASE_URL": "postgresql://u@h/dbos"})
    assert (settings.workers, settings.database_url) == (4, "postgresql://u@h/dbos")
    both = {"DBOS_SYSTEM_DATABASE_URL": "postgresql://u@h/dbos", "DROVER_DATABASE_URL": "postgresql://u@h/drover"}
    assert loaded(root, "", both).database_url == "postgresql://u@h/drover"


def test_a_relative_sqlite_path_is_relative_to_the_project(root: Path) -> None:
    assert loaded(root, 'database_url = "sqlite:///x/y.db"').store_url(root) == f"sqlite:///{root}/x/y.db"
    assert loaded(root, 'database_url = "sqlite:////x/y.db"').store_url(root) == "sqlite:////x/y.db"
    assert loaded(root, 'database_url = "postgres://h/d"').store_url(root) == "postgres://h/d"


# ---------------------------------------------------------------- the agent's program


def test_agent_path_is_the_program_of_the_agent_in_use_alone(root: Path) -> None:
    text = 'agent = "codex"\n[agents.codex]\npath = "/file"\nargs = ["-x"]\n'
    settings = loaded(root, text, {"DROVER_AGENT_PATH": "/variable"})
    assert settings.agent_table("codex").path == "/variable"
    assert settings.agent_table("codex").args == ("-x",)
    assert settings.agent_table("claude").path is None
    assert settings.sources["agents.codex.path"] == "environment DROVER_AGENT_PATH"


def test_a_type_s_own_path_from_a_stronger_place_beats_agent_path(root: Path) -> None:
    settings = loaded(root, 'agent_path = "/file"\n', {"DROVER_CLAUDE_PATH": "/variable"})
    assert settings.agent_table("claude").path == "/variable"


def test_the_old_name_of_claude_s_path_is_read_with_a_warning(root: Path) -> None:
    settings = loaded(root, "", {"DROVER_CLAUDE_PATH": "/c"})
    assert settings.agent_table("claude").path == "/c"
    assert any("DROVER_AGENT_PATH" in warning for warning in settings.warnings)


def test_a_variable_that_is_almost_one_of_ours_is_pointed_out(root: Path) -> None:
    settings = loaded(root, "", {"DROVER_WORKER": "9", "DROVER_TASK_ID": "task-x", "DROVER_EDITOR_COLOUR": "red"})
    assert settings.warnings == ("DROVER_WORKER is not read; DROVER_WORKERS is",)


def test_the_original_s_backpressure_is_read_under_its_names(root: Path) -> None:
    environ = {
        "DROVER_BACKPRESSURE_ENABLED": "true",
        "DROVER_BACKPRESSURE_INITIAL_CONCURRENCY": "2",
        "DROVER_BACKPRESSURE_MAX_CONCURRENCY": "4",
        "DROVER_BACKPRESSURE_RATE_LIMIT_BACKOFF": "30s",
        "DROVER_BACKPRESSURE_MEMORY_AWARE_ENABLED": "no",
        "DROVER_BACKPRESSURE_SLOW_THRESHOLD": "10s",
        "DROVER_WORKER_MEMORY_LIMIT": "512M",
    }
    settings = loaded(root, environ=environ)
    table = settings.backpressure
    assert (table.enabled, table.initial_concurrency, table.min_concurrency, table.max_concurrency) == (True, 2, 1, 4)
    assert (table.rate_limit_backoff_ms, table.max_backoff_ms, table.memory_aware_enabled) == (30_000, 300_000, False)
    assert settings.worker.memory_limit == 512 << 20
    assert settings.sources["backpressure.enabled"] == "environment DROVER_BACKPRESSURE_ENABLED"
    (warning,) = settings.warnings
    assert warning.startswith("DROVER_BACKPRESSURE_SLOW_THRESHOLD has no effect")


def test_the_original_s_worker_is_an_agent(root: Path) -> None:
    environ = {"DROVER_USE_WORKER_SUBPROCESS": "true", "DROVER_WORKER_BINARY": "/opt/drover-worker"}
    settings = loaded(root, environ=environ)
    assert (settings.agent, settings.agent_table("worker").path) == ("worker", "/opt/drover-worker")
    assert settings.sources["agent"] == "environment DROVER_USE_WORKER_SUBPROCESS"
    assert loaded(root, environ={"DROVER_USE_WORKER_SUBPROCESS": "no"}).agent == "claude"
    message = refused(root, environ={"DROVER_USE_WORKER_SUBPROCESS": "perhaps"}).message
    assert "DROVER_USE_WORKER_SUBPROCESS" in message


def test_money_is_exact_however_it_is_written(root: Path) -> None:
    table = loaded(root, 'budget = { task_usd = 0.1, epic_usd = "$2.50", run_usd = 7, day_usd = "0.0001" }').budget
    amounts = (table.task_microusd, table.epic_microusd, table.run_microusd, table.day_microusd)
    assert amounts == (100_000, 2_500_000, 7_000_000, 100)
    assert table.limits.any
    assert not loaded(root).budget.limits.any


def test_a_flag_is_named_as_it_is_typed(root: Path) -> None:
    assert "(flag --budget)" in refused(root, **{"budget.run_usd": "much"}).message


def test_keys_of_the_original_without_meaning_here_are_accepted_with_a_warning(root: Path) -> None:
    settings = loaded(root, 'task_context_count = 5\nmax_diff_size = "250MB"\n')
    assert len(settings.warnings) == 2


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("workers = 0", "workers", "out of range"),
        ("workers = 257", "workers", "out of range"),
        ("workers = true", "workers", "whole number"),
        ("workers = 2.0", "workers", "whole number"),
        ("workers = 'four'", "workers", "whole number"),
        ("workers = '4x'", "workers", "whole number"),
        ("task_timeout = 90", "task_timeout", "unit"),
        ("task_timeout = '90'", "task_timeout", "unit"),
        ("task_timeout = '5m1h'", "task_timeout", "duration"),
        ("task_timeout = '0'", "task_timeout", "out of range"),
        ("stall_timeout = '-5m'", "stall_timeout", "duration"),
        ("logs.limit = '64'", "logs.limit", "unit"),
        ("logs.limit = '1K'", "logs.limit", "out of range"),
        ("agent = 5", "agent", "text"),
        ("agent = 'Claude Code'", "agent", "Claude Code"),
        ("database_url = 'mysql://h/d'", "database_url", "sqlite:///"),
        ("database_url = 'sqlite://d.db'", "database_url", "sqlite:///d.db"),
        ("database_url = 'sqlite:///'", "database_url", "no file"),
        ("verify = 'x'", "verify", "table"),
        ("verify.mode = 'loose'", "verify.mode", "strict"),
        ("landing.style = 'rebase'", "landing.style", "squash"),
        ("landing.parallel = 0", "landing.parallel", "out of range"),
        ("backpressure.enabled = 'maybe'", "backpressure.enabled", "neither true nor false"),
        ("backpressure.enabled = 3", "backpressure.enabled", "neither true nor false"),
        ("backpressure.min_concurrency = 0", "backpressure.min_concurrency", "out of range"),
        ("backpressure.max_backoff = '2d'", "backpressure.max_backoff", "out of range"),
        ("worker.memory_limit = '1M'", "worker.memory_limit", "out of range"),
        ("worker.memory_limit = 512", "worker.memory_limit", "unit"),
        ("budget.day_usd = -1", "budget.day_usd", "dollars"),
        ("budget.run_usd = 0", "budget.run_usd", "out of range"),
        ("budget.epic_usd = 'ten'", "budget.epic_usd", "dollars"),
        ("budget.task_usd = true", "budget.task_usd", "dollars"),
        ("budget.tokens = 0", "budget.tokens", "out of range"),
        ("budget.warn_percent = 101", "budget.warn_percent", "out of range"),
        ("pool.max_size = 65", "pool.max_size", "out of range"),
        ("pool.warmup = 5", "pool.warmup", "unit"),
        ("project.id = 'Has Space'", "project.id", "id"),
        ("agents = 3", "agents", "table"),
        ("agents.claude.args = '-x'", "agents.claude.args", "list"),
        ("agents.claude.env = ['A-B']", "agents.claude.env.0", "environment variable"),
        ("agents.claude.set.A = 3", "agents.claude.set.A", "text"),
        ("[agents.'A b']\npath = 'x'", "agents.A b", "name"),
    ],
)
def test_a_bad_value_names_its_key_its_file_and_the_value(root: Path, text: str, key: str, words: str) -> None:
    error = refused(root, text)
    assert error.message.startswith(f"{key} ({root}/.drover.toml): ")
    assert words in error.message
    assert "\n" not in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("wrokers = 1", "workers"),
        ("timeout = '3m'", "task_timeout"),
        ("verify.tiemout = '3m'", "verify.timeout"),
        ("[agents.claude]\nmodle = 'x'", "agents.claude.model"),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(root: Path, text: str, meant: str) -> None:
    error = refused(root, text)
    assert "unknown key" in error.message
    assert meant in str(error.hint)


def test_attributes_are_not_keys(root: Path) -> None:
    for name in ("task_timeout_ms = 5", "sources.x = 'y'", "warnings = ['x']"):
        assert "unknown key" in refused(root, name).message


def test_a_bad_variable_is_named_even_where_a_flag_would_win(root: Path) -> None:
    error = refused(root, "", {"DROVER_WORKERS": "abc"}, workers=2)
    assert error.message == "workers (environment DROVER_WORKERS): 'abc' is not a whole number"


def test_a_bad_flag_is_named(root: Path) -> None:
    assert refused(root, workers=0).message.startswith("workers (flag --workers): 0 is out of range")


@pytest.mark.suite("T35")
def test_an_error_about_a_database_never_shows_its_password(root: Path) -> None:
    assert "hunter2" not in refused(root, "", {"DROVER_DATABASE_URL": "mysql://u:hunter2@h/d"}).message


def test_a_file_that_is_not_toml_names_the_file_and_the_line(root: Path) -> None:
    error = refused(root, "workers = 3\nx = [")
    assert str(root / ".drover.toml") in error.message
    (root / ".drover.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"\.drover\.toml"):
        load(root, environ={}, flags={})


def test_a_project_in_the_user_s_file_is_refused(root: Path, tmp_path: Path) -> None:
    own = tmp_path / "drover" / "config.toml"
    own.parent.mkdir()
    own.write_text('[project]\nid = "every-project"\n')
    with pytest.raises(SettingsError, match="user's file"):
        load(root, environ={"XDG_CONFIG_HOME": str(tmp_path)}, flags={})


def test_both_names_of_one_key_are_refused(root: Path) -> None:
    assert "max_workers" in refused(root, "workers = 1\nmax_workers = 2").message


def test_the_user_s_file_is_where_xdg_says() -> None:
    assert user_file({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}) == Path("/x/drover/config.toml")
    assert user_file({"XDG_CONFIG_HOME": "relative", "HOME": "/h"}) == Path("/h/.config/drover/config.toml")
    assert user_file({}) is None


# ---------------------------------------------------------------- quantities


@given(st.integers(min_value=0, max_value=10**11))
def test_a_duration_reads_back_as_it_was_written(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds)) == milliseconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90_000), ("5m", 300_000), ("1h30m", 5_400_000), ("2d", 172_800_000), ("500ms", 500), ("1.5h", 5_400_000)],
)
def test_durations_read_as_people_write_them(text: str, expected: int) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", " ", "m", "5", "5x", "1m1m", "30s1h", "-1s", "1h 30m", "١m", "1e3s", "infs"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_sizes_and_switches_read_as_people_write_them() -> None:
    assert [parse_size(text) for text in ("512M", "2G", "64KB", "1.5GiB", "100B", "0")] == [
        512 << 20,
        2 << 30,
        64 << 10,
        3 << 29,
        100,
        0,
    ]
    assert [parse_switch(text) for text in ("true", "1", "YES", "on", "false", "0", "No", "off")] == [True] * 4 + [
        False
    ] * 4
    for text in ("512", "M", "-1M", "5X", ""):
        with pytest.raises(ValueError, match="size"):
            parse_size(text)
    with pytest.raises(ValueError, match="maybe"):
        parse_switch("maybe")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:pa@ss/w@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("postgresql://u@h/d?password=x&sslmode=require", "postgresql://u@h/d?password=***&sslmode=require"),
        ("postgresql://h/d", "postgresql://h/d"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert redact(url) == shown


# ---------------------------------------------------------------- the project


def test_the_nearest_directory_upwards_with_state_in_a_repository_is_the_project(repository: Path) -> None:
    inner = repository / "a" / "b"
    inner.mkdir(parents=True)
    home = repository.parent / "home"
    assert find_project(inner, home=home, named=None) is None
    (repository / ".drover").mkdir()
    project = find_project(inner, home=home, named=None)
    assert project is not None
    assert (project.root, project.state_dir) == (repository, repository / ".drover")
    assert project.database_url == f"sqlite:///{repository}/.drover/drover.db"


def test_the_home_directory_is_never_a_project(repository: Path) -> None:
    (repository / ".drover").mkdir()
    assert find_project(repository, home=repository, named=None) is None
    assert find_project(repository, home=repository, named=".") is None


def test_state_outside_of_any_repository_is_no_project(tmp_path: Path) -> None:
    (tmp_path / "plain" / ".drover").mkdir(parents=True)
    assert find_project(tmp_path / "plain", home=tmp_path / "home", named=None) is None


def test_a_worktree_below_the_state_belongs_to_its_project(repository: Path) -> None:
    worktree = repository / ".drover" / "worktrees" / "task-x"
    (worktree / ".git").mkdir(parents=True)
    project = find_project(worktree, home=Path("/nowhere"), named=None)
    assert project is not None
    assert project.root == repository


def test_a_named_directory_must_itself_be_the_project(repository: Path) -> None:
    (repository / ".drover").mkdir()
    (repository / "inner").mkdir()
    assert get_project(repository.parent, home=Path("/nowhere"), named="repo").root == repository
    with pytest.raises(NoProject, match="inner"):
        get_project(repository, home=Path("/nowhere"), named="inner")
    with pytest.raises(NoProject, match="no directory nothing"):
        get_project(repository, home=Path("/nowhere"), named="nothing")


# ---------------------------------------------------------------- its file

ADDED = {"name": 'na"me\\', "id": "p-1", "target": "main"}


def written(root: Path) -> tuple[str, ...]:
    return write_project_file(root, name=ADDED["name"], project_id=ADDED["id"], target=ADDED["target"])


def test_a_new_project_file_parses_and_sets_nothing_but_the_project(root: Path) -> None:
    assert written(root) == ("name", "id", "target")
    settings = load(root, environ={}, flags={})
    assert settings.project.model_dump() == ADDED
    assert {key for key, source in settings.sources.items() if source != "default"} == {
        f"project.{key}" for key in ADDED
    }


def test_every_commented_setting_of_a_new_project_file_can_be_uncommented_where_it_stands(root: Path) -> None:
    written(root)
    path = root / ".drover.toml"
    path.write_text(re.sub(r"^# (?=\[|[a-z_]+ = )", "", path.read_text(), flags=re.MULTILINE))
    settings = load(root, environ={}, flags={})
    from_file = {key for key, source in settings.sources.items() if source != "default"}
    assert {"workers", "guidelines", "verify.command", "landing.style", "agents.claude.model"} <= from_file


@pytest.mark.parametrize(
    "before",
    [
        "",
        "workers = 4",
        "workers = 4\n\n[verify]\ncommand = 'x'\n",
        "[project]\nname = 'mine'\n\n[verify]\ncommand = 'x'\n",
        "[project]",
        "[ project ] # ours\n  target = 'trunk'\n",
        "project.name = 'mine'\nworkers = 2\n[verify]\ncommand = 'x'\n",
        "guidelines = '''\n[project]\n'''\n[project]\nname = 'mine'\n",
        "# comment only\r\nworkers = 4\r\n",
    ],
)
def test_what_a_project_file_lacks_is_added_and_all_else_kept(root: Path, before: str) -> None:
    path = root / ".drover.toml"
    path.write_bytes(before.encode())
    had = tomllib.loads(before)
    added = written(root)
    after = path.read_bytes().decode()
    assert all(line in after for line in before.splitlines())
    assert tomllib.loads(after) == {**had, "project": {**ADDED, **had.get("project", {})}}
    assert set(added) == set(ADDED) - set(had.get("project", {}))
    assert written(root) == ()
    assert path.read_bytes().decode() == after


def test_a_project_file_that_cannot_be_added_to_is_left_alone(root: Path) -> None:
    path = root / ".drover.toml"
    for text in ("project = { name = 'mine' }\n", "project = 3\n", "x = [\n"):
        path.write_text(text)
        with pytest.raises(SettingsError, match=r"\.drover\.toml"):
            written(root)
        assert path.read_text() == text


def test_a_project_file_keeps_its_permissions_and_its_link(root: Path) -> None:
    real = root / "settings.toml"
    real.write_text("workers = 4\n")
    real.chmod(0o640)
    (root / ".drover.toml").symlink_to("settings.toml")
    written(root)
    assert os.readlink(root / ".drover.toml") == "settings.toml"
    assert real.stat().st_mode & 0o777 == 0o640
    assert "workers = 4" in real.read_text()

"""What single settings may be: the ends of their ranges, the ways of writing them, what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from drover.domain.errors import NoProject, SettingsError
from drover.settings import Settings, find_project, get_project, load, write_project_file


def loaded(root: Path, text: str) -> Settings:
    (root / ".drover.toml").write_text(text)
    return load(root, environ={}, flags={})


def refused(root: Path, text: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        loaded(root, text)
    return caught.value


def value(settings: Settings, name: str) -> object:
    found: object = settings
    for word in name.split("."):
        found = getattr(found, word)
    return found


# ---------------------------------------------------------------- ranges


@pytest.mark.parametrize(
    ("key", "name", "below", "least", "most", "above"),
    [
        ("workers", "workers", 0, (1, 1), (256, 256), 257),
        ("max_attempts", "max_attempts", 0, (1, 1), (100, 100), 101),
        ("verify.retries", "verify.retries", -1, (0, 0), (20, 20), 21),
        ("landing.parallel", "landing.parallel", 0, (1, 1), (64, 64), 65),
        ("planning.max_steps", "planning.max_steps", 0, (1, 1), (200, 200), 201),
        ("pool.min_size", "pool.min_size", 0, (1, 1), (64, 64), 65),
        ("budget.warn_percent", "budget.warn_percent", 0, (1, 1), (100, 100), 101),
        ("task_timeout", "task_timeout_ms", "99ms", ("100ms", 100), ("7d", 604_800_000), "7d1ms"),
        ("claim_timeout", "claim_timeout_ms", "499ms", ("500ms", 500), ("1d", 86_400_000), "1d1ms"),
        ("stall_timeout", "stall_timeout_ms", "99ms", ("100ms", 100), ("7d", 604_800_000), "7d1ms"),
        ("snapshot_every", "snapshot_every_ms", "99ms", ("100ms", 100), ("1d", 86_400_000), "1d1ms"),
        ("hooks.timeout", "hooks.timeout_ms", "0", ("1ms", 1), ("1d", 86_400_000), "1d1ms"),
        ("logs.limit", "logs.limit", "65535B", ("64K", 1 << 16), ("100G", 100 << 30), "101G"),
        ("worker.memory_limit", "worker.memory_limit", "15M", ("16M", 16 << 20), ("1024T", 1 << 50), "1025T"),
        ("budget.run_usd", "budget.run_microusd", "0.000099", ("0.0001", 100), ("1000000000", 10**15), "1000000001"),
    ],
)
def test_both_ends_of_a_range_are_in_it(
    tmp_path: Path,
    key: str,
    name: str,
    below: object,
    least: tuple[object, int],
    most: tuple[object, int],
    above: object,
) -> None:
    for written, meant in (least, most):
        assert value(loaded(tmp_path, f"{key} = {written!r}"), name) == meant
    for written in (below, above):
        error = refused(tmp_path, f"{key} = {written!r}")
        assert error.message.startswith(f"{key} (")
        assert "out of range; it may be from " in error.message


def test_a_range_is_told_as_it_is_written_and_whether_it_can_be_turned_off(tmp_path: Path) -> None:
    said = refused(tmp_path, "stall_timeout = '50ms'").message
    assert said.endswith(": 50ms is out of range; it may be from 100ms to 7d, or 0 for off")
    said = refused(tmp_path, "task_timeout = '50ms'").message
    assert said.endswith(": 50ms is out of range; it may be from 100ms to 7d")


@pytest.mark.parametrize("nothing", ["0", "'0'"])
def test_nothing_needs_no_unit(tmp_path: Path, nothing: str) -> None:
    assert loaded(tmp_path, f"stall_timeout = {nothing}").stall_timeout_ms == 0
    assert loaded(tmp_path, f"disk.floor = {nothing}").disk.floor == 0
    assert ": 0 is out of range" in refused(tmp_path, f"task_timeout = {nothing}").message


@pytest.mark.parametrize("wrong", ["false", "true", "0.5", "[]"])
def test_what_is_neither_a_number_nor_text_is_no_quantity(tmp_path: Path, wrong: str) -> None:
    assert "has no unit; write it as text, like '90s'" in refused(tmp_path, f"stall_timeout = {wrong}").message


# ---------------------------------------------------------------- ways of writing


def test_who_stands_in_for_an_agent_is_named_beside_the_tables_of_the_types(tmp_path: Path) -> None:
    settings = loaded(tmp_path, '[agents]\nfallback = ["codex", "amp"]\n[agents.claude]\nmodel = "opus"\n')
    assert settings.fallback == ("codex", "amp")
    assert settings.agent_table("claude").model == "opus"
    assert list(settings.agents) == ["claude"]
    assert settings.sources["agents.fallback"] == str(tmp_path / ".drover.toml")
    assert loaded(tmp_path, '[agents.claude]\nmodel = "opus"\n').fallback == ()
    assert refused(tmp_path, "agents.fallback = 'codex'").message.endswith(": 'codex' is not a list")


def test_a_template_has_a_place_for_the_task_s_text_or_is_empty(tmp_path: Path) -> None:
    for text in ("Do this: {{description}}", "{{ description }}", "", "  "):
        assert loaded(tmp_path, f"task_template = '{text}'").task_template == text
    for text in ("Be quick.", "{description}", "{{descriptions}}"):
        assert "{{description}}" in refused(tmp_path, f"task_template = '{text}'").message


def test_a_name_of_an_agent_is_small_letters_digits_and_two_signs(tmp_path: Path) -> None:
    for name in ("a", "9-b_c", "x" * 63):
        assert loaded(tmp_path, f"agent = '{name}'").agent == name
    for name in ("", "-a", "A", "x" * 64, "ä"):
        assert "is not a name of small letters" in refused(tmp_path, f"agent = '{name}'").message


@pytest.mark.parametrize(("written", "microusd"), [("7", 7_000_000), ("'$0.10'", 100_000), ("' 3 '", 3_000_000)])
def test_dollars_are_a_number_or_text(tmp_path: Path, written: str, microusd: int) -> None:
    assert loaded(tmp_path, f"budget.run_usd = {written}").budget.run_microusd == microusd


@pytest.mark.parametrize("wrong", ["[]", "'1,5'", "'1.'", "'.5'", "'1e3'", "'$'", "'1234567890123'"])
def test_what_is_no_amount_of_dollars_is_refused(tmp_path: Path, wrong: str) -> None:
    assert "is not an amount of dollars; write it like 5" in refused(tmp_path, f"budget.run_usd = {wrong}").message


def test_a_hooks_time_is_text_and_a_hooks_table_has_commands(tmp_path: Path) -> None:
    assert "5 is not a time with its unit" in refused(tmp_path, "hooks.timeout = 5").message
    assert "an empty table is not a command" in refused(tmp_path, "hooks.pre_land = ['x', {}]").message


def test_a_switch_is_a_word_or_a_truth(tmp_path: Path) -> None:
    for written, meant in (("true", True), ("false", False), ("'on'", True), ("'off'", False)):
        assert loaded(tmp_path, f"pool.enabled = {written}").pool.enabled is meant


def test_a_text_that_must_say_something_is_not_empty(tmp_path: Path) -> None:
    assert refused(tmp_path, "verify.command = ' '").message.endswith(": ' ' is empty")


def test_the_path_of_the_agent_in_use_wins_over_its_table_of_the_same_place(tmp_path: Path) -> None:
    settings = loaded(tmp_path, 'agent_path = "/one"\n[agents.claude]\npath = "/two"\n')
    assert settings.agent_table("claude").path == "/one"


# ---------------------------------------------------------------- what is said


def test_a_key_that_stands_in_another_table_is_pointed_to(tmp_path: Path) -> None:
    assert refused(tmp_path, "id = 'mine'").hint == "did you mean project.id?"


def test_of_two_variables_that_may_be_meant_one_is_named(tmp_path: Path) -> None:
    warnings = load(tmp_path, environ={"DROVER_POOL_MAN_SIZE": "3"}, flags={}).warnings
    assert len(warnings) == 1
    assert warnings[0].startswith("DROVER_POOL_MAN_SIZE is not read; DROVER_POOL_M")


def test_of_a_long_wrong_value_only_the_beginning_is_shown(tmp_path: Path) -> None:
    said = refused(tmp_path, f"verify = '{'x' * 300}'").message
    assert "'xxxxxxxxxx" in said
    assert said.endswith("x… is not a table")
    assert len(said) < len(str(tmp_path)) + 120
    assert refused(tmp_path, "verify = 'all of it'").message.endswith("'all of it' is not a table")


# ---------------------------------------------------------------- the project's file


@pytest.mark.parametrize("before", ["workers = 4", "workers = 4\n"])
def test_a_table_is_added_after_one_empty_line(tmp_path: Path, before: str) -> None:
    (tmp_path / ".drover.toml").write_text(before)
    write_project_file(tmp_path, name="n", project_id="i", target="t")
    added = 'workers = 4\n\n[project]\nname = "n"\nid = "i"\ntarget = "t"\n'
    assert (tmp_path / ".drover.toml").read_text() == added


def test_a_name_is_written_as_people_read_it(tmp_path: Path) -> None:
    write_project_file(tmp_path, name="Schäferei 🐑", project_id="i", target="t")
    assert 'name = "Schäferei 🐑"\n' in (tmp_path / ".drover.toml").read_text(encoding="utf-8")
    assert load(tmp_path, environ={}, flags={}).project.name == "Schäferei 🐑"


def test_where_no_project_is_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoProject, match="is not in a drover project"):
        get_project(tmp_path, home=Path("/nowhere"), named=None)


def test_a_directory_that_may_not_be_looked_into_is_no_project(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(Path, "is_dir", refuse)  # the tests may run as root, whom no mode keeps out
    assert find_project(repository, home=Path("/nowhere"), named=None) is None

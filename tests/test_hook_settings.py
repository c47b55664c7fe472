"""How hooks are written, and which of them a person has to have seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from drover.domain.errors import SettingsError
from drover.settings import HookCommand, Settings, digest_of, load


def settings(root: Path, hooks: str, **environ: str) -> Settings:
    (root / ".drover.toml").write_text(f"[hooks]\n{hooks}\n")
    return load(root, environ={"HOME": str(root / "home"), **environ}, flags={})


def one(name: str, command: str, timeout_ms: int | None = None) -> HookCommand:
    return HookCommand(name=name, command=command, timeout_ms=timeout_ms)


@pytest.mark.parametrize(
    ("written", "stages"),
    [
        ('"npm ci"', ((one("1", "npm ci"),),)),
        ('{ a = "x", b = "y" }', ((one("a", "x"), one("b", "y")),)),
        ('["x", "y"]', ((one("1", "x"),), (one("2", "y"),))),
        ('["x", { a = "y", b = "z" }]', ((one("1", "x"),), (one("a", "y"), one("b", "z")))),
        ('{ command = "x", timeout = "2m" }', ((one("1", "x", 120_000),),)),
        ('{ command = "x", timeout = "1ms" }', ((one("1", "x", 1),),)),
        ('{ a = { command = "x", timeout = "90s" } }', ((one("a", "x", 90_000),),)),
        ('""', ()),
        ("[]", ()),
    ],
)
def test_a_hook_is_a_command_a_table_side_by_side_or_a_list_in_order(
    tmp_path: Path, written: str, stages: tuple[tuple[HookCommand, ...], ...]
) -> None:
    assert settings(tmp_path, f"after_create = {written}").hooks.stages("after_create") == stages


@pytest.mark.parametrize(
    "written",
    [
        "7",
        "true",
        '["x", 7]',
        '[""]',
        '{ a = "" }',
        '{ a = { timeout = "5s" } }',
        '{ command = "x", wait = "2m" }',
        '{ command = "x", timeout = 5 }',
        '{ command = "x", timeout = "2d" }',
    ],
)
def test_what_is_no_hook_is_refused_with_its_key(tmp_path: Path, written: str) -> None:
    with pytest.raises(SettingsError) as error:
        settings(tmp_path, f"pre_land = {written}")
    assert error.value.message.startswith("hooks.pre_land (")


def test_an_unknown_hook_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        settings(tmp_path, 'before_create = "x"')
    assert "hooks.before_create" in error.value.message


def test_only_hooks_of_the_repositorys_file_are_its_own(tmp_path: Path) -> None:
    mine = tmp_path / "home" / ".config" / "drover"
    mine.mkdir(parents=True)
    (mine / "config.toml").write_text('[hooks]\npost_land = "mine"\nafter_create = { a = "mine too" }\n')
    found = settings(tmp_path, 'after_create = "theirs"\npre_land = { a = "also theirs" }')
    assert found.hooks.stages("post_land") == ((one("1", "mine"),),)
    assert found.hooks.stages("after_create") == ((one("1", "theirs"),),), "a whole hook is one value"
    theirs = found.hooks.commands_from(found.sources, str(tmp_path / ".drover.toml"))
    assert theirs == {"after_create": ["theirs"], "pre_land": ["also theirs"]}


def test_another_word_anywhere_is_another_digest() -> None:
    commands = {"after_create": ["a", "b"], "pre_land": ["c"]}
    others = [
        {"after_create": ["a", "b "], "pre_land": ["c"]},
        {"after_create": ["a"], "pre_land": ["b", "c"]},
        {"after_create": ["b", "a"], "pre_land": ["c"]},
        {"post_land": ["a", "b"], "pre_land": ["c"]},
    ]
    assert digest_of(dict(reversed(commands.items()))) == digest_of(commands)
    assert len({digest_of(c) for c in [commands, *others]}) == 5


def test_the_floor_of_free_space_is_a_size_or_off(tmp_path: Path) -> None:
    (tmp_path / ".drover.toml").write_text('[disk]\nfloor = "2G"\n')
    assert load(tmp_path, environ={}, flags={}).disk.floor == 2 << 30
    assert load(tmp_path, environ={}, flags={"disk.floor": "0"}).disk.floor == 0
    assert load(None, environ={}, flags={}).disk.floor == 1 << 30
    with pytest.raises(SettingsError):
        load(tmp_path, environ={}, flags={"disk.floor": "much"})

"""Agents by name."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from drover.agents import registry
from drover.agents.base import AgentSettings
from drover.agents.command import Command
from drover.domain.errors import AgentError, SettingsError


def offer(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    entry = EntryPoint(name=name, value=value, group=registry.GROUP)
    monkeypatch.setattr(registry, "_offered", lambda: (entry,))


def test_the_built_in_agents_are_known_without_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_offered", tuple)
    assert registry.names() == (
        "amp", "claude", "codex", "command", "copilot", "gemini", "opencode", "qwen", "scripted", "worker",
    )  # fmt: skip
    assert [registry.find(name).name for name in registry.names()] == list(registry.names())


def test_a_package_can_offer_an_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "mine", "drover.agents.command:Command")
    assert isinstance(registry.find("mine"), Command)
    assert "mine" in registry.names()


def test_a_package_cannot_take_the_place_of_a_built_in_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "claude", "drover.agents.command:Command")
    assert registry.find("claude").name == "claude"


def test_an_agent_that_does_not_load_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "mine", "nowhere.at_all:Thing")
    with pytest.raises(AgentError, match=r"agent mine of .* does not load"):
        registry.find("mine")


def test_an_unknown_agent_names_those_there_are() -> None:
    with pytest.raises(AgentError, match="there is no agent 'robot'") as caught:
        registry.find("robot")
    assert caught.value.hint is not None
    assert "claude, codex, command" in caught.value.hint


def test_a_path_is_split_as_a_shell_splits_words() -> None:
    assert AgentSettings.of("command", path="'/opt/my agent' --fast").argv == ("/opt/my agent", "--fast")
    assert AgentSettings.of("command").argv == ()
    with pytest.raises(SettingsError, match="cannot be split"):
        AgentSettings.of("command", path="it's")


def test_what_is_set_for_an_agent_is_not_shown_by_accident() -> None:
    assert "hunter2" not in repr(AgentSettings.of("command", set={"PASSWORD": "hunter2"}))

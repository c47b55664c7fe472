"""Finds agents by name: drover's own, and those of packages that offer some in ``drover.agents``."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from drover.agents.base import Agent
from drover.domain.errors import AgentError

GROUP = "drover.agents"

# Known without metadata too: a checkout that was never installed has none.
_OWN = {
    "amp": ("drover.agents.amp", "Amp"),
    "claude": ("drover.agents.claude", "Claude"),
    "codex": ("drover.agents.codex", "Codex"),
    "command": ("drover.agents.command", "Command"),
    "copilot": ("drover.agents.copilot", "Copilot"),
    "gemini": ("drover.agents.gemini", "Gemini"),
    "opencode": ("drover.agents.opencode", "OpenCode"),
    "qwen": ("drover.agents.qwen", "Qwen"),
    "scripted": ("drover.agents.scripted", "Scripted"),
    "worker": ("drover.agents.worker", "Worker"),
}


def find(name: str) -> Agent:
    """The driver of that type. Raises AgentError if there is none, or if its package does not load."""
    if name in _OWN:
        module, type = _OWN[name]
        return cast(Agent, getattr(import_module(module), type)())
    for entry in _offered():
        if entry.name == name:
            try:
                return cast(Agent, entry.load()())
            except (ImportError, AttributeError, TypeError) as error:
                raise AgentError(f"agent {name} of {entry.value} does not load: {error}") from error
    raise AgentError(f"there is no agent {name!r}", hint="known: " + ", ".join(names()))


def names() -> tuple[str, ...]:
    """The types there are, sorted."""
    return tuple(sorted({*_OWN, *(entry.name for entry in _offered())}))


def _offered() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))

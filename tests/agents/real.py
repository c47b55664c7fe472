"""Where the real agent CLIs are, and jobs for them against the scripted model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

CACHE = Path(os.environ.get("DROVER_AGENTS_CACHE") or Path(__file__).parents[2] / ".cache" / "agents")
CLAUDE = CACHE / "claude" / "node_modules" / ".bin" / "claude"

needs_claude = pytest.mark.skipif(not CLAUDE.exists(), reason="Claude Code is not in the cache: make agents")


def prompt(*turns: dict[str, Any], title: str = "A task") -> str:
    return f"# Task task-x: {title}\n\n<plan>{json.dumps(turns)}</plan>\n"


def reach(url: str, **more: str) -> dict[str, str]:
    """The environment in which Claude Code speaks to the scripted model and to nobody else."""
    return {"ANTHROPIC_BASE_URL": url, **(more or {"ANTHROPIC_API_KEY": "dummy-key"})}

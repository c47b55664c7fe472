"""Make the files in events/ anew: what the real Claude Code prints in each case, against the scripted model.

usage: python -m tests.agents.capture_events      (after `make agents`; 15 seconds)
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import anyio

from drover.agents.base import AgentJob, AgentSettings
from drover.agents.claude import Claude
from tests.agents.conftest import Host
from tests.agents.fakellm import FakeModel
from tests.agents.real import CLAUDE, prompt, reach

EVENTS = Path(__file__).with_name("events")
KEY = {"ANTHROPIC_API_KEY": "dummy-key", "CLAUDE_CODE_MAX_RETRIES": "2"}
SUBSCRIBER = {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-dummy"}
WRITE: dict[str, Any] = {"say": "Writing.", "write": ["a.txt", "a\n"]}
NOISE = (
    "tools",
    "slash_commands",
    "terminal_slash_commands",
    "agents",
    "skills",
    "plugins",
    "mcp_servers",
    "subagent_stats",
)


def fault(status: int, kind: str, message: str = "as planned", times: int = -1, **headers: str) -> dict[str, Any]:
    return {"status": status, "kind": kind, "message": message, "times": times, "headers": headers}


def limit(window: str, reset_s: int) -> dict[str, Any]:
    return {"limit": window, "reset_s": reset_s, "times": -1}


CASES: dict[str, tuple[list[dict[str, Any]], dict[str, str], str]] = {
    "done": ([WRITE, {"sh": "echo out; exit 3"}, {"say": "All done."}], KEY, "bypass"),
    "five_hours": ([WRITE, {"fault": limit("five_hour", 3600)}], SUBSCRIBER, "bypass"),
    "week": ([{"fault": limit("seven_day", 300_000)}], SUBSCRIBER, "bypass"),
    "rate_limited": ([WRITE, {"fault": fault(429, "rate_limit_error", **{"retry-after": "3600"})}], KEY, "bypass"),
    "overloaded": ([{"fault": fault(529, "overloaded_error")}], KEY, "bypass"),
    "overloaded_then_done": (
        [WRITE, {"fault": fault(529, "overloaded_error", times=1), "say": "All done."}], KEY, "bypass",
    ),
    "bad_key": ([{"fault": fault(401, "authentication_error")}], KEY, "bypass"),
    "no_key": ([], {"NOTHING": ""}, "bypass"),
    "no_credit": (
        [{"fault": fault(400, "invalid_request_error", "Your credit balance is too low")}], KEY, "bypass",
    ),
    "too_long": (
        [{"fault": fault(400, "invalid_request_error", "prompt is too long: 213000 tokens > 200000 maximum")}],
        KEY, "bypass",
    ),
    "refused": ([WRITE, {"sh": "npm install x"}, {"say": "I could not install it."}], KEY, "accept-edits"),
    "question": ([{"say": "I looked.\n\nNEEDS_HUMAN: which colour?"}], KEY, "bypass"),
    "background": (
        [{"sh": "sleep 1; echo x", "background": True}, {"say": "First end"}, {"say": "Last end"}], KEY, "bypass",
    ),
    "unreachable": ([], {**KEY, "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}, "bypass"),
}  # fmt: skip


async def capture(name: str, place: Path) -> None:
    turns, env, permissions = CASES[name]
    (place / "worktree").mkdir(parents=True)
    with FakeModel() as model:
        job = AgentJob(
            task_id="task-x", attempt=1, fence=1, prompt=prompt(*turns), follow_up="", worktree=place / "worktree",
            log_dir=place / "log", marker=f"capture-{name}.", timeout_s=60,
            env={"PATH": os.environ["PATH"], "HOME": str(place), **reach(model.url, **env)},
            settings=AgentSettings(type="claude", argv=(str(CLAUDE),), permissions=permissions),
        )  # fmt: skip
        report = await Claude().work(job, Host())
    lines = [json.loads(line) for line in (place / "log" / "output.jsonl").read_text().splitlines()]
    text = "".join(json.dumps(trimmed(line)) + "\n" for line in lines)
    (EVENTS / f"claude.{name}.jsonl").write_text(re.sub(re.escape(str(place)), "/clone", text))
    print(name, report.outcome, report.until or "", report.usage)


def trimmed(event: Any) -> Any:
    if isinstance(event, dict):
        return {key: trimmed(value) for key, value in event.items() if key not in NOISE}
    return [trimmed(item) for item in event] if isinstance(event, list) else event


async def main() -> None:
    EVENTS.mkdir(exist_ok=True)
    for name in CASES:
        place = Path(tempfile.mkdtemp())
        await capture(name, place)
        shutil.rmtree(place)


if __name__ == "__main__":
    anyio.run(main)

"""Make the files in events/ anew that the other agents print, against the scripted model.

usage: python -m tests.agents.capture_others [AGENT.CASE ...]      (after scripts/install_agents.py; 2 minutes)
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio

from drover.agents.base import AgentJob
from tests.agents.conftest import Host
from tests.agents.fakellm import FakeModel
from tests.agents.real import prompt
from tests.agents.rig import REAL

EVENTS = Path(__file__).with_name("events")
WRITE = {"say": "Writing.", "write": ["a.txt", "a\n"]}
SHELL = {"sh": "echo out; exit 3"}
KEY = {"fault": {"status": 401, "message": "invalid api key", "times": -1}, "say": "x"}
RETRY_LATE = {
    "fault": {"status": 429, "message": "slow down", "headers": {"retry-after": 3600}, "times": -1},
    "say": "x",
}
OVERLOADED = {"fault": {"status": 529, "message": "Overloaded", "times": -1}, "say": "x"}
SAY = {"say": "I could not."}
SPENT: dict[str, Any] = {"say": "x", "fault": {"limit": "five_hour", "times": -1, "reset_s": 90000}}
DAILY: dict[str, Any] = {"say": "x", "fault": {"limit": "day", "times": -1}}
COMMON: dict[str, tuple[list[dict[str, Any]], str | None]] = {
    "done": ([WRITE, SHELL, {"say": "All done."}], None),
    "question": ([{"say": "I looked.\n\nNEEDS_HUMAN: which colour?"}], None),
    "bad_key": ([KEY], None),
}
CASES = {f"{name}.{case}": facts for name in REAL if name != "claude" for case, facts in COMMON.items()} | {
    "opencode.refused": ([WRITE, SHELL, SAY], "accept-edits"),
    "copilot.refused": ([WRITE, SHELL, SAY], "accept-edits"),  # the others do not offer what they may not use
    "codex.usage": ([WRITE, SPENT], None),
    "codex.overloaded": ([OVERLOADED], None),
    "gemini.daily": ([WRITE, DAILY], None),
    "copilot.rate_limited": ([RETRY_LATE], None),
    "copilot.overloaded": ([OVERLOADED], None),
}
NOISE = ("tools", "slash_commands", "agents", "skills", "mcp_servers", "requestFingerprint", "toolTelemetry",
         "responseHeaders", "transformedContent", "snapshot", "metadata")  # fmt: skip
CHATTER = ("session.", "tool.shell", "tool.execution_partial", "assistant.tool_call_delta", "assistant.message_delta")


async def capture(case: str, place: Path) -> None:
    name, (turns, permissions) = case.split(".")[0], CASES[case]
    real = REAL[name]
    if real.missing:
        print(case, real.missing)
        return
    (place / "worktree").mkdir(parents=True)
    (place / "home").mkdir()
    (place / "scratch").mkdir()
    with FakeModel(place / "model.jsonl") as model:
        real.configure(place / "home", model.url)
        base = {
            "PATH": os.environ["PATH"],
            "HOME": str(place / "home"),
            "TERM": "dumb",
            "TMPDIR": str(place / "scratch"),
        }
        job = AgentJob(
            task_id="task-x", attempt=1, fence=1, prompt=prompt(*turns), follow_up="", worktree=place / "worktree",
            log_dir=place / "log", marker=f"capture-{case}.", timeout_s=120, env={**base, **real.env(model.url)},
            settings=real.settings.model_copy(update={"permissions": permissions}),
        )  # fmt: skip
        report = await real.agent.work(job, Host())
    lines = [json.loads(line) for line in (place / "log" / "output.jsonl").read_text().splitlines() if line[:1] == "{"]
    kept = [trimmed(line) for line in lines if not noise(str(line.get("type")))]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
    (EVENTS / f"{case}.jsonl").write_text(re.sub(re.escape(str(place)), "/clone", text))
    code = json.loads((place / "log" / "exit.json").read_text())["returncode"]
    print(case, code, report.outcome, repr(report.reason[:200]), report.until or "", report.usage, flush=True)


def noise(kind: str) -> bool:
    return kind.startswith(CHATTER) and kind != "session.error"


def trimmed(event: Any) -> Any:
    if isinstance(event, dict):
        return {key: trimmed(value) for key, value in event.items() if key not in NOISE}
    return [trimmed(item) for item in event] if isinstance(event, list) else event


async def main(cases: list[str]) -> None:
    for case in cases or CASES:
        place = Path(tempfile.mkdtemp())
        await capture(case, place)
        shutil.rmtree(place)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1:])

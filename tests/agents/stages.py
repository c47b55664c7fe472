"""Our own adapters on the stage of ``drover.testing``: what their programs print, as it was recorded."""

from __future__ import annotations

import re
from pathlib import Path

from drover.agents import registry
from drover.testing import Act, Stage

EVENTS = Path(__file__).with_name("events")
_SESSION = re.compile(r'"(?:session_id|thread_id|sessionID|sessionId)": ?"([^"]+)"')
# What each exits with when its service refuses, and what it says of a session that it does not know.
_ENDINGS = {
    "amp": ("failed", 1, "Thread not found"),
    "claude": ("bad_key", 1, "No conversation found with session ID: x"),
    "codex": ("bad_key", 1, "Error: thread/resume failed: no rollout found for thread id x"),
    "copilot": ("bad_key", 1, "No session, task, or name matched 'x'"),
    "gemini": ("bad_key", 145, 'Invalid session identifier "x"'),
    "opencode": ("bad_key", 1, "Error: Session not found"),
    "qwen": ("bad_key", 1, "No saved session found with ID x"),
}


def recorded(case: str) -> str:
    """The events of a case, with a place for the session's id where the recorded one stood."""
    text = (EVENTS / f"{case}.jsonl").read_text()
    found = _SESSION.search(text)
    return text.replace(found[1], "{session}") if found else text


def stage_of(name: str) -> Stage:
    case, code, forgot = _ENDINGS[name]
    verified = getattr(registry.find(name), "verified", "") or "2.1.330"
    return Stage(
        done=Act(stdout=recorded(f"{name}.done")),
        failed=Act(stdout=recorded(f"{name}.{case}"), exit_code=code),
        forgot=Act(stderr=forgot + "\n", exit_code=1),
        version=verified,
    )


STAGES = {name: stage_of(name) for name in _ENDINGS} | {
    "command": Stage(
        done=Act(stdout="All done.\n"), failed=Act(stderr="it broke\n", exit_code=1), continues=False
    )
}  # fmt: skip

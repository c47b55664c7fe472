"""Codex, headless: `codex exec --json`, its thread's id read from its first line, before it asks its model anything.

Facts observed with 0.169.0. The tokens of ``turn.completed`` are of the whole thread, earlier runs
included. An item of type "error" is a warning. Only Codex locks its session against a second writer.
"""

from __future__ import annotations

import json
from typing import ClassVar

from drover.agents.base import AgentJob
from drover.agents.program import Ended, Start
from drover.agents.session_files import SessionHome
from drover.agents.stream import Json
from drover.agents.talk import PROXIES, Modes, Talk, Talker
from drover.domain.models import Usage

_TOOLS = ("command_execution", "file_change", "mcp_tool_call", "web_search")
NETWORK_TRIES = 4  # half a minute of them: it would go on for ever, and each is a sign of life
QUIET = ("-c", "check_for_update_on_startup=false", "-c", "analytics.enabled=false")


class CodexReading(Talk):
    """The state of one run of Codex."""

    def __init__(self) -> None:
        super().__init__()
        self._tries = 0  # in a row, to reach a network that is not there

    def event(self, event: Json) -> None:
        kind = event.text("type")
        self._tries = self._tries + 1 if "waiting for network" in event.text("message") else 0
        self.in_vain = self.in_vain or self._tries >= NETWORK_TRIES
        if kind == "thread.started":
            self.session_id = event.text("thread_id") or None
        elif kind == "item.completed":
            self._item(event.get("item"))
        elif kind == "turn.completed":
            self.succeeded()
            self.turns += 1
            self.input_tokens = event.count("usage", "input_tokens")
            self.output_tokens = event.count("usage", "output_tokens")
        elif kind == "turn.failed":
            self.failed(event.text("error", "message"))
        elif kind == "error":  # it tries again, or this was the last time
            self.failed(event.text("message"))

    def _item(self, item: Json) -> None:
        kind = item.text("type")
        if kind == "agent_message":
            self.words = item.text("text")
        elif kind in _TOOLS:
            self.turns += 1
            if item.text("status") == "declined":
                self.denied.append(item.text("tool") or item.text("command") or kind)


class Codex(Talker[CodexReading]):
    """Codex. ``[agents.codex] permissions``: bypass (the default), accept-edits (its sandbox) or allow-list."""

    name = "codex"
    package = "@openai/codex"
    verified = "0.169.0"
    sign_in = ("CODEX_API_KEY", "OPENAI_API_KEY")
    sign_in_advice = "sign in: run `codex login` once, or set CODEX_API_KEY"
    env_names = (*sign_in, "CODEX_HOME", "OPENAI_BASE_URL", *PROXIES)
    modes: ClassVar[Modes] = {
        "bypass": (
            ("--dangerously-bypass-approvals-and-sandbox",),
            "may run any command and change any file that you may",
        ),
        "accept-edits": (
            ("-c", 'sandbox_mode="workspace-write"', "-c", 'approval_policy="never"'),
            "may write in the clone and run commands without network, in its sandbox",
        ),
        "allow-list": ((), "may do what the sandbox_mode of its config.toml allows; without one, only read"),
    }
    forgets = ("no rollout found for thread id",)
    sessions = SessionHome("CODEX_HOME", ".codex", "sessions/*/*/*/rollout-*-{id}.jsonl")
    stop_signal = "INT"  # on SIGTERM it dies at once and leaves its tools behind

    def command(self, job: AgentJob, start: Start) -> tuple[str, ...]:
        settings = job.settings
        verb = ("exec", "resume") if start.continues else ("exec",)
        # Here `resume` has no option of its own for the model, `-c` is understood by both.
        model = ("-c", f"model={json.dumps(settings.model)}") if settings.model else ()
        thread = (start.session_id or "",) if start.continues else ()
        options = ("--json", "--skip-git-repo-check", *QUIET, *self.allowed(settings), *model, *settings.args)
        return (*self.program(settings), *verb, *options, *thread, "-")

    def environment(self, job: AgentJob) -> dict[str, str]:
        return job.env | {"TZ": "UTC"}  # it tells the end of a limit in local time, without naming the zone

    def read(self) -> CodexReading:
        return CodexReading()

    def lost_turns(self, job: AgentJob, ended: Ended[CodexReading]) -> bool:
        return 0 < ended.reading.input_tokens < job.prior_usage.input_tokens  # of the whole thread

    def usage(self, job: AgentJob, ended: Ended[CodexReading]) -> Usage:
        """What the thread has used, less what its earlier runs have told."""
        reading = ended.reading
        continued = ended.start.continues and not self.is_blank(job, ended)
        before = job.prior_usage if continued else Usage()
        return Usage(
            input_tokens=max(0, reading.input_tokens - before.input_tokens),
            output_tokens=max(0, reading.output_tokens - before.output_tokens),
            turns=reading.turns,
            model=job.settings.model or "",
        )

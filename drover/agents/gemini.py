"""Gemini CLI, headless: its session's id chosen by us, its events read as they come.

Facts observed with 0.61.0. Asked to stop it exits with 0 and no result. After an error its exit code is
HTTP's status mod 256. A long limit it sleeps out, and says so on its standard error only. Tools that it
would have to ask about are not offered to the model at all. An empty prompt would destroy its session.
Beside GEMINI_API_KEY it needs no file; with GOOGLE_GEMINI_BASE_URL it does not sign in unless the operator's
``~/.gemini/settings.json`` names ``gemini-api-key`` as ``security.auth.selectedType``: settings of ours it
takes from nowhere but directories that only root can write to.
"""

from __future__ import annotations

import re
import uuid
from typing import ClassVar

from drover.agents import service
from drover.agents.base import AgentJob
from drover.agents.program import Ended, Start
from drover.agents.stream import Json
from drover.agents.talk import COMPLAINT, PROXIES, Env, Modes, Talk, Talker
from drover.domain.models import AgentReport, Usage
from drover.domain.verdicts import Outcome

_STATUSES = {status % 256: status for status in (400, 401, 403, 404, 429, 500, 502, 503, 504, 529)}
_SIGNED_OUT = 41
_DAILY = re.compile(r"daily quota|PerDay", re.IGNORECASE)
_PACIFIC = "America/Los_Angeles"  # where the provider's day ends; it does not say when
_ASKS = ("requires user confirmation", "denied by policy", "not supported in non-interactive")


class GeminiReading(Talk):
    """The state of one run of Gemini CLI."""

    def __init__(self) -> None:
        super().__init__()
        self._tools: dict[str, str] = {}  # by the id of their call
        self._stopped = False  # by itself: its result says "success" all the same
        self._ended = False  # the last message: the next words begin another

    def event(self, event: Json) -> None:
        kind = event.text("type")
        if kind == "init":
            self.session_id = event.text("session_id") or None
            self.model = event.text("model")
        elif kind == "message" and event.text("role") == "assistant":
            self.words = ("" if self._ended else self.words) + event.text("content")
            self._ended = not event.true("delta")
        elif kind == "tool_use":
            self._tools[event.text("tool_id")] = event.text("tool_name")
            self._ended = True
        elif kind == "tool_result":
            error = event.text("error", "message")
            if any(words in error for words in _ASKS):
                self.denied.append(self._tools.get(event.text("tool_id"), "a tool"))
        elif kind == "error":
            self._stopped = self._stopped or "stopping execution" in event.text("message")
            self.failed(event.text("message"))
        elif kind == "result":
            self._result(event)

    def _result(self, event: Json) -> None:
        stats = event.get("stats")
        self.input_tokens, self.output_tokens = stats.count("input_tokens"), stats.count("output_tokens")
        self.turns = stats.count("tool_calls") + 1
        if event.text("status") == "success" and not self._stopped:
            self.succeeded()
        elif not self._stopped:
            self.failed(event.text("error", "message") or "it failed")


class Gemini(Talker[GeminiReading]):
    """Gemini CLI. ``[agents.gemini] permissions``: bypass (the default), accept-edits or allow-list."""

    name = "gemini"
    package = "@google/gemini-cli"
    verified = "0.61.0"
    sign_in = ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_GCA")
    sign_in_advice = "sign in: run `gemini` once, or set GEMINI_API_KEY"
    env_names = (*sign_in, "GOOGLE_GEMINI_BASE_URL", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION",
                 "GOOGLE_APPLICATION_CREDENTIALS", "GEMINI_MODEL", *PROXIES)  # fmt: skip
    modes: ClassVar[Modes] = {
        "bypass": (("--yolo",), "may run any command and change any file that you may"),
        "accept-edits": (("--approval-mode", "auto_edit"), "may change files in the clone; commands are not offered"),
        "allow-list": (("--approval-mode", "default"), "may use only the tools that its settings allow"),
    }
    # One process in place of a parent that swallows our signals and its child.
    own_env: ClassVar[Env] = {"GEMINI_CLI_NO_RELAUNCH": "true", "GEMINI_TELEMETRY_ENABLED": "false"}
    forgets = ("Invalid session identifier", "No previous sessions found")

    def command(self, job: AgentJob, start: Start) -> tuple[str, ...]:
        settings = job.settings
        session = ("--resume" if start.continues else "--session-id", start.session_id or str(uuid.uuid4()))
        model = ("--model", settings.model) if settings.model else ()
        stream = ("--skip-trust", "--output-format", "stream-json")
        return (*self.program(settings), *stream, *self.allowed(settings), *model, *session, *settings.args)

    def new_session(self) -> str:
        return str(uuid.uuid4())

    def read(self) -> GeminiReading:
        return GeminiReading()

    def failure(self, ended: Ended[GeminiReading]) -> AgentReport:
        reading, code = ended.reading, ended.exit.returncode or 0
        reading.status = reading.status or (401 if code == _SIGNED_OUT else _STATUSES.get(code, 0))
        if not reading.failure and reading.status:
            return service.report_of(ended.errors[-COMPLAINT:], reading.status, sign_in=self.sign_in_advice)
        return super().failure(ended)

    def report(self, job: AgentJob, ended: Ended[GeminiReading]) -> AgentReport:
        report = super().report(job, ended)
        if report.outcome == Outcome.USAGE_LIMIT and report.until is None and _DAILY.search(report.reason):
            return report.model_copy(update={"until": service.next_midnight(_PACIFIC)})
        return report

    def usage(self, job: AgentJob, ended: Ended[GeminiReading]) -> Usage:
        reading = ended.reading
        return Usage(
            input_tokens=reading.input_tokens,
            output_tokens=reading.output_tokens,
            turns=reading.turns,
            model=reading.model,
        )

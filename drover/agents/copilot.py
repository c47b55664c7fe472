"""GitHub Copilot CLI, headless: its session's id chosen by us, for it prints it only at its end.

Facts observed with 1.0.102 and a provider of one's own. Told to stop it prints ``"exitCode":0``, after an
``abort``. Without leave to use a tool it goes on without that tool, to exit 0.
"""

from __future__ import annotations

import uuid
from typing import ClassVar

from drover.agents.base import AgentJob
from drover.agents.program import Ended, Start
from drover.agents.session_files import SessionHome
from drover.agents.stream import Json
from drover.agents.talk import PROXIES, Env, Modes, Talk, Talker
from drover.domain.models import Usage

_REFUSED = "ermission denied"


class CopilotReading(Talk):
    """The state of one run of Copilot CLI."""

    def __init__(self) -> None:
        super().__init__()
        self._tools: dict[str, str] = {}  # by the id of their call
        self._aborted = False

    def event(self, event: Json) -> None:
        kind, data = event.text("type"), event.get("data")
        if kind == "assistant.message":
            self.words = data.text("content") or self.words
            self.model = data.text("model") or self.model
            self.turns += 1
        elif kind == "assistant.usage":
            self.input_tokens += data.count("inputTokens") + data.count("cacheReadTokens")
            self.output_tokens += data.count("outputTokens")
        elif kind == "tool.execution_start":
            self._tools[data.text("toolCallId")] = data.text("toolName")
        elif kind == "tool.execution_complete":
            said = data.text("error", "message") + data.text("result", "content")
            if not data.true("success") and _REFUSED in said:
                self.denied.append(self._tools.get(data.text("toolCallId"), "a tool"))
        elif kind == "model.call_failure":
            self.failed(data.text("errorMessage"), data.count("statusCode"))
        elif kind == "session.error":
            self.failed(data.text("message"), data.count("statusCode"))
        elif kind == "abort":
            self._aborted = True
        elif kind == "result":
            self.session_id = event.text("sessionId") or self.session_id
            if event.get("exitCode").value == 0 and not self._aborted:
                self.succeeded()
            else:
                self.failed("it was told to stop" if self._aborted else "")


class Copilot(Talker[CopilotReading]):
    """GitHub Copilot CLI. ``[agents.copilot] permissions``: bypass (the default), accept-edits or allow-list."""

    name = "copilot"
    package = "@github/copilot"
    verified = "1.0.102"
    sign_in = ("COPILOT_GITHUB_TOKEN", "GH_TOKEN", "GITHUB_TOKEN", "COPILOT_PROVIDER_API_KEY")
    sign_in_advice = "sign in: run `copilot login` once, or set COPILOT_GITHUB_TOKEN"
    env_names = (*sign_in, "COPILOT_PROVIDER_BASE_URL", "COPILOT_PROVIDER_TYPE", "COPILOT_PROVIDER_WIRE_API",
                 "COPILOT_MODEL", "COPILOT_OFFLINE", "COPILOT_HOME", *PROXIES)  # fmt: skip
    modes: ClassVar[Modes] = {
        "bypass": (("--yolo",), "may run any command and change any file that you may"),
        "accept-edits": (("--allow-tool", "write"), "may change files in the clone; commands are refused"),
        "allow-list": ((), "may use only the tools that --allow-tool in args allows"),
    }
    own_env: ClassVar[Env] = {"COPILOT_AUTO_UPDATE": "false"}
    sessions = SessionHome("COPILOT_HOME", ".copilot", "session-state/{id}/*")
    forgets = ("No session, task, or name matched",)

    def command(self, job: AgentJob, start: Start) -> tuple[str, ...]:
        settings = job.settings
        id = start.session_id or str(uuid.uuid4())
        session = (f"--resume={id}",) if start.continues else ("--session-id", id)
        model = ("--model", settings.model) if settings.model else ()
        stream = ("--output-format", "json", "--no-ask-user")
        return (*self.program(settings), *stream, *self.allowed(settings), *model, *session, *settings.args)

    def new_session(self) -> str:
        return str(uuid.uuid4())

    def read(self) -> CopilotReading:
        return CopilotReading()

    def usage(self, job: AgentJob, ended: Ended[CopilotReading]) -> Usage:
        reading = ended.reading
        return Usage(
            input_tokens=reading.input_tokens,
            output_tokens=reading.output_tokens,
            turns=reading.turns,
            model=reading.model,
        )

"""OpenCode, headless: `opencode run --format json`, its session titled by us so that it is found without its id.

Facts observed with 1.18.33. The first event, and with it the id, comes only with the model's first answer.
A session continues only in the directory it began in; in another the run would never end. What it would
have to ask about is rejected, and the run then ends with exit 0 and no words. It tries again in silence.
"""

from __future__ import annotations

import json
from typing import ClassVar

from drover.agents.base import AgentHost, AgentJob
from drover.agents.program import Ended, Start
from drover.agents.stream import Json
from drover.agents.talk import PROXIES, Env, Modes, Talk, Talker
from drover.domain.models import AgentReport, Usage
from drover.process import TooMuchOutput, run

_REJECTED = ("rejected permission", "rule which prevents")
# Where it would have to ask it refuses, and names the tool; what is denied it would not even offer.
_EDITS = {"edit": "allow", "bash": "ask", "webfetch": "ask", "external_directory": "ask"}


class OpenCodeReading(Talk):
    """The state of one run of OpenCode."""

    def event(self, event: Json) -> None:
        kind, part = event.text("type"), event.get("part")
        self.session_id = event.text("sessionID") or self.session_id
        if kind == "text":
            self.words = part.text("text")
        elif kind == "tool_use":
            error = part.text("state", "error")
            if part.text("state", "status") == "error" and any(words in error for words in _REJECTED):
                self.denied.append(part.text("tool") or "a tool")
        elif kind == "step_finish":
            self._step(part)
        elif kind == "error":
            data = event.get("error", "data")
            waits = data.text("responseHeaders", "retry-after")
            said = [data.text("message") or event.text("error", "name"), data.text("responseBody")]
            self.failed("\n".join([*said, *([f"retry-after: {waits}"] if waits else [])]), data.count("statusCode"))

    def _step(self, part: Json) -> None:
        tokens = part.get("tokens")
        self.input_tokens += tokens.count("input") + tokens.count("cache", "read") + tokens.count("cache", "write")
        self.output_tokens += tokens.count("output") + tokens.count("reasoning")
        self.cost_usd += part.number("cost")
        self.turns += 1
        self.finished = False
        if part.text("reason") == "stop":
            self.succeeded()


class OpenCode(Talker[OpenCodeReading]):
    """OpenCode. ``[agents.opencode] permissions``: bypass (the default), accept-edits or allow-list."""

    name = "opencode"
    package = "opencode-ai"
    verified = "1.18.33"
    sign_in = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY", "OPENCODE_API_KEY")
    sign_in_advice = "sign in: run `opencode auth login` once, or set the key of its provider"
    env_names = (*sign_in, "OPENCODE_CONFIG", "OPENCODE_CONFIG_CONTENT", "OPENCODE_PERMISSION", "XDG_DATA_HOME",
                 "XDG_CONFIG_HOME", *PROXIES)  # fmt: skip
    modes: ClassVar[Modes] = {
        "bypass": (("--auto",), "may run any command and change any file that you may"),
        "accept-edits": ((), "may change files in the clone, and run no commands"),
        "allow-list": ((), "may use only what the permission table of its configuration allows"),
    }
    own_env: ClassVar[Env] = {
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
    }
    forgets = ("Session not found",)

    def command(self, job: AgentJob, start: Start) -> tuple[str, ...]:
        settings = job.settings
        session = ("--session", start.session_id or "") if start.continues else ("--title", title(job))
        model = ("--model", settings.model) if settings.model else ()
        # Its retries are silent but for these lines, which tell a limit that it sleeps out.
        logs = ("--print-logs", "--log-level", "ERROR")
        run = ("run", "--format", "json", *logs, *self.allowed(settings))
        return (*self.program(settings), *run, *model, *session, *settings.args)

    def environment(self, job: AgentJob) -> dict[str, str]:
        edits = {"OPENCODE_PERMISSION": json.dumps(_EDITS)} if self.mode(job.settings) == "accept-edits" else {}
        return super().environment(job) | edits

    async def work(self, job: AgentJob, host: AgentHost) -> AgentReport:
        if job.session_id is None and _was_begun(job):
            job = job.model_copy(update={"session_id": await self._find(job)})
        return await super().work(job, host)

    async def _find(self, job: AgentJob) -> str | None:
        """The session of an execution that was killed before it told its id."""
        argv = [*self.program(job.settings), "session", "list", "--format", "json"]
        try:
            done = await run(argv, cwd=job.worktree, env=self.environment(job), timeout_s=60)
            listed = Json({"sessions": json.loads(done.stdout)})
        except (OSError, TimeoutError, TooMuchOutput, ValueError):
            return None  # then it begins anew, with all that is in the clone
        place = str(job.worktree.resolve())
        for session in listed.items("sessions"):
            if session.text("title") == title(job) and session.text("directory") == place:
                return session.text("id") or None
        return None

    def read(self) -> OpenCodeReading:
        return OpenCodeReading()

    def usage(self, job: AgentJob, ended: Ended[OpenCodeReading]) -> Usage:
        reading = ended.reading
        return Usage(
            input_tokens=reading.input_tokens,
            output_tokens=reading.output_tokens,
            cost_usd=round(reading.cost_usd, 6),
            turns=reading.turns,
            model=job.settings.model or "",
        )


def title(job: AgentJob) -> str:
    """The same for all executions of an attempt: what one of them began, the next one finds."""
    return f"drover {job.task_id} attempt {job.attempt}"


def _was_begun(job: AgentJob) -> bool:
    """Whether the task was executed before; its directories lie beside one another."""
    return any(path.parent != job.log_dir for path in job.log_dir.parent.glob("*/start.json"))

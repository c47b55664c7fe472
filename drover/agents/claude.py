"""Claude Code, headless: `claude -p` with its session's id chosen by us, its events read as they come.

Facts observed with 2.1.197 and 2.1.330. ``subtype`` of a result says "success" for API failures too;
a result is not the end of the run, the exit is: after a background task there is a second. Its input is a
stream of messages: one that comes while it works joins the turn at its next tool's result, one that comes
too late for it makes another turn, and the end of the input lets it end once all of that is done. ``usage``
and ``num_turns`` are of what each result ends, ``total_cost_usd`` is of the whole session so far.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path

from drover.agents import endings
from drover.agents.base import AgentCheck, AgentJob, AgentSettings
from drover.agents.program import Ended, Program, Reading, Start
from drover.agents.session_files import SessionHome
from drover.agents.stream import Json
from drover.domain.clock import SystemClock
from drover.domain.errors import SettingsError
from drover.domain.models import AgentReport, Usage
from drover.domain.verdicts import Outcome
from drover.process import TooMuchOutput, run

PERMISSIONS = {
    "bypass": (("--dangerously-skip-permissions",), "may run any command and change any file that you may"),
    "accept-edits": (
        ("--permission-mode", "acceptEdits"),
        "may change files in the clone; commands only where allowed",
    ),
    "allow-list": ((), "may use only the tools that its settings, or --allowedTools in args, allow"),
}
VERIFIED = ("2.1.197", "2.1.330")
SIGN_IN = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
)
ROUNDED_USD = 1e-5  # what sums of rounded costs may be off
NOT_THERE = frozenset({500, 502, 503, 504, 522, 524, 529})  # answers of a service that will be back
_LIMIT = re.compile(
    r"hit your (?:[\w-]+ )*limit|usage limit reached|limit reached\|\d{10}|session limit", re.IGNORECASE
)
_TOO_LONG = re.compile(r"prompt is too long|exceeds? (?:the )?context|context (?:window|limit)", re.IGNORECASE)
_SIGNED_OUT = re.compile(r"not logged in|invalid api key|please run /login|authentication|oauth token", re.IGNORECASE)
_NO_SUCH_SESSION = "No conversation found with session ID"


class ClaudeReading(Reading):
    """The state of one run of Claude Code, from its events."""

    def __init__(self) -> None:
        self.session_id = None
        self.model = ""
        self.result: Json | None = None  # the last one: with background tasks there are several
        self.words = ""  # of the last message
        self.taken: list[str] = []
        self.denied: list[str] = []
        self.limited_until: int | None = None
        self.limited = False
        self.retry = Json({})
        self.used = Usage()  # by what the results told so far
        self.unreported: dict[str, tuple[int, int]] = {}  # input, output of messages since the last result

    def event(self, event: Json) -> None:
        kind = event.text("type")
        if kind in ("system", "result") and event.text("session_id"):
            self.session_id = event.text("session_id")
        if kind == "system" and event.text("subtype") == "init":
            self.model = event.text("model")
        elif kind == "system" and event.text("subtype") == "api_retry":
            self.retry = event
        elif kind == "assistant":
            self._message(event)
        elif kind == "user" and event.true("isReplay"):
            self.taken.append(event.text("uuid"))
        elif kind == "rate_limit_event":
            self._limit(event.get("rate_limit_info"))
        elif kind == "result":
            self.result, self.at_rest = event, True
            self._count(event)
            self.denied += [denial.text("tool_name") or "a tool" for denial in event.items("permission_denials")]

    def _message(self, event: Json) -> None:
        words = "\n".join(part.text("text") for part in event.items("message", "content") if part.text("text"))
        self.words = words or self.words
        if event.text("message", "model") != "<synthetic>":
            self.retry = Json({})  # it was answered: what had to be tried again has worked
            usage = event.get("message", "usage")
            self.unreported[event.text("message", "id")] = (_input(usage), usage.count("output_tokens"))
        self._limit(event.get("api_error_params", "rate_limit_info"))

    def _limit(self, info: Json) -> None:
        if info.text("status") == "rejected":
            self.limited = True
            if resets := info.count("resetsAt"):
                self.limited_until = resets * 1000
        elif info:
            self.limited = False

    def _count(self, result: Json) -> None:
        self.unreported = {}
        self.used = Usage(
            input_tokens=self.used.input_tokens + _input(result.get("usage")),
            output_tokens=self.used.output_tokens + result.count("usage", "output_tokens"),
            turns=self.used.turns + result.count("num_turns"),
            cost_usd=result.number("total_cost_usd"),
        )

    def usage(self, prior_cost_usd: float) -> Usage:
        """Of this process alone. What no result tells is taken from its messages: a little less than was used."""
        counts = self.unreported.values()
        return Usage(
            input_tokens=self.used.input_tokens + sum(read for read, _ in counts),
            output_tokens=self.used.output_tokens + sum(written for _, written in counts),
            turns=self.used.turns + len(counts),
            cost_usd=round(max(0.0, self.used.cost_usd - prior_cost_usd), 6),
            model=self.model,
        )


class Claude(Program[ClaudeReading]):
    """Claude Code. ``[agents.claude] permissions``: bypass (the default), accept-edits or allow-list."""

    name = "claude"
    env_names = (
        *SIGN_IN,
        "ANTHROPIC_BASE_URL",
        "ANTHROPIC_CUSTOM_HEADERS",
        "ANTHROPIC_MODEL",
        "ANTHROPIC_SMALL_FAST_MODEL",
        "API_TIMEOUT_MS",
        "CLAUDE_CODE_MAX_RETRIES",
        "CLAUDE_CONFIG_DIR",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "NODE_EXTRA_CA_CERTS",
    )
    sessions = SessionHome("CLAUDE_CONFIG_DIR", ".claude", "projects/*/{id}.jsonl")
    # On SIGTERM it ends its tools and keeps its session; on SIGINT it exits with 0, as if all were well.
    stop_signal = "TERM"

    def command(self, job: AgentJob, start: Start) -> tuple[str, ...]:
        settings = job.settings
        session = ("--resume" if start.continues else "--session-id", start.session_id or str(uuid.uuid4()))
        model = ("--model", settings.model) if settings.model else ()
        stream = ("-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose")
        replay = ("--replay-user-messages",)
        return (*program(settings), *stream, *replay, *_permissions(settings)[0], *model, *session, *settings.args)

    def environment(self, job: AgentJob) -> dict[str, str]:
        own = {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
        if os.geteuid() == 0 and _mode(job.settings) == "bypass":
            own["IS_SANDBOX"] = "1"  # root in a container is common, and bypass is refused to root without this
        return own | job.env

    def said(self, text: str, id: str) -> str:
        message = {"type": "user", "message": {"role": "user", "content": text}, "uuid": id}
        return json.dumps(message)

    def new_session(self) -> str:
        return str(uuid.uuid4())

    def read(self) -> ClaudeReading:
        return ClaudeReading()

    def forgot(self, ended: Ended[ClaudeReading]) -> bool:
        said = ended.reading.result.items("errors") if ended.reading.result else ()
        return _NO_SUCH_SESSION in ended.errors or any(_NO_SUCH_SESSION in str(error.value) for error in said)

    def lost_turns(self, job: AgentJob, ended: Ended[ClaudeReading]) -> bool:
        cost = ended.reading.used.cost_usd  # of the whole session
        return 0 < cost < job.prior_cost_usd - ROUNDED_USD

    def report(self, job: AgentJob, ended: Ended[ClaudeReading]) -> AgentReport:
        reading = ended.reading
        report = endings.of_process(ended.exit) or _of_failure(ended) or _of_success(reading)
        words = reading.result.text("result") if reading.result else ""
        goes_on = ended.start.continues and not self.is_blank(job, ended)
        usage = reading.usage(job.prior_cost_usd if goes_on else 0.0)
        return report.model_copy(update={"summary": words or reading.words, "usage": usage})

    async def check(self, settings: AgentSettings) -> AgentCheck:
        """Find it and ask for its version; it is not signed in or asked anything."""
        name, (_, may) = program(settings)[0], _permissions(settings)
        found = shutil.which(name)
        if found is None:
            return AgentCheck(
                program=name, problem=f"{name} is not installed", hint="npm install -g @anthropic-ai/claude-code"
            )
        try:
            done = await run(
                [found, *program(settings)[1:], "--version"], env={**os.environ, **settings.set}, timeout_s=20
            )
        except (OSError, TimeoutError, TooMuchOutput) as error:
            return AgentCheck(
                program=found, problem=f"{found} --version: {error or 'no answer'}", hint="install it anew"
            )
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            return AgentCheck(program=found, problem=f"{found} --version failed: {said[-300:]}", hint="install it anew")
        version = done.stdout.decode(errors="replace").split(" ")[0].strip()
        return AgentCheck(program=found, version=version, notes=(f"claude {may}", *_notes(version, settings)))


def program(settings: AgentSettings) -> tuple[str, ...]:
    return settings.argv or ("claude",)


def _mode(settings: AgentSettings) -> str:
    mode = settings.permissions or "bypass"
    if mode not in PERMISSIONS:
        raise SettingsError(f"agents.claude.permissions is {mode!r}", hint="one of: " + ", ".join(PERMISSIONS))
    return mode


def _permissions(settings: AgentSettings) -> tuple[tuple[str, ...], str]:
    return PERMISSIONS[_mode(settings)]


def _notes(version: str, settings: AgentSettings) -> tuple[str, ...]:
    notes = []
    if version not in VERIFIED:
        notes.append(f"claude {version} is unverified: drover was tried with {' and '.join(VERIFIED)}")
    home = Path(os.environ.get("CLAUDE_CONFIG_DIR") or Path.home() / ".claude")
    named = {*SIGN_IN} & {*os.environ, *settings.set}
    if not named and not (home / ".credentials.json").exists():
        notes.append("no key in the environment and no sign-in on disk: run `claude` once, unless the keychain has it")
    if os.geteuid() == 0 and _mode(settings) == "bypass":
        notes.append("claude runs as root, told by IS_SANDBOX=1 that this is meant")
    return tuple(notes)


def _of_success(reading: ClaudeReading) -> AgentReport:
    """It ended with exit 0 and a result that is no error: done, unless it was not let or needs a person."""
    if reading.denied:
        tools = ", ".join(sorted(set(reading.denied)))
        return AgentReport(
            outcome=Outcome.PERMISSION,
            reason=f"it was not allowed to use {tools}",
            advice='allow the tool, or set [agents.claude] permissions = "bypass"',
        )
    if question := endings.question_in(reading.result.text("result") if reading.result else reading.words):
        return AgentReport(outcome=Outcome.QUESTION, question=question, reason=question)
    return AgentReport(outcome=Outcome.DONE)


def _of_failure(ended: Ended[ClaudeReading]) -> AgentReport | None:
    reading, exit = ended.reading, ended.exit
    result = reading.result or Json({})
    if exit.returncode == 0 and reading.result is not None and not result.true("is_error"):
        return None
    said = result.text("result") or "; ".join(str(error.value) for error in result.items("errors")) or reading.words
    if reading.limited or result.text("api_error") == "usage_limit_reached" or _LIMIT.search(said):
        return _limited(reading, said)
    status = result.count("api_error_status") or (reading.retry.count("error_status") if not reading.result else 0)
    if found := _of_service(status, result, reading, said or ended.errors):
        return found
    if result.text("terminal_reason") == "prompt_too_long" or _TOO_LONG.search(said):
        return AgentReport(
            outcome=Outcome.CONTEXT_OVERFLOW,
            reason=said,
            advice="it goes on in a new session; or make the task smaller",
        )
    if reading.result is None:
        how = f"exit {exit.returncode} without a result"
        return AgentReport(outcome=Outcome.CRASHED, reason=f"{how}: {ended.errors}" if ended.errors else how)
    return AgentReport(outcome=Outcome.FAILED, reason=said or result.text("subtype") or f"exit {exit.returncode}")


def _limited(reading: ClaudeReading, said: str) -> AgentReport:
    now = datetime.fromtimestamp(SystemClock().now() / 1000, UTC)
    until = reading.limited_until or endings.reset_time(said, now)
    return AgentReport(outcome=Outcome.USAGE_LIMIT, reason=said, until=until)


def _of_service(status: int, result: Json, reading: ClaudeReading, said: str) -> AgentReport | None:
    """Failures of the API rather than of the work."""
    if status == 429:
        return AgentReport(outcome=Outcome.RATE_LIMITED, reason=said)
    if status in NOT_THERE or result.text("api_error") == "connection_failed" or _is_unanswered(reading):
        return AgentReport(outcome=Outcome.OVERLOADED, reason=said or "the API did not answer")
    if "credit balance" in said.lower():
        return AgentReport(outcome=Outcome.AUTH, reason=said, advice="add credit to the account, then `drover retry`")
    if status in (401, 403) or (status == 0 and _SIGNED_OUT.search(said)):
        return AgentReport(
            outcome=Outcome.AUTH, reason=said, advice="sign in: run `claude` once, or set ANTHROPIC_API_KEY"
        )
    return None


def _is_unanswered(reading: ClaudeReading) -> bool:
    """It ended while it was trying again to reach a service that gave no answer at all."""
    return reading.result is None and bool(reading.retry) and not reading.retry.count("error_status")


def _input(usage: Json) -> int:
    """Tokens read, from the cache or not."""
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return sum(usage.count(name) for name in names)

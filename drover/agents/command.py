"""Any program as an agent: prompt on its standard input, the worktree around it, its exit code as verdict."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from drover.agents import endings
from drover.agents.base import AgentCheck, AgentJob, AgentSettings
from drover.agents.program import Ended, Program, Reading, Start
from drover.domain.errors import AgentError
from drover.domain.models import AgentReport, Usage
from drover.domain.verdicts import Outcome

RESULT_LIMIT = 1024 * 1024
WORDS_LIMIT = 2_000
LATER = os.EX_TEMPFAIL  # 75
HINT = "set DROVER_AGENT_PATH, or path in [agents.command] of .drover.toml"


class Result(BaseModel):
    """What a program may leave at the path in DROVER_RESULT; it wins over the exit code."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    verdict: Literal["done", "failed", "blocked", "later"] | None = None  # None: the exit code decides
    summary: str = ""
    reason: str = ""
    retry_at: datetime | None = None  # RFC 3339; without a zone it is UTC
    question: str = ""
    tokens: int = Field(0, ge=0)
    cost_usd: float = Field(0.0, ge=0, allow_inf_nan=False)
    session_id: str | None = None

    @property
    def until(self) -> int | None:
        if self.retry_at is None:
            return None
        zoned = self.retry_at if self.retry_at.tzinfo else self.retry_at.replace(tzinfo=UTC)
        return int(zoned.timestamp() * 1000)


class CommandReading(Reading):
    """The last words of a program that prints plain text."""

    def __init__(self) -> None:
        self.session_id = None
        self.words = ""

    def line(self, text: str) -> None:
        self.words = f"{self.words}\n{text.rstrip()}"[-WORDS_LIMIT:]


class Command(Program[CommandReading]):
    """Exit 0: done. Exit 75: later. Anything else: failed. It is told its old session's id, if it had named one."""

    name = "command"
    output_name = "output.log"

    def command(self, job: AgentJob, start: Start) -> tuple[str, ...]:
        if not job.settings.argv:
            raise AgentError("agent command has no program", hint=HINT)
        return (*job.settings.argv, *job.settings.args)

    def environment(self, job: AgentJob) -> dict[str, str]:
        return job.env | ({"DROVER_SESSION_ID": job.session_id} if job.session_id else {})

    def prompt(self, job: AgentJob, start: Start) -> str:
        """All of it, always: nothing says that the program remembers."""
        return f"{job.prompt}\n{job.follow_up}" if start.continues else super().prompt(job, start)

    def read(self) -> CommandReading:
        return CommandReading()

    def report(self, job: AgentJob, ended: Ended[CommandReading]) -> AgentReport:
        try:
            result = _read_result(job) or Result()
            unreadable = ""
        except AgentError as error:
            result, unreadable = Result(), error.message
        report = endings.of_process(ended.exit)
        if report is None and unreadable:
            report = AgentReport(outcome=Outcome.FAILED, reason=unreadable)
        if report is None:
            report = _of_verdict(result) if result.verdict else _of_exit(ended)
        words = result.summary or ended.reading.words.strip()
        question = endings.question_in(words) if report.outcome == Outcome.DONE and result.verdict is None else ""
        if question:
            report = AgentReport(outcome=Outcome.QUESTION, question=question, reason=question)
        usage = Usage(input_tokens=result.tokens, cost_usd=result.cost_usd)
        return report.model_copy(update={"summary": words, "session_id": result.session_id, "usage": usage})

    async def check(self, settings: AgentSettings) -> AgentCheck:
        """Whether there is such a program; it is not run."""
        if not settings.argv:
            return AgentCheck(program="", problem="agent command has no program", hint=HINT)
        found = shutil.which(settings.argv[0])
        if found is None:
            return AgentCheck(program=settings.argv[0], problem=f"there is no program {settings.argv[0]}", hint=HINT)
        return AgentCheck(program=found, notes=("a command may do whatever you may",))


def _of_verdict(result: Result) -> AgentReport:
    why = result.reason or result.summary
    if result.verdict == "blocked":
        question = result.question or why or "it is blocked, and did not say why"
        return AgentReport(outcome=Outcome.QUESTION, question=question, reason=why or question)
    if result.verdict == "later":
        return AgentReport(outcome=Outcome.LATER, reason=why, until=result.until)
    if result.verdict == "failed":
        return AgentReport(outcome=Outcome.FAILED, reason=why or "it says that it failed")
    return AgentReport(outcome=Outcome.DONE)


def _of_exit(ended: Ended[CommandReading]) -> AgentReport:
    code = ended.exit.returncode
    said = ended.errors[-WORDS_LIMIT:] or ended.reading.words.strip()
    if code == 0:
        return AgentReport(outcome=Outcome.DONE)
    if code == LATER:
        return AgentReport(outcome=Outcome.LATER, reason=said or "it asked to be tried later")
    return AgentReport(outcome=Outcome.FAILED, reason=f"exit {code}: {said}" if said else f"exit {code}")


def _read_result(job: AgentJob) -> Result | None:
    """The program's own account, if it left one. Raises AgentError for a file that is none."""
    if "DROVER_RESULT" not in job.env:
        return None
    path = Path(job.env["DROVER_RESULT"])
    try:
        # The program wrote there as it liked: a link may lead to a secret, a fifo would hold us up for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        what = "a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise AgentError(f"its result file cannot be read: {what}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise AgentError("its result file is not a regular file")
    with os.fdopen(handle, "rb") as file:
        data = file.read(RESULT_LIMIT + 1)
    if len(data) > RESULT_LIMIT:
        raise AgentError(f"its result file is larger than {RESULT_LIMIT} bytes")
    try:
        return Result.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise AgentError(f"its result file does not parse: {where + ': ' if where else ''}{first['msg']}") from error

"""Any agent behind the program ``drover-worker``: an order as JSON on its input, a result as JSON on its output.

The protocol is the original's, and so is the name; drover's own program adds what a session needs to go on. Every
agent has a supervised process of its own anyway: this type is for those who name it, or a program of theirs.
"""

from __future__ import annotations

import json
import re
import shutil
import sys

from drover.agents import endings
from drover.agents.base import AgentCheck, AgentJob, AgentSettings
from drover.agents.program import Ended, Program, Reading, Start
from drover.agents.stream import Json
from drover.domain.models import AgentReport, Usage
from drover.domain.verdicts import Outcome

KEPT = 1024 * 1024
_TITLE = re.compile(r"^# Task \S+: (.*)$", re.MULTILINE)
_SIGNALS = {"rate_limited": Outcome.RATE_LIMITED, "api_error": Outcome.OVERLOADED}


class WorkerReading(Reading):
    """The result: one JSON document, on one line or on several."""

    def __init__(self) -> None:
        self.session_id = None
        self.result = Json({})
        self._text = ""

    def event(self, event: Json) -> None:
        if event.get("success").value is not None:
            self.result = event
            self.session_id = event.text("session_id") or None

    def line(self, text: str) -> None:
        # What an agent of the original prints comes before its result, which begins at a line of its own.
        self._text = text if text.strip() == "{" else f"{self._text}\n{text}"[-KEPT:]
        if text.strip() == "}":
            try:
                self.event(Json(json.loads(self._text)))
            except ValueError:
                return


class Worker(Program[WorkerReading]):
    """``execute -``; of drover's own program, or of the one that DROVER_WORKER_BINARY names."""

    name = "worker"
    grace_s = 8.0

    def __init__(self) -> None:
        from drover.agents.claude import Claude  # noqa: PLC0415 - only where this type is used

        self.env_names = Claude.env_names  # the agent that it runs unless told otherwise

    def command(self, job: AgentJob, start: Start) -> tuple[str, ...]:
        own = (sys.executable, "-I", "-m", "drover.cli.worker")
        return (*(job.settings.argv or own), "execute", "-", *job.settings.args)

    def prompt(self, job: AgentJob, start: Start) -> str:
        title = _TITLE.search(job.prompt)
        order: dict[str, object] = {
            "id": job.task_id,
            "title": title[1] if title else job.task_id,
            "description": job.prompt,
            "worktree": str(job.worktree),
            "guidance": [],
            "timeout": f"{int(job.timeout_s)}s" if job.timeout_s else "",
            "verbose": False,
            "prompt": job.prompt,
            "follow_up": job.follow_up,
            "session_id": start.session_id if start.continues else None,
            "log_dir": str(job.log_dir.with_name(f"{job.log_dir.name}-agent")),
            "model": job.settings.model,
            "permissions": job.settings.permissions,
            "prior_cost_usd": job.prior_cost_usd,
            "prior_usage": job.prior_usage.model_dump(),
        }
        return json.dumps(order)

    def read(self) -> WorkerReading:
        return WorkerReading()

    def report(self, job: AgentJob, ended: Ended[WorkerReading]) -> AgentReport:
        result = ended.reading.result
        report = endings.of_process(ended.exit)
        if report is None and not result:
            code = ended.exit.returncode
            report = AgentReport(outcome=Outcome.CRASHED, reason=f"exit {code} without a result: {ended.errors}")
        if report is None:
            why = result.text("error") or result.text("verdict_reason")
            report = AgentReport(
                outcome=_outcome(result),
                reason=why,
                question=result.text("question") or (why if result.text("verdict") == "blocked" else ""),
                advice=result.text("advice"),
                until=result.count("until") or None,
            )
        tokens = result.count("tokens")
        read = result.count("input_tokens") or tokens
        usage = Usage(
            input_tokens=read, output_tokens=max(0, tokens - read), cost_usd=max(0.0, result.number("cost_usd")),
            turns=result.count("turns"), model=result.text("model"),
        )  # fmt: skip
        return report.model_copy(update={"summary": result.text("output"), "usage": usage})

    async def check(self, settings: AgentSettings) -> AgentCheck:
        """Whether the program is there; the agent behind it is looked at when it is started."""
        if not settings.argv:
            return AgentCheck(program="drover-worker", version="built in")
        found = shutil.which(settings.argv[0])
        if found is None:
            hint = "set DROVER_WORKER_BINARY, or unset it for drover's own"
            return AgentCheck(program=settings.argv[0], problem=f"there is no program {settings.argv[0]}", hint=hint)
        return AgentCheck(program=found)


def _outcome(result: Json) -> str:
    """Drover's own program says it in drover's words, others in the protocol's."""
    own = result.text("outcome")
    if own in set(Outcome):
        return own
    if result.text("verdict") == "blocked":
        return Outcome.QUESTION
    if result.true("success"):
        return Outcome.DONE
    return _SIGNALS.get(result.text("signal"), Outcome.FAILED)

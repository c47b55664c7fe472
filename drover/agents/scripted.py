"""The built-in agent: a real process without a model, that does what a small plan in the task's text says."""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

from drover.agents import endings, scripted_plan
from drover.agents.base import AgentCheck, AgentJob, AgentSettings, SessionPlace
from drover.agents.program import Ended, Program, Reading, Start
from drover.agents.stream import Json
from drover.domain.models import AgentReport, Usage
from drover.domain.verdicts import Outcome

_OUTCOMES = {"done": Outcome.DONE, "failed": Outcome.FAILED, "question": Outcome.QUESTION, "later": Outcome.LATER}


class ScriptedReading(Reading):
    """What the program said of itself."""

    def __init__(self) -> None:
        self.session_id = None
        self.result = Json({})
        self.forgot = False
        self.steps = 0
        self.done_before = 0  # of its plan, by earlier runs of the session

    def event(self, event: Json) -> None:
        kind = event.text("type")
        if kind == "session":
            self.session_id = event.text("id")
            self.done_before = event.count("done")
        elif kind == "no_session":
            self.forgot = True
        elif kind == "step":
            self.steps += 1
        elif kind == "result":
            self.result = event


class Scripted(Program[ScriptedReading]):
    """Needs nothing: for the demo, the tutorials and tests. Its sessions are files beside the task's logs."""

    name = "scripted"
    grace_s = 2.0

    def command(self, job: AgentJob, start: Start) -> tuple[str, ...]:
        session = job.log_dir.parent / f"session-{start.session_id}.json"
        how = "resume" if start.continues else "start"
        # By its path and isolated: the worktree may hold a package named drover, and it is the current directory.
        return (sys.executable, "-I", "-S", str(Path(scripted_plan.__file__)), how, str(session), str(start.session_id))

    def session_files(self, place: SessionPlace, session_id: str) -> Mapping[str, Path]:
        name = f"session-{session_id}.json"
        return {name: place.logs / name} if (place.logs / name).is_file() else {}

    def session_path(self, place: SessionPlace, name: str) -> Path | None:
        return place.logs / name if re.fullmatch(r"session-\w+\.json", name) else None

    def new_session(self) -> str:
        return uuid.uuid4().hex[:12]

    def read(self) -> ScriptedReading:
        return ScriptedReading()

    def forgot(self, ended: Ended[ScriptedReading]) -> bool:
        return ended.reading.forgot

    def lost_turns(self, job: AgentJob, ended: Ended[ScriptedReading]) -> bool:
        return ended.reading.session_id is not None and ended.reading.done_before < job.prior_usage.turns

    def report(self, job: AgentJob, ended: Ended[ScriptedReading]) -> AgentReport:
        result, usage = ended.reading.result, Usage(turns=ended.reading.steps, model="scripted")
        report = endings.of_process(ended.exit)
        if report is None and not result:
            report = AgentReport(outcome=Outcome.CRASHED, reason=f"exit {ended.exit.returncode}: {ended.errors}")
        if report is None:
            report = AgentReport(
                outcome=_OUTCOMES[result.text("verdict")],
                reason=result.text("reason"),
                question=result.text("question"),
                until=result.count("until") or None,
            )
        return report.model_copy(update={"summary": result.text("summary"), "usage": usage})

    async def check(self, settings: AgentSettings) -> AgentCheck:
        """Always there."""
        return AgentCheck(
            program="scripted", version="built in", notes=("scripted uses no model: it does what the task's plan says",)
        )

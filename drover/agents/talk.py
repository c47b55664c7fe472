"""What the agents with a command line of their own have in common: a talk of events, and a way to read its end."""

from __future__ import annotations

import os
import re
import shutil
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, TypeVar

from drover.agents import endings, service
from drover.agents.base import AgentCheck, AgentJob, AgentSettings
from drover.agents.program import Ended, Program, Reading
from drover.domain.errors import SettingsError
from drover.domain.models import AgentReport, Usage
from drover.domain.verdicts import Outcome
from drover.process import TooMuchOutput, run

COMPLAINT = 2_000  # of the end of its standard error, where its events do not say why it failed
LIMITS = frozenset({Outcome.RATE_LIMITED.value, Outcome.USAGE_LIMIT.value})
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "NODE_EXTRA_CA_CERTS")
VERSION = re.compile(r"\d+\.\d+\.\d+(?:[-+.]\w+)*")


class Talk(Reading):
    """The state of one run, whatever its events are called. Subclasses read the events."""

    def __init__(self) -> None:
        self.session_id = None
        self.model = ""
        self.words = ""  # of the last message
        self.finished = False  # an event said that all went well, and none has said otherwise since
        self.failure = ""  # what it said went wrong
        self.status = 0  # HTTP's, of that failure
        self.denied: list[str] = []  # tools it was not allowed to use
        self.input_tokens = 0
        self.output_tokens = 0
        self.cost_usd = 0.0
        self.turns = 0

    def complaint(self, text: str) -> None:
        if service.is_long_wait(text):
            self.in_vain = True
            self.failed(text)

    def failed(self, why: str, status: int = 0) -> None:
        """Something went wrong, perhaps not for good: a later success takes it back."""
        self.finished, self.failure, self.status = False, why or self.failure, status or self.status

    def succeeded(self) -> None:
        self.finished, self.failure, self.status = True, "", 0


T = TypeVar("T", bound=Talk)
Modes = Mapping[str, tuple[tuple[str, ...], str]]
"""Word of ``permissions`` → arguments, and what the agent may then do. The first is the default."""
Env = Mapping[str, str]


class Talker(Program[T]):
    """A command-line agent that prints its events as JSON. Subclasses are the facts of one."""

    package: str  # on npm
    verified: str  # the version these facts were observed with; empty: never seen at work
    modes: ClassVar[Modes]
    sign_in: tuple[str, ...]  # variables of which one signs it in
    sign_in_advice: str
    forgets: tuple[str, ...] = ()  # what its standard error says of a session that it does not know
    own_env: ClassVar[Env] = {}  # keeps it from updating itself and from talking to others than its model

    @abstractmethod
    def usage(self, job: AgentJob, ended: Ended[T]) -> Usage:
        """Of this process alone."""

    def environment(self, job: AgentJob) -> dict[str, str]:
        return dict(self.own_env) | job.env

    def forgot(self, ended: Ended[T]) -> bool:
        return any(words in ended.errors for words in self.forgets)

    def failure(self, ended: Ended[T]) -> AgentReport:
        """Why a run failed that ended by itself."""
        reading, code = ended.reading, ended.exit.returncode
        if not reading.failure and code == 0:
            reason = "it ended without saying that it was done"
            return AgentReport(outcome=Outcome.CRASHED, reason=reason)
        said = reading.failure or ended.errors[-COMPLAINT:]
        found = service.report_of(said, reading.status, sign_in=self.sign_in_advice)
        if found.outcome == Outcome.FAILED and not reading.failure:
            reason = f"exit {code} without a result" + (f": {said}" if said else "")
            return AgentReport(outcome=Outcome.CRASHED, reason=reason)
        return found

    def report(self, job: AgentJob, ended: Ended[T]) -> AgentReport:
        reading = ended.reading
        report = endings.of_process(ended.exit)
        if reading.in_vain and not reading.finished:
            report = service.report_of(reading.failure, sign_in=self.sign_in_advice)
        elif report is not None and report.outcome == Outcome.STALLED:
            # Some sleep a limit out for hours, or wait for the network for ever, and have said so in a word at most.
            report = service.waited_for(reading.failure or ended.errors[-COMPLAINT:]) or report
        if report is None and reading.denied:
            report = self._refused(reading)
        if report is None and not (reading.finished and ended.exit.returncode == 0):
            report = self.failure(ended)
        if report is None:
            question = endings.question_in(reading.words)
            outcome = Outcome.QUESTION if question else Outcome.DONE
            report = AgentReport(outcome=outcome, question=question, reason=question)
        if report.outcome in LIMITS and report.until is None:
            report = report.model_copy(update={"until": service.until(ended.errors[-COMPLAINT:])})
        return report.model_copy(update={"summary": reading.words, "usage": self.usage(job, ended)})

    def _refused(self, reading: T) -> AgentReport:
        tools = ", ".join(sorted(set(reading.denied)))
        return AgentReport(
            outcome=Outcome.PERMISSION,
            reason=f"it was not allowed to use {tools}",
            advice=f'allow the tool, or set [agents.{self.name}] permissions = "{next(iter(self.modes))}"',
        )

    # ------------------------------------------------------------ what it may do, and whether it is there

    def program(self, settings: AgentSettings) -> tuple[str, ...]:
        return settings.argv or (self.name,)

    def mode(self, settings: AgentSettings) -> str:
        """The word of ``permissions``. Raises SettingsError for one that this agent does not have."""
        mode = settings.permissions or next(iter(self.modes))
        if mode not in self.modes:
            hint = "one of: " + ", ".join(self.modes)
            raise SettingsError(f"agents.{self.name}.permissions is {mode!r}", hint=hint)
        return mode

    def allowed(self, settings: AgentSettings) -> tuple[str, ...]:
        """The arguments that say what it may do."""
        return self.modes[self.mode(settings)][0]

    def notes(self, version: str, settings: AgentSettings) -> tuple[str, ...]:
        """What the operator should know of it."""
        notes = [f"{self.name} {self.modes[self.mode(settings)][1]}"]
        if not self.verified:
            notes.append(f"{self.name} is unverified: built from its documentation, never seen at work by drover")
        elif version != self.verified:
            notes.append(f"{self.name} {version} is unverified: drover was tried with {self.verified}")
        if not {*self.sign_in} & {*os.environ, *settings.set}:
            notes.append(f"none of {', '.join(self.sign_in)} is set: it has to be signed in by itself")
        return tuple(notes)

    async def check(self, settings: AgentSettings) -> AgentCheck:
        """Find it and ask for its version; it is not signed in or asked anything."""
        name, again = self.program(settings)[0], f"npm install -g {self.package}"
        self.mode(settings)
        found = shutil.which(name)
        if found is None:
            return AgentCheck(program=name, problem=f"{name} is not installed", hint=again)
        argv = [found, *self.program(settings)[1:], "--version"]
        try:
            done = await run(argv, env={**os.environ, **self.own_env, **settings.set}, timeout_s=30)
        except (OSError, TimeoutError, TooMuchOutput) as error:
            return AgentCheck(program=found, problem=f"{found} --version: {error or 'no answer'}", hint=again)
        said = done.stdout.decode(errors="replace") or done.stderr.decode(errors="replace")
        version = VERSION.search(said)
        if done.returncode or version is None:
            return AgentCheck(program=found, problem=f"{found} --version: {said.strip()[-300:]}", hint=again)
        return AgentCheck(program=found, version=version[0], notes=self.notes(version[0], settings))

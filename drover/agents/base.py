"""The boundary between drover and an agent: what a driver is given, and what it gives back."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import anyio
from pydantic import Field

from drover.domain.errors import SettingsError
from drover.domain.models import AgentReport, Frozen, ProcessIdentity, Resumed, Usage, Word


class AgentSettings(Frozen):
    """How one type of agent is started: ``[agents.TYPE]`` of the settings."""

    type: str
    argv: tuple[str, ...] = ()  # the program and its leading arguments; empty: the type's own program
    args: tuple[str, ...] = ()  # added at the end of the command
    model: str | None = None
    permissions: str | None = None  # a word of the type's own; None: its default
    env: tuple[str, ...] = ()  # names passed through from drover's environment
    set: dict[str, str] = Field(default_factory=dict, repr=False)  # values given; may be secret

    @classmethod
    def of(
        cls,
        type: str,
        *,
        path: str | None = None,
        args: Iterable[str] = (),
        model: str | None = None,
        permissions: str | None = None,
        env: Iterable[str] = (),
        set: Mapping[str, str] | None = None,
    ) -> AgentSettings:
        """From the words of the settings; ``path`` is split as a shell splits words, and run by none."""
        try:
            argv = shlex.split(path or "")
        except ValueError as error:
            raise SettingsError(f"the path of agent {type} cannot be split into words: {error}: {path}") from None
        return cls(
            type=type,
            argv=tuple(argv),
            args=tuple(args),
            model=model,
            permissions=permissions,
            env=tuple(env),
            set=dict(set or {}),
        )


class AgentJob(Frozen):
    """One execution: one piece of work for one agent, in one directory."""

    task_id: str
    attempt: int
    fence: int
    prompt: str  # all there is to say, for a session that begins
    follow_up: str  # what to say instead when ``session_id`` is continued
    handover: str = ""  # what a new session is told besides, where work has been done that it knows nothing of
    session_id: str | None = None  # continue this session of an earlier execution
    reported: bool = False  # what has ended in the log directory is known: it is not adopted again
    restored: bool = False  # that session's files were gone, and have been brought back from a snapshot
    prior_cost_usd: float = 0.0  # what that session had cost before, as reported then
    prior_usage: Usage = Usage()  # what that session had used before, as reported then
    worktree: Path
    log_dir: Path  # this execution's own; an exit record in it is adopted instead of running again
    env: dict[str, str] = Field(repr=False)  # complete, from the engine's allow-list
    marker: str  # DROVER_MARKER of everything that runs for it
    timeout_s: float | None = None
    stall_s: float | None = None  # None or 0: never stopped for want of a sign of life
    memory_limit_bytes: int | None = None  # of everything it starts, together
    contained: bool = False  # in a PID namespace of its own
    output_limit_bytes: int = 64 * 1024 * 1024  # kept of each stream
    settings: AgentSettings


class AgentHost(Protocol):
    """Whom the driver tells what happens while it works."""

    @property
    def hurry(self) -> anyio.Event:
        """Set when stopping must not take any time: no more grace for the agent."""
        ...

    async def starting(self, process: ProcessIdentity, session_id: str | None, resumed: Resumed) -> None:
        """Durable when it returns; the agent acts only after that, and never if it raises."""
        ...

    async def session(self, session_id: str) -> None:
        """The session's id, where it was not known at the start."""
        ...

    def alive(self) -> None:
        """A sign of life; cheap, and called up to 20 times a second."""
        ...

    async def next_word(self) -> Word:
        """What a person says to the agent next, while it works; each word once. Waits for it, for ever if need be."""
        ...

    async def heard(self, word: Word) -> None:
        """The agent has taken that into its session. What nobody says so of is told with its next turn."""
        ...


class AgentCheck(Frozen):
    """Whether an agent could be started here, and what it would be allowed to do."""

    program: str
    version: str = ""
    problem: str | None = None
    hint: str | None = None
    notes: tuple[str, ...] = ()


class Agent(Protocol):
    """One kind of agent. Drivers keep nothing between calls and never see the store."""

    @property
    def name(self) -> str:
        """The type, as settings and tasks name it."""
        ...

    @property
    def env_names(self) -> tuple[str, ...]:
        """Variables of its own (keys, base URLs) that pass from drover's environment into its."""
        ...

    async def check(self, settings: AgentSettings) -> AgentCheck:
        """Look whether it is installed and signed in, without using anything up."""
        ...

    async def work(self, job: AgentJob, host: AgentHost) -> AgentReport:
        """See one execution to its end, whatever end; nothing it started is alive afterwards.

        Raises AgentError if it cannot be started at all. Cancelled, it stops the agent gently first.
        """
        ...


class SessionPlace(Frozen):
    """What decides where an agent keeps its sessions: its environment, the task's directory and the task's logs."""

    env: dict[str, str] = Field(repr=False)
    worktree: Path
    logs: Path


@runtime_checkable
class KeepsSessions(Protocol):
    """An agent that keeps each session in files, without which it cannot go on with it."""

    def session_files(self, place: SessionPlace, session_id: str) -> Mapping[str, Path]:
        """The session's files that are there, by names that mean the same on every host. Never one with a key in it."""
        ...

    def session_path(self, place: SessionPlace, name: str) -> Path | None:
        """Where the file of that name belongs on this host; None when the name is not one of this agent's."""
        ...


@runtime_checkable
class ReadsBack(Protocol):
    """An agent whose output tells afterwards what an execution used whose end nobody saw."""

    async def read_back(self, job: AgentJob) -> AgentReport | None:
        """What the output in the job's log directory tells: usage, session, last words; None when it holds none.

        Asked when nothing of the execution is alive any more. Changes nothing.
        """
        ...


@runtime_checkable
class Opens(Protocol):
    """An agent that can say beforehand what an execution begins with."""

    def opening(self, job: AgentJob) -> str:
        """What it would be told for this job: the words on its standard input, as a person reads them."""
        ...

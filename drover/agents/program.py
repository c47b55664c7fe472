"""Drives agents that are programs: start or resume, follow the output, adopt what ended unseen, report."""

from __future__ import annotations

import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

import anyio
from anyio import to_thread

from drover.agents import endings
from drover.agents.base import AgentHost, AgentJob, SessionPlace
from drover.agents.session_files import SessionHome
from drover.agents.stream import Follower, Json, events, tail
from drover.domain.errors import AgentError
from drover.domain.models import AgentReport, Frozen, ProcessIdentity, Resumed, Usage, Word
from drover.process import Exit, Launch, Voice, adopt, sole_error, supervise

ERRORS_TAIL = 16 * 1024
SILENCE_S = 20.0  # after which a program whose input is open, and that has printed nothing, is told that it ends
ENTRIES_LIMIT = 200_000  # of a worktree, looked at for one that changed


class Start(Frozen):
    """How one run begins; kept beside its output, for the drover that may have to adopt it."""

    session_id: str | None = None
    resumed: Resumed = "fresh"

    @property
    def continues(self) -> bool:
        return self.resumed in ("continued", "restored")


class Reading:
    """What one run has said so far. Sees every line once, in order; keeps only what the report needs."""

    session_id: str | None = None
    at_rest: bool = False  # it has ended its turn, and would wait for more to be said
    taken: Sequence[str] = ()  # the ids of what was said to it while it worked, as it took them in
    in_vain: bool = False  # it waits for what will not come soon: it is stopped, and its report says until when

    def event(self, event: Json) -> None:
        """A JSON object."""

    def line(self, text: str) -> None:
        """A line that is none."""

    def complaint(self, text: str) -> None:
        """A line on its standard error."""


R = TypeVar("R", bound=Reading)


@dataclass(frozen=True)
class Ended(Generic[R]):
    """One run that is over: how it ended, what it said, the end of what it complained about."""

    start: Start
    exit: Exit
    reading: R
    errors: str


class Program(ABC, Generic[R]):
    """An agent that is a program. Subclasses state the facts of one, in the order in which they are asked."""

    name: str
    env_names: tuple[str, ...] = ()
    sessions: SessionHome | None = None  # where its sessions are, where that is in files
    output_name = "output.jsonl"
    stop_signal: Literal["TERM", "INT"] = "TERM"
    grace_s = 8.0  # so that one Ctrl+C ends everything within ten seconds

    @abstractmethod
    def command(self, job: AgentJob, start: Start) -> tuple[str, ...]:
        """The program and its arguments. Never the prompt, never a secret: ``ps`` shows them."""

    @abstractmethod
    def read(self) -> R:
        """A reading for one run."""

    @abstractmethod
    def report(self, job: AgentJob, ended: Ended[R]) -> AgentReport:
        """What the run came to; ``resumed`` and a missing ``session_id`` are filled in afterwards."""

    def environment(self, job: AgentJob) -> dict[str, str]:
        """The job's environment with the program's own fixed names."""
        return job.env

    def prompt(self, job: AgentJob, start: Start) -> str:
        """What it gets on its standard input."""
        if start.continues:
            return job.follow_up
        return f"{job.prompt}\n{job.handover}" if start.resumed == "soft" else job.prompt

    def said(self, text: str, id: str) -> str | None:
        """A line on its standard input that says something to it; None if it cannot hear while it works.

        Its prompt is said in that way too. It tells which ``id`` it has taken in: see :attr:`Reading.taken`.
        """
        return None

    def session_files(self, place: SessionPlace, session_id: str) -> Mapping[str, Path]:
        """See :meth:`drover.agents.base.KeepsSessions.session_files`."""
        return self.sessions.files(place, session_id) if self.sessions else {}

    def session_path(self, place: SessionPlace, name: str) -> Path | None:
        """See :meth:`drover.agents.base.KeepsSessions.session_path`."""
        return self.sessions.path(place, name) if self.sessions else None

    def new_session(self) -> str | None:
        """An id for a session that begins, where it can be chosen."""
        return None

    def forgot(self, ended: Ended[R]) -> bool:
        """Whether it said that it does not know the session it was to continue."""
        return False

    def is_blank(self, job: AgentJob, ended: Ended[R]) -> bool:
        """Whether it silently began a new session in place of the one it was to continue."""
        if not ended.start.continues:
            return False
        got = ended.reading.session_id
        if got is not None and got != ended.start.session_id:
            return True
        # What was brought back from a snapshot may lack the last turns, and is a session all the same.
        return ended.start.resumed == "continued" and self.lost_turns(job, ended)

    def lost_turns(self, job: AgentJob, ended: Ended[R]) -> bool:
        """Whether it tells less of the whole session than had been told before: then the earlier turns are gone."""
        return False

    async def work(self, job: AgentJob, host: AgentHost) -> AgentReport:
        """See :meth:`drover.agents.base.Agent.work`."""
        ended = None if job.reported else await self._adopt(job)
        if ended is None:
            ended = await self._run(job, host, self._start(job))
        if ended.start.continues and self.forgot(ended):
            # Killed before its first words were saved, or forgotten since: told everything, it converges.
            ended = await self._run(job, host, self._anew(job))
        return self._completed(job, ended)

    def opening(self, job: AgentJob) -> str:
        """See :meth:`drover.agents.base.Opens.opening`."""
        return self.prompt(job, self._start(job))

    def _start(self, job: AgentJob) -> Start:
        if job.session_id is not None:
            return Start(session_id=job.session_id, resumed="restored" if job.restored else "continued")
        return self._anew(job)

    async def read_back(self, job: AgentJob) -> AgentReport | None:
        """See :meth:`drover.agents.base.ReadsBack.read_back`."""
        return await to_thread.run_sync(self._read_back, job)

    def _read_back(self, job: AgentJob) -> AgentReport | None:
        """The last run of the directory, with what all its runs used; the last one's end may not be on record."""
        last, used = None, Usage()
        for number in _runs_in(job.log_dir):
            ended = self._recorded(job, number)
            if ended is None:
                continue
            spent = job.prior_usage + used  # a run that goes on in another session has cost nothing
            env = {**job.env, "DROVER_RESULT": str(job.log_dir / f"result{number}.json")}
            told = job.model_copy(update={"prior_usage": spent, "prior_cost_usd": spent.cost_usd, "env": env})
            last = self._completed(told, ended)
            used += last.usage
        return last.model_copy(update={"usage": used}) if last else None

    def _recorded(self, job: AgentJob, number: str) -> Ended[R] | None:
        """One run as its files tell it, whether it had come to its end or not."""
        try:
            start = Start.model_validate_json((job.log_dir / f"start{number}.json").read_bytes())
        except (OSError, ValueError):
            return None
        reading, output = self.read(), Path(self.output_name)
        follower = Follower(job.log_dir / f"{output.stem}{number}{output.suffix}")
        while (lines := follower.read()) is not None:
            _tell(reading, lines)
        _tell(reading, follower.rest())
        exit = adopt(job.log_dir / f"exit{number}.json") or Exit(lost=True)
        return Ended(start, exit, reading, tail(job.log_dir / f"errors{number}.txt", ERRORS_TAIL))

    def _anew(self, job: AgentJob) -> Start:
        """A new session; where work was done before that it knows nothing of, it is told so."""
        return Start(session_id=self.new_session(), resumed="soft" if job.handover else "fresh")

    async def _adopt(self, job: AgentJob) -> Ended[R] | None:
        """The run that ended by itself in this log directory while no drover was there to see it."""
        exit = adopt(job.log_dir / "exit.json")
        if exit is None or exit.returncode is None or exit.stopped or exit.timed_out or exit.stalled:
            return None
        return await to_thread.run_sync(self._recorded, job, "")

    async def _run(self, job: AgentJob, host: AgentHost, start: Start) -> Ended[R]:
        _make_room(job.log_dir)
        prompt = self.prompt(job, start)
        _write_private(job.log_dir / "prompt.md", prompt)
        voice, first = None, self.said(prompt, str(uuid.uuid4()))
        if first is not None:
            voice = Voice()
            _write_private(job.log_dir / "input.json", first + "\n")
        _write_private(job.log_dir / "start.json", start.model_dump_json())
        launch = Launch(
            argv=self.command(job, start),
            cwd=job.worktree,
            env=self.environment(job),
            marker=job.marker,
            stdin_path=job.log_dir / ("prompt.md" if voice is None else "input.json"),
            stdin_open=voice is not None,
            output_path=job.log_dir / self.output_name,
            error_path=job.log_dir / "errors.txt",
            record_path=job.log_dir / "exit.json",
            output_limit_bytes=job.output_limit_bytes,
            stop_signal=self.stop_signal,
            grace_s=self.grace_s,
            timeout_s=job.timeout_s,
            stall_s=job.stall_s or None,
            memory_limit_bytes=job.memory_limit_bytes,
            contained=job.contained,
        )
        watch = _Watch(
            host, start, self.read(), Follower(launch.output_path), Follower(job.log_dir / "errors.txt"), voice,
            seen_bytes=job.output_limit_bytes // 2,
        )  # fmt: skip
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch.follow)
                if voice is not None:
                    tasks.start_soon(watch.pass_on, self.said)
                    tasks.start_soon(watch.give_up_speaking)
                exit = Exit(lost=True)
                with watch.patience:
                    changed = _Changes(job.worktree).since
                    exit = await supervise(launch, watch, hurry=host.hurry, changed=changed, voice=voice)
                if watch.patience.cancelled_caught:
                    exit = adopt(launch.record_path) or exit
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            error = sole_error(group)
            if isinstance(error, OSError):
                raise AgentError(f"agent {self.name} cannot be started: {error.strerror or error}") from error
            raise error from None
        await _feed(watch.reading, watch.follower, to_end=True)
        await watch.tell_taken()
        return Ended(start, exit, watch.reading, tail(job.log_dir / "errors.txt", ERRORS_TAIL))

    def _completed(self, job: AgentJob, ended: Ended[R]) -> AgentReport:
        report = self.report(job, ended)
        asked, got = ended.start.session_id, ended.reading.session_id
        blank = self.is_blank(job, ended)
        secrets = self._secrets(job)
        return report.model_copy(
            update={
                "session_id": report.session_id or got or asked,
                "resumed": "fresh" if blank else ended.start.resumed,
                **{
                    field: endings.presentable(str(getattr(report, field)), secrets)
                    for field in ("summary", "reason", "question")
                },
            }
        )

    def _secrets(self, job: AgentJob) -> list[str]:
        names = {*self.env_names, *job.settings.env, *job.settings.set}
        return [job.env[name] for name in names if name in job.env and endings.is_secret(name)]


class _Watch(Generic[R]):
    """Reads along while the agent works, and passes on what the host must know at once."""

    def __init__(
        self,
        host: AgentHost,
        start: Start,
        reading: R,
        follower: Follower,
        errors: Follower,
        voice: Voice | None = None,
        *,
        seen_bytes: int = 1 << 62,
    ) -> None:
        self._host = host
        self._start = start
        self.reading = reading
        self.follower = follower
        self.patience = anyio.CancelScope()  # cancelled when it waits in vain
        self._errors = errors
        self._voice = voice
        self._speaks = False  # it has printed something
        self._seen_bytes = seen_bytes  # of its output are in the file at once; of more, only the end when it has ended
        self._said: dict[str, Word] = {}  # by id, what was said and not yet taken in
        self._moved = anyio.Event()

    async def started(self, identity: ProcessIdentity) -> None:
        await self._host.starting(identity, self._start.session_id, self._start.resumed)

    def progress(self, output_bytes: int) -> None:
        self._host.alive()
        self._speaks = self._speaks or output_bytes > 0
        self._moved.set()
        if self._voice is not None and output_bytes > self._seen_bytes:
            self._voice.hush()  # whether it is at rest can no longer be seen, and it would listen for ever

    async def follow(self) -> None:
        known = self._start.session_id
        while True:
            await self._moved.wait()
            self._moved = anyio.Event()
            await _feed(self.reading, self.follower)
            while (lines := self._errors.read()) is not None:
                for line in lines:
                    self.reading.complaint(line.decode(errors="replace"))
                await anyio.lowlevel.checkpoint()
            if self.reading.in_vain:
                self.patience.cancel()
            await self.tell_taken()
            if self._voice is not None and self.reading.at_rest:
                self._voice.hush()  # what was said until now is still taken in; later words are for its next turn
            if self.reading.session_id is not None and self.reading.session_id != known:
                known = self.reading.session_id
                await self._host.session(known)

    async def pass_on(self, said: Callable[[str, str], str | None]) -> None:
        """Say what a person says, as long as the agent listens."""
        while self._voice is not None and not self._voice.over:
            word, id = await self._host.next_word(), str(uuid.uuid4())
            line = said(word.text, id)
            if line is not None and not self._voice.over:
                self._said[id] = word
                self._voice.say(line)

    async def give_up_speaking(self) -> None:
        """End the input of a program that reads it to its end before it does anything, as a wrapper may."""
        await anyio.sleep(SILENCE_S)
        if self._voice is not None and not self._speaks:
            self._voice.hush()

    async def tell_taken(self) -> None:
        """Let the host know what the agent has taken in."""
        for id in self.reading.taken:
            if (word := self._said.pop(id, None)) is not None:
                await self._host.heard(word)


async def _feed(reading: Reading, follower: Follower, *, to_end: bool = False) -> None:
    """Give the reading what there is now, a bite at a time; ``to_end``: also a last line without its end."""
    while (lines := follower.read()) is not None:
        _tell(reading, lines)
        await anyio.lowlevel.checkpoint()
    if to_end:
        _tell(reading, follower.rest())


def _tell(reading: Reading, lines: Iterable[bytes]) -> None:
    for line in lines:
        found = False
        for event in events(line):
            found = True
            reading.event(event)
        if not found and line.strip():
            reading.line(line.decode(errors="replace"))


class _Changes:
    """Whether anything in a directory was written since a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def since(self, seconds: float) -> bool:
        return await to_thread.run_sync(self._look, seconds)

    def _look(self, seconds: float) -> bool:
        places, left = [str(self._directory)], ENTRIES_LIMIT
        while places and left > 0:
            try:
                with os.scandir(places.pop()) as entries:
                    for entry in entries:
                        left -= 1
                        if entry.stat(follow_symlinks=False).st_mtime >= seconds:
                            return True
                        if entry.is_dir(follow_symlinks=False):
                            places.append(entry.path)
            except OSError:  # it is being changed as we look: removed, replaced
                continue
        return False


def _runs_in(log_dir: Path) -> list[str]:
    """What tells the files of the runs in a directory apart, in the order of the runs: ``.1``, ``.2``, nothing."""
    earlier = sorted(int(path.suffixes[0][1:]) for path in log_dir.glob("start.[0-9]*.json"))
    return [*(f".{number}" for number in earlier), ""]


def _make_room(log_dir: Path) -> None:
    """Move an earlier run's files aside: a session that was asked for in vain, or what was not to be adopted."""
    log_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (log_dir / "start.json").exists():
        return
    number = len(_runs_in(log_dir))
    for path in list(log_dir.iterdir()):
        if path.stem in ("exit", "start", "prompt", "input", "output", "errors", "result"):
            path.rename(path.with_name(f"{path.stem}.{number}{path.suffix}"))


def _write_private(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)

"""Runs one agent, or one verification, under a supervisor of its own."""

from __future__ import annotations

import errno
import json
import marshal
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Literal, Protocol

import anyio
import psutil
from anyio import to_thread
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import drover
from drover.domain.models import Frozen, ProcessIdentity
from drover.process.companion import Companion
from drover.process.containment import find_containment
from drover.process.identity import MARKER, boot_id, identify
from drover.process.leftovers import end_marked
from drover.process.spawn import start

MIB = 1024 * 1024
PULSE_S = 5.0  # in silence, how often the supervisor tells the tree's CPU time
IDLE_CPU = 0.02  # of a core: what an agent that waits for its model uses anyway
FAREWELL_S = 8.0  # beyond the grace: for the sweep, its proof and the record

Changed = Callable[[float], Awaitable[bool]]
"""Whether files have changed since a time (unix seconds)."""


class Launch(Frozen):
    """What to run, and within which limits. Paths are absolute; their directories exist."""

    argv: tuple[str, ...]
    cwd: Path
    env: dict[str, str] = Field(repr=False)  # all of it; DROVER_MARKER is added
    marker: str
    stdin_path: Path | None = None  # None: empty input
    stdin_open: bool = False  # the input does not end with the file; see :class:`Voice`
    output_path: Path
    error_path: Path | None = None  # None: with the output, in the order of printing
    record_path: Path
    output_limit_bytes: int = 64 * MIB  # per file; beyond it only the last 256 KiB are kept
    stop_signal: Literal["TERM", "INT"] = "TERM"
    grace_s: float = 10.0  # between that signal and SIGKILL
    timeout_s: float | None = None
    memory_limit_bytes: int | None = None  # of the whole tree; over it, all of it is killed at once
    contained: bool = False  # in a PID namespace of its own: nothing of it outlives it, or its supervisor
    stall_s: float | None = None  # longest time without output, CPU use or changed files


class Exit(BaseModel):
    """How it ended. ``returncode`` and ``signal`` are both None only when ``lost``."""

    # A record may come from a later drover that writes more into it.
    model_config = ConfigDict(frozen=True, extra="ignore")

    returncode: int | None = None
    signal: int | None = None
    timed_out: bool = False
    stalled: bool = False
    stopped: Literal["order", "orphaned"] | None = None  # "orphaned": drover died, its supervisor stopped it
    output_bytes: int = 0
    cut: bool = False
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_rss: int = 0  # bytes, of its largest process
    over_memory: int = 0  # bytes its tree used when it was killed for that; 0: it was not
    out_of_memory: bool = False
    started_at: int = 0  # unix ms
    ended_at: int = 0
    marker: str = ""
    survivors: tuple[int, ...] = ()  # pids that would not end, even by SIGKILL
    lost: bool = False  # the supervisor was killed; how the agent ended nobody knows
    problem: str = ""  # what the supervisor said before it was lost
    boot: str = ""  # which run of the machine it was

    @property
    def is_of_this_boot(self) -> bool:
        """Whether the machine was not started again since: what was written before need not be on its disk."""
        return self.boot == boot_id()

    @property
    def ok(self) -> bool:
        """It ended by itself, with exit code 0."""
        return self.returncode == 0 and not (self.timed_out or self.stalled or self.stopped or self.over_memory)


class Watcher(Protocol):
    """What the caller wants to know while it runs."""

    async def started(self, identity: ProcessIdentity) -> None:
        """The supervisor's identity. The agent runs only after this has returned; if it raises, never."""
        ...

    def progress(self, output_bytes: int) -> None:
        """A sign of life: output grew, or in silence the CPU was used. At most 20 times a second."""
        ...


class Voice:
    """Speaks to an agent whose input stays open: lines, then silence. Safe to use before it runs and after it ended."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._over = False
        self._moved = anyio.Event()

    @property
    def over(self) -> bool:
        """Whether it was said that no more will come."""
        return self._over

    def say(self, line: str) -> None:
        """One line without its end; nothing after :meth:`hush`."""
        if not self._over:
            self._lines.append(line)
            self._moved.set()

    def hush(self) -> None:
        """The input ends with what was said until now."""
        self._over = True
        self._moved.set()

    async def words(self) -> AsyncIterator[str]:
        """The orders for a supervisor, as they come."""
        while True:
            while self._lines:
                yield f"say {self._lines.pop(0)}"
            if self._over:
                yield "hush"
                return
            self._moved = anyio.Event()
            await self._moved.wait()


async def supervise(
    launch: Launch,
    watcher: Watcher,
    *,
    hurry: anyio.Event | None = None,
    changed: Changed | None = None,
    voice: Voice | None = None,
) -> Exit:
    """Run it to its end; when this returns or raises, nothing that it started is alive.

    Cancelled, it asks the agent to end (``stop_signal``), kills it after ``grace_s``, and sweeps up
    before the cancellation goes on; ``hurry`` set, at any time, does away with the grace. If drover
    dies the supervisor does the same by itself, and the exit record tells (see :func:`adopt`).

    Raises FileNotFoundError, PermissionError or another OSError if the program cannot be started,
    ProcessesRemain if it cannot be ended, and whatever ``watcher.started`` raises.
    """
    if launch.contained and await to_thread.run_sync(find_containment) is None:
        raise PermissionError(errno.EPERM, "a PID namespace is not permitted here ([worker] contain)")
    conversation = _Conversation(launch, watcher, hurry, changed, voice)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(conversation.hold)
            try:
                await conversation.over.wait()
            finally:
                conversation.stop_asked.set()  # when cancelled: hold() is shielded and sees it through
    except BaseExceptionGroup as group:
        raise sole_error(group) from None
    return conversation.exit


def sole_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first exception of a task group of which only one task can fail, as its caller wants to see it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def adopt(record_path: Path) -> Exit | None:
    """The exit record of an agent that ended while nobody looked; None if there is none, or only half of one."""
    try:
        return Exit.model_validate_json(record_path.read_bytes())
    except (OSError, ValidationError):
        return None


class _Conversation:
    """With one supervisor, from its birth to its death. Cancellation is an order it passes on, not an end."""

    def __init__(
        self,
        launch: Launch,
        watcher: Watcher,
        hurry: anyio.Event | None,
        changed: Changed | None,
        voice: Voice | None,
    ) -> None:
        self.launch = launch
        self.watcher = watcher
        self.hurry = hurry
        self.changed = changed
        self.voice = voice
        self.begun = anyio.Event()  # the supervisor was told to go
        self.exit = Exit(lost=True)
        self.over = anyio.Event()
        self.stop_asked = anyio.Event()
        self.patience = anyio.CancelScope()  # its deadline: when the supervisor must have ended
        self.said = b""
        self.output_bytes = 0
        self.cpu = 0.0
        self.alive_at = self.looked_at = time.monotonic()

    async def hold(self) -> None:
        with anyio.CancelScope(shield=True):
            program = Path(drover.__file__).with_name("supervisor") / "__main__.py"
            process = await start(
                [sys.executable, "-I", "-S", program], cwd=None, env={MARKER: self.launch.marker}, stdin=True
            )
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._overhear, process)
                    tasks.start_soon(self._pass_on, process, self.stop_asked, "stop")
                    if self.hurry is not None:
                        tasks.start_soon(self._pass_on, process, self.hurry, "kill")
                    if self.voice is not None:
                        tasks.start_soon(self._speak, process, self.voice)
                    with self.patience:
                        await self._converse(process)
                        await process.wait()
                    tasks.cancel_scope.cancel()
            finally:
                await self._end(process)
                self.over.set()

    async def _converse(self, process: Companion) -> None:
        order = marshal.dumps(self._order(), 2)
        await process.tell(b"%d\n%b" % (len(order), order))
        async for report in _reports(process):
            if "ready" in report:
                identity = identify(process.pid)
                if identity is None:
                    return
                await self.watcher.started(identity)
                if self.stop_asked.is_set():
                    return
                await _send(process, "go")
                self.begun.set()
                if self.launch.timeout_s is not None:
                    self._expect_end(self.launch.timeout_s)
            elif "failed" in report:
                raise OSError(int(str(report["failed"])), str(report["what"]))
            elif "bytes" in report:
                self.output_bytes = int(str(report["bytes"]))
                self._alive()
            elif "cpu" in report:
                await self._look(process, float(str(report["cpu"])))
            elif "record" in report:
                self.exit = Exit.model_validate(report["record"])

    def _order(self) -> dict[str, object]:
        pulse_s = PULSE_S if self.launch.stall_s is None else min(PULSE_S, self.launch.stall_s / 4)
        order = self.launch.model_dump(mode="json", exclude={"stall_s"})
        order["env"] = {**self.launch.env, MARKER: self.launch.marker}
        order["stdin_path"] = str(self.launch.stdin_path or os.devnull)
        site = None if sys.platform == "linux" else str(Path(psutil.__file__).parent.parent)
        contained = find_containment() if self.launch.contained else ()
        return {**order, "pulse_s": pulse_s, "site": site, "contained": contained, "boot": boot_id()}

    def _alive(self) -> None:
        self.alive_at = time.monotonic()
        self.watcher.progress(self.output_bytes)

    async def _look(self, process: Companion, cpu: float) -> None:
        """In silence: does it work? Only CPU use and changed files can tell."""
        now = time.monotonic()
        used, self.cpu = cpu - self.cpu, cpu
        idle = used <= IDLE_CPU * (now - self.looked_at)
        self.looked_at = now
        if not idle:
            self._alive()
        elif self.launch.stall_s is not None and now - self.alive_at >= self.launch.stall_s:
            if self.changed is not None and await self.changed(time.time() - (now - self.alive_at)):
                self._alive()
            else:
                await _send(process, "stall")
                self._expect_end(0.0)

    async def _pass_on(self, process: Companion, event: anyio.Event, word: str) -> None:
        await event.wait()
        await _send(process, word)
        self._expect_end(0.0, self.launch.grace_s if word == "stop" else 0.0)

    async def _speak(self, process: Companion, voice: Voice) -> None:
        await self.begun.wait()
        async for word in voice.words():
            await _send(process, word)

    def _expect_end(self, after_s: float, grace_s: float | None = None) -> None:
        grace_s = self.launch.grace_s if grace_s is None else grace_s
        deadline = anyio.current_time() + after_s + grace_s + FAREWELL_S
        self.patience.deadline = min(self.patience.deadline, deadline)

    async def _overhear(self, process: Companion) -> None:
        async for chunk in process.complained():
            self.said = (self.said + chunk)[-4096:]

    async def _end(self, process: Companion) -> None:
        """Reap the supervisor; if it did not see the agent to its end, do that in its place."""
        await process.end()
        if self.exit.lost or self.exit.survivors:
            await end_marked(self.launch.marker, 0.0)
        if self.exit.lost:
            self.exit = Exit(lost=True, problem=self.said.decode(errors="replace").strip())


async def _send(process: Companion, line: str) -> None:
    await process.tell(line.encode() + b"\n")


async def _reports(process: Companion) -> AsyncIterator[dict[str, object]]:
    """The supervisor's lines, until it has ended."""
    buffer = b""
    async for chunk in process.said():
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            yield json.loads(line)

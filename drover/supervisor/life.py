"""One agent, from its start to the proof that nothing of it is left.

The input begins with a dictionary (made by ``drover.process.supervise``, see :func:`read_launch`); then come the words
``go``, ``stop``, ``stall`` and ``kill``, and for an agent whose input stays open ``say`` with a line for it, and
``hush`` when no more will come. The end of input means that drover has died. What is printed
are JSON lines that may be lost when nobody reads them; what must not be lost is in the exit record.
"""

from __future__ import annotations

import marshal
import os
import resource
import select
import sys
import time

from drover.supervisor.ear import Ear
from drover.supervisor.memory import LOOK_S, Limit
from drover.supervisor.relay import Relay
from drover.supervisor.slim import adopt_orphans, signal, suppress, to_json
from drover.supervisor.table import ProcTable, PsutilTable, below, oom_kills, signal_exactly

REPORT_S = 0.05  # at most so often
EOF_S = 2.0  # a grandchild may hold a pipe this long after the agent has ended
SWEEP_S = 1.0  # between asking what the agent left behind to end, and killing it
PROVE_S = 5.0  # for the kernel to let go of what was killed
LOOK_AGAIN_S = 0.05
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypedDict

    class Launch(TypedDict):
        """What drover asks for."""

        argv: list[str]
        cwd: str
        env: dict[str, str]
        stdin_path: str
        stdin_open: bool
        output_path: str
        error_path: str | None
        record_path: str
        output_limit_bytes: int
        marker: str
        stop_signal: Literal["TERM", "INT"]
        grace_s: float
        timeout_s: float | None
        memory_limit_bytes: int | None
        contained: list[str]  # words before the command, or none
        pulse_s: float
        site: str | None
        boot: str


class Supervisor:
    """The agent's parent: the only process that may wait for it."""

    def __init__(self, launch: Launch, unread: bytes = b"") -> None:
        self.launch = launch
        self.table = PsutilTable(launch["site"]) if launch["site"] else ProcTable()
        self.grace = launch["grace_s"]
        self.relays: list[Relay] = []
        self.ear: Ear | None = None
        self.unread = unread
        self.born = self.table.one(os.getpid()) if sys.platform == "linux" else None
        self.listening = True
        self.signalled = False
        self.agent = 0
        self.status: int | None = None  # the agent's, as waitpid gives it, once it has ended
        self.timed_out = self.stalled = self.killed = False
        self.memory = Limit(limit, self.table) if (limit := launch["memory_limit_bytes"]) else None
        self.over_memory = 0  # bytes that were found used when the limit was passed
        self.stopped: str | None = None
        self.timeout_at: float | None = None
        self.kill_at: float | None = None  # set when the agent was asked to stop
        self.eof_at: float | None = None  # set when the agent has ended
        self.report_at = self.pulse_at = 0.0
        self.reported = 0
        self.oom_kills = oom_kills()
        self.wake = self.catch_signals()

    def catch_signals(self) -> int:
        """A pipe end that becomes readable when a child has ended or somebody asks us to stop."""
        wake, write = os.pipe()
        for fd in (wake, write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in STOPPING:
            signal.signal(number, self.note_signal)
        return wake

    def note_signal(self, *_: object) -> None:
        self.signalled = True

    # ---------------------------------------------------------------- its life

    def live(self) -> None:
        """Wait for ``go``, see the agent through, sweep up, leave the record."""
        self.say({"ready": os.getpid()})
        orders: list[str] = []
        while not orders:
            orders = self.read_orders()
        if orders[0] != "go" or self.signalled:
            return
        started_at, began = time.time_ns() // 1_000_000, time.monotonic()
        try:
            self.spawn()
        except (OSError, ValueError) as error:
            what = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else str(error)
            self.say({"failed": getattr(error, "errno", None) or 22, "what": what})
            return
        if self.launch["timeout_s"] is not None:
            self.timeout_at = began + self.launch["timeout_s"]
        self.pulse_at = began + self.launch["pulse_s"]
        for word in orders[1:]:
            self.obey(word)
        while not self.ended():
            self.turn()
        if self.ear is not None:
            self.ear.close()
        if self.memory is not None and self.memory.struck():
            self.over_memory = self.memory.limit
        survivors = self.sweep()
        if self.memory is not None:
            self.memory.close()
        for relay in self.relays:
            relay.close()
        self.finish(started_at, time.monotonic() - began, survivors)

    def spawn(self) -> None:
        launch, limit = self.launch, self.launch["output_limit_bytes"]
        program = find_program(launch["argv"][0], launch["env"], launch["cwd"])
        out = Relay(launch["output_path"], limit)
        err = out if launch["error_path"] is None else Relay(launch["error_path"], limit)
        self.relays = [out] if err is out else [out, err]
        if launch["stdin_open"]:
            self.ear = Ear(launch["stdin_path"])
            source = self.ear.theirs
        else:
            source = os.open(launch["stdin_path"], os.O_RDONLY)
        os.chdir(launch["cwd"])
        if self.memory is not None:
            self.memory.enter()
        argv = launch["argv"]
        if launch["contained"]:
            os.close(os.open(program, os.O_PATH))  # is not there: it says so, as it would without
            argv = [*launch["contained"], program, *argv[1:]]
            program = argv[0]
        self.agent = os.posix_spawn(
            program,
            argv,
            launch["env"],
            file_actions=[
                (os.POSIX_SPAWN_DUP2, source, 0),
                (os.POSIX_SPAWN_DUP2, out.theirs, 1),
                (os.POSIX_SPAWN_DUP2, err.theirs, 2),
            ],
            setsid=True,
            setsigmask=[],
            # A shell's `drover run &` hands down that SIGINT is ignored, Python that SIGPIPE is.
            setsigdef=[*STOPPING, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD],
        )
        if self.memory is not None:
            self.memory.leave()
        os.chdir("/")
        for fd in {source, out.theirs, err.theirs}:
            os.close(fd)

    def ended(self) -> bool:
        if self.status is None:
            return False
        late = self.eof_at is not None and time.monotonic() >= self.eof_at
        return late or all(relay.pipe < 0 for relay in self.relays)

    def turn(self, at_most: float | None = None) -> None:
        """Wait for the next thing to happen, and see to it."""
        for fd in self.wait_for(self.next_due(at_most)):
            if fd == self.wake:
                with suppress(BlockingIOError):
                    os.read(fd, 4096)
            elif fd == 0:
                for word in self.read_orders():
                    self.obey(word)
            elif self.ear is not None and fd == self.ear.pipe:
                self.ear.pump()
            for relay in self.relays:
                if fd == relay.pipe:
                    relay.pump()
        if self.signalled:
            self.signalled = False
            self.stop("order")
        self.reap()
        self.keep_time(time.monotonic())

    def next_due(self, at_most: float | None) -> float:
        now = time.monotonic()
        due = self.pulse_at
        for time_at in (self.timeout_at, self.kill_at, self.eof_at):
            if time_at is not None:
                due = min(due, time_at)
        if self.total() != self.reported:
            due = min(due, self.report_at)
        if self.memory is not None and self.memory.group is None:
            due = min(due, now + LOOK_S)
        if at_most is not None:
            due = min(due, now + at_most)
        return max(0.0, due - now)

    def wait_for(self, seconds: float) -> list[int]:
        poll = select.poll()
        poll.register(self.wake, select.POLLIN)
        if self.listening:
            poll.register(0, select.POLLIN)
        for relay in self.relays:
            if relay.pipe >= 0:
                poll.register(relay.pipe, select.POLLIN)
        if self.ear is not None and self.ear.waiting:
            poll.register(self.ear.pipe, select.POLLOUT)
        return [fd for fd, _ in poll.poll(int(seconds * 1000) + 1)]

    def keep_time(self, now: float) -> None:
        if self.timeout_at is not None and now >= self.timeout_at:
            self.timeout_at = None
            if self.status is None and self.kill_at is None:
                self.timed_out = True
                self.stop(None)
        if self.kill_at is not None and now >= self.kill_at:
            self.kill_at = float("inf")
            if self.status is None:
                self.killed = True
                self.signal_agent(signal.SIGKILL)
        if self.memory is not None and self.status is None and self.kill_at is None:
            self.over_memory = self.memory.exceeded(os.getpid(), now)
            if self.over_memory:
                self.grace = 0.0  # asked first, it would go on growing at the cost of its neighbours
                self.stop(None)
        if self.total() != self.reported and now >= self.report_at:
            self.reported = self.total()
            self.report_at, self.pulse_at = now + REPORT_S, now + self.launch["pulse_s"]
            self.say({"bytes": self.reported})
        if now >= self.pulse_at:
            self.pulse_at = now + self.launch["pulse_s"]
            self.say({"cpu": round(self.cpu_seconds(), 3)})

    # ---------------------------------------------------------------- orders

    def read_orders(self) -> list[str]:
        """The words that have come, waiting for one if need be; ``died`` at the end of input."""
        if b"\n" not in self.unread:
            data = os.read(0, 4096)
            if not data:
                self.listening = False
                return ["died"]
            self.unread += data
        *lines, self.unread = self.unread.split(b"\n")
        return [line.decode() for line in lines]

    def obey(self, word: str) -> None:
        if word == "hush" or word.startswith("say "):
            if self.ear is not None:
                self.ear.finish() if word == "hush" else self.ear.say(word[4:].encode() + b"\n")
            return
        if word == "kill":
            self.grace = 0.0
        if word == "stall" and self.status is None:
            self.stalled = True
        self.stop("orphaned" if word == "died" else "order")

    def stop(self, why: str | None) -> None:
        """Ask the agent to end, and set when it will be killed. Asked again, only sooner."""
        now = time.monotonic()
        if self.status is not None:
            self.eof_at = now
            return
        if self.kill_at is None:
            self.stopped = why
            self.signal_agent(signal.SIGINT if self.launch["stop_signal"] == "INT" else signal.SIGTERM)
            self.kill_at = now + self.grace
        self.kill_at = min(self.kill_at, now + self.grace)

    def signal_agent(self, number: int) -> None:
        """To its whole group; it is not reaped yet, so the number is still its own."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.agent, number)

    def reap(self) -> bool:
        """Bury the dead, ours and those we were left; whether a living child remains.

        Where orphans come to us, "none" is the kernel's word that no descendant lives: no look at a
        list of processes that fork while one looks can say as much.
        """
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self.agent and self.status is None:
                    self.status = status
                    # Who was told to stop is not waited for; who ended by himself may have a child that still speaks.
                    self.eof_at = time.monotonic() + (EOF_S if self.kill_at is None else LOOK_AGAIN_S)
        return False

    # ---------------------------------------------------------------- what is left

    def survivors(self) -> dict[int, int]:
        """pid → start of everything below this process, and of everything that carries the marker.

        Nobody older than this process was ever given the marker; on Linux a start is a reading of no clock
        that somebody could set, so those are not asked.
        """
        me, table = os.getpid(), self.table.all()
        mine, since = below(me, table), self.born[1] if self.born else 0
        younger = (pid for pid, process in table.items() if process[1] >= since and pid not in mine)
        mine |= {pid for pid in younger if self.table.marked(pid, self.launch["marker"])}
        return {pid: table[pid][1] for pid in mine - {me}}

    def sweep(self) -> list[int]:
        """End everything the agent has left; the pids of what would not end."""
        began = time.monotonic()
        asked: dict[int, int] = {}
        while (survivors := self.survivors()) or self.reap():
            waited = time.monotonic() - began
            if waited > self.grace + PROVE_S:
                return sorted(survivors)
            gently = waited < min(self.grace, SWEEP_S)
            for pid, started in survivors.items():
                if not gently:
                    signal_exactly(pid, started, signal.SIGKILL, self.table)
                elif asked.get(pid) != started:
                    signal_exactly(pid, started, signal.SIGTERM, self.table)
                    asked[pid] = started
            self.eof_at = None
            self.turn(at_most=LOOK_AGAIN_S)
        return []

    def cpu_seconds(self) -> float:
        """Of the whole tree so far, the dead included."""
        table = self.table.all()
        dead = resource.getrusage(resource.RUSAGE_CHILDREN)
        return sum(table[pid][2] for pid in below(os.getpid(), table)) + dead.ru_utime + dead.ru_stime

    # ---------------------------------------------------------------- reports

    def total(self) -> int:
        return sum(relay.total for relay in self.relays)

    def finish(self, started_at: int, seconds: float, survivors: list[int]) -> None:
        code = os.waitstatus_to_exitcode(self.status or 0)
        if self.launch["contained"] and code == 128 + signal.SIGKILL:
            code = -signal.SIGKILL  # as the first process of its namespace tells it
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        record = {
            "argv0": self.launch["argv"][0],
            "marker": self.launch["marker"],
            "returncode": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "started_at": started_at,
            "ended_at": time.time_ns() // 1_000_000,
            "seconds": round(seconds, 3),
            "timed_out": self.timed_out,
            "stalled": self.stalled,
            "stopped": self.stopped,
            "output_bytes": self.total(),
            "cut": any(relay.cut for relay in self.relays),
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
            "peak_rss": used.ru_maxrss * (1024 if sys.platform == "linux" else 1),
            "over_memory": self.over_memory,
            "out_of_memory": code == -signal.SIGKILL and not self.killed and oom_kills() > self.oom_kills,
            "survivors": survivors,
            "boot": self.launch["boot"],
        }
        with suppress(OSError):  # a full disk: drover, if it lives, has it from the next line
            write_durably(self.launch["record_path"], to_json(record).encode() + b"\n")
        os.set_blocking(1, True)
        self.say({"record": record})

    def say(self, report: dict[str, object]) -> None:
        """Tell drover, if it listens: one that is stopped, or dead, never holds the agent up."""
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(1, to_json(report).encode() + b"\n")


def find_program(name: str, env: dict[str, str], cwd: str) -> str:
    """Where a shell in ``cwd`` with that PATH would find it."""
    if "/" in name:
        return name
    for directory in env.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(cwd, directory, name)  # noqa: PTH118 - importing pathlib costs each agent 5 ms
        if os.access(path, os.X_OK) and not os.path.isdir(path):  # noqa: PTH112 - the same
            return path
    raise FileNotFoundError(2, "no such program", name)


def write_durably(path: str, data: bytes) -> None:
    """All of it under that name, or nothing, also after a power cut."""
    with open(path + ".tmp", "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".tmp", path)  # noqa: PTH104 - importing pathlib costs each agent 5 ms
    directory = os.open(path.rpartition("/")[0] or ".", os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def read_launch() -> tuple[Launch, bytes] | None:
    """What is to be started, and what came after it; None when drover has thought better of it.

    It is a line that says how many bytes, and those, in ``marshal``'s second format: both ends are the same
    Python, and ``json`` costs as much as starting it does.
    """
    data = b""
    while True:
        more = os.read(0, 65536)
        data += more
        size, _, rest = data.partition(b"\n")
        if not more or not size.isdigit():
            return None
        if len(rest) >= int(size):
            return marshal.loads(rest), rest[int(size) :]  # noqa: S302 - from drover, by a pipe of its own


def main() -> None:
    """Read what to start, and start it when told to."""
    found = read_launch()
    if found is None:
        return
    adopt_orphans()
    os.set_blocking(1, False)
    Supervisor(*found).live()

"""One short command, run to its end by the thread that calls it.

A thread that waits costs a third of what the event loop's own pipes and watchers cost, and a life with git
runs dozens of commands. Nobody can cancel a thread, so whoever gives up ends the command itself instead.
"""

from __future__ import annotations

import os
import selectors
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

from drover.process.birth import Child, bear

GENTLY_S = 0.5  # git takes its lock files away in its SIGTERM handler; SIGKILL would leave them
EOF_S = 2.0  # how long a grandchild that holds the pipes may keep us after its parent has ended
LOOK_S = 0.25  # how often a command that says nothing is asked whether it has ended
CHUNK = 256 * 1024


class Command:
    """``run`` in one thread, ``stop`` and ``kill`` from any other. All of its fields are final once ``over`` is set."""

    def __init__(
        self, argv: list[str], cwd: Path | None, env: dict[str, str], stdin: bytes | None, limit_bytes: int
    ) -> None:
        self.over = threading.Event()  # it has ended and was reaped, or it never began
        self.out, self.err = bytearray(), bytearray()
        self.returncode = 0
        self.pid = 0
        self.too_much = False
        self.cut_off = False  # it was made to end
        self._argv = argv
        self._cwd = cwd
        self._env = env
        self._stdin = stdin
        self._limit = limit_bytes
        self._lock = threading.Lock()  # its pid is its own for as long as it has not been reaped
        self._begun = False

    def run(self) -> None:
        """Start it, feed it, read it, reap it. Raises what :func:`bear` raises."""
        try:
            process = self._start()
            if process is not None:
                self._converse(process)
                self._reap(process)
        finally:
            self.over.set()

    def stop(self) -> bool:
        """Ask its group to end, and whether there is still something to wait for; one not begun never begins."""
        with self._lock:
            if self.over.is_set():
                return False
            self.cut_off = True
            if not self._begun:
                self.over.set()
                return False
            self._signal(signal.SIGTERM)
            return True

    def kill(self) -> None:
        """End its group for good. What is left of a group keeps its number from being given to another."""
        with self._lock:
            self._signal(signal.SIGKILL)

    def _start(self) -> Child | None:
        with self._lock:
            if self.cut_off:
                return None
            self._begun = True
        process = bear(self._argv, cwd=self._cwd, env=self._env, stdin=self._stdin is not None)
        with self._lock:
            self.pid = process.pid
            if self.cut_off:  # while it was being born
                self._signal(signal.SIGTERM)
        return process

    def _converse(self, process: Child) -> None:
        left = memoryview(self._stdin or b"")
        ends_at, look_at = float("inf"), time.monotonic() + LOOK_S
        open_ones = {pipe for pipe in (process.stdin, process.stdout, process.stderr) if pipe >= 0}
        with selectors.DefaultSelector() as pipes:
            pipes.register(process.stdout, selectors.EVENT_READ, self.out)
            pipes.register(process.stderr, selectors.EVENT_READ, self.err)
            if process.stdin >= 0:
                os.set_blocking(process.stdin, False)
                pipes.register(process.stdin, selectors.EVENT_WRITE)
            while pipes.get_map() and not self.too_much and (now := time.monotonic()) < ends_at:
                if now >= look_at:
                    look_at = now + LOOK_S
                    if process.poll() is not None:
                        ends_at = min(ends_at, now + EOF_S)
                for key, _ in pipes.select(LOOK_S):
                    if key.data is None:
                        left = left[_write(key.fd, left) :]
                        if not left:
                            pipes.unregister(key.fd)
                            open_ones.discard(key.fd)
                            os.close(key.fd)
                    elif not self._read(key.fd, key.data):
                        pipes.unregister(key.fd)
        for pipe in open_ones:
            os.close(pipe)

    def _read(self, fd: int, output: bytearray) -> bool:
        """False at its end."""
        chunk = os.read(fd, CHUNK)
        if len(output) + len(chunk) > self._limit:
            self.too_much = True
            self.stop()
            return False
        output += chunk
        return bool(chunk)

    def _reap(self, process: Child) -> None:
        if self.too_much:
            process.wait(GENTLY_S)
            self.kill()
        self.returncode = process.wait() or 0

    def _signal(self, number: int) -> None:
        if self.pid:
            signal_group(self.pid, number)


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group that may have gone."""
    with suppress(ProcessLookupError, PermissionError):  # macOS says EPERM for a group of zombies
        os.killpg(group, number)


def _write(fd: int, data: memoryview) -> int:
    try:
        return os.write(fd, data[:CHUNK])
    except BlockingIOError:
        return 0
    except OSError:  # it did not want all of it
        return len(data)

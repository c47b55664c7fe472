"""A command that is kept and asked again and again; for threads, and for one of them at a time."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from drover.process.birth import bear
from drover.process.command import CHUNK, GENTLY_S, signal_group

QUESTION_BYTES = select.PIPE_BUF  # written wholly or not at all
_KEPT_ERRORS = 64 * 1024


class Ended(Exception):
    """It has ended instead of answering. What it was asked may have been done or not, unless it was not ``heard``."""

    def __init__(self, returncode: int, stderr: bytes, *, heard: bool) -> None:
        super().__init__(f"ended with {returncode}")
        self.returncode = returncode
        self.stderr = stderr
        self.heard = heard


class Lasting:
    """It runs in a session of its own. If drover dies it sees the end of its input."""

    def __init__(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> None:
        self._child = bear(argv, cwd=cwd, env=env, stdin=True)
        self._errors = b""
        self._pipes = select.poll()
        self._open = {self._child.stdout, self._child.stderr}
        for pipe in self._open:
            self._pipes.register(pipe, select.POLLIN)
        self.used_at = time.monotonic()

    def ask(self, question: bytes, answer: bytes, timeout_s: float) -> None:
        """Return when it has answered just that. Anything else is its end: Ended, or TimeoutError after that time."""
        until, said = time.monotonic() + timeout_s, b""
        try:
            os.write(self._child.stdin, question)
        except OSError:
            raise self._ended(heard=False) from None
        while said != answer:
            if time.monotonic() > until:
                self.end(gently=False)
                raise TimeoutError
            said += self._hear(until - time.monotonic())
            if self._child.stdout not in self._open or not answer.startswith(said):
                raise self._ended(heard=True)
        self.used_at = time.monotonic()

    def end(self, *, gently: bool = True) -> int:
        """Let it see the end of its input, and end it if that does not; its exit code. Once."""
        os.close(self._child.stdin)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if gently and self._child.wait(GENTLY_S) is not None:
                break
            signal_group(self._child.pid, number)
            gently = True
        code = self._child.wait() or 0
        while self._pipes.poll(0):
            self._hear(0)
        os.close(self._child.stdout)
        os.close(self._child.stderr)
        return code

    def _hear(self, wait_s: float) -> bytes:
        """What it has printed; what it complains of is kept."""
        said = b""
        for pipe, _ in self._pipes.poll(max(0.0, wait_s) * 1000):
            chunk = os.read(pipe, CHUNK)
            if not chunk:
                self._pipes.unregister(pipe)
                self._open.discard(pipe)
            elif pipe == self._child.stdout:
                said += chunk
            else:
                self._errors = (self._errors + chunk)[-_KEPT_ERRORS:]
        return said

    def _ended(self, *, heard: bool) -> Ended:
        return Ended(self.end(), self._errors, heard=heard)

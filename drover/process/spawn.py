"""Starts child processes: short commands to their end, and the supervisors of long ones."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio

from drover.domain.errors import DroverError
from drover.process.birth import bear, resets_signals
from drover.process.command import GENTLY_S, Command
from drover.process.companion import Companion
from drover.process.identity import group_lives
from drover.process.threads import in_thread

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK_AGAIN_S = 0.02


class TooMuchOutput(DroverError):
    """A command printed more than it was allowed to and was ended."""

    code = "too_much_output"


@dataclass(frozen=True)
class Finished:
    """A command that has ended. ``returncode`` is minus the signal's number when one ended it."""

    returncode: int
    stdout: bytes
    stderr: bytes


async def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str],
    stdin: bytes | None = None,
    timeout_s: float = 60.0,
    limit_bytes: int = 64 * 1024 * 1024,
) -> Finished:
    """Run a short command to its end, in a session of its own, with exactly ``env``.

    Without ``stdin`` its standard input is empty. When the caller is cancelled or the time is up the
    whole process group is ended (SIGTERM, half a second, SIGKILL) and reaped before this returns.

    Raises FileNotFoundError or PermissionError if the program or ``cwd`` cannot be used, TimeoutError
    after ``timeout_s`` seconds, TooMuchOutput when stdout or stderr passes ``limit_bytes``.
    """
    command = Command([os.fspath(part) for part in argv], cwd, dict(env), stdin, limit_bytes)
    try:
        with anyio.fail_after(timeout_s), nullcontext() if resets_signals() else _stopping_signals_reset():
            await in_thread(command.run, abandon=True)
    finally:
        if command.cut_off or not command.over.is_set():
            with anyio.CancelScope(shield=True):
                await _end(command)
    if command.too_much:
        raise TooMuchOutput(f"{Path(argv[0]).name} printed more than {limit_bytes} bytes")
    return Finished(command.returncode, bytes(command.out), bytes(command.err))


async def start(argv: Sequence[str | Path], *, cwd: Path | None, env: Mapping[str, str], stdin: bool) -> Companion:
    """Start a child in a session of its own, its stopping signals as a shell would set them.

    Not interruptible: a caller cancelled here still gets, and has to end, the child.
    """
    words = [os.fspath(part) for part in argv]
    with anyio.CancelScope(shield=True), nullcontext() if resets_signals() else _stopping_signals_reset():
        child = await in_thread(partial(bear, words, cwd=cwd, env=env, stdin=stdin))
    return Companion(child)


async def _end(command: Command) -> None:
    """Return when the command is over; end what is left of its group if it is not, or was cut off."""
    if command.stop():
        with anyio.move_on_after(GENTLY_S):
            await _over(command)
    if command.cut_off and command.pid:
        command.kill()
        await _over(command)
        await _group_gone(command.pid)


async def _over(command: Command) -> None:
    while not command.over.is_set():  # noqa: ASYNC110 - an event of its thread, not of this loop
        await anyio.sleep(LOOK_AGAIN_S)


async def _group_gone(group: int) -> None:
    """Killed is not yet dead: a grandchild ends a moment after its signal."""
    for _ in range(50):
        if not group_lives(group):
            return
        await anyio.sleep(LOOK_AGAIN_S)


_reset_lock = threading.Lock()
_resets = 0
_restore: dict[signal.Signals, signal.Handlers] = {}


@contextmanager
def _stopping_signals_reset() -> Iterator[None]:
    """Children born inside do not inherit that a stopping signal is ignored.

    A shell starts ``drover run &`` with SIGINT ignored, nohup with SIGHUP ignored; exec passes that
    on and the child could never be interrupted. A *handled* signal becomes its default on exec, so
    for as long as a child is being born a handler that does nothing stands in for "ignored".
    Python lets only the main thread do this; children of other threads inherit what there is.
    """
    global _resets  # noqa: PLW0603 - dispositions belong to the process, so does their count
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _reset_lock:
        _resets += 1
        for number in STOPPING:
            if signal.getsignal(number) is signal.SIG_IGN:
                _restore[number] = signal.SIG_IGN
                signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        with _reset_lock:
            _resets -= 1
            if not _resets:
                for number, handler in _restore.items():
                    signal.signal(number, handler)
                _restore.clear()

"""Starts child processes: short commands to their end, and the supervisors of long ones."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, Process

from drover.domain.errors import DroverError
from drover.process.identity import group_lives

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GENTLY_S = 0.5  # git takes its lock files away in its SIGTERM handler; SIGKILL would leave them
LOOK_AGAIN_S = 0.02
EOF_S = 2.0  # how long a grandchild that holds the pipes may keep us after its parent has ended


class TooMuchOutput(DroverError):
    """A command printed more than it was allowed to and was ended."""

    code = "too_much_output"


@dataclass(frozen=True)
class Finished:
    """A command that has ended. ``returncode`` is minus the signal's number when one ended it."""

    returncode: int
    stdout: bytes
    stderr: bytes


@dataclass
class _Output:
    """What was read so far; ``ended`` when the pipe said so, ``over`` when the limit did."""

    chunks: list[bytes] = field(default_factory=list)
    size: int = 0
    ended: anyio.Event = field(default_factory=anyio.Event)
    over: bool = False


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
    process = await start(argv, cwd=cwd, env=env, stdin=stdin is not None)
    out, err = _Output(), _Output()
    try:
        with anyio.fail_after(timeout_s):
            async with anyio.create_task_group() as tasks:
                if process.stdin is not None:
                    tasks.start_soon(_feed, process.stdin, stdin or b"")
                for stream, output in ((process.stdout, out), (process.stderr, err)):
                    if stream is not None:
                        tasks.start_soon(_drain, stream, output, limit_bytes, tasks.cancel_scope)
                await process.wait()
                with anyio.move_on_after(EOF_S):
                    await out.ended.wait()
                    await err.ended.wait()
                tasks.cancel_scope.cancel()
    finally:
        await _bury(process)
    if out.over or err.over:
        raise TooMuchOutput(f"{Path(argv[0]).name} printed more than {limit_bytes} bytes")
    assert process.returncode is not None  # noqa: S101 - _bury has waited for it
    return Finished(process.returncode, b"".join(out.chunks), b"".join(err.chunks))


async def start(
    argv: Sequence[str | Path], *, cwd: Path | None, env: Mapping[str, str], stdin: bool, stderr: bool = True
) -> Process:
    """Start a child in a session of its own, its stopping signals as a shell would set them.

    Not interruptible: a caller cancelled here still gets, and has to end, the child.
    """
    with anyio.CancelScope(shield=True), _stopping_signals_reset():
        process = await anyio.open_process(
            [os.fspath(part) for part in argv],
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if stderr else subprocess.DEVNULL,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
        )
    return process  # noqa: RET504 - mypy: a cancel scope might swallow what is raised in it


async def _feed(stream: ByteSendStream, data: bytes) -> None:
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):  # it did not want all of it
        await stream.send(data)
    with suppress(ConnectionError):
        await stream.aclose()


async def _drain(stream: ByteReceiveStream, output: _Output, limit: int, scope: anyio.CancelScope) -> None:
    with suppress(anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
        while True:
            chunk = await stream.receive()
            output.size += len(chunk)
            if output.size > limit:
                output.over = True
                scope.cancel()
                return
            output.chunks.append(chunk)
    output.ended.set()


async def _bury(process: Process) -> None:
    """End what is left of the child's group, and reap the child."""
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            signal_group(process.pid, signal.SIGTERM)
            with anyio.move_on_after(GENTLY_S):
                await process.wait()
            signal_group(process.pid, signal.SIGKILL)
            await process.wait()
            await _group_gone(process.pid)
        await process.aclose()


async def _group_gone(group: int) -> None:
    """Killed is not yet dead: a grandchild ends a moment after its signal."""
    for _ in range(50):
        if not group_lives(group):
            return
        await anyio.sleep(LOOK_AGAIN_S)


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group that may have gone."""
    with suppress(ProcessLookupError, PermissionError):  # macOS says EPERM for a group of zombies
        os.killpg(group, number)


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

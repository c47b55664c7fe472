"""Starts one program, without keeping this process's other threads waiting meanwhile.

``subprocess`` holds the interpreter's lock until the child has become its program: a millisecond or two on a busy
machine, of which next to nothing is work. Eight lives that start a dozen gits each wait for one another there. On
Linux the C library's ``posix_spawn`` is called instead, with the lock given up; elsewhere ``subprocess`` does it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Protocol

# What Python itself ignores, and what a shell or nohup may have told drover to ignore: a child can be stopped by them.
_DEFAULTS = ("SIGPIPE", "SIGXFSZ", "SIGXFZ", "SIGINT", "SIGTERM", "SIGHUP")
_SETSIGDEF, _SETSID = 0x04, 0x80
_NEEDED = ("posix_spawn", "posix_spawn_file_actions_addchdir_np", "posix_spawn_file_actions_addclosefrom_np")
_FIRST_OWN = 3  # after standard input, output and error
_LOOK_S = 0.005


class Child(Protocol):
    """A process of ours. Its pipes are bare file numbers that whoever asked for it closes; -1: there is none."""

    pid: int
    stdin: int
    stdout: int
    stderr: int

    def poll(self) -> int | None:
        """Its exit code, or minus the number of the signal that ended it; None while it runs."""
        ...

    def wait(self, timeout_s: float | None = None) -> int | None:
        """As :meth:`poll`, once it has ended, or after that time. From then on its pid may be another's."""
        ...


def bear(argv: Sequence[str], *, cwd: Path | None, env: Mapping[str, str], stdin: bool) -> Child:
    """A child in a session of its own with exactly ``env``, nothing of ours open, and pipes to and from it.

    Without ``stdin`` its input is empty. The program is looked for in the PATH of ``env``. Raises
    FileNotFoundError, NotADirectoryError or PermissionError when the program or ``cwd`` cannot be used.
    """
    if _library() is None:
        return _Subprocess(argv, cwd, env, stdin=stdin)
    pipes = [os.pipe() for _ in range(3 if stdin else 2)]
    theirs = [pipe[1] for pipe in pipes[:2]] + [pipe[0] for pipe in pipes[2:]]
    ours = [pipe[0] for pipe in pipes[:2]] + [pipe[1] for pipe in pipes[2:]]
    try:
        if min(theirs) < _FIRST_OWN:  # ours were closed when we were started, and these stand in their way
            _close(ours)
            return _Subprocess(argv, cwd, env, stdin=stdin)
        pid = _spawn(argv, cwd, env, theirs)
    except BaseException:
        _close(ours)
        raise
    finally:
        _close(theirs)
    return _Spawned(pid, *ours)


def resets_signals() -> bool:
    """Whether a child is born with its stopping signals as they should be, whatever they are to this process."""
    return _library() is not None


class _Spawned:
    def __init__(self, pid: int, stdout: int, stderr: int, stdin: int = -1) -> None:
        self.pid = pid
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self._ended: int | None = None

    def poll(self) -> int | None:
        return self._look(os.WNOHANG)

    def wait(self, timeout_s: float | None = None) -> int | None:
        if timeout_s is None:
            return self._look(0)
        until = time.monotonic() + timeout_s
        while self.poll() is None and time.monotonic() < until:
            time.sleep(_LOOK_S)
        return self._ended

    def _look(self, options: int) -> int | None:
        if self._ended is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:  # whoever embeds us has it reaped by others: nobody knows how it ended
                pid, status = self.pid, 0
            if pid:
                self._ended = os.waitstatus_to_exitcode(status)
        return self._ended


class _Subprocess:
    """The same by the standard library."""

    def __init__(self, argv: Sequence[str], cwd: Path | None, env: Mapping[str, str], *, stdin: bool) -> None:
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=env,
            bufsize=0,
            start_new_session=True,
        )
        self.pid = self._process.pid
        files = (self._process.stdin, self._process.stdout, self._process.stderr)
        self.stdin, self.stdout, self.stderr = (-1 if file is None else os.dup(file.fileno()) for file in files)
        for file in files:
            if file is not None:
                file.close()

    def poll(self) -> int | None:
        return self._process.poll()

    def wait(self, timeout_s: float | None = None) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self._process.returncode


# ---------------------------------------------------------------- the C library


class _Library:
    """Its functions: ``spawn`` gives up the interpreter's lock, the others are over at once and keep it."""

    def __init__(self) -> None:
        self.spawn = ctypes.CDLL(None).posix_spawn
        self.quick = ctypes.PyDLL(None)
        self.attributes = ctypes.create_string_buffer(1024)  # glibc: 336, musl: 336
        defaults = ctypes.create_string_buffer(128)
        self.quick.sigemptyset(defaults)
        for number in {getattr(signal, name) for name in _DEFAULTS if hasattr(signal, name)}:
            self.quick.sigaddset(defaults, int(number))
        self.quick.posix_spawnattr_init(self.attributes)
        self.quick.posix_spawnattr_setsigdefault(self.attributes, defaults)
        self.quick.posix_spawnattr_setflags(self.attributes, ctypes.c_short(_SETSIGDEF | _SETSID))


@cache
def _library() -> _Library | None:
    if sys.platform != "linux" or not all(hasattr(ctypes.CDLL(None), name) for name in _NEEDED):
        return None
    return _Library()


def _spawn(argv: Sequence[str], cwd: Path | None, env: Mapping[str, str], pipes: Sequence[int]) -> int:
    """``pipes`` become its output, its errors and, if there is a third, its input."""
    library = _library()
    assert library is not None  # noqa: S101 - the caller has asked
    quick, actions, pid = library.quick, ctypes.create_string_buffer(256), ctypes.c_int()  # glibc: 80
    words = _strings([os.fsencode(word) for word in argv])
    environment = _strings([b"%b=%b" % (os.fsencode(name), os.fsencode(value)) for name, value in env.items()])
    program = _find(argv[0], cwd, env)
    quick.posix_spawn_file_actions_init(actions)
    try:
        for ours, theirs in zip(pipes, (1, 2, 0), strict=False):
            quick.posix_spawn_file_actions_adddup2(actions, ours, theirs)
        if len(pipes) < _FIRST_OWN:
            quick.posix_spawn_file_actions_addopen(actions, 0, os.devnull.encode(), os.O_RDONLY, 0)
        if cwd is not None:
            quick.posix_spawn_file_actions_addchdir_np(actions, os.fsencode(cwd))
        quick.posix_spawn_file_actions_addclosefrom_np(actions, _FIRST_OWN)
        failed = library.spawn(ctypes.byref(pid), program, actions, library.attributes, words, environment)
    finally:
        quick.posix_spawn_file_actions_destroy(actions)
    if failed:
        where = cwd if cwd is not None and not cwd.is_dir() else argv[0]
        raise OSError(failed, os.strerror(failed), os.fspath(where))
    return pid.value


def _strings(words: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    if any(b"\0" in word for word in words):
        raise ValueError("embedded null byte")
    return (ctypes.c_char_p * (len(words) + 1))(*words, None)


def _find(name: str, cwd: Path | None, env: Mapping[str, str]) -> bytes:
    """The program as ``execvp`` would find it in ``cwd``. Raises FileNotFoundError."""
    if "/" in name:
        return os.fsencode(name)
    for directory in os.get_exec_path(env):
        path = f"{directory}/{name}"
        seen_from_here = os.path.join(cwd or "", path)  # noqa: PTH118 - a dozen before each command
        if os.access(seen_from_here, os.X_OK) and not os.path.isdir(seen_from_here):  # noqa: PTH112 - as above
            return os.fsencode(path)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def _close(files: Sequence[int]) -> None:
    for file in files:
        os.close(file)

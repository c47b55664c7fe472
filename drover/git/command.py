"""Runs git: which configuration, environment and limits it gets is decided here and nowhere else."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from drover import process
from drover.domain.errors import DiskFull, DroverError, GitError

# Neutralised on every call. Programs whose names a configuration can choose freely (filters, textconv,
# merge drivers) cannot be listed; they are kept out by never using a configuration others can write.
SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.pager=cat",
    "core.editor=true",
    "core.askPass=",
    "core.sshCommand=false",
    "core.quotePath=false",
    "commit.gpgSign=false",
    "tag.gpgSign=false",
    "log.showSignature=false",
    "diff.external=",
    "protocol.allow=never",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "core.filesRefLockTimeout=2000",
    "core.packedRefsTimeout=5000",
)
# For everything but the operator's own checkout: bytes are taken and given as they are.
OURS = (
    *SETTINGS,
    "core.attributesFile=/dev/null",
    "core.autocrlf=false",
    "core.safecrlf=false",
    "core.protectHFS=true",  # what lands here is checked out on other systems too
    "core.protectNTFS=true",
)

# For the calls that reach a remote, and only those: the operator's transports, credential helpers and ssh.
NETWORK = (
    *(s for s in SETTINGS if not s.startswith(("protocol.allow=", "core.sshCommand="))),
    "push.gpgSign=false",
    "push.followTags=false",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=30",
)

ALWAYS = {
    "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_PAGER": "cat",
}
_INHERITED = ("PATH", "HOME", "TMPDIR", "USER", "LOGNAME")
_OPERATORS_GIT = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_AUTHOR_", "GIT_COMMITTER_")
_FULL = (b"No space left on device", b"Disk quota exceeded", b"Out of diskspace")
_UNWRITTEN = re.compile(rb"(unable to|could not|cannot|failed to) (write|flush)|write error|close error", re.IGNORECASE)
_LITTLE_ROOM = 64 * 1024 * 1024
LIMIT_BYTES = 512 * 1024 * 1024
LIMIT_S = 120.0
_DIED = 128  # how a git ends that says why


@dataclass(frozen=True)
class Place:
    """Where a git command works: its directory, and by ``env`` its repository, objects, index and files."""

    cwd: Path
    env: Mapping[str, str]
    settings: tuple[str, ...] = OURS

    def using(self, *settings: str, cwd: Path | None = None, **env: str | Path) -> Place:
        """The same place with more settings (``key=value``) and more environment."""
        return replace(
            self,
            cwd=cwd or self.cwd,
            env={**self.env, **{name: os.fspath(value) for name, value in env.items()}},
            settings=(*self.settings, *settings),
        )

    async def git(
        self, *args: str, stdin: bytes | None = None, ok: tuple[int, ...] = (0,), timeout_s: float = LIMIT_S
    ) -> process.Finished:
        """Run one git command to its end.

        Raises GitError when its exit code is not in ``ok`` or ``timeout_s`` has passed, DiskFull when
        that is why it failed.
        """
        with self._explaining(args, timeout_s):
            done = await process.run(
                self._argv(args), cwd=self.cwd, env=self.env, stdin=stdin, timeout_s=timeout_s, limit_bytes=LIMIT_BYTES
            )
        if done.returncode not in ok:
            raise _failure(args, done, self.cwd)
        return done

    def kept(self, *args: str) -> process.Lasting:
        """A git that is asked more than once; for threads. Raises GitError."""
        with self._explaining(args):
            return process.Lasting(self._argv(args), cwd=self.cwd, env=self.env)

    def ask(self, kept: process.Lasting, question: bytes, answer: bytes, *args: str) -> process.Finished:
        """As :meth:`git` with exit codes 0 and 128, of which the first is the expected ``answer``."""
        with self._explaining(args):
            try:
                kept.ask(question, answer, LIMIT_S)
            except process.Ended as ended:
                if not ended.heard:
                    raise
                done = process.Finished(ended.returncode, b"", ended.stderr)
                if done.returncode != _DIED:
                    raise _failure(args, done, self.cwd) from None
                return done
        return process.Finished(0, answer, b"")

    def _argv(self, args: tuple[str, ...]) -> list[str]:
        return ["git", "--no-pager", *(word for setting in self.settings for word in ("-c", setting)), *args]

    @contextmanager
    def _explaining(self, args: tuple[str, ...], timeout_s: float = LIMIT_S) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise GitError(f"git {args[0]} did not end within {timeout_s:.0f} s", command=args) from None
        except (FileNotFoundError, NotADirectoryError) as error:
            if not self.cwd.is_dir():
                raise GitError(f"{self.cwd} is not there any more", command=args) from error
            raise GitError("git is not installed", hint="install git 2.38 or newer", command=args) from error

    async def line(self, *args: str, stdin: bytes | None = None, ok: tuple[int, ...] = (0,)) -> str:
        """What one git command printed, without the newline at its end; undecodable bytes escaped."""
        done = await self.git(*args, stdin=stdin, ok=ok)
        return done.stdout.decode("utf-8", "backslashreplace").rstrip("\n")


def our_environment() -> dict[str, str]:
    """For calls that read no configuration but the one drover wrote or the repository's own."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1"}
    return {**inherited, **ALWAYS, **quiet}


def operator_environment() -> dict[str, str]:
    """For calls that work as the operator would: with their own configuration, in their own checkout.

    Without the variables that would point git at another repository, and without drover's secrets.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GIT_", "DROVER_")) or name.startswith(_OPERATORS_GIT)
    }
    return {**inherited, **ALWAYS}


def network_environment(ssh_command: str) -> dict[str, str]:
    """As :func:`operator_environment`, for calls that reach a remote: nothing may ask a question.

    This is the one exception to a clean environment. A push is only possible as the operator: with their
    ssh agent and keys, their credential helpers, their proxy. ``ssh_command`` is what they configured.
    """
    own = os.environ.get("GIT_SSH_COMMAND") or ssh_command
    program = os.environ.get("GIT_SSH")
    found = operator_environment()
    if program and not own:
        return {**found, "GIT_SSH": program}
    command = own or "ssh"
    if "ssh" in os.path.basename(command.split()[0]):  # noqa: PTH119 - the first word of a command line
        command += " -oBatchMode=yes -oConnectTimeout=10 -oServerAliveInterval=15"
    return {**found, "GIT_SSH_COMMAND": command}


def split0(data: bytes) -> list[bytes]:
    """The items of a ``-z`` output."""
    return data.split(b"\0")[:-1] if data.endswith(b"\0") else [item for item in data.split(b"\0") if item]


def join0(items: list[bytes]) -> bytes:
    """Items as a ``-z`` input."""
    return b"".join(item + b"\0" for item in items)


def shown(path: bytes) -> str:
    """A path as text; a byte that is not UTF-8 becomes ``\\xNN``, so that every path can be stored and compared."""
    return path.decode("utf-8", "backslashreplace")


def _failure(args: tuple[str, ...], done: process.Finished, cwd: Path) -> DroverError:
    text = done.stderr.decode("utf-8", "backslashreplace").strip()
    # Of a file of a checkout, or an index of its own, git 2.39 says only that it could not write it, not why.
    full = _UNWRITTEN.search(done.stderr) is not None and shutil.disk_usage(cwd).free < _LITTLE_ROOM
    if full or any(sign in done.stderr for sign in _FULL):
        return DiskFull(f"git {args[0]}: no space left on the disk")
    how = f"was ended by signal {-done.returncode}" if done.returncode < 0 else f"failed ({done.returncode})"
    lines = [line for line in text.splitlines() if line.startswith(("fatal:", "error:"))] or text.splitlines()
    message = f"git {args[0]} {how}" + (f": {lines[0]}" if lines else "")
    return GitError(message, command=args, returncode=done.returncode, stderr=text)

"""What tests of processes share: a launch with defaults, a watcher that remembers, and a look at who is alive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from drover import process
from drover.domain.models import ProcessIdentity

SHAPES_PROGRAM = Path(__file__).with_name("shapes.py")


class Watcher:
    def __init__(self) -> None:
        self.identity: ProcessIdentity | None = None
        self.born = anyio.Event()
        self.moved = anyio.Event()
        self.bytes: list[int] = []

    async def started(self, identity: ProcessIdentity) -> None:
        self.identity = identity
        self.born.set()

    def progress(self, output_bytes: int) -> None:
        self.bytes.append(output_bytes)
        self.moved.set()


def alive_with(token: str) -> list[int]:
    """Living processes with that word among their arguments: found without the marker, and without kinship."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                state = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0]
            except OSError:
                continue
            if token.encode() in words and state not in (b"Z", b"X"):
                found.append(int(entry.name))
    return found


@pytest.fixture
def token() -> Iterator[str]:
    """A word for argv; whatever still carries it at the end is killed, so that a failing test harms no other."""
    token = "tok-" + uuid.uuid4().hex
    yield token
    for pid in alive_with(token):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


MakeLaunch = Callable[..., process.Launch]


@pytest.fixture
def make_launch(tmp_path: Path) -> MakeLaunch:
    def make(*argv: str, name: str = "a", **more: object) -> process.Launch:
        where = tmp_path / name
        where.mkdir(exist_ok=True)
        given: dict[str, object] = {
            "argv": argv,
            "cwd": tmp_path,
            "env": {"PATH": os.environ["PATH"]},
            "marker": "test-" + uuid.uuid4().hex,
            "output_path": where / "output",
            "error_path": where / "errors",
            "record_path": where / "exit.json",
            "grace_s": 0.3,
        }
        return process.Launch.model_validate(given | more)

    return make


@pytest.fixture
def make_shape(make_launch: MakeLaunch, tmp_path: Path, token: str) -> MakeLaunch:
    """An agent of that shape; ``<name>.ready`` exists when it has become what it is."""

    def make(shape: str, fate: str, **more: object) -> process.Launch:
        argv = (sys.executable, "-I", "-S", str(SHAPES_PROGRAM), shape, token, str(tmp_path / f"{shape}.ready"), fate)
        return make_launch(*argv, name=shape, **more)

    return make


@pytest.fixture
def strangers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes nobody here may touch: one without a marker, one with a marker that only looks alike."""
    made = [
        subprocess.Popen(["sleep", "300"], start_new_session=True),
        subprocess.Popen(["sleep", "300"], start_new_session=True, env={**os.environ, "DROVER_MARKER": "test-0"}),
    ]
    yield made
    for stranger in made:
        stranger.kill()
        stranger.wait()


async def until_exists(*paths: Path) -> None:
    with anyio.fail_after(60):
        while not all(path.exists() for path in paths):
            await anyio.sleep(0.01)

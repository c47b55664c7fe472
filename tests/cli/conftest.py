"""The command line as a person types it: in this process where that will do, in its own where signals matter."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from drover.cli import main

HERE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Answer:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Cli:
    """Types commands in one directory and reads what they answer."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *argv: str, stdin: bytes = b"", code: int | None = 0) -> Answer:
        self._monkeypatch.chdir(self.root)
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        self._capsys.readouterr()
        got = main(argv)
        out, err = self._capsys.readouterr()
        answer = Answer(got, out, err)
        assert code is None or got == code, f"drover {' '.join(argv)}: {answer}"
        assert "Traceback" not in err
        return answer

    def json(self, *argv: str, stdin: bytes = b"") -> Any:
        return self(*argv, "--json", stdin=stdin).json

    def error(self, *argv: str, code: int, stdin: bytes = b"") -> dict[str, str]:
        """The error of a command that must fail with this code, the same told to people and to programs."""
        told = self(*argv, code=code, stdin=stdin).err.splitlines()
        answer = self("--json", *argv, code=code, stdin=stdin)
        assert answer.out == ""
        error: dict[str, str] = json.loads(answer.err)["error"]
        assert set(error) == {"code", "message", "hint"}
        assert error["hint"]
        assert told[-2:] == [f"error: {error['message']}", f"hint: {error['hint']}"]
        return error

    def add(self, title: str, *argv: str) -> str:
        return self("add", title, "-q", *argv).out.strip()


@pytest.fixture
def cli(repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A repository that is a drover project whose agent is the scripted one."""
    made = Cli(repository, capsys, monkeypatch)
    monkeypatch.setenv("DROVER_AGENT_TYPE", "scripted")
    monkeypatch.setenv("COLUMNS", "100")
    made("init")
    return made


@pytest.fixture
def outside(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """No project and no repository."""
    (tmp_path / "outside").mkdir()
    monkeypatch.setenv("COLUMNS", "100")
    return Cli(tmp_path / "outside", capsys, monkeypatch)


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(HERE), **(extra or {})}


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(cli: Cli) -> Start:
    """Start drover as a process of its own, in a process group of its own."""
    started: list[subprocess.Popen[str]] = []

    def call(*argv: str, **given: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **given}
        process = subprocess.Popen(
            [sys.executable, "-m", "drover", *argv],
            cwd=cli.root, env=child_environment(), text=True, start_new_session=True, **pipes,
        )  # fmt: skip
        started.append(process)
        return process

    yield call  # type: ignore[misc]  # a fixture that tidies up
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()

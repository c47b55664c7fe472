"""Drover as its users run it: the command, in real repositories, in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import GIT_ENVIRONMENT

AGENT = Path(__file__).with_name("ledger_agent.py")
HERE = Path(__file__).parents[2]


@dataclass
class Project:
    """A repository with drover in it, and the ledger that its agents keep."""

    root: Path
    ledger: Path
    env: dict[str, str]
    branch: str = "main"
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def drover(self, *argv: str, code: int | None = 0, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "drover", *argv],
            cwd=self.root, env=self.env, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
        if code is not None:
            assert done.returncode == code, f"drover {' '.join(argv)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *argv: str, code: int | None = 0) -> Any:
        return json.loads(self.drover(*argv, "--json", code=code).stdout)

    def add(self, title: str, *argv: str) -> str:
        return self.drover("add", title, "-q", *argv).stdout.strip()

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """A drover that goes on while the test does, in a process group of its own."""
        process = subprocess.Popen(
            [sys.executable, "-m", "drover", *argv],
            cwd=self.root, env=self.env, text=True, start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.started.append(process)
        return process

    def git(self, *argv: str, ok: bool = True) -> str:
        return subprocess.run(
            ["git", *argv],
            cwd=self.root,
            env={**self.env, **GIT_ENVIRONMENT},
            capture_output=True,
            text=True,
            check=ok,
        ).stdout.strip()

    def python(self, code: str, *argv: str, stdin: str = "") -> str:
        """What a program that uses drover prints."""
        done = subprocess.run(
            [sys.executable, "-c", code, *argv],
            cwd=self.root,
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def landed(self, branch: str | None = None) -> Counter[str]:
        """How often each task's commit stands on the branch's first-parent chain."""
        form = "--format=%(trailers:key=Drover-Task,valueonly,separator=%x2c)"
        return Counter(self.git("log", "--first-parent", form, branch or self.branch).split())

    def books(self) -> list[dict[str, Any]]:
        if not self.ledger.exists():
            return []
        return [json.loads(line) for line in self.ledger.read_text().splitlines()]

    def statuses(self) -> Counter[str]:
        return Counter(t["status"] for t in self.json("list"))

    def eventually(self, true: Callable[[], bool], what: str, seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"waited {seconds} s for: {what}"
            time.sleep(0.05)

    def living(self) -> list[int]:
        """Processes of any execution of this project."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if (
                        f"LEDGER={self.ledger}".encode() in (entry / "environ").read_bytes()
                        and (entry / "exe").exists()
                    ):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return [
            pid for pid in found if pid != os.getpid() and pid not in {p.pid for p in self.started if p.poll() is None}
        ]


def make_project(tmp_path: Path, branch: str = "main") -> Project:
    root = tmp_path / "project"
    root.mkdir()
    ledger = tmp_path / "ledger.jsonl"
    env = {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "DROVER_AGENT_TYPE": "command",
        "DROVER_AGENT_PATH": f"{sys.executable} {AGENT}",
        "LEDGER": str(ledger),
    }
    project = Project(root, ledger, env, branch)
    project.git("init", "-q", "-b", branch)
    project.git("config", "user.name", "Olive Operator")
    project.git("config", "user.email", "olive@example.org")
    (root / "README.md").write_text("# A project\n")
    project.git("add", "-A")
    project.git("commit", "-q", "-m", "first")
    project.drover("init")
    with (root / ".drover.toml").open("a") as file:
        file.write('\n[agents.command]\nenv = ["LEDGER", "WORK_SECONDS"]\n')
    project.git("add", "-A")
    project.git("commit", "-q", "-m", "drover")
    return project


MakeProject = Callable[[str], Project]


@pytest.fixture
def project_on(tmp_path: Path) -> Iterator[MakeProject]:
    """Makes a project whose work lands on the branch of that name; what it started is ended afterwards."""
    made: list[Project] = []

    def make(branch: str) -> Project:
        made.append(make_project(tmp_path, branch))
        return made[-1]

    yield make
    for process in [process for project in made for process in project.started]:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()


@pytest.fixture
def project(project_on: MakeProject) -> Project:
    return project_on("main")

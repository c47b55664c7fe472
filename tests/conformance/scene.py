"""One cell's place: a repository, a home, a model server, drover on the command line, and what can be seen of it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import psutil

from drover.engine.tools import Places
from drover.process import end_marked, find_marked
from tests.agents.fakellm import FakeModel
from tests.agents.fakellm.server import hold_port
from tests.agents.real import prompt
from tests.agents.rig import Real

PATIENCE_S = 400.0  # of a cell with an agent that has a lot of patience itself
LOOK_S = 0.1
SUPERVISOR = "supervisor/__main__.py"
# Left to itself Claude Code tries for three minutes before it says that the service does not serve.
HASTE = {"CLAUDE_CODE_MAX_RETRIES": "2"}
Facts = dict[str, Any]


class Wrong(Exception):
    """What was seen is not what has to be."""


class Run:
    """A ``drover run --json`` or ``resume`` that is at work; its events are read from a file."""

    def __init__(self, scene: Scene, *argv: str) -> None:
        self._log = scene.place / f"run.{time.monotonic_ns()}.jsonl"
        self._errors = self._log.with_suffix(".err")
        with self._log.open("w") as out, self._errors.open("w") as err:
            self.process = subprocess.Popen(scene.argv(*argv, "--json"), cwd=scene.root, env=scene.env,
                                            stdout=out, stderr=err, start_new_session=True)  # fmt: skip
        self.peak_kib = 0

    def events(self, type: str) -> list[Facts]:
        lines = self._log.read_text().splitlines(keepends=True)
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in events if event["type"] == type]

    def until(self, what: str, seen: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
        """What ``seen`` gives as soon as it gives something; Wrong when that takes too long, or the run ends first."""
        deadline = time.monotonic() + patience_s
        while not (found := seen()):
            if time.monotonic() > deadline:
                raise Wrong(f"{what}: not within {patience_s:.0f} s; {self.said}")
            if self.process.poll() is not None and not (found := seen()):
                raise Wrong(f"the run ended before {what}; {self.said}")
            if found:
                break
            self._measure()
            time.sleep(LOOK_S)
        return found

    def end(self, patience_s: float = PATIENCE_S) -> int:
        """Its exit code."""
        deadline = time.monotonic() + patience_s
        while (code := self.process.poll()) is None:
            if time.monotonic() > deadline:
                raise Wrong(f"the run did not end within {patience_s:.0f} s; {self.said}")
            self._measure()
            time.sleep(LOOK_S)
        return code

    @property
    def said(self) -> str:
        return "its last words: " + self._errors.read_text()[-400:].strip()

    def _measure(self) -> None:
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return
        peaks = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
        self.peak_kib = max([self.peak_kib, *peaks])


class Scene:
    """Everything of one cell. ``reachable`` false: nobody listens where the model should be, until :meth:`serve`."""

    def __init__(self, real: Real, place: Path, *, reachable: bool = True, settings: str = "", **env: str) -> None:
        self.real, self.place, self.root = real, place, place / "repo"
        self.model: FakeModel | None = None
        self.task = ""
        self._runs: list[Run] = []
        for name in ("repo", "home", "scratch"):
            (place / name).mkdir(parents=True)
        self._held = hold_port()  # bound, and nobody listens: who connects is refused
        if reachable:
            self.serve()
        url = self.model.url if self.model else "http://127.0.0.1:{}".format(*self._held.getsockname()[1:])
        real.configure(place / "home", url)
        self.env = {
            "PATH": os.environ["PATH"], "HOME": str(place / "home"), "TERM": "dumb", "LC_ALL": "C.UTF-8",
            "TMPDIR": str(place / "scratch"), "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
            **real.env(url), **HASTE, **env,
        }  # fmt: skip
        self._make_repository(settings)

    def _make_repository(self, settings: str) -> None:
        (self.root / "README.md").write_text("# A repository\n")
        for argv in (
            ("init", "-q", "-b", "main"), ("config", "user.name", "Olive Operator"),
            ("config", "user.email", "olive@example.org"), ("add", "-A"), ("commit", "-q", "-m", "first"),
        ):  # fmt: skip
            subprocess.run(["git", *argv], cwd=self.root, env=self.env, check=True)
        self.call("init")
        name, model = self.real.agent.name, f'model = "{self.real.model}"\n' if self.real.model else ""
        with (self.root / ".drover.toml").open("a") as file:
            file.write(f'\n[agents.{name}]\npath = "{shlex.join(self.real.argv)}"\n{model}{settings}')

    def serve(self) -> None:
        port = self._held.getsockname()[1]
        self._held.close()
        self.model = FakeModel(self.place / "model.jsonl", port=port).__enter__()

    @property
    def served(self) -> FakeModel:
        assert self.model is not None
        return self.model

    # ------------------------------------------------------------ what a user does

    def argv(self, *argv: str) -> list[str]:
        return [sys.executable, "-m", "drover", *argv]

    def call(self, *argv: str) -> str:
        done = subprocess.run(self.argv(*argv), cwd=self.root, env=self.env, capture_output=True, text=True,
                              timeout=120, check=False)  # fmt: skip
        if done.returncode:
            raise Wrong(f"drover {argv[0]} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
        return done.stdout

    def add(self, *turns: Facts, attempts: int = 3) -> None:
        options = ("--agent", self.real.agent.name, "--max-attempts", str(attempts), "--description", prompt(*turns))
        self.task = self.call("add", "-q", "A task", *options).strip()

    def run(self, *argv: str) -> Run:
        self._runs.append(Run(self, *(argv or ("run",))))
        return self._runs[-1]

    # ------------------------------------------------------------ what can be seen

    def info(self) -> Facts:
        return self.info_of(self.task)

    def info_of(self, task: str) -> Facts:
        return dict(json.loads(self.call("info", task, "--json")))

    def landed(self) -> list[str]:
        """The files of main."""
        argv = ["git", "ls-tree", "-r", "--name-only", "main"]
        return subprocess.run(argv, cwd=self.root, env=self.env, capture_output=True, text=True,
                              check=True).stdout.split()  # fmt: skip

    def in_the_slow_tool(self, run: Run) -> Path:
        """The clone, once the tool runs and the agent has had time to save that it called it."""
        found = run.until("the tool runs", lambda: [*self.root.glob(".drover/worktrees/*/started")])
        time.sleep(1.0)  # the call is saved a moment after it began, and nothing tells when
        return Path(found[0]).parent

    def agent_pid(self) -> int:
        """The agent's own process: the only child of its supervisor, which is drover's."""
        drover = psutil.Process(self.info()["attempts_log"][-1]["pid"])
        (supervisor,) = [child for child in drover.children() if SUPERVISOR in " ".join(child.cmdline())]
        (agent,) = supervisor.children()
        return int(agent.pid)

    @property
    def alive(self) -> int:
        """How many processes of this repository's agents are alive."""
        return len(find_marked(Places(self.root / ".drover").marker_of_all))

    def none_alive(self, patience_s: float = 30.0) -> float:
        """The seconds it took until none was alive."""
        began = time.monotonic()
        while self.alive:
            if time.monotonic() - began > patience_s:
                raise Wrong(f"{self.alive} processes of the agent are alive after {patience_s:.0f} s")
            time.sleep(LOOK_S)
        return time.monotonic() - began

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *exc: object) -> None:
        """Whatever happened: nothing of it stays."""
        for run in self._runs:
            run.process.kill()
            run.process.wait()
        anyio.run(end_marked, Places(self.root / ".drover").marker_of_all, 0.0)
        if self.model is not None:
            self.model.__exit__()

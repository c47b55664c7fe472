"""Several hosts on one machine: each a clone of its own under a name of its own, one remote, one Postgres.

A host's processes are found by the environment that it gave them, so that a test can stop, continue or kill
all of them at one moment, as a machine that sleeps or burns does.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import GIT_ENVIRONMENT

HERE = Path(__file__).parents[2]
AGENT = Path(__file__).with_name("ledger_agent.py")
LANDED = "--format=%(trailers:key=Drover-Task,valueonly,separator=%x2c)"


def git(where: Path, *argv: str, ok: bool = True) -> str:
    done = subprocess.run(
        ["git", *argv], cwd=where, env={**os.environ, **GIT_ENVIRONMENT}, capture_output=True, text=True, check=False
    )
    assert not ok or done.returncode == 0, f"git {' '.join(argv)}: {done.stderr}"
    return done.stdout.strip()


# Holds the push of a landing before it is made, or after, as long as a file of that name is there.
SHIM = """#!/bin/sh
hold() {{ [ ! -e {place}/$1 ] || touch {place}/$1.held; while [ -e {place}/$1 ]; do sleep 0.02; done; }}
case " $* " in *" --atomic "*) ;; *) exec {git} "$@";; esac
hold before; {git} "$@"; code=$?; echo $code > {place}/pushed; hold after
exit $code
"""


FILL = """
import anyio, sys
from drover import app
async def main():
    count, chained = map(int, sys.argv[1:])
    async with app.open(repo=".") as d:
        last = None
        for n in range(count):
            last = await d.add(f"Task {n}", blocked_by=[last] if last and chained and n % chained == 0 else [])
anyio.run(main)
"""


@dataclass
class Host:
    """One host: its clone, and what it started."""

    name: str
    root: Path
    env: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def drover(self, *argv: str, code: int | None = 0, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "drover", *argv],
            cwd=self.root, env=self.env, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
        if code is not None:
            assert done.returncode == code, f"drover {' '.join(argv)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *argv: str) -> Any:
        return json.loads(self.drover(*argv, "--json").stdout)

    def python(self, code: str, *argv: str) -> str:
        """What a program that uses drover here prints."""
        done = subprocess.run(
            [sys.executable, "-c", code, *argv],
            cwd=self.root, env=self.env, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def add_many(self, count: int, *, chained: int = 0) -> None:
        """Tasks by one program; every ``chained``-th behind the one before it, whoever does that."""
        self.python(FILL, str(count), str(chained))

    def start(self, *argv: str) -> subprocess.Popen[str]:
        log = (self.root.parent / f"{self.name}.log").open("a")
        process = subprocess.Popen(
            [sys.executable, "-m", "drover", *argv],
            cwd=self.root, env=self.env, text=True, start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log,
        )  # fmt: skip
        log.close()
        self.started.append(process)
        return process

    def said(self) -> str:
        return (self.root.parent / f"{self.name}.log").read_text()

    def git(self, *argv: str, ok: bool = True) -> str:
        return git(self.root, *argv, ok=ok)

    def processes(self) -> list[int]:
        """Everything alive that this host started: drover, supervisors, agents, gits."""
        mark, found = f"FLEET_HOST={self.env['FLEET_HOST']}".encode(), []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def signal(self, number: int) -> None:
        """To all of its processes, until no new one appears."""
        seen: set[int] = set()
        while fresh := set(self.processes()) - seen:
            for pid in fresh:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            seen |= fresh

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def thaw_pushes(self) -> None:
        """The landings that are held go on, while nothing else does."""
        for pid in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if "--atomic" in process.cmdline():
                    for one in (*process.children(recursive=True), process):
                        with contextlib.suppress(psutil.NoSuchProcess):
                            one.resume()

    def kill(self) -> None:
        self.freeze()  # so that nobody sees another one die
        self.signal(signal.SIGKILL)
        for process in self.started:
            process.wait()


@dataclass
class Fleet:
    """The hosts, their remote and their ledger."""

    top: Path
    url: str
    remote: Path
    ledger: Path
    hosts: list[Host] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)

    def hold_landings(self, host: Host, when: str) -> Path:
        """Hold the host's landings ``before`` or ``after`` their push; the file appears when one is held."""
        place = host.root.parent
        shim = place / "bin" / "git"
        shim.parent.mkdir(exist_ok=True)
        shim.write_text(SHIM.format(place=place, git=shutil.which("git")))
        shim.chmod(0o755)
        host.env["PATH"] = f"{shim.parent}:{os.environ['PATH']}"
        (place / when).touch()
        return place / f"{when}.held"

    def add_host(self, name: str, **env: str) -> Host:
        """A fresh clone with drover in it."""
        root = self.top / name / "project"
        root.parent.mkdir()
        git(self.top, "clone", "-q", str(self.remote), str(root))
        git(root, "config", "user.name", "Olive Operator")
        git(root, "config", "user.email", "olive@example.org")
        host = Host(
            name,
            root,
            {
                **os.environ,
                "PYTHONPATH": str(HERE),
                "DROVER_AGENT_TYPE": "command",
                "DROVER_AGENT_PATH": f"{sys.executable} {AGENT}",
                "DROVER_DATABASE_URL": self.url,
                "DROVER_HOST": name,
                "LEDGER": str(self.ledger),
                "FLEET_HOST": str(root),
                **self.env,
                **env,
            },
        )
        host.drover("init")
        self.hosts.append(host)
        return host

    def landed(self) -> Counter[str]:
        """How often each task's commit stands on the remote's branch."""
        return Counter(git(self.remote, "log", LANDED, "main").split())

    def books(self) -> list[dict[str, Any]]:
        if not self.ledger.exists():
            return []
        return [json.loads(line) for line in self.ledger.read_text().splitlines()]

    def eventually(self, true: Callable[[], object], what: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not true():
            told = "\n".join(f"--- {host.name}\n{host.said()[-2000:]}" for host in self.hosts if host.started)
            assert time.monotonic() < end, f"waited {seconds} s for: {what}\n{told}"
            time.sleep(0.05)

    def end(self) -> None:
        for host in self.hosts:
            host.signal(signal.SIGKILL)
            for process in host.started:
                process.wait()


def make_fleet(top: Path, url: str, toml: str) -> Fleet:
    """A remote with one commit that holds the project's file, and no hosts yet."""
    seed, remote = top / "seed", top / "origin.git"
    seed.mkdir()
    git(seed, "init", "-q", "-b", "main")
    git(seed, "config", "user.name", "Olive Operator")
    git(seed, "config", "user.email", "olive@example.org")
    (seed / "README.md").write_text("# A project\n")
    (seed / ".drover.toml").write_text(
        f'{toml}\n[project]\nname = "fleet"\nid = "fleet-1"\ntarget = "main"\n'
        '[agents.command]\nenv = ["LEDGER", "WORK_SECONDS", "FLEET_HOST"]\n'
    )
    git(seed, "add", "-A")
    git(seed, "commit", "-q", "-m", "first")
    git(top, "clone", "-q", "--bare", str(seed), str(remote))
    return Fleet(top, url, remote, top / "ledger.jsonl")

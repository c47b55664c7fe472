"""A project for tests that look at a life from inside: a real repository, real agents, drover in this process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from drover import app
from drover.app.drover import Drover
from drover.domain.clock import Clock
from drover.domain.models import RunReport
from drover.engine.workers import Stop
from tests.conftest import GIT_ENVIRONMENT


class Site:
    """A repository of one commit, and an agent that is a shell script. Every path is below ``top``."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.root = top / "site"
        self.root.mkdir()
        self.agent = top / "agent.sh"
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.name", "Olive Operator")
        self.git("config", "user.email", "olive@example.org")
        self.write("README.md", "# A site\n")
        self.write(".gitignore", ".drover.toml\nbuilt/\n.env\n")
        self.commit("first")
        self.says("echo $DROVER_TASK_ID > $DROVER_TASK_ID.txt")

    def git(self, *argv: str, ok: bool = True, **more: str) -> str:
        env = {**os.environ, **GIT_ENVIRONMENT, **more}
        done = subprocess.run(["git", *argv], cwd=self.root, env=env, capture_output=True, text=True, check=False)
        assert not ok or done.returncode == 0, f"git {' '.join(argv)}: {done.stderr}"
        return done.stdout.strip()

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def commit_on(self, ref: str, name: str) -> str:
        """A commit that adds a file to a branch or ref, made without a checkout; its id."""
        blob = self.git("hash-object", "-w", str(self.agent))
        index = {"GIT_INDEX_FILE": str(self.top / "beside")}
        self.git("read-tree", ref, **index)
        self.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{name}", **index)
        oid = self.git("commit-tree", self.git("write-tree", **index), "-p", ref, "-m", name)
        self.git("update-ref", ref, oid)
        return oid

    def says(self, script: str) -> None:
        """What the agent does from now on."""
        self.agent.write_text(f"#!/bin/sh\n{script}\n")
        self.agent.chmod(0o755)

    def configure(self, toml: str) -> None:
        """Add to the project's own file, which the repository does not carry."""
        with (self.root / ".drover.toml").open("a") as file:
            file.write(toml)

    def worktree(self, task_id: str) -> Path:
        return self.root / ".drover" / "worktrees" / task_id

    def saved(self, task_id: str, attempt: int, name: str) -> str:
        """A file of the snapshot of an attempt."""
        return self.git("show", f"refs/drover/wip/{task_id}/{attempt}:{name}")

    @asynccontextmanager
    async def open(self, clock: Clock | None = None, **flags: object) -> AsyncIterator[Drover]:
        given = {"agents.command.path": str(self.agent), **flags}
        async with app.open(repo=self.root, agent="command", clock=clock, **given) as drover:
            yield drover

    async def eventually(self, path: Path, seconds: float = 60) -> None:
        """Until the file is there and not empty."""
        with anyio.fail_after(seconds):
            while not path.is_file() or not path.stat().st_size:
                await anyio.sleep(0.02)


async def run_until(site: Site, drover: Drover, path: Path) -> RunReport:
    """Run; stop gently once the file is there."""
    stop = Stop()
    reports: list[RunReport] = []

    async def run() -> None:
        reports.append(await drover.run(workers=1, stop=stop))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await site.eventually(path)
        stop.soft()
    return reports[0]

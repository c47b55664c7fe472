"""Whole lives with git: a command agent that makes one edit, beside the bare git commands such a life needs.

As a program: one measurement in a process of its own. Arguments: lives|flood PLACE NUMBER ...
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import anyio
import psutil

import drover
from drover.app import Drover
from scripts.bench.runner import ENVIRONMENT

IDENTITY = ("-c", "user.name=B", "-c", "user.email=b@b")
EDIT = "#!/bin/sh\necho done > edit-$DROVER_TASK_ID.txt\n"
FLOOD = "#!/bin/sh\nhead -c {bytes} /dev/zero | tr '\\0' 'x' | fold -w 200\necho done > edit-$DROVER_TASK_ID.txt\n"


def repository(place: Path, files: int, agent: str = EDIT) -> Path:
    """A repository of that many small files, and the agent beside it."""
    repo = place / "repo"
    repo.mkdir(parents=True)
    for n in range(files):
        file = repo / f"d{n // 100:03}" / f"f{n:05}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"VALUE = {n}\n" * 20)
    for argv in (["init", "-q", "-b", "main"], ["add", "-A"], [*IDENTITY, "commit", "-q", "-m", "first"],
                 ["config", "user.name", "B"], ["config", "user.email", "b@b"]):  # fmt: skip
        subprocess.run(["git", *argv], cwd=repo, check=True)
    script = place / "agent.sh"
    script.write_text(agent)
    script.chmod(0o755)
    return repo


@asynccontextmanager
async def project(repo: Path, tasks: int) -> AsyncIterator[Drover]:
    os.environ["DROVER_AGENT_TYPE"], os.environ["DROVER_AGENT_PATH"] = "command", str(repo.parent / "agent.sh")
    async with drover.open(repo=repo) as d:
        for n in range(tasks):
            await d.add(f"edit {n}")
        yield d


async def lives(place: Path, files: int, tasks: int, workers: int) -> dict[str, Any]:
    """Seconds a task, landings a second from the first to the last, milliseconds from claim to the agent's start."""
    repo = repository(place, files)
    async with project(repo, tasks) as d:
        began = time.perf_counter()
        report = await d.run(workers=workers)
        seconds = time.perf_counter() - began
        if len(report.completed) != tasks:
            raise RuntimeError(f"{len(report.completed)} of {tasks} lives were completed")
        landed = [event.at async for event in d.events(types=["landed"])]
        starts = []
        for task in await d.tasks():
            for attempt in await d.store.claims.attempts(task.id):
                starts.append((attempt.agent_started_at or 0) - attempt.started_at)
    return {
        "seconds_a_task": seconds / tasks,
        "landings_a_second": (len(landed) - 1) / ((landed[-1] - landed[0]) / 1000) if tasks > 1 else 0.0,
        "claim_to_agent_ms": median(starts),
    }


def bare(place: Path, files: int, tasks: int) -> float:
    """Seconds a task of the git commands alone, one after the other."""
    repo = repository(place, files)
    began = time.perf_counter()
    for n in range(tasks):
        _bare_life(repo, place / f"clone-{n}", n)
    return (time.perf_counter() - began) / tasks


def _bare_life(repo: Path, clone: Path, n: int) -> None:
    def git(*argv: str, where: Path = repo, index: Path | None = None, work: Path | None = None) -> str:
        env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
        if index is not None and work is not None:
            env |= {"GIT_INDEX_FILE": str(index), "GIT_WORK_TREE": str(work), "GIT_DIR": str(repo / ".git")}
        done = subprocess.run(["git", *argv], cwd=where, env=env, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    base = git("rev-parse", "refs/heads/main")
    git("clone", "-q", "--shared", "--no-checkout", str(repo), str(clone))
    git("checkout", "-q", "--detach", base, where=clone)
    env = {**os.environ, "DROVER_TASK_ID": f"bare-{n}"}
    subprocess.run([str(repo.parent / "agent.sh")], cwd=clone, env=env, check=True)
    index = clone.with_suffix(".index")
    git("read-tree", base, index=index, work=clone)
    git("add", "-A", where=clone, index=index, work=clone)
    tree = git("write-tree", index=index, work=clone)
    commit = git(*IDENTITY, "commit-tree", tree, "-p", base, "-m", "work")
    merged = git("merge-tree", "--write-tree", base, commit).splitlines()[0]
    landed = git(*IDENTITY, "commit-tree", merged, "-p", base, "-m", "landed")
    git("update-ref", "refs/heads/main", landed, base)
    git("read-tree", "-m", "-u", base, landed)
    subprocess.run(["rm", "-rf", str(clone)], check=True)


async def flood(place: Path, agents: int, megabytes: int) -> float:
    """The most memory, in MB, that this process held while that many agents printed that much each."""
    repo = repository(place, 10, FLOOD.format(bytes=megabytes << 20))
    peak = 0.0
    async with project(repo, agents) as d, anyio.create_task_group() as group:

        async def watch() -> None:
            nonlocal peak
            while True:
                peak = max(peak, psutil.Process().memory_info().rss / 1e6)
                await anyio.sleep(0.05)

        group.start_soon(watch)
        report = await d.run(workers=agents)
        group.cancel_scope.cancel()
    if len(report.completed) != agents:
        raise RuntimeError("a flooding agent was not completed")
    return peak


def alone(what: str, place: Path, *numbers: int) -> Any:
    """What :func:`lives` or :func:`flood` find, in a process that holds nothing of what was measured before."""
    argv = [sys.executable, "-m", "scripts.bench.git_lives", what, str(place), *map(str, numbers)]
    done = subprocess.run(argv, env=ENVIRONMENT, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    measure: Any = {"lives": lives, "flood": flood}[sys.argv[1]]
    print(json.dumps(anyio.run(measure, Path(sys.argv[2]), *map(int, sys.argv[3:]))))

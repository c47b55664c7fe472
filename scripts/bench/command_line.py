"""How long a person waits for a prompt: start-up, status and list at 100,000 tasks, beside the smallest program."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from scripts.bench import scale
from scripts.bench.runner import ENVIRONMENT

TIMES = 7
TASKS = 100_000
MINIMAL = """
import cyclopts
app = cyclopts.App(name="smallest", version="1")
@app.command
def status(): ...
app(["--version"])
"""


def measure(place: Path) -> dict[str, Any]:
    """Median milliseconds of each."""
    repo = place / "repo"
    repo.mkdir()
    env = {**ENVIRONMENT, "GIT_CONFIG_GLOBAL": "/dev/null"}
    for argv in (["init", "-q", "-b", "main"], ["-c", "user.name=B", "-c", "user.email=b@b", "commit", "-q", "-m",
                 "first", "--allow-empty"]):  # fmt: skip
        subprocess.run(["git", *argv], cwd=repo, env=env, check=True)
    drover = [sys.executable, "-m", "drover"]
    subprocess.run([*drover, "init"], cwd=repo, env=env, check=True, capture_output=True)
    scale.fill(repo / ".drover" / "drover.db", TASKS)
    return {
        "minimal_ms": _time([sys.executable, "-c", MINIMAL], repo, env),
        "version_ms": _time([*drover, "--version"], repo, env),
        "status_ms": _time([*drover, "status", "--oneline"], repo, env),
        "list_first_line_ms": _time([*drover, "list"], repo, env, first_line=True),
    }


def _time(argv: list[str], where: Path, env: dict[str, str], *, first_line: bool = False) -> float:
    found = []
    for _ in range(TIMES):
        began = time.perf_counter()
        child = subprocess.Popen(argv, cwd=where, env=env, stdout=subprocess.PIPE)
        assert child.stdout is not None
        line = child.stdout.readline()
        if first_line:
            found.append(time.perf_counter() - began)
            child.kill()
        child.stdout.read()
        child.wait()
        if not first_line:
            found.append(time.perf_counter() - began)
        if not line:
            raise RuntimeError(f"{argv} printed nothing")
    return median(found) * 1000

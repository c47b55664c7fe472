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

TIMES = 15
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
    asked = {
        "minimal_ms": [sys.executable, "-c", MINIMAL],
        "version_ms": [*drover, "--version"],
        "status_ms": [*drover, "status", "--oneline"],
        "list_first_line_ms": [*drover, "list"],
    }
    found: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(TIMES):  # one after the other, so that a slow minute is a slow minute of all of them
        for name, argv in asked.items():
            found[name].append(_time(argv, repo, env, first_line=name.endswith("first_line_ms")))
    return {name: median(times) * 1000 for name, times in found.items()}


def _time(argv: list[str], where: Path, env: dict[str, str], *, first_line: bool = False) -> float:
    """Seconds to the end, or to the first line."""
    began = time.perf_counter()
    child = subprocess.Popen(argv, cwd=where, env=env, stdout=subprocess.PIPE)
    assert child.stdout is not None
    line = child.stdout.readline()
    seen = time.perf_counter() - began
    if first_line:
        child.kill()
    child.stdout.read()
    child.wait()
    if not line:
        raise RuntimeError(f"{argv} printed nothing")
    return seen if first_line else time.perf_counter() - began

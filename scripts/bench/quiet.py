"""What waiting costs, and how soon another process begins what this one has set free."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import anyio
import psutil

import drover
from scripts.bench.runner import ENVIRONMENT

SETTLE_S, WATCH_S = 7.0, 60.0  # the kernel tells a process's time in hundredths of a second
ROUNDS = 40


async def nothing(job: drover.Job) -> None:
    """The work of a task that never becomes ready."""


async def wait_for_ever(url: str) -> None:
    async with drover.open(url, repo=None, agent=nothing) as d:
        await d.serve()


def idle_share(url: str = "") -> float:
    """The share of one core that a run with nothing to do takes."""
    with tempfile.TemporaryDirectory(prefix="drover-bench-") as place:
        child = _python(f"import anyio; from scripts.bench import quiet; anyio.run(quiet.wait_for_ever, {url!r} or "
                        f"'sqlite:///{place}/idle.db')")  # fmt: skip
        try:
            time.sleep(SETTLE_S)
            process = psutil.Process(child.pid)
            before, since = process.cpu_times(), time.monotonic()
            time.sleep(WATCH_S)
            after = process.cpu_times()
            return (after.user + after.system - before.user - before.system) / (time.monotonic() - since)
        finally:
            child.kill()
            child.wait()


async def one_at_a_time(url: str, ledger: str) -> None:
    """One worker of one process; each task's begin and end are written down."""

    async def work(job: drover.Job) -> None:
        began = time.time_ns()
        await anyio.sleep(0.06 if job.title.startswith("pair") else 0)
        line = f"{job.title} {os.getpid()} {began} {time.time_ns()}\n"
        Path(ledger).open("a").write(line)  # noqa: SIM115, ASYNC230 - one short line

    async with drover.open(url, repo=None, agent=work, workers=1) as d:
        await d.run()


async def _pairs(url: str) -> None:
    """Rounds of one task that sets two free: whoever finished it takes one, the other process must take the other."""
    async with drover.open(url, repo=None, agent=nothing) as d:
        news = []
        for n in range(ROUNDS):
            before = [f"a{n - 1}", f"b{n - 1}"] if n else []
            news.append(drover.new_task(f"single {n}", key=f"s{n}", blocked_by=before))
            news += [drover.new_task(f"pair {n}", key=f"{c}{n}", blocked_by=[f"s{n}"]) for c in "ab"]
        await d.add_many(news)


def hop_between_processes(url: str = "") -> float:
    """Median milliseconds from a task's end in one process to its dependent's begin in another."""
    with tempfile.TemporaryDirectory(prefix="drover-bench-") as place:
        url = url or f"sqlite:///{place}/hop.db"
        ledger = f"{place}/ledger"
        anyio.run(_pairs, url)
        call = f"import anyio; from scripts.bench import quiet; anyio.run(quiet.one_at_a_time, {url!r}, {ledger!r})"
        for child in [_python(call), _python(call)]:
            if child.wait(120):
                raise RuntimeError("a runner of the hops failed")
        rows = [line.rsplit(" ", 3) for line in Path(ledger).read_text().splitlines()]
    ends = {name.split()[1]: (pid, int(end)) for name, pid, _, end in rows if name.startswith("single")}
    hops = [
        (int(began) - ends[name.split()[1]][1]) / 1e6
        for name, pid, began, _ in rows
        if name.startswith("pair") and pid != ends[name.split()[1]][0]
    ]
    return median(hops)


def _python(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT)

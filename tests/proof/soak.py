"""Hours of trouble: three processes drive a backlog while one after another is killed, stopped or cut off.

usage: python -m tests.proof.soak (--hours H | --minutes M) [--tasks N] [--seed S]

Half of the time on SQLite, half on Postgres. Each look (every ten seconds) measures the memory and the open files of
every process and the size of the write-ahead log; each fault is chosen by the seed. The oldest process is stopped and
cut off, too, but not ended, for only one that lives long shows whether its memory grows. At the end the backlog is
driven to its end by a run that nobody disturbs, and judged. Writes ``soak.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import linear_regression
from typing import Any

import psutil

from drover.domain import policy
from tests import postgres_server
from tests.proof.checker import judge
from tests.proof.story import Shape, Story

PROCESSES = 3
LOOK_S = 10.0
FAULT_EVERY_S = (2.0, 12.0)
# What is measured of a process before it is as old as this is its start, and no slope: in its first 400 tasks a run
# grew from 59 to 86 MB, in the next 900 to 96.
SETTLED_S = 300.0
MORE = 50  # tasks are added when there is time left
WAL_LIMIT = 64 * 1024 * 1024

policy.backoff_ms.__kwdefaults__["first_ms"] = 200


def a_backlog(rng: random.Random, how_many: int) -> Shape:
    """Most tasks stand alone; some stand behind one of the few before them."""
    return [
        (
            rng.choice(["A task", "A task", "A task", "FAIL ONCE"]),
            tuple({rng.randrange(max(0, n - 20), n)} if n and rng.random() < 0.3 else ()),
        )
        for n in range(how_many)
    ]


@dataclass
class Report:
    """What one store went through."""

    store: str
    tasks: int = 0
    landed: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    most_rss_mb: float = 0.0
    slope_mb_per_hour: float | None = None  # of the process that lived longest
    most_files: int = 0
    most_wal_mb: float = 0.0
    seconds: float = 0.0


class Soak:
    def __init__(self, home: Path, seed: int, tasks: int, server: postgres_server.Server | None) -> None:
        self.rng = random.Random(seed)
        self.server = server
        self.story = Story(
            home, a_backlog(self.rng, tasks), url=server.url() if server else None, workers=4,
            DROVER_CLAIM_TIMEOUT="20s",
        )  # fmt: skip
        self.report = Report("postgres" if server else "sqlite", tasks=tasks)
        self.seen: dict[int, list[tuple[float, int]]] = {}  # process → (seconds, bytes)
        self.runs: list[int] = []

    def go(self, seconds: float) -> Report:
        began = time.monotonic()
        self.story.begin()
        next_look, next_fault = began, began + 5
        while time.monotonic() < began + seconds:
            if not self._work_is_left():
                self._add_more()
            self._keep_three()
            now = time.monotonic()
            if now >= next_look:
                self._look(now)
                next_look = now + LOOK_S
            if now >= next_fault:
                self._fault()
                next_fault = now + self.rng.uniform(*FAULT_EVERY_S)
            time.sleep(0.2)
        for run in self.runs:
            os.kill(run, signal.SIGCONT)
            os.killpg(run, signal.SIGKILL)
            os.waitpid(run, 0)
        self.story.note(event="fault")
        self._end(began)
        return self.report

    def _work_is_left(self) -> bool:
        rows = self.story.evidence().rows("SELECT count(*) AS n FROM tasks WHERE state NOT IN ('completed', 'failed')")
        return bool(rows[0]["n"])

    def _add_more(self) -> None:
        self.story.shape = a_backlog(self.rng, MORE)
        self.report.tasks += MORE
        os.waitpid(self.story.fork(self.story.fill), 0)

    def _keep_three(self) -> None:
        self.runs = [run for run in self.runs if os.waitpid(run, os.WNOHANG)[0] == 0]
        while len(self.runs) < PROCESSES:
            self.runs.append(self.story.start())

    def _look(self, now: float) -> None:
        for run in self.runs:
            with suppress(psutil.Error):
                process = psutil.Process(run)
                rss, files = process.memory_info().rss, process.num_fds()
                if time.time() - process.create_time() > SETTLED_S:
                    self.seen.setdefault(run, []).append((now, rss))
                self.report.most_rss_mb = max(self.report.most_rss_mb, rss / 1e6)
                self.report.most_files = max(self.report.most_files, files)
        with suppress(FileNotFoundError):
            wal = (self.story.repo / ".drover" / "drover.db-wal").stat().st_size
            self.report.most_wal_mb = max(self.report.most_wal_mb, wal / 1e6)

    def _fault(self) -> None:
        kinds = ["kill", "kill", "stop", "interrupt"] + (["cut"] if self.server else [])
        kind = self.rng.choice(kinds)
        run = self.rng.choice(self.runs[1:] if kind in ("kill", "interrupt") else self.runs)
        self.report.faults[kind] = self.report.faults.get(kind, 0) + 1
        self.story.note(event="fault")
        with suppress(ProcessLookupError):
            match kind:
                case "kill":
                    os.killpg(run, signal.SIGKILL)
                case "stop":
                    os.kill(run, signal.SIGSTOP)
                    time.sleep(self.rng.uniform(0.1, 3.0))
                    os.kill(run, signal.SIGCONT)
                case "interrupt":
                    os.kill(run, signal.SIGTERM)
                case "cut":
                    self.story.evidence().rows(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                    )
        self.story.note(event="fault")

    def _end(self, began: float) -> None:
        for _ in range(3):
            self.story.run()
        evidence = self.story.evidence()
        self.report.violations = [f"{name}: {what}" for name, what in judge(evidence)]
        self.report.violations += self._over_the_limits()
        self.report.landed = len(evidence.landed)
        self.report.seconds = round(time.monotonic() - began, 1)
        oldest = max(self.seen.values(), key=len, default=[])
        if len(oldest) >= 10:
            slope = linear_regression([at / 3600 for at, _ in oldest], [rss / 1e6 for _, rss in oldest]).slope
            self.report.slope_mb_per_hour = round(slope, 2)

    def _over_the_limits(self) -> list[str]:
        if self.report.most_wal_mb * 1e6 > WAL_LIMIT:
            return [f"I23: the write-ahead log grew to {self.report.most_wal_mb:.0f} MB"]
        return []


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.proof.soak")
    options.add_argument("--hours", type=float, default=0.0)
    options.add_argument("--minutes", type=float, default=0.0)
    options.add_argument("--tasks", type=int, default=5_000)
    options.add_argument("--seed", type=int, default=7)
    chosen = options.parse_args()
    seconds = chosen.hours * 3600 + chosen.minutes * 60
    if not seconds:
        options.error("say for how long: --hours 8 or --minutes 10")
    reports: list[dict[str, Any]] = []
    for server in (None, postgres_server.shared()):
        home = Path(tempfile.mkdtemp(prefix="drover-soak-"))
        report = Soak(home / "story", chosen.seed, chosen.tasks, server).go(seconds / 2)
        reports.append(asdict(report))
        print(json.dumps(reports[-1]), flush=True)
        if report.violations:
            print(f"what it left is in {home}")
        else:
            shutil.rmtree(home)
    Path("soak.json").write_text(json.dumps({"seed": chosen.seed, "stores": reports}, indent=1) + "\n")
    return 1 if any(report["violations"] for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())

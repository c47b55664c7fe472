"""A backlog with a beginning and an end, told in forks of this process: each may be killed at any crossing.

A fork has everything imported already, so a death costs the run that it cuts off, and no start of an interpreter.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio._backends._asyncio  # here, or every fork would import it

import drover.agents.command  # noqa: F401 - the same
from drover import app
from tests.proof import doors
from tests.proof.checker import Evidence, Violation, judge, read_ledger, rows_of_sqlite

AGENT = Path(__file__).parents[1] / "e2e" / "ledger_agent.py"
DIAMOND = (("A", ()), ("B", (0,)), ("C", (0,)), ("D", (1, 2)))
CHAIN = (("A", ()), ("B", (0,)))
ONE = (("A", ()),)
Shape = Sequence[tuple[str, tuple[int, ...]]]
GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "Olive Operator",
    "GIT_AUTHOR_EMAIL": "olive@example.org", "GIT_COMMITTER_NAME": "Olive Operator",
    "GIT_COMMITTER_EMAIL": "olive@example.org",
}  # fmt: skip


class Story:
    """One project in ``root``. ``url``: of a Postgres database; without it the project has its SQLite."""

    def __init__(
        self, root: Path, shape: Shape = DIAMOND, *, url: str | None = None, workers: int = 2, **settings: str
    ) -> None:
        self.root, self.repo, self.ledger = root, root / "repo", root / "ledger.jsonl"
        self.shape, self.url, self.workers = shape, url, workers
        self.settings = settings  # drover's, as its environment names them
        self.project = f"story-{secrets.token_hex(4)}"

    def environment(self) -> dict[str, str]:
        found = {
            **GIT,
            "LEDGER": str(self.ledger),
            "WORK_SECONDS": "0,0",
            "HOME": str(self.root),
            "DROVER_AGENT_TYPE": "command",
            "DROVER_AGENT_PATH": f"{sys.executable} -I -S {AGENT}",
        }
        found |= self.settings
        return {**found, "DROVER_DATABASE_URL": self.url} if self.url else found

    def begin(self) -> None:
        """The repository, and the backlog in it."""
        self.repo.mkdir(parents=True)
        (self.repo / "README.md").write_text("# A story\n")
        (self.repo / ".gitignore").write_text(".drover\n")
        (self.repo / ".drover.toml").write_text(
            f'[project]\nname = "story"\nid = "{self.project}"\ntarget = "main"\n'
            '[agents.command]\nenv = ["LEDGER", "WORK_SECONDS"]\n[disk]\nfloor = 0\n'
        )
        for argv in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
            subprocess.run(["git", *argv], cwd=self.repo, env={**os.environ, **GIT}, check=True, capture_output=True)
        if os.waitpid(self.fork(self.fill), 0)[1]:
            raise AssertionError("the backlog could not be made")

    async def fill(self) -> None:
        """Add the backlog, in a fork."""
        async with app.open(repo=self.repo) as drover:
            made: list[str] = []
            for title, blockers in self.shape:
                task = await drover.add(title, blocked_by=[made[n] for n in blockers], test_command="test -f README.md")
                made.append(task.id)

    async def _live(self) -> None:
        async with app.open(repo=self.repo) as drover:
            await drover.run(workers=self.workers)

    def run(self, meet: doors.Meet | None = None) -> int:
        """One run in a fork, which ``meet`` may kill at a crossing; how it ended, as ``os.waitpid`` says it."""
        return os.waitpid(self.start(meet), 0)[1]

    def start(self, meet: doors.Meet | None = None) -> int:
        """As :meth:`run`, without waiting for it; its process id."""

        def arm() -> None:
            if meet is not None:
                doors.wrap(meet, under=self.repo)

        return self.fork(self._live, arm)

    def fork(self, act: Callable[[], Any], arm: Callable[[], None] = lambda: None) -> int:
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            os.setsid()
            os.environ.update(self.environment())
            arm()
            anyio.run(act)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def note(self, **what: object) -> None:
        handle = os.open(self.ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(handle, (json.dumps({**what, "at": time.time()}) + "\n").encode())
        os.close(handle)

    def die(self) -> None:
        """The whole group, as a power cut of one program."""
        self.note(event="fault")
        os.killpg(0, signal.SIGKILL)

    def note_tip(self) -> None:
        done = subprocess.run(["git", "rev-parse", "main"], cwd=self.repo, capture_output=True, text=True, check=True)
        self.note(event="tip", oid=done.stdout.strip())

    def evidence(self) -> Evidence:
        rows = rows_of_sqlite(self.repo / ".drover" / "drover.db")
        if self.url:
            from tests.proof.on_postgres import rows_of_postgres

            rows = rows_of_postgres(self.url, self.project)
        return Evidence(self.repo, rows, read_ledger(self.ledger), marked=f"LEDGER={self.ledger}")

    def judge(self) -> list[Violation]:
        """What is wrong once the backlog has been driven to its end."""
        evidence = self.evidence()
        unfinished = [
            ("I16", f"{id} is {task['state']} ({task['error_message'] or task['detail'] or ''})")
            for id, task in evidence.tasks.items()
            if task["state"] != "completed"
        ]
        used = [("I8", f"{id}: a death used up an attempt") for id, t in evidence.tasks.items() if t["failures"]]
        return [*judge(evidence), *unfinished, *used]

    def end(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.root)

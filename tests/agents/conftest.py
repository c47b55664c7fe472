"""What tests of agents share: a host that remembers, and jobs with defaults."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from drover.agents.base import AgentJob, AgentSettings
from drover.domain.models import ProcessIdentity, Resumed, Word


class Host:
    """Remembers what the driver told; ``refusal`` is raised instead of recording a start."""

    def __init__(self) -> None:
        self.hurry = anyio.Event()
        self.starts: list[tuple[str | None, Resumed]] = []
        self.processes: list[ProcessIdentity] = []
        self.sessions: list[str] = []
        self.lives = 0
        self.refusal: Exception | None = None
        self.started = anyio.Event()
        self.seen = anyio.Event()
        self.to_say: list[str] = []
        self.said = anyio.Event()
        self.told: list[str] = []
        self.was_told = anyio.Event()

    async def starting(self, process: ProcessIdentity, session_id: str | None, resumed: Resumed) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.processes.append(process)
        self.starts.append((session_id, resumed))
        self.started.set()

    async def session(self, session_id: str) -> None:
        self.sessions.append(session_id)
        self.seen.set()

    def alive(self) -> None:
        self.lives += 1

    def say(self, text: str) -> None:
        """A person says this to the agent."""
        self.to_say.append(text)
        self.said.set()

    async def next_word(self) -> Word:
        while not self.to_say:
            self.said = anyio.Event()
            await self.said.wait()
        return Word(number=1, task_id="task-x", kind="hint", text=self.to_say.pop(0))

    async def heard(self, word: Word) -> None:
        self.told.append(word.text)
        self.was_told.set()


MakeJob = Callable[..., AgentJob]


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    """A job in ``tmp_path/worktree``; each has its own log directory and marker, unless told otherwise."""
    fences = iter(range(1, 1000))
    (tmp_path / "worktree").mkdir()

    def make(prompt: str = "# Task task-x: A title\n\nDo it.\n", **more: object) -> AgentJob:
        fence = next(fences)
        log_dir = Path(str(more.get("log_dir", tmp_path / "logs" / "task-x" / str(fence))))
        log_dir.mkdir(parents=True, exist_ok=True)
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path / "home"),
            "DROVER_TASK_ID": "task-x",
            "DROVER_ATTEMPT": str(more.get("attempt", 1)),
            "DROVER_RESULT": str(log_dir / "result.json"),
        }
        given: dict[str, object] = {
            "task_id": "task-x",
            "attempt": 1,
            "fence": fence,
            "prompt": prompt,
            "follow_up": "Go on.\n",
            "worktree": tmp_path / "worktree",
            "log_dir": log_dir,
            "marker": f"test-{uuid.uuid4().hex}.",
            "timeout_s": 60.0,
            "settings": AgentSettings(type="test"),
        }
        env |= more.pop("env", {})  # type: ignore[arg-type,call-overload]
        return AgentJob.model_validate(given | {"env": env} | more)

    return make

"""Where things are kept that are not in the database."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """Where drover keeps what is not in the database. ``state`` is the project's ``.drover``."""

    state: Path

    @property
    def worktrees(self) -> Path:
        return self.state / "worktrees"

    def scratch(self, task_id: str) -> Path:
        """Keeps the index with which the task's clone is read; only the holder of its claim uses it."""
        return self.state / "tmp" / task_id

    @property
    def reuse(self) -> Path:
        """Clones of landed tasks that later ones take over; a directory for each boot of the machine.

        After a power cut what git knows of a file need not be what is in it.
        """
        from drover.process import boot_id  # noqa: PLC0415 - most readings need no process

        return self.state / "reuse" / boot_id()

    def worktree(self, task_id: str) -> Path:
        """The one place a task's work is done in, whichever attempt."""
        return self.worktrees / task_id

    def planning(self, task_id: str) -> Path:
        """The clone in which an agent plans the task; nothing in it is kept."""
        return self.worktrees / f".{task_id}.plan"

    def carry(self, task_id: str) -> Path:
        """Names the work that an attempt began with, from before it was brought onto the attempt's base."""
        return self.worktrees / f".{task_id}.carry"

    def fence(self, task_id: str) -> Path:
        """Holds the fence of the last claim whose work is in the clone that is here."""
        return self.worktrees / f".{task_id}.fence"

    def set_up(self, task_id: str) -> Path:
        """Records of what after_create has done in the clone that is there; goes before the clone does."""
        return self.worktrees / f".{task_id}.set-up"

    def logs(self, task_id: str, fence: int) -> Path:
        """What one execution said."""
        return self.state / "logs" / task_id / str(fence)

    def test_logs(self, task_id: str) -> Path:
        """What the tests said of a task's work."""
        return self.state / "logs" / task_id / "tests"

    def hook_logs(self, task_id: str) -> Path:
        """What the operator's hooks said; the names of the files begin with the fence of the execution."""
        return self.state / "logs" / task_id / "hooks"

    def marker(self, task_id: str, fence: int | None = None) -> str:
        """What every process of an execution carries in DROVER_MARKER; without a fence, the prefix of all of a task's.

        Names this state directory, so that two clones of one project on one machine never take each
        other's processes for their own.
        """
        return f"{self.marker_of_all}{task_id}." + (f"{fence}." if fence is not None else "")

    @property
    def marker_of_all(self) -> str:
        """What the markers of every execution of this project begin with."""
        return hashlib.sha256(str(self.state).encode()).hexdigest()[:10] + "."

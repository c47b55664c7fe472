"""What a person is shown of a backlog: values made from the store's rows, never stored themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from drover.domain.models import Attempt, Epic, Event, Frozen, Landing, StepRecord, Task, Word


class RunningTask(Frozen):
    """A task somebody works on. Times are unix milliseconds."""

    task_id: str
    title: str
    step: str
    worker: str
    host: str
    since: int
    last_alive: int | None = None


class Attention(Frozen):
    """A task that needs a person, and why."""

    task_id: str
    reason: str


class StatusReport(Frozen):
    """The state of a backlog, or of one epic."""

    total: int
    by_status: Mapping[str, int]
    progress: float  # 0 … 1
    running: tuple[RunningTask, ...] = ()
    needs_attention: tuple[Attention, ...] = ()
    epics: tuple[Epic, ...] = ()
    tokens: int = 0  # of all executions of its tasks that are over, and what they cost
    cost_usd: float = 0.0
    notes: tuple[str, ...] = ()  # what else a person should know, a line each


class TreeNode(Frozen):
    """An epic and its tasks, or the tasks without one; sub-tasks stand under their parents."""

    epic: Epic | None = None
    task: Task | None = None
    waits_for: tuple[str, ...] = ()
    children: tuple[TreeNode, ...] = ()


class TaskDetails(Frozen):
    """Everything about one task."""

    task: Task
    attempts: tuple[Attempt, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    events: tuple[Event, ...] = ()
    blockers: tuple[Task, ...] = ()
    dependents: tuple[Task, ...] = ()
    landings: tuple[Landing, ...] = ()
    worktree: Path | None = None
    branch: str | None = None  # the ref its work is on, landed or not
    log_paths: tuple[Path, ...] = ()
    words: tuple[Word, ...] = ()  # what a person said to its agent, and when that had it


class InboxItem(Frozen):
    """A matter that needs a person."""

    task_id: str
    title: str
    kind: str  # question, failed, paused, publish, or another reason of waiting
    says: str
    since: int  # unix ms
    command: str  # that settles it


class Context(Frozen):
    """What an agent will be given."""

    task_id: str
    agent: str
    session_id: str | None  # that it goes on with; None: a new one
    text: str
    missing: tuple[str, ...] = ()  # blockers that have not landed: what they leave will be told besides


class RecapTask(Frozen):
    """A task that landed or failed since a time."""

    task_id: str
    title: str
    at: int
    says: str = ""  # its agent's last words, or why it failed
    paths: int = 0  # how many it changed
    decisions: tuple[str, ...] = ()


class RecapOrder(Frozen):
    """What a person ordered."""

    at: int
    task_id: str
    what: str
    by: str
    why: str = ""


class Recap(Frozen):
    """What happened between two moments (unix ms), and how things stand after it."""

    since: int
    until: int
    landed: tuple[RecapTask, ...] = ()
    failed: tuple[RecapTask, ...] = ()
    needs: tuple[InboxItem, ...] = ()
    orders: tuple[RecapOrder, ...] = ()
    happened: Mapping[str, int]  # runs, and what went otherwise than planned, by its name
    by_status: Mapping[str, int]  # of the backlog as it is now
    tokens: int = 0
    cost_usd: float = 0.0


class ResumeItem(Frozen):
    """What a resume does with one task, and why."""

    task_id: str
    title: str
    decision: Literal["keep", "continue", "redo", "ask"]
    reason: str


class WorktreeRow(Frozen):
    """A clone on disk: whose it is, and whether it may go."""

    path: Path
    task_id: str
    status: str
    why: str  # why it is there
    bytes: int
    removable: bool
    proof: str = ""  # why nothing is lost with it


class AgentRow(Frozen):
    """A type of agent in use, and until when its account is limited (unix ms)."""

    type: str
    fallback: bool = False  # it stands in for others
    until: int | None = None
    reason: str | None = None
    detail: str = ""
    waiting: int = 0  # tasks that wait for the limit's end


class Check(Frozen):
    """One line of the doctor's."""

    name: str
    level: Literal["ok", "warning", "problem"]
    message: str
    fix: str = ""

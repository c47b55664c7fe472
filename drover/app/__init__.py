"""The public verbs of drover, and what puts its parts together."""

from __future__ import annotations

from drover.app.backlog import Backlog, new_task
from drover.app.drover import Drover, open
from drover.app.project import Initialised, init
from drover.app.readings import (
    Attention,
    Check,
    Context,
    InboxItem,
    Recap,
    RecapTask,
    ResumeItem,
    RunningTask,
    StatusReport,
    TaskDetails,
    TreeNode,
    WorktreeRow,
)
from drover.engine.workers import Stop as StopSignal

__all__ = [
    "Attention",
    "Backlog",
    "Check",
    "Context",
    "Drover",
    "InboxItem",
    "Initialised",
    "Recap",
    "RecapTask",
    "ResumeItem",
    "RunningTask",
    "StatusReport",
    "StopSignal",
    "TaskDetails",
    "TreeNode",
    "WorktreeRow",
    "init",
    "new_task",
    "open",
]

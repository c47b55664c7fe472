"""The public verbs of drover, and what puts its parts together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drover.app.backlog import Backlog, new_task
    from drover.app.drover import Drover, open
    from drover.app.project import Initialised, init
    from drover.app.readings import (
        AgentRow,
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
    "AgentRow",
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

_HOMES = {
    "Backlog": "drover.app.backlog",
    "Drover": "drover.app.drover",
    "Initialised": "drover.app.project",
    "StopSignal": "drover.engine.workers",
    "init": "drover.app.project",
    "new_task": "drover.app.backlog",
    "open": "drover.app.drover",
}


def __getattr__(name: str) -> object:
    """Imported when first used: a status needs neither what runs agents nor what runs git."""
    if name not in __all__:
        raise AttributeError(f"module 'drover.app' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - the point of this function

    home = import_module(_HOMES.get(name, "drover.app.readings"))
    return getattr(home, "Stop" if name == "StopSignal" else name)

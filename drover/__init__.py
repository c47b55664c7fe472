"""Drover drives a backlog of coding-agent tasks to completion and lands each exactly once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drover.app import Drover, open
    from drover.domain.errors import DroverError
    from drover.domain.models import Event, RunReport, Task
    from drover.domain.states import Status

__version__ = "0.1.0"
__all__ = ["Drover", "DroverError", "Event", "RunReport", "Status", "Task", "__version__", "open"]

_HOMES = {
    "Drover": "drover.app",
    "open": "drover.app",
    "DroverError": "drover.domain.errors",
    "Event": "drover.domain.models",
    "RunReport": "drover.domain.models",
    "Task": "drover.domain.models",
    "Status": "drover.domain.states",
}


def __getattr__(name: str) -> object:
    """Public names are imported when first used, so that ``drover --version`` imports nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'drover' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)

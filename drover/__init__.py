"""Drover drives a backlog of coding-agent tasks to completion and lands each exactly once."""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers go by the name; importing it from typing costs each agent's supervisor 10 ms
if TYPE_CHECKING:
    from drover.app import Backlog, Drover, new_task, open
    from drover.domain.errors import DroverError
    from drover.domain.models import Event, RunReport, Task
    from drover.domain.states import Status
    from drover.engine.job import Job

__version__ = "0.1.0"
__all__ = [
    "Backlog",
    "Drover",
    "DroverError",
    "Event",
    "Job",
    "RunReport",
    "Status",
    "Task",
    "__version__",
    "new_task",
    "open",
]

_HOMES = {
    "Backlog": "drover.app",
    "Drover": "drover.app",
    "Job": "drover.engine.job",
    "new_task": "drover.app",
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
    from importlib import import_module  # noqa: PLC0415 - the point of this function

    from drover.domain.garbage import no_looks  # noqa: PLC0415 - as above

    with no_looks():
        home = import_module(_HOMES[name])
    return getattr(home, name)

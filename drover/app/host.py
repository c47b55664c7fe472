"""This machine and this process, as workers are recorded."""

from __future__ import annotations

import os
import socket

from drover.domain.models import Run, Worker
from drover.process import current_identity

INITIAL_PID_NAMESPACE = 4026531836


def host_name(called: str | None = None) -> str:
    """What this machine is ``called``, else its own name.

    Told apart from other containers on it: process ids mean nothing across those.
    """
    if called:
        return called
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - a magic link, not a path
    except OSError:
        return socket.gethostname()
    return socket.gethostname() + ("" if namespace == INITIAL_PID_NAMESPACE else f":{namespace}")


def workers_of(run: Run, host: str) -> list[Worker]:
    """The workers of a run in this process, called after it: their records stay, so four letters would not do."""
    name = run.id.removeprefix("run-")
    return [
        Worker(id=f"{name}-{number}", host=host, process=current_identity(), run_id=run.id)
        for number in range(1, run.workers + 1)
    ]

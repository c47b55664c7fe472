"""Ends what a dead drover left running, and proves that it has ended."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

import anyio

from drover.domain.errors import DroverError
from drover.domain.models import ProcessIdentity
from drover.process.identity import find_marked, identify, is_alive

LOOK_AGAIN_S = 0.05
KILL_S = 10.0  # SIGKILL does not fail, but a process may be kept in the kernel by a dead disk or network mount


class ProcessesRemain(DroverError):
    """Processes of an earlier attempt cannot be ended."""

    code = "processes_remain"


async def end_marked(marker: str, grace_s: float) -> int:
    """End every process whose DROVER_MARKER starts with ``marker``; how many there were.

    SIGTERM, up to ``grace_s`` seconds, then SIGKILL until a look at all processes finds none. A
    signal goes only to a process whose identity is still the one that carried the marker. Not
    interruptible before the proof. Raises ProcessesRemain when some survive SIGKILL for 10 seconds.
    """
    with anyio.CancelScope(shield=True):
        first = find_marked(marker)
        if not first:
            return 0
        met = {str(identity) for identity in first}
        if grace_s > 0:
            await _signal_and_wait(first, signal.SIGTERM, grace_s)
        with anyio.move_on_after(KILL_S) as patience:
            while remaining := find_marked(marker):
                met.update(str(identity) for identity in remaining)
                await _signal_and_wait(remaining, signal.SIGKILL, 1.0)
    if patience.cancelled_caught:
        pids = ", ".join(str(identity.pid) for identity in remaining)
        raise ProcessesRemain(f"processes {pids} do not end", hint="look at them with `ps -o pid,stat,wchan,cmd`")
    return len(met)


async def _signal_and_wait(processes: list[ProcessIdentity], number: signal.Signals, wait_s: float) -> None:
    with anyio.move_on_after(wait_s):
        async with anyio.create_task_group() as tasks:
            for identity in processes:
                tasks.start_soon(_signal_one, identity, number)


async def _signal_one(identity: ProcessIdentity, number: signal.Signals) -> None:
    """Signal that very process and return when it has ended."""
    if sys.platform != "linux":
        if is_alive(identity):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(identity.pid, number)
        while is_alive(identity):  # noqa: ASYNC110 - kqueue's NOTE_EXIT is not in anyio; nothing else tells of strangers
            await anyio.sleep(LOOK_AGAIN_S)
        return
    try:
        handle = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return
    try:
        # A pidfd holds on to the process: identity checked after opening, it cannot change any more.
        if identify(identity.pid) == identity:
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(handle, number)
            await anyio.wait_readable(handle)
    finally:
        os.close(handle)

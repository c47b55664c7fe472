"""The only place where child processes are born, watched, limited and ended."""

from __future__ import annotations

from drover.process.containment import find_containment
from drover.process.identity import (
    MARKER,
    boot_id,
    current_identity,
    find_marked,
    identify,
    is_alive,
    is_stopped,
    parse_identity,
)
from drover.process.lasting import QUESTION_BYTES, Ended, Lasting
from drover.process.leftovers import ProcessesRemain, end_marked
from drover.process.memory import available_memory
from drover.process.spawn import Finished, TooMuchOutput, run
from drover.process.supervise import Exit, Launch, Voice, Watcher, adopt, sole_error, supervise

__all__ = [
    "MARKER",
    "QUESTION_BYTES",
    "Ended",
    "Exit",
    "Finished",
    "Lasting",
    "Launch",
    "ProcessesRemain",
    "TooMuchOutput",
    "Voice",
    "Watcher",
    "adopt",
    "available_memory",
    "boot_id",
    "current_identity",
    "end_marked",
    "find_containment",
    "find_marked",
    "identify",
    "is_alive",
    "is_stopped",
    "parse_identity",
    "run",
    "sole_error",
    "supervise",
]

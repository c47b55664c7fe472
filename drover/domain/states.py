"""The states a task is stored in, the moves between them, and the statuses a person sees.

Seven states are stored; the words a user sees (``ready``, ``blocked``, ``claimed``, …) are readings
of a state and the graph around it, made by :func:`status_of` and nowhere else.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What is stored."""

    QUEUED = "queued"  # may start as soon as no blocker is open
    RUNNING = "running"  # one worker holds a lease on it
    WAITING = "waiting"  # until a time (due_at) or an event (publish, question)
    PAUSED = "paused"  # until the operator says so
    COMPLETED = "completed"  # in the target branch
    FAILED = "failed"  # attempts used up, or hopeless
    CANCELLED = "cancelled"


class Status(StrEnum):
    """What a person sees."""

    READY = "ready"
    BLOCKED = "blocked"
    WAITING = "waiting"
    CLAIMED = "claimed"
    IN_PROGRESS = "in_progress"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Move(StrEnum):
    """Why a state changes."""

    CLAIM = "claim"
    COMPLETE = "complete"
    PARK = "park"  # wait for a time or an event; the attempt is given back
    WAKE = "wake"  # what it waited for has come
    RETRY = "retry"  # failed, attempts remain
    FAIL = "fail"
    RELEASE = "release"  # the worker is stopping; the attempt is given back
    RESCUE = "rescue"  # the worker is dead; the attempt is given back
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    REVIVE = "revive"  # the operator's second chance: retry, reset


MOVES: dict[tuple[State, Move], State] = {
    (State.QUEUED, Move.CLAIM): State.RUNNING,
    (State.RUNNING, Move.COMPLETE): State.COMPLETED,
    (State.RUNNING, Move.PARK): State.WAITING,
    (State.RUNNING, Move.RETRY): State.WAITING,
    (State.RUNNING, Move.FAIL): State.FAILED,
    (State.RUNNING, Move.RELEASE): State.QUEUED,
    (State.RUNNING, Move.RESCUE): State.QUEUED,
    (State.RUNNING, Move.PAUSE): State.PAUSED,
    (State.RUNNING, Move.CANCEL): State.CANCELLED,
    (State.WAITING, Move.WAKE): State.QUEUED,
    (State.WAITING, Move.COMPLETE): State.COMPLETED,
    (State.WAITING, Move.PAUSE): State.PAUSED,
    (State.WAITING, Move.CANCEL): State.CANCELLED,
    (State.QUEUED, Move.PAUSE): State.PAUSED,
    (State.QUEUED, Move.CANCEL): State.CANCELLED,
    (State.PAUSED, Move.RESUME): State.QUEUED,
    (State.PAUSED, Move.CANCEL): State.CANCELLED,
    (State.FAILED, Move.REVIVE): State.QUEUED,
    (State.CANCELLED, Move.REVIVE): State.QUEUED,
    (State.COMPLETED, Move.REVIVE): State.QUEUED,
}

TERMINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})
DEAD = frozenset({State.FAILED, State.CANCELLED})  # what stands behind these is stranded


def status_of(state: State, *, open_blockers: int, executing: bool, due: bool) -> Status:
    """The word a person sees.

    ``executing``: the claim has begun its agent's work; ``due``: what it waited for in time has come.
    """
    if state is State.QUEUED or (state is State.WAITING and due):
        return Status.BLOCKED if open_blockers else Status.READY
    if state is State.RUNNING:
        return Status.IN_PROGRESS if executing else Status.CLAIMED
    return Status(state.value)

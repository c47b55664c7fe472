"""How an attempt can end, and what follows from it."""

from __future__ import annotations

import random
from enum import StrEnum
from typing import Literal

from drover.domain.errors import AgentError, AttemptFailed, DiskFull, DroverError, StoreUnavailable, Unreachable
from drover.domain.models import Frozen, Landed
from drover.domain.plans import PlanDraft
from drover.domain.policy import backoff_ms


class Outcome(StrEnum):
    """What an agent's execution came to; the class of an attempt's error where it failed."""

    DONE = "done"
    NO_CHANGE = "no_change"  # ended well and changed nothing
    FAILED = "failed"
    TIMEOUT = "timeout"
    STALLED = "stalled"
    RATE_LIMITED = "rate_limited"
    USAGE_LIMIT = "usage_limit"
    OVERLOADED = "overloaded"
    AUTH = "auth"
    PERMISSION = "permission"
    CONTEXT_OVERFLOW = "context_overflow"
    CRASHED = "crashed"  # ended by a signal nobody of ours sent, or without a result
    MEMORY = "memory"
    QUESTION = "question"  # needs a person
    LATER = "later"  # asked to be tried later
    FENCED = "fenced"  # the lease was lost
    INTERRUPTED = "interrupted"  # drover stopped it
    VERIFY = "verify"  # the tests failed
    CONFLICT = "conflict"  # the work does not merge
    HOOK = "hook"  # a command of the operator's around the work failed
    REFUSED = "refused"  # the result holds what may not land
    INTERNAL = "internal"  # drover, git or the disk failed, not the agent


TROUBLES_LIMIT = 5  # internal errors in a row after which a task fails instead of being tried once more

HOPELESS = frozenset({Outcome.AUTH, Outcome.REFUSED})  # a retry by ourselves cannot help
WAITS = frozenset(
    {
        Outcome.RATE_LIMITED,
        Outcome.USAGE_LIMIT,
        Outcome.OVERLOADED,
        Outcome.LATER,
        Outcome.QUESTION,
        Outcome.PERMISSION,
    }
)


class Completed(Frozen):
    """Landed and in the target branch."""

    kind: Literal["completed"] = "completed"
    landed: Landed


class Parked(Frozen):
    """Wait until a time (``until``, unix ms) or, when that is None, for an event. Costs no attempt."""

    kind: Literal["parked"] = "parked"
    reason: str  # rate_limit, usage_limit, overloaded, later, question, publish
    detail: str = ""
    until: int | None = None
    landed: Landed | None = None


class Retry(Frozen):
    """Failed, and tried again at ``until`` (unix ms)."""

    kind: Literal["retry"] = "retry"
    error_class: Outcome
    message: str
    advice: str = ""
    until: int
    charge: Literal["attempt", "conflict", "nothing"] = "attempt"  # what of the task's budgets it uses up


class Failed(Frozen):
    """Failed for good, until the operator says otherwise."""

    kind: Literal["failed"] = "failed"
    error_class: Outcome
    message: str
    advice: str = ""


class Released(Frozen):
    """Given back because the worker stops. Costs no attempt."""

    kind: Literal["released"] = "released"
    reason: str = "shutdown"


class Stopped(Frozen):
    """Ended by an order of the operator."""

    kind: Literal["stopped"] = "stopped"
    order: Literal["cancel", "pause"]
    reason: str = ""


class Planned(Frozen):
    """A plan was made. ``approved_by``: who frees the task at once; None: it waits for a person. Costs no attempt."""

    kind: Literal["planned"] = "planned"
    draft: PlanDraft
    approved_by: str | None = None


Verdict = Completed | Parked | Planned | Retry | Failed | Released | Stopped


def judge(
    error: Exception,
    *,
    failures: int,
    conflicts: int,
    troubles: int,
    max_attempts: int,
    conflict_attempts: int,
    now: int,
    rng: random.Random,
) -> Verdict:
    """What an ordinary exception means for the attempt.

    ``failures``: attempts used up before this one; ``conflicts``: landings refused for a conflict before
    this one. Trouble of drover's own (git, disk, database) never uses up an attempt: the step is
    tried again, later and later; a full disk, an absent database or an absent remote is waited out for ever, any
    other trouble ``TROUBLES_LIMIT`` times in a row.
    """
    if isinstance(error, AttemptFailed):
        outcome = Outcome(error.error_class)
        if outcome is Outcome.CONFLICT:
            # A resolution that others overtook is nobody's fault, and each overtaking is somebody's landing.
            if not error.overtaken and conflicts + 1 > conflict_attempts:
                return Failed(error_class=outcome, message=error.message, advice=error.advice)
            charge: Literal["conflict", "nothing"] = "nothing" if error.overtaken else "conflict"
            return Retry(error_class=outcome, message=error.message, advice=error.advice, until=now, charge=charge)
        if outcome in HOPELESS or failures + 1 >= max_attempts:
            return Failed(error_class=outcome, message=error.message, advice=error.advice)
        until = now + backoff_ms(failures + 1, rng)
        return Retry(error_class=outcome, message=error.message, advice=error.advice, until=until)
    if isinstance(error, AgentError):
        return Failed(error_class=Outcome.FAILED, message=error.message, advice=error.hint or "drover doctor")
    message = error.message if isinstance(error, DroverError) else f"{type(error).__name__}: {error}"
    later = now + backoff_ms(troubles + 1, rng)
    if isinstance(error, DiskFull):
        return Parked(reason="disk_full", detail=message, until=later)
    if isinstance(error, StoreUnavailable):
        return Parked(reason="store", detail=message, until=later)
    if isinstance(error, Unreachable):
        return Parked(reason="remote", detail=message, until=later)
    if troubles + 1 >= TROUBLES_LIMIT:
        return Failed(error_class=Outcome.INTERNAL, message=message, advice="see `drover logs` and `drover doctor`")
    return Parked(reason="internal", detail=message, until=later)

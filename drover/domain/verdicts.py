"""How an attempt can end, and what follows from it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, NamedTuple

from drover.domain.errors import AgentError, AttemptFailed, DroverError, StoreUnavailable, Unreachable, says_disk_full
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


class Follows(NamedTuple):
    """What follows from an outcome."""

    meaning: str
    then: Literal["lands", "retried", "waits", "asks", "goes on", "fails"]  # what drover does by itself
    how: str  # what that is, in a sentence
    advice: str  # what a person can do; said with the error where the agent's own driver knows nothing better


CLASSES: Mapping[Outcome, Follows] = {
    Outcome.DONE: Follows("It says that it is done.", "lands", "The result is committed, tested and landed.", ""),
    Outcome.NO_CHANGE: Follows(
        "It ended well and changed nothing, and stood by it when it was asked, once, in the same session.",
        "fails",
        "Tasks added with `--allow-no-change` complete instead.",
        "say more exactly what is to be changed, or add the task with --allow-no-change",
    ),
    Outcome.FAILED: Follows(
        "It says that it failed, or its exit code does.",
        "retried",
        "The same session is told what went wrong.",
        "read what it says (drover logs), and make the task clearer or smaller",
    ),
    Outcome.TIMEOUT: Follows(
        "It took longer than `task_timeout`.",
        "retried",
        "It was stopped; its session goes on.",
        "give the task more time (--timeout), or make it smaller",
    ),
    Outcome.STALLED: Follows(
        "No output, no CPU use and no changed file for `stall_timeout`.",
        "retried",
        "It was stopped; its session goes on.",
        "look what it was waiting for (drover logs), or raise stall_timeout",
    ),
    Outcome.RATE_LIMITED: Follows(
        "Its provider refuses the account for a while.",
        "waits",
        "No task of this agent is begun until the end that the provider tells, else later and later.",
        "wait; once the limit is gone: drover agent lift TYPE",
    ),
    Outcome.USAGE_LIMIT: Follows(
        "What the account may use is used up.",
        "waits",
        "As `rate_limited`; where `[agents] fallback` names another agent, that one goes on with the work.",
        "wait, or name another agent in [agents] fallback; once the limit is gone: drover agent lift TYPE",
    ),
    Outcome.OVERLOADED: Follows(
        "Its provider, or the network to it, does not answer.",
        "waits",
        "This task alone is tried again, later and later, at most ten minutes apart.",
        "wait, or look at the provider's status page and at your network",
    ),
    Outcome.AUTH: Follows(
        "It is not signed in, its key is refused, or there is nothing to pay with.",
        "fails",
        "A retry would be refused the same way.",
        "sign the agent in (drover doctor), then: drover retry ID",
    ),
    Outcome.PERMISSION: Follows(
        "It was not allowed to use a tool, which is named.",
        "asks",
        "The task waits as if it had asked for it, and its session with it.",
        "allow the tool in the agent's own settings, or set its permissions; then: drover answer ID",
    ),
    Outcome.CONTEXT_OVERFLOW: Follows(
        "Its session has grown too long for its model.",
        "retried",
        "A new session is told what was done (`soft`).",
        "make the task smaller",
    ),
    Outcome.CRASHED: Follows(
        "It ended by a signal that drover did not send, or without a result.",
        "retried",
        "Its session goes on.",
        "look at its last words (drover logs) and at drover doctor",
    ),
    Outcome.MEMORY: Follows(
        "It and its children needed more memory than there is, or than they may have.",
        "retried",
        "Its session goes on.",
        "run fewer workers (--workers), or make the task smaller",
    ),
    Outcome.QUESTION: Follows(
        "It needs a person to decide something.",
        "asks",
        "The task waits, and its session with it.",
        "drover answer ID; drover info ID shows the question",
    ),
    Outcome.LATER: Follows(
        "It asked to be tried later.",
        "waits",
        "Until the time it named; without one, later and later, at most ten minutes apart.",
        "wait",
    ),
    Outcome.FENCED: Follows(
        "Its worker did not renew the claim in time and lost it; what it still wrote was refused.",
        "goes on",
        "Whoever claims the task next goes on where it stood.",
        "if it happens again: let the machine not sleep while drover runs, or raise claim_timeout",
    ),
    Outcome.INTERRUPTED: Follows(
        "Drover stopped it, or died with it.", "goes on", "The next execution goes on where it stood.", "drover resume"
    ),
    Outcome.VERIFY: Follows(
        "The tests failed on its work merged with the target branch.",
        "retried",
        "The same session is told what failed.",
        "run the tests in $(drover edit ID), put it right, then: drover retry ID",
    ),
    Outcome.CONFLICT: Follows(
        "Its work does not merge with what landed meanwhile.",
        "retried",
        "Of a budget of its own (`landing.conflict_attempts`): the agent is given the conflict to resolve.",
        "resolve it in $(drover edit ID), then: drover retry ID",
    ),
    Outcome.HOOK: Follows(
        "A command of `[hooks]` failed.",
        "retried",
        "The commands that succeeded do not run again.",
        "put the command right, then: drover retry ID",
    ),
    Outcome.REFUSED: Follows(
        "The result holds what may not land.",
        "fails",
        "A retry would make the same.",
        "put it right in $(drover edit ID), then: drover retry ID",
    ),
    Outcome.INTERNAL: Follows(
        "Drover itself, git or the disk failed, not the agent.",
        "waits",
        "The step is tried again, later and later; five times in a row, then the task fails.",
        "see drover logs and drover doctor",
    ),
}

HOPELESS = frozenset(one for one, follows in CLASSES.items() if follows.then == "fails")
# What an agent's report may say that parks the task.
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
        advice = error.advice or CLASSES[outcome].advice
        if outcome is Outcome.CONFLICT:
            # A resolution that others overtook is nobody's fault, and each overtaking is somebody's landing.
            if not error.overtaken and conflicts + 1 > conflict_attempts:
                return Failed(error_class=outcome, message=error.message, advice=advice)
            charge: Literal["conflict", "nothing"] = "nothing" if error.overtaken else "conflict"
            return Retry(error_class=outcome, message=error.message, advice=advice, until=now, charge=charge)
        if outcome in HOPELESS or failures + 1 >= max_attempts:
            return Failed(error_class=outcome, message=error.message, advice=advice)
        until = now + backoff_ms(failures + 1, rng)
        return Retry(error_class=outcome, message=error.message, advice=advice, until=until)
    if isinstance(error, AgentError):
        return Failed(error_class=Outcome.FAILED, message=error.message, advice=error.hint or "drover doctor")
    message = error.message if isinstance(error, DroverError) else f"{type(error).__name__}: {error}"
    later = now + backoff_ms(troubles + 1, rng)
    if says_disk_full(error):
        return Parked(reason="disk_full", detail=message, until=later)
    if isinstance(error, StoreUnavailable):
        return Parked(reason="store", detail=message, until=later)
    if isinstance(error, Unreachable):
        return Parked(reason="remote", detail=message, until=later)
    if troubles + 1 >= TROUBLES_LIMIT:
        return Failed(error_class=Outcome.INTERNAL, message=message, advice="see `drover logs` and `drover doctor`")
    return Parked(reason="internal", detail=message, until=later)

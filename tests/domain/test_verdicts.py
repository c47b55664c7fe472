"""What an exception means for the attempt."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drover.domain.errors import (
    AgentError,
    AttemptFailed,
    DiskFull,
    DroverError,
    GitError,
    LeaseLost,
    OutcomeUnknown,
    StoreError,
    StoreUnavailable,
)
from drover.domain.policy import BACKOFF_FIRST_MS, BACKOFF_LIMIT_MS
from drover.domain.verdicts import (
    CLASSES,
    HOPELESS,
    TROUBLES_LIMIT,
    WAITS,
    Failed,
    Outcome,
    Parked,
    Retry,
    Verdict,
    judge,
)

NOW = 1_000_000


def judged(error: Exception, **changes: int) -> Verdict:
    values: dict[str, Any] = {
        "failures": 0, "conflicts": 0, "troubles": 0, "max_attempts": 3, "conflict_attempts": 2, "now": NOW,
    }  # fmt: skip
    return judge(error, **values | changes, rng=random.Random(1))


@pytest.mark.parametrize("failures", [0, 1])
def test_a_failure_with_attempts_left_is_tried_again_later(failures: int) -> None:
    verdict = judged(AttemptFailed("verify", "3 tests failed", advice="read them"), failures=failures)
    assert isinstance(verdict, Retry)
    assert (verdict.error_class, verdict.message, verdict.advice) == (Outcome.VERIFY, "3 tests failed", "read them")
    assert verdict.charge == "attempt" and NOW < verdict.until <= NOW + BACKOFF_LIMIT_MS


@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize("error", [GitError("away"), AttemptFailed("failed", "no")])
def test_the_first_wait_is_the_shortest_and_each_further_one_twice_as_long(error: Exception, before: int) -> None:
    verdict = judged(error, failures=before, troubles=before, max_attempts=9)
    assert isinstance(verdict, Retry | Parked) and verdict.until is not None
    longest = BACKOFF_FIRST_MS * 2**before
    assert longest / 2 <= verdict.until - NOW <= longest


def test_exactly_the_allowed_number_of_failures_is_made() -> None:
    verdicts = [judged(AttemptFailed("failed", "no"), failures=n, max_attempts=3) for n in range(4)]
    assert [type(v) for v in verdicts] == [Retry, Retry, Failed, Failed]
    assert isinstance(judged(AttemptFailed("failed", "no"), max_attempts=1), Failed)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_says_what_follows_and_what_to_do(outcome: Outcome) -> None:
    follows = CLASSES[outcome]
    assert follows.meaning and follows.how and (follows.advice or outcome is Outcome.DONE)
    assert (follows.then in ("waits", "asks")) == (outcome in WAITS or outcome is Outcome.INTERNAL)
    if follows.then not in ("retried", "fails"):
        return
    verdict = judged(AttemptFailed(outcome, "no"))
    assert isinstance(verdict, Retry if follows.then == "retried" else Failed)
    assert verdict.advice == follows.advice


@pytest.mark.parametrize("outcome", sorted(HOPELESS))
def test_what_a_retry_cannot_help_fails_at_once(outcome: Outcome) -> None:
    verdict = judged(AttemptFailed(outcome, "no"))
    assert isinstance(verdict, Failed) and verdict.error_class is outcome


def test_conflicts_have_a_budget_of_their_own_and_are_tried_again_at_once() -> None:
    verdicts = [judged(AttemptFailed("conflict", "a.py"), conflicts=n, failures=2) for n in range(4)]
    assert [type(v) for v in verdicts] == [Retry, Retry, Failed, Failed]
    assert isinstance(verdicts[0], Retry) and (verdicts[0].until, verdicts[0].charge) == (NOW, "conflict")


def test_a_resolution_that_others_overtook_is_charged_to_nobody() -> None:
    verdict = judged(AttemptFailed("conflict", "a.py", overtaken=True), conflicts=99)
    assert isinstance(verdict, Retry) and (verdict.until, verdict.charge) == (NOW, "nothing")


@pytest.mark.parametrize(
    ("error", "reason"),
    [(DiskFull("full"), "disk_full"), (StoreUnavailable("away"), "store"), (OutcomeUnknown("?"), "store")],
)
def test_a_full_disk_and_an_absent_database_are_waited_out_for_ever(error: DroverError, reason: str) -> None:
    verdict = judged(error, troubles=1_000)
    assert isinstance(verdict, Parked)
    assert (verdict.reason, verdict.detail) == (reason, error.message)
    assert verdict.until is not None and NOW < verdict.until <= NOW + BACKOFF_LIMIT_MS


@pytest.mark.parametrize("error", [GitError("fatal: bad object"), StoreError("refused"), ValueError("surprise")])
def test_trouble_of_our_own_costs_no_attempt_until_it_has_come_too_often_in_a_row(error: Exception) -> None:
    verdicts = [judged(error, troubles=n, failures=2) for n in range(TROUBLES_LIMIT)]
    assert [type(v) for v in verdicts] == [Parked] * (TROUBLES_LIMIT - 1) + [Failed]
    last = verdicts[-1]
    assert isinstance(last, Failed) and last.error_class is Outcome.INTERNAL and str(error) in last.message


def test_an_unexpected_exception_is_named() -> None:
    verdict = judged(KeyError("x"))
    assert isinstance(verdict, Parked) and verdict.detail == "KeyError: 'x'"


def test_an_agent_that_cannot_be_used_fails_with_its_hint() -> None:
    verdict = judged(AgentError("claude is not signed in", hint="claude login"))
    assert isinstance(verdict, Failed) and (verdict.message, verdict.advice) == (
        "claude is not signed in",
        "claude login",
    )


@given(
    st.sampled_from([*Outcome]), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(1, 10),
    st.integers(0, 5), st.integers(),
)  # fmt: skip
def test_no_failure_is_tried_more_often_than_allowed(
    outcome: Outcome, failures: int, conflicts: int, troubles: int, most: int, most_conflicts: int, seed: int
) -> None:
    verdict = judge(
        AttemptFailed(outcome, "no"), failures=failures, conflicts=conflicts, troubles=troubles, max_attempts=most,
        conflict_attempts=most_conflicts, now=NOW, rng=random.Random(seed),
    )  # fmt: skip
    assert isinstance(verdict, Retry | Failed)
    if isinstance(verdict, Retry):
        budget = (conflicts, most_conflicts) if outcome is Outcome.CONFLICT else (failures + 1, most)
        assert budget[0] < budget[1]
        assert verdict.until >= NOW


def test_a_lost_lease_is_no_trouble_of_the_store() -> None:
    assert not isinstance(LeaseLost(), StoreError)  # it ends one life quietly and is never waited out

"""Backoff and heartbeats."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drover.domain.policy import BACKOFF_FIRST_MS, BACKOFF_LIMIT_MS, backoff_ms, heartbeat_ms


@given(st.integers(0, 500), st.integers())
def test_a_wait_is_at_least_half_of_its_doubling_and_never_more_than_the_limit(failures: int, seed: int) -> None:
    whole = min(BACKOFF_LIMIT_MS, BACKOFF_FIRST_MS * 2 ** max(0, failures - 1))
    assert whole / 2 - 1 < backoff_ms(failures, random.Random(seed)) <= whole


def test_waits_are_anywhere_between_the_half_and_the_whole() -> None:
    rng = random.Random(1)
    waits = [backoff_ms(3, rng, first_ms=1_000) for _ in range(200)]
    assert min(waits) < 2_200 and max(waits) > 3_800


def test_waits_are_spread() -> None:
    rng = random.Random(1)
    assert len({backoff_ms(3, rng) for _ in range(50)}) > 40


@pytest.mark.parametrize(
    ("lease", "beat"), [(500, 83), (60_000, 10_000), (300_000, 15_000), (86_400_000, 15_000), (100, 50)]
)
def test_a_lease_lasts_six_beats_and_a_beat_fifteen_seconds_at_most(lease: int, beat: int) -> None:
    assert heartbeat_ms(lease) == beat

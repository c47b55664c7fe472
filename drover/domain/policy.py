"""Arithmetic of leases, heartbeats and backoff. All durations in milliseconds unless a name says otherwise."""

from __future__ import annotations

import random

HEARTBEAT_PER_LEASE = 6
HEARTBEAT_AT_MOST_MS = 15_000
BACKOFF_FIRST_MS = 5_000
BACKOFF_LIMIT_MS = 10 * 60_000


def heartbeat_ms(lease_ms: int) -> int:
    """How often a lease is renewed: a sixth of it, at least every 15 s."""
    return max(50, min(lease_ms // HEARTBEAT_PER_LEASE, HEARTBEAT_AT_MOST_MS))


def backoff_ms(
    failures: int, rng: random.Random, *, first_ms: int = BACKOFF_FIRST_MS, limit_ms: int = BACKOFF_LIMIT_MS
) -> int:
    """The wait before the next try after ``failures`` failed ones: doubling, with half of it jittered."""
    whole = min(limit_ms, first_ms * 2 ** max(0, failures - 1))
    return int(whole / 2 + rng.random() * whole / 2)

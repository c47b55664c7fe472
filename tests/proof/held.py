"""A run whose event loop, or whose whole process, is held at a crossing until another run has done its work.

usage: python -m tests.proof.held DIRECTORY (loop|process) CROSSING [lane] [SEED]

Prints one JSON line as :mod:`tests.proof.bench` does. Nothing is timed: the lease ends while the first is held, the
second takes over and comes to the end, and only then the first goes on, with all it believed. ``lane``: the crossing
is inside of the lane's turn, which the kernel keeps for the held process; there the second comes as far as its claim.
With a seed it goes on at some moment after that claim, wherever the second may be.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from tests.proof.story import CHAIN, Story

LEASE_MS = 3_000
MEETING_S = 2.0  # about what the second needs for the rest of the backlog


def hold(home: Path, how: str, crossing: str, *, in_lane: bool, seed: int | None) -> dict[str, object]:
    story = Story(home / "story", CHAIN, workers=1, DROVER_CLAIM_TIMEOUT=f"{LEASE_MS}ms")
    story.begin()
    held, go = story.root / "held", story.root / "go"

    def meet(name: str, side: str) -> None:
        if f"{name} {side}" != crossing or held.exists():
            return
        story.note(event="fault")
        held.touch()
        if how == "process":
            os.kill(os.getpid(), signal.SIGSTOP)
        while not go.exists():  # on purpose without the event loop
            time.sleep(0.02)
        story.note(event="fault")  # what it does from here on would be paid by nothing else

    first = story.start(meet)
    while not held.exists():
        if os.waitpid(first, os.WNOHANG)[0]:
            return {"points": 1, "hit": 0, "violations": [f"no run comes by {crossing}"]}
        time.sleep(0.02)
    second = story.start()
    entirely = not in_lane and seed is None
    ended = _taken_over(story, second, entirely=entirely)
    if seed is not None:
        time.sleep(random.Random(f"{crossing} {seed}").uniform(0, MEETING_S))
    before = standing(story)
    go.touch()
    os.kill(first, signal.SIGCONT)
    status = os.waitpid(first, 0)[1]
    ended = os.waitpid(second, 0)[1] if ended is None else ended
    found = [f"{name}: {what}" for name, what in story.judge()]
    if status or ended:
        found.append(f"the held run ended with {status}, the other with {ended}")
    if entirely and standing(story) != before:
        found.append("I11: the held run wrote what was no longer its own")
    return {"points": 1, "hit": 1, "violations": [f"{how} held at {crossing}: {what}" for what in found]}


def _taken_over(story: Story, second: int, *, entirely: bool) -> int | None:
    """Wait until the other has ended; or, when the held one keeps the lane shut, until it has claimed what was held."""
    while True:
        pid, status = os.waitpid(second, os.WNOHANG)
        if pid:
            return status
        if not entirely:
            kinds = [event["type"] for event in story.evidence().events]
            if "task.rescued" in kinds and "task.claimed" in kinds[kinds.index("task.rescued") :]:
                return None
        time.sleep(0.05)


def standing(story: Story) -> tuple[object, ...]:
    """What only a holder may change."""
    evidence = story.evidence()
    return (
        evidence.git("for-each-ref", "refs/heads", "refs/drover/target", "refs/drover/lease"),
        evidence.rows("SELECT id, state, fence, attempt, landed_commit, completed_at FROM tasks ORDER BY id"),
        evidence.rows("SELECT task_id, attempt, name, fence FROM steps ORDER BY task_id, attempt, name"),
        evidence.rows("SELECT task_id, fence, state FROM landings ORDER BY task_id, fence"),
    )


if __name__ == "__main__":
    more = sys.argv[4:]
    seeds = [int(word) for word in more if word.isdecimal()]
    found = hold(Path(sys.argv[1]), sys.argv[2], sys.argv[3], in_lane="lane" in more, seed=seeds[0] if seeds else None)
    print(json.dumps(found))

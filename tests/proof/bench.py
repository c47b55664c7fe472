"""Kills a run at chosen crossings, drives the backlog to its end, and lets the judge look.

usage: python -m tests.proof.bench DIRECTORY [--some N --seed S] [--every N --from N] [--share F --then N] [--url URL]

An undisturbed run is told first, and its crossings are counted. ``--some 9`` tries as many of them by the seed,
``--every 8 --from 3`` the crossings 3, 11, 19 and so on to the last there is. With ``--share 0.4 --then 20`` a run of
one task is killed when that share of it is done, and its recovery again at every twentieth crossing of its own.
Prints one JSON line: crossings (of the undisturbed run), points (crossings tried), hit (deaths that happened),
violations in words, and how often each named crossing was the place of a death.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from tests.proof.checker import judge
from tests.proof.story import DIAMOND, ONE, Shape, Story

MISSES_TO_END = 3  # two workers race, so a run may have a crossing less than another


class Bench:
    def __init__(self, home: Path, shape: Shape, url: str | None) -> None:
        self.home, self.shape, self.url = home, shape, url
        self.points = self.hit = 0
        self.violations: list[str] = []
        self.names: Counter[str] = Counter()

    def case(self, at: int, then: int | None = None) -> bool:
        """One death (or two), then the end of the story. Whether every death happened."""
        story = Story(self.home / f"{at}-{then or 0}", self.shape, url=self.url)
        story.begin()
        died = self._kill(story, at)
        if died and then is not None:
            died = self._kill(story, then)
        story.note_tip()
        self._judge(story, f"{at}" + (f" and {then}" if then else ""), died, twice=then is not None)
        story.end()
        self.hit += died
        return died

    def _kill(self, story: Story, at: int) -> bool:
        place = story.root / "died"
        place.unlink(missing_ok=True)
        crossed = count(1)

        def meet(name: str, side: str) -> None:
            if next(crossed) == at:
                place.write_text(f"{name} {side}")
                story.die()

        story.run(meet)
        if not place.exists():
            return False
        self.names[place.read_text()] += 1
        evidence = story.evidence()
        evidence.finished = False
        self.violations += [f"after a death at {place.read_text()}: {name}: {what}" for name, what in judge(evidence)]
        return True

    def _judge(self, story: Story, at: str, died: bool, *, twice: bool) -> None:
        where = (story.root / "died").read_text() if died else "none"
        status = story.run()
        found = [f"{name}: {what}" for name, what in story.judge()]
        if status:
            found.append(f"the next run ended with {status}")
        if twice and not found:
            before = standing(story)
            if story.run() or standing(story) != before:
                found.append("I19: a second recovery changed something")
        self.violations += [f"death at {at} ({where}): {what}" for what in found]

    def sweep(self, points: Iterator[int], there: int) -> None:
        """Try them one by one, until there are no more or a few in a row were behind the end."""
        missed = 0
        for at in points:
            died = self.case(at)
            self.points += died or at <= there
            missed = 0 if died else missed + 1
            if missed == MISSES_TO_END:
                return

    def sweep_twice(self, at: int, every: int) -> None:
        """Each so many crossings of the recovery from one death, to its end."""
        for again in count(1 + at % every, every):
            died = self.case(at, again)
            self.points += died
            if not died:
                return


def standing(story: Story) -> tuple[str, list[dict[str, object]]]:
    """Every ref and every task as it is."""
    evidence = story.evidence()
    return evidence.git("for-each-ref"), evidence.rows("SELECT id, state, fence, attempt, landed_commit FROM tasks")


def crossings(home: Path, shape: Shape, url: str | None) -> list[str]:
    """Every crossing of one undisturbed run, in order."""
    story = Story(home / "count", shape, url=url)
    story.begin()
    log = home / "crossings"
    log.unlink(missing_ok=True)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    story.run(lambda name, side: os.write(handle, f"{name} {side}\n".encode()) and None)
    os.close(handle)
    assert story.judge() == [], story.judge()
    story.end()
    return log.read_text().splitlines()


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tests.proof.bench")
    options.add_argument("home", type=Path)
    options.add_argument("--some", type=int)
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--every", type=int, default=1)
    options.add_argument("--from", type=int, default=1, dest="first")
    options.add_argument("--share", type=float)
    options.add_argument("--then", type=int, default=1)
    options.add_argument("--url")
    chosen = options.parse_args()
    shape = ONE if chosen.share else DIAMOND
    there = len(crossings(chosen.home, shape, chosen.url))
    bench = Bench(chosen.home, shape, chosen.url)
    if chosen.share:
        bench.sweep_twice(max(1, round(there * chosen.share)), chosen.then)
    elif chosen.some:
        bench.sweep(iter(random.Random(chosen.seed).sample(range(1, there + 1), chosen.some)), there)
    else:
        bench.sweep(count(chosen.first, chosen.every), there)
    print(
        json.dumps(
            {
                "crossings": there,
                "points": bench.points,
                "hit": bench.hit,
                "violations": bench.violations,
                "names": dict(bench.names),
            }
        )
    )


if __name__ == "__main__":
    main()

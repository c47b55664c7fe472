"""Random histories of the whole program: runs that die, runs beside one another, an operator's orders, and an end.

usage: python -m tests.proof.histories DIRECTORY --seed S --examples N [--url URL]

Prints one JSON line as :mod:`tests.proof.bench` does; a point is one thing that happened. ``--seed S --examples 1``
tells the history of that seed again (as far as processes that race can be told again).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

from drover import app
from drover.app import Drover
from drover.domain import policy
from drover.domain.errors import DroverError
from tests.proof.checker import Violation, judge
from tests.proof.story import GIT, Shape, Story

TITLES = ("A task", "A task", "FAIL ONCE", "FAIL ALWAYS", "Ein Auftrag: ›x‹ \u202e\x07 --help $(id)")
END_RUNS = 4  # as many as it may take: a failed task waits for its next attempt, and an order may come too late

policy.backoff_ms.__kwdefaults__["first_ms"] = 40  # nobody waits five seconds here
policy.backoff_ms.__kwdefaults__["limit_ms"] = 200


def a_shape(rng: random.Random) -> Shape:
    """Three to seven tasks, each behind some of those before it."""
    tasks: list[tuple[str, tuple[int, ...]]] = []
    for n in range(rng.randint(3, 7)):
        tasks.append((rng.choice(TITLES), tuple(sorted(rng.sample(range(n), min(n, rng.choice([0, 0, 1, 1, 2])))))))
    return tasks


class History:
    def __init__(self, home: Path, seed: int, url: str | None) -> None:
        self.rng = random.Random(seed)
        self.story = Story(home / f"{seed}", a_shape(self.rng), url=url, workers=self.rng.randint(1, 3))
        self.happened: Counter[str] = Counter()
        self.commits = count(1)
        self.put_off: list[str] = []  # files of the operator's, while git says that the index is locked

    def tell(self) -> list[Violation]:
        self.story.begin()
        for _ in range(self.rng.randint(2, 4)):
            runs = [self._run() for _ in range(self.rng.choice([1, 1, 1, 2]))]
            for _ in range(self.rng.randint(0, 3)):
                self.rng.choice([self._order, self._order, self._commit])()
            for run in runs:
                os.waitpid(run, 0)
            self.story.note_tip()
        for run in range(END_RUNS):
            if status := self.story.run():
                return [("I16", f"a run that nobody disturbed ended with {status}")]
            if run == 0:
                self.put_off = [name for name in self.put_off if not self._save(name)]
        if self.put_off:
            return [("I20", f"git cannot commit {self.put_off} when the runs are over")]
        return judge(self.story.evidence())

    def _run(self) -> int:
        """A run in a process of its own; most die at some crossing."""
        at = self.rng.choice([0, *(self.rng.randint(1, 1_200) for _ in range(4))])
        crossed = count(1)
        self.happened["run that dies" if at else "run"] += 1

        def meet(name: str, side: str) -> None:
            if next(crossed) == at:
                self.story.die()

        return self.story.start(meet)

    def _commit(self) -> None:
        """The operator commits a file of their own, where nobody else writes; later if a lock is in the way."""
        self.happened["commit"] += 1
        name = f"own-{next(self.commits)}.txt"
        (self.story.repo / name).write_text("mine\n")
        if not self._save(name):
            self.put_off.append(name)

    def _save(self, name: str) -> bool:
        """Whether git has committed it: a lock that a run left behind as it died is there until the next run."""
        for argv in (["add", name], ["commit", "-q", "-m", name]):
            for _ in range(50):
                done = subprocess.run(
                    ["git", *argv], cwd=self.story.repo, env={**os.environ, **GIT}, capture_output=True, check=False
                )
                if done.returncode == 0:
                    break
            else:
                return False
        self.story.note_tip()
        return True

    def _order(self) -> None:
        order, which = self.rng.choice(ORDERS), self.rng.random()
        self.happened[order.__name__] += 1
        self.story.note(event="fault")  # an order may repeat what was done, as a fault may

        async def give() -> None:
            async with app.open(repo=self.story.repo) as drover:
                tasks = await drover.tasks()
                with suppress(DroverError):
                    await order(drover, tasks[int(which * len(tasks))].id)

        os.waitpid(self.story.fork(give), 0)
        self.story.note(event="fault")


async def cancel(drover: Drover, id: str) -> None:
    await drover.cancel([id], "not wanted")


async def retry(drover: Drover, id: str) -> None:
    await drover.retry([id], force=True)


async def add(drover: Drover, id: str) -> None:
    await drover.add("One more", blocked_by=[id])


async def edit(drover: Drover, id: str) -> None:
    await drover.edit_task(id, title="Another title", priority=7)


async def resolve(drover: Drover, id: str) -> None:
    await drover.resolve(id)


ORDERS: list[Callable[[Drover, str], Awaitable[None]]] = [cancel, retry, add, edit, resolve]


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tests.proof.histories")
    options.add_argument("home", type=Path)
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--examples", type=int, default=1)
    options.add_argument("--url")
    chosen = options.parse_args()
    points, violations = 0, []
    for seed in range(chosen.seed, chosen.seed + chosen.examples):
        history = History(chosen.home, seed, chosen.url)
        found = history.tell()
        points += history.happened.total()
        violations += [f"seed {seed} ({dict(history.happened)}): {name}: {what}" for name, what in found]
        if not found:
            history.story.end()
    print(json.dumps({"points": points, "hit": points, "violations": violations}))


if __name__ == "__main__":
    main()

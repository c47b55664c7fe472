"""The tests of the tests: small wrongs are made in a copy of the tree, and some test must see each.

usage: python -m tests.proof.mutation [--each N] [--seed S] [--areas NAMES] [--workers N] [--out FILE]
       [--reached DIRECTORY] [--most SECONDS] [--whole]

First every quick test is run once and what it reaches is written down; a wrong is then shown to the quickest tests
that reach it, and to the others that do. ``--each`` is how many wrongs of each area are tried, of a list that is
shuffled with the seed. What was tried is kept in the file, a line each, and is not tried again; so a longer run goes
on where a shorter one ended. With ``--whole`` those that nothing saw are shown to runs of the whole program.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import accumulate
from pathlib import Path
from queue import Queue
from typing import Any, NamedTuple

from tests.proof.mutants import Mutant, of_python, of_sql

ROOT = Path(__file__).parents[2]
PARTS = ("drover", "migrations", "tests", "scripts", "docs", "pyproject.toml", "README.md", "CHANGELOG.md", "Makefile")
LONGEST_S = 900
PYTEST = ("-m", "pytest", "-q", "-p", "tests.proof.traced", "-p", "no:cacheprovider", "-m", "not slow")
QUICK = (
    "tests/store tests/domain tests/git tests/engine tests/process tests/cli tests/test_settings.py"
    " tests/test_setting_values.py tests/test_hook_settings.py --deselect tests/git/test_kills.py"
    " --deselect tests/git/test_hostile.py"
)
WHOLE = (
    "tests/e2e/test_promise.py tests/proof/test_histories.py tests/proof/test_held.py tests/proof/test_deaths.py"
    " tests/git/test_kills.py tests/e2e/test_landing.py"
)
FIRST = 25  # tests that are shown a wrong at first
MOST_S = 60  # as long as those may take that are shown it at all


class Area(NamedTuple):
    files: tuple[str, ...]
    last: str  # tests of the whole program, which no record tells to reach it


AREAS = {
    "store": Area(("drover/store/*.py", "drover/store/sql/**/*.sql"), f"tests/store/test_migrations.py {WHOLE}"),
    "lease": Area(
        ("drover/engine/steps.py", "drover/engine/workers.py", "drover/domain/policy.py", "drover/domain/verdicts.py"),
        WHOLE,
    ),
    "landing": Area(
        (
            "drover/engine/landing.py", "drover/engine/lane.py", "drover/engine/train.py", "drover/engine/ride.py",
            "drover/engine/trial.py", "drover/engine/publishing.py", "drover/git/landing.py", "drover/git/checkout.py",
            "drover/git/two_tree.py", "drover/git/commit.py",
        ),
        f"{WHOLE} tests/e2e/test_operators_checkout.py",
    ),
    "recovery": Area(
        (
            "drover/engine/reaper.py", "drover/engine/workplace.py", "drover/engine/keeping.py", "drover/git/locks.py",
            "drover/git/worktree.py", "drover/git/snapshot.py", "drover/process/leftovers.py",
            "drover/process/identity.py",
        ),
        f"{WHOLE} tests/process",
    ),
    "settings": Area(("drover/settings/*.py",), "tests/cli tests/docs"),
}  # fmt: skip


def mutants_of(area: Area) -> Iterator[Mutant]:
    for path in sorted({path for pattern in area.files for path in ROOT.glob(pattern)}):
        of = of_sql if path.suffix == ".sql" else of_python
        yield from of(str(path.relative_to(ROOT)), path.read_text())


class Copy:
    """A tree of its own, in which one file at a time is wrong."""

    def __init__(self, where: Path) -> None:
        self.where = where
        where.mkdir()
        for part in PARTS:
            if (source := ROOT / part).is_dir():
                shutil.copytree(source, where / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, where / part)
        self._stamp = int(time.time()) - 10_000_000

    def put(self, path: str, text: str) -> None:
        """Each text gets a time of its own, so that nobody takes the bytecode of another."""
        self._stamp += 2
        (self.where / path).write_text(text)
        os.utime(self.where / path, (self._stamp, self._stamp))

    def see(self, tests: Sequence[str]) -> str | None:
        """The first test that fails, or that it took too long; None when all pass."""
        if not tests:
            return None
        env = {**os.environ, "PYTHONPATH": str(self.where), "TMPDIR": str(self.where / "tmp")}
        (self.where / "tmp").mkdir(exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, *PYTEST, "-x", "--tb=line", *tests],
            cwd=self.where, env=env, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            said, _ = process.communicate(timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.communicate()
            return "took too long"
        finally:
            shutil.rmtree(self.where / "tmp", ignore_errors=True)
        if process.returncode == 0:
            return None
        lines = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return lines[0][:160] if lines else " / ".join(said.splitlines()[-3:])[:300]


class Reached:
    """Which quick tests reach what: those of the same room first, and early those that come by where few others do."""

    def __init__(self, place: Path, most_s: float = MOST_S) -> None:
        self._most_s = most_s
        lines = [line for file in sorted(place.glob("*.json")) for line in json.loads(file.read_text())]
        self._lines = sorted(lines, key=lambda line: float(line["seconds"]))
        bits: dict[str, int] = {}
        for line in self._lines:
            line["bits"] = sum(1 << bits.setdefault(name, len(bits)) for name in line["functions"])

    def by(self, mutant: Mutant, *, beyond: bool = False) -> list[str]:
        """Those that take no longer than is allowed together, or the others."""
        kind, room = "queries" if mutant.path.endswith(".sql") else "functions", mutant.path.split("/")[1]
        passed = [line for line in self._lines if line["passed"]]
        # What no test reaches is perhaps come by while the module is loaded, by whoever asks for it first.
        reach = [line for line in passed if mutant.place in line[kind]] or passed
        own = [line for line in reach if line["test"].startswith(f"tests/{room}/")]
        found = [*_varied(own), *_varied([line for line in reach if line not in own])]
        sums = accumulate(float(line["seconds"]) for line in found)
        return [line["test"] for line, seconds in zip(found, sums, strict=True) if (seconds >= self._most_s) is beyond]


def _varied(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The quickest; then each time the one that for its time reaches most of what those before it did not."""
    found, left, known = lines[:FIRST], lines[FIRST:], 0
    for line in found:
        known |= line["bits"]
    while left:
        best = max(left, key=lambda line: (line["bits"] & ~known).bit_count() / (float(line["seconds"]) + 0.1))
        if not best["bits"] & ~known:
            break
        left.remove(best)
        found.append(best)
        known |= best["bits"]
    return [*found, *left]


def reach(copy: Copy, place: Path, workers: int) -> None:
    """Run every quick test once, and write down what it reaches. One that fails is shown no wrongs."""
    env = {**os.environ, "PYTHONPATH": str(copy.where), "DROVER_REACHED": str(place)}
    subprocess.run(
        [sys.executable, *PYTEST, "-n", str(workers), *QUICK.split()], cwd=copy.where, env=env, capture_output=True,
        check=False,
    )  # fmt: skip


def try_one(copies: Queue[Copy], reached: Reached, name: str, mutant: Mutant, *, whole: bool) -> dict[str, Any]:
    copy = copies.get()
    began, seen, tests = time.monotonic(), None, reached.by(mutant)
    try:
        copy.put(mutant.path, mutant.make())
        more = [*reached.by(mutant, beyond=True), *AREAS[name].last.split()]
        for stage in [more] if whole else [tests[:FIRST], tests[FIRST:]]:
            seen = seen or copy.see(stage)
    finally:
        copy.put(mutant.path, (ROOT / mutant.path).read_text())
        copies.put(copy)
    return {
        "area": name, "path": mutant.path, "line": mutant.line, "what": mutant.what, "seen": seen,
        "reached": len(tests), "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tests.proof.mutation")
    options.add_argument("--each", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--areas", default=",".join(AREAS), help="some of them, with commas between")
    options.add_argument("--workers", type=int, default=os.cpu_count() or 2)
    options.add_argument("--out", type=Path, default=ROOT / "mutation.jsonl")
    options.add_argument("--reached", type=Path, help="where what the tests reach is kept, once found")
    options.add_argument("--most", type=float, default=MOST_S, help="seconds of quick tests that a wrong is shown to")
    options.add_argument("--whole", action="store_true", help="show those that nothing saw to whole runs")
    chosen = options.parse_args()
    areas = chosen.areas.split(",")
    known = [json.loads(line) for line in chosen.out.read_text().splitlines()] if chosen.out.exists() else []
    if chosen.whole:
        chosen.out.write_text("".join(json.dumps(one) + "\n" for one in known if one["seen"]))
    tried = {key(one) for one in known if one["seen"] or not chosen.whole}
    unseen = {key(one) for one in known if not one["seen"]}
    with tempfile.TemporaryDirectory(prefix="drover-mutation-") as home:
        copies: Queue[Copy] = Queue()
        for n in range(chosen.workers):
            copies.put(Copy(Path(home) / f"tree{n}"))
        place = (chosen.reached or Path(home) / "reached").resolve()
        if not place.exists():
            place.mkdir(parents=True)
            reach(copies.queue[0], place, chosen.workers)
        reached = Reached(place, chosen.most)
        work = [(name, m) for name, m in _chosen(areas, chosen.each, chosen.seed) if tuple(m[:3]) not in tried]
        if chosen.whole:
            work = [(name, m) for name, m in work if tuple(m[:3]) in unseen]
        with ThreadPoolExecutor(chosen.workers) as pool, chosen.out.open("a") as out:
            for done in as_completed(
                [pool.submit(try_one, copies, reached, name, m, whole=chosen.whole) for name, m in work]
            ):
                out.write(json.dumps(done.result()) + "\n")
                out.flush()
    _sum_up([json.loads(line) for line in chosen.out.read_text().splitlines()])


def key(one: dict[str, Any]) -> tuple[str, int, str]:
    return one["path"], one["line"], one["what"]


def _chosen(areas: Sequence[str], each: int, seed: int) -> Iterator[tuple[str, Mutant]]:
    """Of each area so many; one of each in turn, so that a run that is stopped has seen something of all."""
    shuffled = []
    for name in areas:
        found = list(mutants_of(AREAS[name]))
        random.Random(f"{seed}{name}").shuffle(found)
        shuffled.append([(name, mutant) for mutant in found[:each]])
    for row in range(max(len(column) for column in shuffled)):
        yield from (column[row] for column in shuffled if row < len(column))


def _sum_up(tried: list[dict[str, Any]]) -> None:
    all_, seen = Counter(t["area"] for t in tried), Counter(t["area"] for t in tried if t["seen"])
    for area in AREAS:
        there = sum(1 for _ in mutants_of(AREAS[area]))
        print(f"{area:10} {there:5} mutants, {all_[area]:5} tried, {seen[area]:5} seen")
    whole, found = sum(all_.values()), sum(seen.values())
    print(f"in all {found} of {whole} seen, {100 * found / max(1, whole):.1f} %")
    for one in tried:
        if not one["seen"]:
            print(f"  {one['path']}:{one['line']}  {one['what']}")


if __name__ == "__main__":
    main()

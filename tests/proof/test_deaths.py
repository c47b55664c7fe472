"""A run is killed at every crossing of every door; the next one finishes the work, and the judge finds nothing.

Doors are transactions, git commands, births and ends of processes, changes of files, and the steps of a life. The
gate tries a seeded sample of the crossings; ``make proof`` tries all of them.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.proof.plugin import Tally

ROOT = Path(__file__).parents[2]
SEED = 7
USUAL = 700  # crossings of the four tasks, about
SLICES = 12


def bench(home: Path, tally: Tally, *options: object, seed: int | None = None) -> dict[str, Any]:
    home.mkdir(exist_ok=True)
    return run_bench("tests.proof.bench", tally, home, *options, seed=seed)


def run_bench(module: str, tally: Tally, *words: object, seed: int | None = None) -> dict[str, Any]:
    """What a bench counted, in a process of its own because it forks."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    tally(points=found["points"], hit=found["hit"], violations=found["violations"], seed=seed)
    return found


def some(how_many: int, seed: str) -> str:
    return ",".join(map(str, random.Random(seed).sample(range(1, USUAL - 100), how_many)))


@pytest.mark.suite("T2")
@pytest.mark.timeout(600)
def test_a_run_killed_at_some_crossings_finishes_as_if_nothing_had_been(tmp_path: Path, tally: Tally) -> None:
    bench(tmp_path / "bench", tally, "--at", some(9, f"{SEED} gate"), seed=SEED)


@pytest.mark.suite("T3")
@pytest.mark.timeout(600)
def test_a_recovery_killed_at_some_crossings_is_recovered_from(tmp_path: Path, tally: Tally) -> None:
    bench(tmp_path / "bench", tally, "--at", 122, "--then", 45)


@pytest.mark.slow
@pytest.mark.suite("T2")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(1, SLICES + 1))
def test_a_run_killed_at_any_crossing_finishes_as_if_nothing_had_been(tmp_path: Path, part: int, tally: Tally) -> None:
    found = bench(tmp_path / "bench", tally, "--every", SLICES, "--from", part)
    assert found["hit"] > USUAL / SLICES * 0.7, "a sweep goes to the end"


@pytest.mark.slow
@pytest.mark.suite("T2")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(4))
def test_a_run_on_postgres_killed_at_any_crossing_finishes_as_if_nothing_had_been(
    tmp_path: Path, part: int, tally: Tally, empty_database: str
) -> None:
    at = some(40, f"{SEED} postgres {part}")
    bench(tmp_path / "bench", tally, "--at", at, "--url", empty_database, seed=SEED)


@pytest.mark.slow
@pytest.mark.suite("T3")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("at", random.Random(SEED).sample(range(20, 200), 20))
def test_a_recovery_killed_at_any_crossing_is_recovered_from(tmp_path: Path, at: int, tally: Tally) -> None:
    bench(tmp_path / "bench", tally, "--at", at, "--then", 6, seed=SEED)

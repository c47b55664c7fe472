"""A run is killed at every crossing of every door; the next one finishes the work, and the judge finds nothing.

Doors are transactions, git commands, births and ends of processes, changes of files, and the steps of a life. The
gate tries a seeded sample of the crossings; ``make proof`` tries all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.proof.plugin import Tally

ROOT = Path(__file__).parents[2]
SEED = 7
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


@pytest.mark.suite("T2")
@pytest.mark.timeout(600)
def test_a_run_killed_at_some_crossings_finishes_as_if_nothing_had_been(tmp_path: Path, tally: Tally) -> None:
    bench(tmp_path / "bench", tally, "--some", 9, "--seed", SEED, seed=SEED)


@pytest.mark.suite("T3")
@pytest.mark.timeout(600)
def test_a_recovery_killed_at_some_crossings_is_recovered_from(tmp_path: Path, tally: Tally) -> None:
    bench(tmp_path / "bench", tally, "--share", 0.5, "--then", 30)


@pytest.mark.slow
@pytest.mark.suite("T2")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(1, SLICES + 1))
def test_a_run_killed_at_any_crossing_finishes_as_if_nothing_had_been(tmp_path: Path, part: int, tally: Tally) -> None:
    found = bench(tmp_path / "bench", tally, "--every", SLICES, "--from", part)
    assert found["hit"] > found["crossings"] / SLICES * 0.8, "a sweep goes to the end"


@pytest.mark.slow
@pytest.mark.suite("T2")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(1, SLICES + 1))
def test_a_run_on_postgres_killed_at_any_crossing_finishes_as_if_nothing_had_been(
    tmp_path: Path, part: int, tally: Tally, empty_database: str
) -> None:
    found = bench(tmp_path / "bench", tally, "--every", SLICES, "--from", part, "--url", empty_database)
    assert found["hit"] > found["crossings"] / SLICES * 0.8, "a sweep goes to the end"


@pytest.mark.slow
@pytest.mark.suite("T3")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("share", [n / 20 + 0.025 for n in range(20)])
def test_a_recovery_killed_at_any_crossing_is_recovered_from(tmp_path: Path, share: float, tally: Tally) -> None:
    bench(tmp_path / "bench", tally, "--share", share, "--then", 4)

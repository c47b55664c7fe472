"""Random histories of the whole program end well, on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proof.plugin import Tally
from tests.proof.test_deaths import run_bench

SEED = 7


def tell(home: Path, tally: Tally, *options: object, seed: int = SEED) -> None:
    home.mkdir()
    run_bench("tests.proof.histories", tally, home, "--seed", seed, *options, seed=seed)


@pytest.mark.suite("T9")
@pytest.mark.timeout(600)
def test_some_histories_end_well(tmp_path: Path, tally: Tally) -> None:
    tell(tmp_path / "histories", tally, "--examples", 2)


@pytest.mark.slow
@pytest.mark.suite("T9")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(1, 5))
def test_many_histories_end_well(tmp_path: Path, part: int, tally: Tally) -> None:
    tell(tmp_path / "histories", tally, "--examples", 40, seed=SEED + part * 1_000)


@pytest.mark.slow
@pytest.mark.suite("T9")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(5, 7))
def test_many_histories_on_postgres_end_well(tmp_path: Path, part: int, tally: Tally, empty_database: str) -> None:
    tell(tmp_path / "histories", tally, "--examples", 20, "--url", empty_database, seed=SEED + part * 1_000)

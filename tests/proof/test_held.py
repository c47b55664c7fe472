"""Whoever was held up beyond the lease finds the work of another, and changes none of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proof.plugin import Tally
from tests.proof.test_deaths import run_bench

# In the lane's turn a held process keeps everybody else from landing; elsewhere the other comes to the end.
CROSSINGS = {
    "store.Claims.start_agent before": "",
    "store.Claims.start_agent after": "",
    "process.start after": "",
    "git.commit-tree before": "",
    "step.commit_changes after": "",
    "store.Landings.intend before": "lane",
    "store.Landings.intend after": "lane",
    "store.Landings.landed before": "lane",
    "store.Claims.settle before": "",
}


def hold(home: Path, how: str, crossing: str, tally: Tally, *seed: int) -> None:
    home.mkdir()
    run_bench("tests.proof.held", tally, home, how, crossing, CROSSINGS[crossing], *seed)


@pytest.mark.suite("T14")
@pytest.mark.timeout(600)
def test_a_run_whose_loop_was_held_up_changes_nothing_of_what_another_did(tmp_path: Path, tally: Tally) -> None:
    hold(tmp_path / "held", "loop", "store.Claims.start_agent after", tally)


@pytest.mark.slow
@pytest.mark.suite("T14")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("crossing", CROSSINGS)
def test_a_run_whose_loop_is_held_up_anywhere_changes_nothing(tmp_path: Path, crossing: str, tally: Tally) -> None:
    hold(tmp_path / "held", "loop", crossing, tally)


@pytest.mark.slow
@pytest.mark.suite("T12")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("crossing", CROSSINGS)
def test_a_run_that_is_stopped_anywhere_changes_nothing(tmp_path: Path, crossing: str, tally: Tally) -> None:
    hold(tmp_path / "held", "process", crossing, tally)


@pytest.mark.slow
@pytest.mark.suite("T12")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(1, 14))
@pytest.mark.parametrize("crossing", CROSSINGS)
def test_a_run_that_goes_on_beside_its_heir_changes_nothing(
    tmp_path: Path, crossing: str, seed: int, tally: Tally
) -> None:
    hold(tmp_path / "held", "process", crossing, tally, seed)

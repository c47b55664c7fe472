"""Every operation is killed at every point and called again; the world must be whole after that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.proof.plugin import Tally

BENCH = Path(__file__).with_name("kill_bench.py")
ROOT = Path(__file__).parents[2]
OPERATIONS = ("publish", "swap", "absorb", "save", "clone", "rebase", "remove", "lease", "swap by one git")
FEWEST = {"before": 5, "after": 5, "files": 2, "syscalls": 5, "twice": 20}  # fewer points: the bench hits nothing


def sweep(operation: str, kind: str, directory: Path, tally: Tally, *options: str) -> None:
    """Run the bench; every point it counted was hit, and nothing was wrong after any of them."""
    argv = [sys.executable, str(BENCH), operation, kind, str(directory), *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    tally(points=result["points"], hit=result["hit"], violations=result["violations"])
    assert result["hit"] == result["points"] >= FEWEST[kind]


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    directory = tmp_path / "bench"
    directory.mkdir()
    return directory


@pytest.mark.suite("T4")
@pytest.mark.parametrize("kind", ["after", "files"])
def test_a_killed_publishing_is_finished_or_taken_back_by_the_next(kind: str, bench: Path, tally: Tally) -> None:
    sweep("publish", kind, bench, tally)


@pytest.mark.suite("T4")
@pytest.mark.parametrize("operation", ["swap", "swap by one git", "clone", "rebase"])
def test_an_operation_killed_after_any_git_call_is_completed_by_calling_it_again(
    operation: str, bench: Path, tally: Tally
) -> None:
    sweep(operation, "after", bench, tally)


@pytest.mark.suite("T5")
@pytest.mark.parametrize("operation", ["save", "clone", "remove"])
def test_an_operation_killed_before_any_change_of_a_file_is_completed_by_calling_it_again(
    operation: str, bench: Path, tally: Tally
) -> None:
    sweep(operation, "files", bench, tally)


@pytest.mark.suite("T5")
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("operation", ["publish", "rebase", "swap", "absorb", "lease", "swap by one git"])
def test_a_kill_before_any_change_of_a_file_and_an_edit_after_it_harm_nothing(
    operation: str, bench: Path, tally: Tally
) -> None:
    sweep(operation, "files", bench, tally, "all")


@pytest.mark.suite("T4")
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "remove"])
@pytest.mark.parametrize("kind", ["before", "after"])
def test_a_kill_at_any_git_call_and_an_edit_after_it_harm_nothing(
    operation: str, kind: str, bench: Path, tally: Tally
) -> None:
    sweep(operation, kind, bench, tally, "all")


@pytest.mark.suite("T5")
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name not in ("remove", "swap by one git")])
def test_a_kill_inside_of_git_needs_no_hand(operation: str, bench: Path, tally: Tally) -> None:
    sweep(operation, "syscalls", bench, tally, "all")


@pytest.mark.suite("T3")
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("operation", ["publish", "rebase"])
def test_a_recovery_that_is_killed_is_recovered_from(operation: str, bench: Path, tally: Tally) -> None:
    sweep(operation, "twice", bench, tally, "all")

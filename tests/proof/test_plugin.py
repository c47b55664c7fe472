"""The form itself: what is counted is kept, and what hits nothing fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.proof.plugin import lines_of

HERE = Path(__file__).parents[2]
TESTS = """
import pytest


@pytest.mark.suite("T2")
def test_counts(tally): tally(points=5, hit=4, seed=7)

@pytest.mark.suite("T2", "T3")
def test_is_one_point(): pass

@pytest.mark.suite("T4")
def test_hits_nothing(tally): tally(points=5, hit=0)

@pytest.mark.suite("T5")
def test_finds_something(tally): tally(points=1, violations=["landed twice"])

@pytest.mark.suite("T6")
def test_breaks(): assert 1 == 2

@pytest.mark.suite("T7")
@pytest.mark.skipif(True, reason="no such thing here")
def test_is_left_out(): pass

def test_belongs_to_nothing(tally): tally(points=0)
"""

DYING = """
import os, pytest


@pytest.mark.suite("T2")
def test_dies(): os._exit(1)

@pytest.mark.suite("T3")
def test_lives(): pass
"""
LONG_ONES = """
import pytest


@pytest.mark.suite("T2")
def test_quick(): pass

@pytest.mark.suite("T2")
@pytest.mark.slow
def test_slow(): pass

@pytest.mark.suite("T2")
@pytest.mark.timeout(600)
def test_long(): pass

@pytest.mark.suite("T3")
def test_of_another(): pass
"""


def proof_of(tmp_path: Path, *argv: str, tests: str = TESTS) -> dict[str, dict[str, Any]]:
    (tmp_path / "test_some.py").write_text(tests)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    book = tmp_path / "book.json"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.proof.plugin", "--proof", str(book), *argv, str(tmp_path)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(HERE)}, capture_output=True, check=False,
    )  # fmt: skip
    return {line["test"].split("::")[1]: line for line in lines_of(book)}


def test_what_was_counted_is_kept_whoever_ran_the_tests(tmp_path: Path) -> None:
    lines = proof_of(tmp_path, "-n", "1")
    assert len(lines) == 6
    counted = lines["test_counts"]
    assert (counted["points"], counted["hit"], counted["seeds"], counted["violations"]) == (5, 4, [7], [])
    assert (lines["test_is_one_point"]["suites"], lines["test_is_one_point"]["hit"]) == (["T2", "T3"], 1)
    assert "none was hit" in lines["test_hits_nothing"]["violations"][0]
    assert lines["test_finds_something"]["violations"] == ["landed twice"]
    assert "1 == 2" in lines["test_breaks"]["violations"][0]
    left_out = lines["test_is_left_out"]
    assert (left_out["hit"], left_out["skipped"]) == (0, "Skipped: no such thing here")


def test_a_test_whose_process_dies_under_it_is_told(tmp_path: Path) -> None:
    lines = proof_of(tmp_path, "-n", "1", tests=DYING)
    assert lines["test_lives"]["hit"] == 1
    assert lines["test_dies"]["suites"] == [] and "crashed" in lines["test_dies"]["violations"][0]


def test_long_ones_are_begun_first_and_those_of_a_book_are_not_tried_again(tmp_path: Path) -> None:
    known = tmp_path / "known.jsonl"
    known.write_text(json.dumps({"test": "test_some.py::test_slow"}) + '\n{"test": "test_so')
    assert list(proof_of(tmp_path, "--suites", "T2", tests=LONG_ONES)) == ["test_long", "test_slow", "test_quick"]
    (tmp_path / "book.json").unlink()
    assert list(proof_of(tmp_path, "--suites", "T2", "--but", str(known), tests=LONG_ONES)) == [
        "test_long", "test_quick",
    ]  # fmt: skip

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.proof import page
from tests.proof.suites import SUITES

ENTRY = {
    "title": "a title", "points": 7, "hit": 7, "violations": [], "seeds": [], "seconds": 1.0, "left_out": [],
    "commit": "0123456789ab",
}  # fmt: skip
WHERE = {"system": "Linux", "cores": 4, "python": "3.11", "git": "2.39", "sqlite": "3.40"}


@pytest.fixture
def guarantees(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(page, "ROOT", tmp_path)
    monkeypatch.setattr(page, "PAGE", tmp_path / "guarantees.md")
    page.PAGE.write_text(
        "**I1.** Text.\n<!-- counts I1 -->as it was<!-- end -->\n<!-- table -->as it was<!-- end -->\n"
    )
    return page.PAGE


def proven(suites: list[str]) -> None:
    found = {"where": WHERE, "suites": dict.fromkeys(suites, ENTRY)}
    (page.ROOT / "proof.json").write_text(json.dumps(found))


def test_the_counts_of_all_suites_go_into_the_page(guarantees: Path) -> None:
    proven(list(SUITES))
    page.run([])
    text = guarantees.read_text().replace("\n> ", " ")
    assert "as it was" not in text and "7 points, 0 violations" in text and f"{7 * len(SUITES):,} points hit" in text


def test_a_proof_of_some_suites_leaves_the_page_alone(guarantees: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proven(list(SUITES)[1:])
    page.run([])
    assert guarantees.read_text().count("as it was") == 2
    assert next(iter(SUITES)) in capsys.readouterr().out

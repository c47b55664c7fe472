"""The tutorials are typed as they stand, and print what they say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from drover.engine.places import Places
from drover.process import find_marked
from tests.conftest import Git
from tests.docs.pages import DOCS, blocks
from tests.docs.shell import reader

TRAILER = "--format=%(trailers:key=Drover-Task,valueonly,separator=%x2c)"


@pytest.mark.parametrize(
    ("page", "directory", "halves"),
    [("first-parallel-epic.md", "notes", {}), ("resume-after-crash.md", "crash", {"a.txt": 2, "b.txt": 2, "c.txt": 2})],
)
def test_a_tutorial_does_what_it_says(
    page: str, directory: str, halves: dict[str, int], tmp_path: Path, git: Git
) -> None:
    tutorial = DOCS / "tutorials" / page
    home = tmp_path / "reader"
    with reader(home) as person:
        assert person.follow(tutorial) == sum(b.marked("run") for b in blocks(tutorial))
    project = home / directory
    landed = Counter(git(project, "log", "--first-parent", TRAILER, "main").split())
    assert len(landed) == 3
    assert set(landed.values()) == {1}, "each task landed once"
    assert git(project, "status", "--porcelain", "--untracked-files=no") == ""
    for name, lines in halves.items():
        written = (project / name).read_text().splitlines()
        assert len(written) == len(set(written)) == lines, f"{name}: no half is missing, none was written twice"
    assert find_marked(Places(project / ".drover").marker_of_all) == [], "nobody is left at work"

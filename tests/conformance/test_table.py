"""The gate's part of the table: claude's row, where the CLI is in the cache, and the page as it was written last."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.agents.real import needs_claude
from tests.agents.rig import REAL
from tests.conformance import page
from tests.conformance.cells import CELLS
from tests.conformance.scene import Wrong
from tests.docs.pages import ROOT


@needs_claude
def test_claude_keeps_its_row_of_the_table(tmp_path: Path) -> None:
    """All cells at once: most of their time they wait, and so the row takes no longer than its longest."""

    def problem(cell: str) -> str:
        try:
            CELLS[cell](REAL["claude"], tmp_path / cell.replace(" ", "-"))
        except Wrong as wrong:
            return f"{cell}: {wrong}"
        return ""

    with ThreadPoolExecutor(len(CELLS)) as pool:
        assert [found for found in pool.map(problem, CELLS) if found] == []


def test_the_page_is_what_the_last_run_of_the_table_makes() -> None:
    result = json.loads(page.RESULT.read_text())
    assert page.PAGE.read_text() == page.page(result), "run: make conformance"


def test_the_last_run_was_of_the_whole_table_and_of_the_versions_in_the_cache() -> None:
    result = json.loads(page.RESULT.read_text())
    assert set(page.MEANT) == set(CELLS)
    assert list(result["agents"]) == list(REAL)
    assert all(list(agent["cells"]) == list(CELLS) for agent in result["agents"].values())
    installed = (ROOT / "scripts" / "install_agents.py").read_text()
    assert [name for name, agent in result["agents"].items() if f'"{agent["version"]}"' not in installed] == []

"""The Python examples of the how-to on embedding: they run, and print what the page says."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, Block, blocks

PAGE = DOCS / "how-to" / "embed.md"


EXAMPLES = [b for b in blocks(PAGE) if b.info == "python run"]
PRINTED = [b for b in blocks(PAGE) if b.info == "text prints"]


@pytest.mark.parametrize(
    ("example", "wanted"), list(zip(EXAMPLES, PRINTED, strict=True)), ids=[f"line {b.line}" for b in EXAMPLES]
)
def test_an_example_runs_in_a_repository_of_one_commit(example: Block, wanted: Block, repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", example.text],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pattern = re.escape(wanted.text).replace(re.escape("…"), "[0-9a-f]{40}")
    assert re.fullmatch(pattern, done.stdout), done.stdout


@pytest.mark.parametrize("block", [b for b in blocks(PAGE) if b.language == "python"], ids=lambda b: f"line {b.line}")
def test_every_example_calls_what_there_is(block: Block) -> None:
    from drover import app

    tree = (
        ast.parse(block.text, mode="exec") if block.marked("run") else ast.parse(f"async def f():\n{_in(block.text)}")
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "d":
            assert hasattr(app.Drover, node.attr) or hasattr(app.Backlog, node.attr), f"there is no {node.attr}"
        if isinstance(node, ast.ImportFrom) and node.module == "drover.app":
            assert all(hasattr(app, name.name) for name in node.names)


def _in(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())

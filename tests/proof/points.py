"""The fault points by name: where a run of the story crosses a door, and which doors it does not come by."""

from __future__ import annotations

import ast
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.proof.bench import crossings
from tests.proof.story import DIAMOND

STORE = Path(__file__).parents[2] / "drover" / "store"


def run(argv: list[str]) -> int:
    """Print every named point and how often the story comes by it."""
    with tempfile.TemporaryDirectory(prefix="drover-points-") as home:
        crossed = Counter(crossings(Path(home), DIAMOND, None))
    for name, times in sorted(crossed.items()):
        print(f"{times:5} {name}")
    print(f"{len(crossed)} named points, {sum(crossed.values())} crossings in the story of four tasks")
    met = {name.split()[0] for name in crossed}
    others = [verb for verb in writing_verbs() if f"store.{verb}" not in met]
    print(f"{len(others)} verbs that write are not in the story (orders, functions without git, other hosts):")
    print("  " + ", ".join(others))
    return 0


def writing_verbs() -> Iterator[str]:
    """``Claims.claim`` and every other function of the store that asks the database to write."""
    for file in sorted(STORE.glob("*.py")):
        for kind in [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef)]:
            for verb in [node for node in kind.body if isinstance(node, ast.AsyncFunctionDef)]:
                if "_database.write(" in ast.unparse(verb):
                    yield f"{kind.name}.{verb.name}"

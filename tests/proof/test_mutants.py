"""The small wrongs: one thing is changed in each, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from tests.proof.mutants import Mutant, of_python, of_sql
from tests.proof.mutation import FIRST, Reached

CODE = '''\
LIMIT = 3


async def ask(a: int, b: int = 2) -> "str | None":
    """What is asked."""
    log.info("asked")
    if a < b and not a:
        await tell("é", more=True)  # stays
    return a + 1
'''
QUERY = """\
-- name: take
UPDATE tasks SET state = 'running', fence = fence + 1
 WHERE id = :id AND fence = :fence
 ORDER BY priority DESC;
"""


def test_each_wrong_of_python_changes_one_thing() -> None:
    wrongs = {mutant.what: mutant for mutant in of_python("a.py", CODE)}
    changed = {what: [line.strip() for line in _difference(CODE, mutant.make())] for what, mutant in wrongs.items()}
    assert changed == {
        "a < b and (not a) → a < b or not a": ["if (a < b or not a):"],
        "a < b → a <= b": ["if (a <= b) and not a:"],
        "not a → a": ["if a < b and (a):"],
        "await tell('é', more=True): left out": ["pass  # stays"],
        "True → False": ['await tell("é", more=(False))  # stays'],
        "return a + 1 → return None": ["return None"],
        "a + 1 → a - 1": ["return (a - 1)"],
        "1 → 2": ["return a + (2)"],
    }
    assert {mutant.place for mutant in wrongs.values()} == {"a.py:4"}


def test_each_wrong_of_sql_changes_one_thing() -> None:
    changed = {mutant.what: _difference(QUERY, mutant.make()) for mutant in of_sql("a.sql", QUERY)}
    assert changed["AND fence = :fence: left out"] == [" WHERE id = :id "]
    assert changed["state = 'running': not set"] == ["UPDATE tasks SET state = state, fence = fence + 1"]
    assert changed["fence = fence + 1: not set"] == ["UPDATE tasks SET state = 'running', fence = fence"]
    assert changed["ORDER BY priority DESC;: DESC → ASC"] == [" ORDER BY priority ASC;"]
    assert all(len(lines) == 1 for lines in changed.values())
    assert {mutant.place for mutant in of_sql("a.sql", QUERY)} == {"take"}


def _difference(before: str, after: str) -> list[str]:
    return [b for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b]


def test_a_wrong_is_shown_first_to_its_own_room_and_early_to_what_comes_by_elsewhere(tmp_path: Path) -> None:
    place = "drover/engine/lane.py:1"

    def line(test: str, seconds: float, *functions: str, passed: bool = True) -> dict[str, object]:
        return {"test": test, "passed": passed, "seconds": seconds, "functions": functions, "queries": []}

    lines = [line(f"tests/engine/test_a.py::quick_{n}", 0.001, place) for n in range(FIRST)]
    lines += [
        line("tests/cli/test_b.py::quickest", 0.0001, place),
        line("tests/engine/test_a.py::same", 0.1, place),
        line("tests/engine/test_a.py::elsewhere", 0.2, place, "drover/engine/train.py:9"),
        line("tests/engine/test_a.py::long", 50.0, place),
        line("tests/engine/test_a.py::fails", 0.1, place, passed=False),
        line("tests/domain/test_c.py::not there", 0.1, "drover/domain/ids.py:3"),
    ]
    (tmp_path / "1.json").write_text(json.dumps(lines))
    wrong = Mutant("drover/engine/lane.py", 2, "a wrong", place, str)
    reached = Reached(tmp_path, 40)
    shown = [test.partition("::")[2] for test in reached.by(wrong)]
    assert shown == [*(f"quick_{n}" for n in range(FIRST)), "elsewhere", "same"]
    assert [test.partition("::")[2] for test in reached.by(wrong, beyond=True)] == ["long", "quickest"]
    nowhere = wrong._replace(place="drover/engine/lane.py:99")
    assert "tests/domain/test_c.py::not there" in [*reached.by(nowhere), *reached.by(nowhere, beyond=True)]

"""A pytest plugin: which functions and queries of drover each test reaches, and no shrinking where a property fails.

With ``DROVER_REACHED=DIRECTORY`` it writes what was reached; mutation runs ask it which tests may see a wrong.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from hypothesis import Phase, settings

from drover.store import postgres, queries, sqlite

settings.register_profile("mutation", phases=[Phase.explicit, Phase.generate], derandomize=True)
settings.load_profile("mutation")

OURS = str(Path(queries.__file__).parents[1])
_codes: set[CodeType] = set()
_asked: set[str] = set()
_lines: list[dict[str, Any]] = []
_failed: set[str] = set()


class _Asked(dict[str, str]):
    """The queries of a database, and who asks for them."""

    def __getitem__(self, name: str) -> str:
        _asked.add(name)
        return super().__getitem__(name)


def _look(frame: FrameType, event: str, _: object) -> None:
    if event == "call":
        _codes.add(frame.f_code)


if os.environ.get("DROVER_REACHED"):
    for database in (sqlite, postgres):  # each has the function by its own name
        database.load = lambda dialect: _Asked(queries.load(dialect))  # type: ignore[attr-defined]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
        _codes.clear()
        _asked.clear()
        began = time.monotonic()
        threading.setprofile(_look)
        sys.setprofile(_look)
        try:
            return (yield)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]
            reached = {(c.co_filename, c.co_firstlineno) for c in _codes if c.co_filename.startswith(OURS)}
            _lines.append(
                {
                    "test": item.nodeid,
                    "passed": item.nodeid not in _failed,
                    "seconds": time.monotonic() - began,
                    "functions": sorted(f"drover{name[len(OURS) :]}:{line}" for name, line in reached),
                    "queries": sorted(_asked),
                }
            )

    def pytest_runtest_logreport(report: pytest.TestReport) -> None:
        if not report.passed:
            _failed.add(report.nodeid)

    def pytest_sessionfinish() -> None:
        place = Path(os.environ["DROVER_REACHED"])
        (place / f"{os.getpid()}.json").write_text(json.dumps(_lines))

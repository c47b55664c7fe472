"""The marker ``suite``, the fixture ``tally``, and ``--proof FILE``, which keeps what the suites counted."""

from __future__ import annotations

import json
import random
from collections.abc import Generator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.proof.suites import SUITES

KEY = "proof"


@dataclass
class Counted:
    """What one test counted."""

    suites: list[str]
    points: int = 0
    hit: int = 0
    seeds: list[int] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    spoke: bool = False


class Tally:
    """Adds to what the test counted; may be called more than once."""

    def __init__(self, counted: Counted) -> None:
        self._counted = counted

    def __call__(
        self, *, points: int, hit: int | None = None, seed: int | None = None, violations: list[str] | None = None
    ) -> None:
        counted = self._counted
        counted.spoke = True
        counted.points += points
        counted.hit += points if hit is None else hit
        counted.violations += violations or []
        if seed is not None and seed not in counted.seeds:
            counted.seeds.append(seed)


COUNTED = pytest.StashKey[Counted]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--proof", metavar="FILE", type=Path, help="write what each suite of the proof counted")
    parser.addoption("--shuffle", metavar="SEED", type=int, help="run the tests in an order of that number")
    parser.addoption(
        "--suites", metavar="NAMES", help="only tests of these suites of the proof, long ones first: T2,T3"
    )
    parser.addoption("--but", metavar="FILE", type=Path, help="leave out the tests that this book of --proof holds")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "suite(*names): suites of tests/proof/suites.py that the test belongs to")
    if config.getoption("--proof") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Book(config.getoption("--proof")), "proof book")


def pytest_itemcollected(item: pytest.Item) -> None:
    names = [name for marker in item.iter_markers("suite") for name in marker.args]
    if unknown := set(names) - set(SUITES):
        raise pytest.UsageError(f"{item.nodeid}: no suite {', '.join(sorted(unknown))} in tests/proof/suites.py")
    if names:
        item.stash[COUNTED] = Counted(sorted(set(names)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if (seed := config.getoption("--shuffle")) is not None:
        random.Random(seed).shuffle(items)
    if wanted := config.getoption("--suites"):
        names, known = set(wanted.split(",")), {line["test"] for line in lines_of(config.getoption("--but"))}
        mine = [
            i for i in items if COUNTED in i.stash and names & set(i.stash[COUNTED].suites) and i.nodeid not in known
        ]
        config.hook.pytest_deselected(items=[item for item in items if item not in mine])
        items[:] = sorted(mine, key=_patience, reverse=True)


def _patience(item: pytest.Item) -> float:
    """How long it may take, as its author says: a good order when the long ones are to come first."""
    said = item.get_closest_marker("timeout")
    return float(said.args[0]) if said else float(item.get_closest_marker("slow") is not None)


def lines_of(book: Path | None) -> list[dict[str, Any]]:
    """What a book holds; the last line of one that was cut off may be half of one."""
    lines = []
    for line in book.read_text().splitlines() if book and book.exists() else []:
        with suppress(json.JSONDecodeError):
            lines.append(json.loads(line))
    return lines


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Says how many points the test tried; see :mod:`tests.proof`."""
    return Tally(request.node.stash.get(COUNTED, Counted([])))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    counted = item.stash.get(COUNTED, None)
    yield
    if counted is not None and counted.spoke:
        if counted.violations:
            pytest.fail("\n".join(counted.violations))
        if not counted.hit:
            pytest.fail(f"{counted.points} points, and none was hit: this proves nothing")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    counted = item.stash.get(COUNTED, None)
    if counted is None or not (report.when == "call" or report.outcome != "passed"):
        return report
    if not counted.spoke:
        counted.points = counted.hit = int(not report.skipped)
    if report.failed and not counted.violations:
        counted.violations.append(f"{item.nodeid}: {str(call.excinfo.value)[:500] if call.excinfo else 'failed'}")
    report.user_properties.append((KEY, asdict(counted)))
    return report


class _Book:
    """Gathers, in the process that runs the tests or leads those that do, what they counted."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")  # a line each, at once: what was counted before somebody lost patience is kept

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = [counted for key, counted in report.user_properties if key == KEY and isinstance(counted, dict)]
        if report.failed and not found:  # its process died under it, and nobody is left who knows its suites
            found = [asdict(Counted([], violations=[f"{report.nodeid}: {report.longreprtext[-500:]}"]))]
        for counted in found:
            why = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else None
            line = {"test": report.nodeid, **counted, "seconds": round(report.duration, 2), "skipped": why}
            self._write(line | ({"text": report.longreprtext} if report.failed else {}))

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """What ``-v`` says, with the seconds: a proof takes an hour, and whoever waits may see where they go."""
        if report.when != "call" or report.skipped or hasattr(report, "wasxfail"):
            return None
        return report.outcome, ".F"[report.failed], f"{report.outcome.upper()} {report.duration:.0f} s"

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def pytest_sessionfinish(self) -> None:
        self._file.close()

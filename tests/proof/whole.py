"""The whole proof: every suite, slow or not, and ``proof.json`` with what each counted.

With names of suites only those are run, and their entries alone are new; each entry says of which commit it is. What a
run that was cut off had counted is in ``proof.jsonl``; the next run of the same commit goes on behind it.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.proof import page
from tests.proof.plugin import lines_of
from tests.proof.suites import SUITES

ROOT = Path(__file__).parents[2]
PROOF = ROOT / "proof.json"
BOOK = ROOT / "proof.jsonl"
ENDED = {"whole": True}


def run(argv: list[str]) -> int:
    """Run them, write the file and the page, say in a line each what came of it. 1 if anything was violated."""
    workers = os.environ.get("WORKERS", "auto")
    wanted = argv or list(SUITES)
    if unknown := set(wanted) - set(SUITES):
        print(f"there is no suite {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
        return 2
    began = time.monotonic()
    known = _known(_commit())
    code = _tests(wanted, workers, known)
    if code not in (0, 1) and not (code == pytest.ExitCode.NO_TESTS_COLLECTED and known):
        print(f"not all was tried (pytest said {code}); what was is in {BOOK.name}, and `make proof` goes on behind it")
        return 1
    seconds = round(time.monotonic() - began)
    lines = lines_of(BOOK)[1:]
    _note(ENDED)
    before = json.loads(PROOF.read_text()) if PROOF.exists() else {}
    suites = {**before.get("suites", {}), **{name: _entry(name, lines) for name in wanted}}
    PROOF.write_text(json.dumps({"where": _where(), "suites": {n: suites[n] for n in SUITES if n in suites}}, indent=1))
    page.run([])
    died = [what for line in lines if not line["suites"] for what in line["violations"]]
    return _say({name: suites[name] for name in wanted}, seconds, died)


def _known(commit: str) -> list[dict[str, Any]]:
    """The lines of a run of this very code that was cut off, but for those that found something."""
    asked = ["git", "status", "--porcelain", "--", ".", ":!docs/guarantees.md"]
    changed = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    first, *lines = lines_of(BOOK) or [{}]
    if changed.stdout or first != {"commit": commit} or ENDED in lines:
        return []
    return [line for line in lines if not line["violations"]]


def _note(line: dict[str, Any]) -> None:
    with BOOK.open("a") as book:
        book.write(json.dumps(line) + "\n")


def _tests(wanted: list[str], workers: str, known: list[dict[str, Any]]) -> int:
    """Run what is not known yet, and note it in the book; what pytest ended with."""
    for number in (signal.SIGINT, signal.SIGHUP):  # nohup and a shell's & leave them ignored, to drover under test too
        signal.signal(number, signal.default_int_handler)
    BOOK.write_text("")
    for line in ({"commit": _commit()}, *known):
        _note(line)
    with tempfile.TemporaryDirectory(prefix="drover-proof-") as home:
        before = Path(home) / "before.jsonl"  # the book grows, and every worker has to leave out the same
        before.write_text("".join(json.dumps(line) + "\n" for line in known))
        with suppress(KeyboardInterrupt):
            return subprocess.run(
                [sys.executable, "-m", "pytest", "-v", "-n", workers, "--dist", "load", "--maxschedchunk", "1",
                 "--proof", str(BOOK), "--but", str(before), "--suites", ",".join(wanted), "tests"],
                cwd=ROOT, check=False,
            ).returncode  # fmt: skip
        return pytest.ExitCode.INTERRUPTED


def _entry(name: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    mine = [line for line in lines if name in line["suites"]]
    left_out = sorted({line["skipped"].removeprefix("Skipped: ") for line in mine if line["skipped"]})
    return {
        "title": SUITES[name].title,
        "tests": len(mine),
        "points": sum(line["points"] for line in mine),
        "hit": sum(line["hit"] for line in mine),
        "violations": [what for line in mine for what in line["violations"]],
        "seeds": sorted({seed for line in mine for seed in line["seeds"]}),
        "seconds": round(sum(line["seconds"] for line in mine), 1),
        "left_out": left_out,
        "commit": _commit(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _where() -> dict[str, str | int]:
    git = subprocess.run(["git", "version"], capture_output=True, text=True, check=False).stdout.split()
    return {
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "git": git[2] if len(git) > 2 else "",
    }


def missing(name: str, entry: dict[str, Any]) -> str | None:
    """What a suite lacks to be a proof; None when it is one."""
    suite = SUITES[name]
    if entry["hit"] < suite.fewest and not (entry["left_out"] and not suite.everywhere):
        return f"{entry['hit']} points hit, and at least {suite.fewest} are wanted"
    return None


def _say(suites: dict[str, dict[str, Any]], seconds: int, died: list[str]) -> int:
    bad = len(died)
    for name, entry in suites.items():
        short = missing(name, entry)
        bad += bool(entry["violations"]) or short is not None
        print(
            f"{name:4} {entry['title']:22} {entry['points']:7} points {entry['hit']:7} hit "
            f"{len(entry['violations']):3} violations {entry['seconds']:8.1f} s  {short or ''}"
        )
        for what in entry["violations"]:
            print(f"     {what[:300]}")
    for what in died:
        print(f"a test that died with its process: {what[:300]}")
    total = sum(entry["hit"] for entry in suites.values())
    print(f"{len(suites)} suites, {total} points hit, {bad} that fail; {seconds} s on {os.cpu_count()} cores")
    return 1 if bad else 0

"""The whole table, or a part of it.

usage: python -m tests.conformance [--agents A,B] [--cells C,D] [--parallel N] [--write | --json FILE]

``--write`` writes docs/reference/conformance.json and the page beside it; it wants the whole table. The exit code
is 1 when a cell is wrong, or when an agent that was named is not in the cache.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from drover.agents.talk import VERSION
from tests.agents.rig import REAL, Real
from tests.conformance import page
from tests.conformance.cells import CELLS
from tests.conformance.offline import go_offline

# Those that wait for minutes go first, so that the others run beside them.
LONGEST_FIRST = ("429 with retry-after", "529", "network down", "usage limit", "timeout")


def watch(real: Real, cell: str) -> dict[str, Any]:
    """One cell, in a place of its own that is kept only when it is wrong."""
    began, place = time.monotonic(), Path(tempfile.mkdtemp(prefix="conformance-"))
    try:
        seen, ok = CELLS[cell](real, place), True
    except Exception as error:
        seen, ok = f"{error or type(error).__name__} (kept in {place})", False
    else:
        shutil.rmtree(place, ignore_errors=True)
    seconds = round(time.monotonic() - began, 1)
    print(
        f"{real.agent.name:9} {cell:22} {seconds:6.1f} s  {'' if ok else 'WRONG: '}{seen}", file=sys.stderr, flush=True
    )
    return {"ok": ok, "seen": seen, "seconds": seconds}


def version_of(real: Real) -> str:
    said = subprocess.run([*real.argv, "--version"], capture_output=True, text=True, timeout=60, check=False)
    found = VERSION.search(said.stdout + said.stderr)
    return found[0] if found else "unknown"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--agents", default=",".join(REAL))
    parser.add_argument("--cells", default=",".join(CELLS))
    parser.add_argument("--parallel", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    agents, cells = asked.agents.split(","), asked.cells.split(",")
    for asked_for, known in ((agents, REAL), (cells, CELLS)):
        if unknown := [name for name in asked_for if name not in known]:
            parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    if asked.write and (agents, cells) != ([*REAL], [*CELLS]):
        parser.error("--write wants the whole table; --json FILE takes a part")
    how, began = go_offline("tests.conformance"), time.monotonic()
    there = [name for name in agents if not REAL[name].missing]
    work = sorted(((name, cell) for name in there for cell in cells), key=lambda one: one[1] not in LONGEST_FIRST)
    with ThreadPoolExecutor(asked.parallel) as pool:
        seen = dict(zip(work, pool.map(lambda one: watch(REAL[one[0]], one[1]), work), strict=True))
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "offline": how,
        "seconds": round(time.monotonic() - began),
        "cores": os.cpu_count(),
        "agents": {
            name: {
                "version": version_of(REAL[name]) if name in there else "",
                "missing": REAL[name].missing,
                "cells": {cell: seen[name, cell] for cell in cells if name in there},
            }
            for name in agents
        },
    }
    print(page.text(result))
    if asked.json:
        page.write(result, asked.json)
    if asked.write:
        page.write(result)
    return int(len(there) < len(agents) or not all(one["ok"] for one in seen.values()))


if __name__ == "__main__":
    sys.exit(main())

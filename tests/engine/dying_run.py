"""A run that kills itself, its group and all, at one crossing of a door of the database.

usage: dying_run.py PROJECT N POINTS_FILE
N = 0 dies never, and writes the number of crossings. Doors and crossings: tests/proof/doors.py.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import anyio

from drover import app
from tests.proof import doors


async def main() -> None:
    project, at, crossings = Path(sys.argv[1]), int(sys.argv[2]), 0

    def meet(name: str, side: str) -> None:
        nonlocal crossings
        if name.startswith("store."):
            crossings += 1
            if crossings == at:
                os.killpg(0, signal.SIGKILL)

    async with app.open(repo=project) as drover:
        doors.wrap(meet)
        await drover.run(workers=1)
    Path(sys.argv[3]).write_text(str(crossings))


anyio.run(main)

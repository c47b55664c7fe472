"""A run that kills itself, its group and all, at one chosen point: before or after the n-th call of one kind.

usage: dying_run.py PROJECT KIND WHEN N [POINTS_FILE]
KIND is ``write`` (a transaction), ``git`` (a git command). N = 0 dies never and writes the number of points.
The production code knows nothing of this: its doors to the database and to git are wrapped from outside.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio

from drover import app
from drover.git import command
from drover.store.sqlite import SqliteDatabase


class Death:
    def __init__(self, when: str, at: int) -> None:
        self.when, self.at, self.calls = when, at, 0

    async def around(self, call: Callable[[], Awaitable[Any]]) -> Any:
        self.calls += 1
        mine = self.calls == self.at
        if mine and self.when == "before":
            os.killpg(0, signal.SIGKILL)
        value = await call()
        if mine:
            os.killpg(0, signal.SIGKILL)
        return value


def wrap(kind: str, death: Death) -> None:
    if kind == "write":
        write = SqliteDatabase.write

        async def dying_write(self: SqliteDatabase, verb: Any) -> Any:
            return await death.around(lambda: write(self, verb))

        SqliteDatabase.write = dying_write  # type: ignore[method-assign]
    else:
        run = command.process.run

        async def dying_run(argv: Any, **options: Any) -> Any:
            return await death.around(lambda: run(argv, **options))

        class Dying:
            """The process module as git's command module sees it."""

            run = staticmethod(dying_run)

            def __getattr__(self, name: str) -> Any:
                return getattr(process, name)

        process = command.process
        command.process = Dying()  # type: ignore[assignment]


async def main() -> None:
    project, kind, when, at = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    death = Death(when, at)
    async with app.open(repo=project) as drover:
        wrap(kind, death)
        await drover.run(workers=2)
    if len(sys.argv) > 5:
        Path(sys.argv[5]).write_text(str(death.calls))


anyio.run(main)

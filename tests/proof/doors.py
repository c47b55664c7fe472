"""The fault points: every door through which drover has an effect, wrapped from outside.

Production code knows nothing of this. A *crossing* is one passage through a door; it has a name
(``store.Claims.claim``, ``git.update-ref``, ``file.rename``, ``process.start``, ``step.land``) and two sides, before
and after. Somebody who is told of each may kill the process there, raise, or count.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from drover import app  # noqa: F401 - everything that has a door is imported by it
from drover.engine.steps import Run
from drover.git import command
from drover.git.ref_writers import RefWriters
from drover.store.postgres import PostgresDatabase
from drover.store.sqlite import SqliteDatabase

KINDS = ("store", "git", "process", "step", "file")
CHANGES = ("os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.symlink", "os.chmod", "os.truncate")
Meet = Callable[[str, str], None]  # (name, "before" or "after")


def wrap(meet: Meet, *, under: Path | None = None) -> None:
    """Tell ``meet`` of every crossing in this process from now on; of files, those below ``under``."""
    _wrap_store(meet)
    _wrap_git(meet)
    _wrap_processes(meet)
    _wrap_steps(meet)
    if under is not None:
        _watch_files(meet, under)


async def _through(meet: Meet, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
    meet(name, "before")
    value = await call()
    meet(name, "after")
    return value


def name_of_verb(verb: object) -> str:
    """``Claims.claim.<locals>.verb`` is the verb ``Claims.claim``."""
    return str(getattr(verb, "__qualname__", "verb")).split(".<locals>")[0]


def _wrap_store(meet: Meet) -> None:
    for database in (SqliteDatabase, PostgresDatabase):

        async def write(self: Any, verb: Any, write: Any = database.write) -> Any:
            return await _through(meet, f"store.{name_of_verb(verb)}", lambda: write(self, verb))

        database.write = write  # type: ignore[method-assign]


def _wrap_git(meet: Meet) -> None:
    process = command.process

    class Doored:
        """The process module as git's command module sees it."""

        @staticmethod
        async def run(argv: Any, **options: Any) -> Any:
            return await _through(meet, f"git.{subcommand(argv)}", lambda: process.run(argv, **options))

        def __getattr__(self, name: str) -> Any:
            return getattr(process, name)

    command.process = Doored()  # type: ignore[assignment]
    move = RefWriters.move

    async def moved(self: Any, *argv: Any, **options: Any) -> Any:
        return await _through(meet, "git.update-ref", lambda: move(self, *argv, **options))

    RefWriters.move = moved  # type: ignore[method-assign]


def subcommand(argv: Any) -> str:
    """``git --no-pager -c key=value update-ref --stdin`` is ``update-ref``."""
    words = iter(argv[1:])
    for word in words:
        if word in ("-c", "-C"):
            next(words)
        elif not str(word).startswith("-"):
            return str(word)
    return "git"


def _wrap_processes(meet: Meet) -> None:
    supervise = sys.modules["drover.process.supervise"]
    start = supervise.start  # type: ignore[attr-defined]

    async def born(*argv: Any, **options: Any) -> Any:
        return await _through(meet, "process.start", lambda: start(*argv, **options))

    supervise.start = born  # type: ignore[attr-defined]
    for module in [
        m for name, m in sys.modules.items() if name.startswith("drover.engine.") and hasattr(m, "end_marked")
    ]:

        async def ended(*argv: Any, end: Any = module.end_marked, **options: Any) -> Any:
            return await _through(meet, "process.end", lambda: end(*argv, **options))

        module.end_marked = ended  # type: ignore[attr-defined]


def _wrap_steps(meet: Meet) -> None:
    call = Run.__call__

    async def lived(self: Run, step: Any, *argv: Any, **options: Any) -> Any:
        return await _through(meet, f"step.{step.name}", lambda: call(self, step, *argv, **options))

    Run.__call__ = lived  # type: ignore[method-assign]


def _watch_files(meet: Meet, under: Path) -> None:
    """Audit hooks cannot be removed: call it in a process that will end."""

    def look(event: str, args: tuple[object, ...]) -> None:
        if event == "open":
            if not (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)):
                return
        elif event not in CHANGES:
            return
        if isinstance(args[0], str | bytes | os.PathLike) and under in Path(os.fsdecode(args[0])).parents:
            meet(f"file.{event.removeprefix('os.')}", "before")

    sys.addaudithook(look)

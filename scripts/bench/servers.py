"""What the benchmark brings with it: a Postgres for its own time, and DBOS in an environment of its own."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version

from scripts.bench.runner import ROOT

DBOS_VERSION = "3.4.0"
DBOS_HOME = ROOT / ".cache" / "bench-dbos"


@contextmanager
def postgres() -> Iterator[str | None]:
    """The URL of a server of our own, its data in memory; None where none can be started."""
    sys.path.insert(0, str(ROOT))
    from tests import postgres_server as server  # noqa: PLC0415 - needs packages that only developers have

    try:
        made = server.new_data()
    except server.NoServer as why:
        print(f"no Postgres here: {why}", file=sys.stderr)
        yield None
        return
    running = None
    try:
        running = server.start(made)
        yield running.url()
    finally:
        if running is not None:
            server.stop(running)
        with suppress(OSError):
            server.remove(made)


def dbos() -> str | None:
    """The Python that has DBOS, made at first; None where it cannot be installed."""
    python = DBOS_HOME / "bin" / "python"
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(DBOS_HOME)], check=True)
        if subprocess.run([str(python), "-c", "import dbos"], check=False, capture_output=True).returncode:
            wanted = [f"dbos=={DBOS_VERSION}", "psycopg[binary]"]
            subprocess.run([str(python), "-m", "pip", "install", "-q", *wanted], check=True)
    except (OSError, subprocess.CalledProcessError) as why:
        print(f"no DBOS here: {why}", file=sys.stderr)
        return None
    return str(python)


def versions() -> dict[str, str]:
    """What was measured, and with what."""

    def says(*argv: str) -> str:
        done = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, text=True)
        return done.stdout.strip()

    return {
        "commit": says("git", "rev-parse", "HEAD"),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "git": says("git", "--version").removeprefix("git version "),
        "kernel": platform.release(),
        "cores": str(len(os.sched_getaffinity(0))),
        **{name: version(name) for name in ("aiosqlite", "anyio", "asyncpg", "pydantic")},
        "dbos": DBOS_VERSION,
    }

"""Measure everything, print every goal with its ratio, write bench.json and docs/performance.md.

usage: python -m scripts.bench [PART ...]
Parts: engine postgres crash scale quiet command-line git flood. Without any, all of them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio

from scripts.bench import command_line, git_lives, page, quiet, scale, servers
from scripts.bench.goals import Goal, table
from scripts.bench.runner import ROOT, crash, run

TIMES = 9  # pairs of drover and its floor
LIVES = 5  # pairs of one worker and eight; of DBOS as many runs
SEED = 1
FLOOD_MB = 256
Measures = dict[str, Any]


@contextmanager
def place() -> Iterator[Path]:
    """A directory that goes again. Large ones are removed by whoever has the time."""
    made = Path(tempfile.mkdtemp(prefix="drover-bench-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def beside(
    shape: str,
    other: str,
    *,
    times: int = TIMES,
    before: Callable[[], None] = lambda: None,
    url: str = "",
    python: str = sys.executable,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Drover and another runner, one right after the other, several times: the pair whose ratio is the median.

    ``python`` runs the other one.
    """
    pairs = []
    for _ in range(times):
        before()
        pairs.append((run("run_drover.py", shape, url=url), run(other, shape, url=url, python=python)))
    pairs.sort(key=lambda pair: pair[0].seconds / pair[1].seconds)
    ours, theirs = pairs[len(pairs) // 2]
    return ours._asdict(), theirs._asdict()


def engine(m: Measures) -> list[Goal]:
    for shape in ("layered:1000", "indep:1000", "chain:200", "diamond:1000"):
        m[f"sqlite {shape}"], m[f"floor sqlite {shape}"] = beside(shape, "floor_sqlite.py")
    m["sqlite diamond:10000"] = run("run_drover.py", "diamond:10000")._asdict()
    ours, floor = m["sqlite layered:1000"]["seconds"], m["floor sqlite layered:1000"]["seconds"]
    goals = [
        Goal("layered 1,000 on SQLite", ours, "s", 2 * floor, "2 × the group-commit floor"),
        Goal("hop in one process, SQLite", m["sqlite chain:200"]["hop_ms"], "ms", 5, "median"),
        Goal(
            "fan-in of 10,000, per task", m["sqlite diamond:10000"]["seconds"] / 10_000 * 1000, "ms",
            1.5 * m["sqlite diamond:1000"]["seconds"], "1.5 × that of 1,000",
        ),
    ]  # fmt: skip
    if python := servers.dbos():
        mine, peer = beside("layered:1000", "peer_dbos.py", times=LIVES, python=python)
        m["dbos sqlite layered:1000"] = peer
        faster = peer["seconds"] / mine["seconds"]
        goals.append(Goal("layered 1,000 against DBOS steps on SQLite", faster, "×", 10, "faster", True))
    return goals


def postgres(m: Measures) -> list[Goal]:
    with servers.postgres() as url:
        if url is None:
            return []
        for shape in ("layered:1000", "chain:200"):
            m[f"postgres {shape}"], m[f"floor postgres {shape}"] = beside(
                shape, "floor_postgres.py", url=url, before=lambda: _forget(url)
            )
            _forget(url)
        m["hop between processes, postgres, ms"] = quiet.hop_between_processes(url)
    ours, floor = m["postgres layered:1000"]["seconds"], m["floor postgres layered:1000"]["seconds"]
    return [
        Goal("layered 1,000 on Postgres", ours, "s", 2 * floor, "2 × the asyncpg floor"),
        Goal("hop in one process, Postgres", m["postgres chain:200"]["hop_ms"], "ms", 8, "median"),
        Goal("hop between processes, Postgres", m["hop between processes, postgres, ms"], "ms", 10, "median"),
    ]


def _forget(url: str) -> None:
    """Drop what a run has left on the server, so that the next one begins with nothing."""

    async def drop() -> None:
        import asyncpg  # noqa: PLC0415 - only where there is a Postgres

        db = await asyncpg.connect(url)
        for row in await db.fetch("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'drover%'"):
            await db.execute(f'DROP SCHEMA "{row[0]}" CASCADE')
        await db.close()

    anyio.run(drop)


def crashes(m: Measures) -> list[Goal]:
    m["crash"] = crash("run_drover.py", "layered:1000", ms=10)
    m["floor crash"] = crash("floor_sqlite.py", "layered:1000", ms=10)
    if python := servers.dbos():
        m["dbos crash"] = crash("peer_dbos.py", "layered:1000", ms=10, python=python)
    ours, floor = m["crash"], m["floor crash"]
    return [
        Goal("restart after kill -9: first start", ours["first_start_s"], "s", 0.5, "of the restart"),
        Goal("restart after kill -9: all done", ours["all_done_s"], "s", 2 * floor["all_done_s"], "2 × the floor"),
        Goal("completed tasks run again after kill -9", ours["completed_run_again"], "", 0, "none"),
    ]


def backlog(m: Measures) -> list[Goal]:
    with place() as where:
        for size in (1_000, 100_000, 1_000_000):
            m[f"claims {size}"] = anyio.run(scale.claims, where, size)
        m["adding 10,000, s"] = anyio.run(scale.adding, where)
    small, large = m["claims 1000"], m["claims 1000000"]
    return [
        Goal("claim at 1,000,000 queued", large["claim_ms"], "ms", 1.5 * small["claim_ms"], "1.5 × at 1,000"),
        Goal("memory of a backlog of 1,000,000", large["rss_mb"] - small["rss_mb"], "MB", 50, "added"),
        Goal("adding 10,000 tasks", m["adding 10,000, s"], "s", 2, "in one call"),
    ]


def waiting(m: Measures) -> list[Goal]:
    m["idle share"] = quiet.idle_share()
    m["hop between processes, sqlite, ms"] = quiet.hop_between_processes()
    return [
        Goal("idle cost of a waiting run", m["idle share"] * 100, "%", 0.2, "of a core"),
        Goal("hop between processes, SQLite", m["hop between processes, sqlite, ms"], "ms", 50, "median"),
    ]


def prompt(m: Measures) -> list[Goal]:
    with place() as where:
        m["command line"] = found = command_line.measure(where)
    least = found["minimal_ms"]
    return [
        Goal("drover --version", found["version_ms"], "ms", 1.2 * least, "1.2 × the smallest cyclopts program"),
        Goal("status --oneline at 100,000", found["status_ms"], "ms", 2 * least, "2 ×"),
        Goal("first line of list at 100,000", found["list_first_line_ms"], "ms", 3 * least, "3 ×"),
    ]


def lives(m: Measures) -> list[Goal]:
    pairs = []
    for _ in range(LIVES):
        with place() as where:
            bare = git_lives.bare(where / "bare", 1_000, 12)
            one = git_lives.alone("lives", where / "one", 1_000, 12, 1)
            eight = git_lives.alone("lives", where / "eight", 1_000, 64, 8)
        pairs.append((one["seconds_a_task"] / eight["seconds_a_task"], bare, one, eight))
    with place() as where:
        m["life, 20,000 files"] = large = git_lives.alone("lives", where / "large", 20_000, 3, 1)
    faster, bare, one, eight = sorted(pairs, key=lambda pair: pair[0])[LIVES // 2]
    m["bare git, 1,000 files, s"], m["life, 1 worker"], m["life, 8 workers"] = bare, one, eight
    return [
        Goal("whole life with git, 1,000 files", one["seconds_a_task"], "s", 1.3 * bare, "1.3 × bare git"),
        Goal("8 workers over 1", faster, "×", 3, "on 4 cores", True),
        Goal("landings", eight["landings_a_second"], "/s", 15, "one lane", True),
        Goal("20,000 files: claim to agent", large["claim_to_agent_ms"], "ms", 300, "a warm directory"),
    ]


def flood(m: Measures) -> list[Goal]:
    with place() as where:
        m["flood, peak MB"] = git_lives.alone("flood", where, 8, FLOOD_MB)
    return [Goal(f"memory with 8 agents printing {FLOOD_MB} MB each", m["flood, peak MB"], "MB", 80, "resident")]


PARTS: dict[str, Callable[[Measures], list[Goal]]] = {
    "engine": engine, "postgres": postgres, "crash": crashes, "scale": backlog, "quiet": waiting,
    "command-line": prompt, "git": lives, "flood": flood,
}  # fmt: skip


def main() -> None:
    chosen = sys.argv[1:] or list(PARTS)
    measures: Measures = {}
    goals: list[Goal] = []
    seconds: dict[str, float] = {}
    broken: list[str] = []
    load = [os.getloadavg()[0]]
    for name in chosen:
        began = time.monotonic()
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            goals += PARTS[name](measures)
        except Exception:  # noqa: BLE001 - a part that breaks may not cost the figures of the others
            traceback.print_exc()
            broken.append(name)
        seconds[name] = round(time.monotonic() - began, 1)
        load.append(os.getloadavg()[0])
    print(table(goals))
    found = {
        "versions": servers.versions(), "seed": SEED, "times": TIMES, "seconds": seconds, "load": load,
        "goals": [goal.as_dict() for goal in goals], "measures": measures,
    }  # fmt: skip
    (ROOT / "bench.json").write_text(json.dumps(found, indent=1) + "\n")
    if not sys.argv[1:]:
        page.write(found, ROOT / "docs")
    if broken:
        sys.exit(f"not measured: {', '.join(broken)}")


if __name__ == "__main__":
    main()

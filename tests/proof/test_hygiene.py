"""Nothing is left behind by opening and closing, and the tests pass in any order."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import psutil
import pytest

from drover.domain.models import NewTask
from drover.store import open_store
from tests.engine.places import Site
from tests.proof.plugin import Tally

ROOT = Path(__file__).parents[2]
ROUNDS = 15

pytestmark = [pytest.mark.suite("T37"), pytest.mark.anyio]


def holds() -> tuple[int, set[str], int]:
    """Open files, threads that are not the event loop's own helpers, and children."""
    gc.collect()
    me = psutil.Process()
    threads = {t.name for t in threading.enumerate() if "AnyIO worker" not in t.name}
    return me.num_fds(), threads, len(me.children(recursive=True))


async def settled(before: tuple[int, set[str], int]) -> None:
    """Wait until no more is held than before; a thread that was told to end may need a moment for it."""
    with anyio.fail_after(60):
        while True:
            now = holds()
            if now[0] <= before[0] and now[1] <= before[1] and now[2] <= before[2]:
                return
            await anyio.sleep(0.05)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_store_that_was_opened_and_closed_holds_nothing(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, tally: Tally
) -> None:
    url = f"sqlite:///{tmp_path}/a.db" if kind == "sqlite" else request.getfixturevalue("empty_database")

    async def once() -> None:
        async with open_store(url, project_id=f"hygiene-{os.getpid()}", watch=True) as store:
            await store.tasks.add(NewTask(title="a task"))

    await once()  # what is imported or made once
    before = holds()
    for _ in range(ROUNDS):
        await once()
    await settled(before)
    tally(points=ROUNDS)


async def test_runs_leave_no_file_thread_or_process(site: Site, tally: Tally) -> None:
    site.says("echo work > work-$DROVER_TASK_ID.txt")

    async def once() -> None:
        async with site.open() as drover:
            await drover.add("A task")
            await drover.run()

    await once()
    before = holds()
    for _ in range(4):
        await once()
    await settled(before)
    tally(points=4)


WHOLE, QUICK = ["tests/store", "tests/git/test_landing.py"], ["tests/store", "-k", "not postgres"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("seed", "tests"), [(seed, WHOLE if seed < 4 else QUICK) for seed in range(1, 21)])
def test_the_tests_pass_in_any_order(seed: int, tests: list[str], tally: Tally) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "--shuffle", str(seed), "-p", "no:cacheprovider",
         "tests/domain", "tests/test_settings.py", *tests],
        cwd=ROOT, env={**env, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    tally(points=int(done.stdout.split(" passed")[0].split()[-1]), seed=seed)

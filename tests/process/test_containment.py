"""An agent in a PID namespace of its own: where that is permitted, nothing of it outlives its supervisor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from drover import process
from drover.process.containment import find_containment

from .conftest import MakeLaunch, Watcher, alive_with

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(find_containment() is None, reason="a PID namespace is not permitted here"),
]

# A child, and a grandchild in a session of its own; both carry the token.
BROOD = "import os,subprocess,sys,time; a=[sys.executable,'-c','import time; time.sleep(600)',sys.argv[1]]; "
BROOD += "subprocess.Popen(a); subprocess.Popen(a, start_new_session=True); open('ready','w').close(); "


async def until(true: Callable[[], object], what: str) -> None:
    with anyio.move_on_after(60):
        while not true():
            await anyio.sleep(0.02)
        return
    raise AssertionError(f"waited in vain until {what}")


async def test_what_it_says_and_how_it_ends_is_told_as_ever(make_launch: MakeLaunch, watcher: Watcher) -> None:
    launch = make_launch("sh", "-c", "echo out; echo err >&2; echo $WORD; exit 3", contained=True, env={
        "PATH": os.environ["PATH"], "WORD": "given"})  # fmt: skip
    exit = await process.supervise(launch, watcher)
    assert (exit.returncode, exit.signal) == (3, None)
    assert launch.output_path.read_text() == "out\ngiven\n"


async def test_a_kill_of_somebody_else_is_told(make_launch: MakeLaunch, watcher: Watcher) -> None:
    exit = await process.supervise(make_launch("sh", "-c", "kill -9 $$", contained=True), watcher)
    assert (exit.returncode, exit.signal) == (None, 9)


async def test_a_stop_is_gentle_first(make_launch: MakeLaunch, watcher: Watcher, tmp_path: Path) -> None:
    script = "trap 'echo saved > saved; exit 7' TERM; touch ready; while :; do sleep 0.05; done"
    launch = make_launch("sh", "-c", script, grace_s=30, contained=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(process.supervise, launch, watcher)
        await until((tmp_path / "ready").exists, "it works")
        tasks.cancel_scope.cancel()
    exit = process.adopt(launch.record_path)
    assert exit is not None
    assert (exit.returncode, exit.stopped) == (7, "order")
    assert (tmp_path / "saved").exists()


async def test_one_that_is_not_there_says_so(make_launch: MakeLaunch, watcher: Watcher) -> None:
    with pytest.raises(FileNotFoundError):
        await process.supervise(make_launch("/nowhere/at/all", contained=True), watcher)


async def test_nothing_outlives_a_drover_and_a_supervisor_that_are_killed_at_once(
    make_launch: MakeLaunch, tmp_path: Path, token: str
) -> None:
    launch = make_launch(sys.executable, "-c", BROOD + "time.sleep(600)", token, contained=True)
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps([launch.model_dump(mode="json")]))
    lone = subprocess.Popen([sys.executable, str(Path(__file__).with_name("lone_drover.py")), str(spec)])
    try:
        await until((tmp_path / "ready").exists, "it works")
        assert len(alive_with(token)) >= 4  # the first of its namespace, the agent, and what it started
        supervisor = process.parse_identity(launch.record_path.with_name("supervisor").read_text())
        assert supervisor is not None
        lone.send_signal(signal.SIGSTOP)  # so that it cannot clean up after its supervisor
        os.kill(supervisor.pid, signal.SIGKILL)
    finally:
        lone.kill()
        lone.wait()
    await until(lambda: not alive_with(token), "none is alive, and nobody has looked for any")


async def test_where_it_is_not_permitted_that_is_said(
    make_launch: MakeLaunch, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["drover.process.supervise"], "find_containment", lambda: None)
    with pytest.raises(PermissionError, match="PID namespace"):
        await process.supervise(make_launch("true", contained=True), watcher)

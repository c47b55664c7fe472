"""Agents of eight shapes meet every kind of end: nothing of theirs survives, and nobody else is touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from drover import process
from tests.proof.plugin import Tally

from .conftest import MakeLaunch, Watcher, alive_with, until_exists
from .shapes import SHAPES

pytestmark = [pytest.mark.anyio, pytest.mark.suite("T24")]
Strangers = list["subprocess.Popen[bytes]"]


def untouched(strangers: Strangers) -> bool:
    return all(stranger.poll() is None for stranger in strangers)


@pytest.mark.parametrize("shape", SHAPES)
async def test_nothing_survives_an_agent_that_ends(
    shape: str, make_shape: MakeLaunch, watcher: Watcher, token: str, strangers: Strangers
) -> None:
    exit = await process.supervise(make_shape(shape, "ends"), watcher)
    assert alive_with(token) == []
    assert exit.ok
    assert untouched(strangers)


@pytest.mark.parametrize("shape", SHAPES)
async def test_nothing_survives_a_timeout(
    shape: str, make_shape: MakeLaunch, watcher: Watcher, token: str, strangers: Strangers
) -> None:
    exit = await process.supervise(make_shape(shape, "stays", timeout_s=0.3), watcher)
    assert alive_with(token) == []
    assert exit.timed_out
    assert not exit.ok
    assert exit.signal == (signal.SIGKILL if shape == "deaf" else signal.SIGTERM)
    assert untouched(strangers)


@pytest.mark.parametrize("shape", SHAPES)
async def test_nothing_survives_a_cancelled_caller(
    shape: str, make_shape: MakeLaunch, watcher: Watcher, token: str, tmp_path: Path, strangers: Strangers
) -> None:
    launch = make_shape(shape, "stays")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(process.supervise, launch, watcher)
        await until_exists(tmp_path / f"{shape}.ready")
        tasks.cancel_scope.cancel()
    assert alive_with(token) == []
    exit = process.adopt(launch.record_path)
    assert exit is not None
    assert exit.stopped == "order"
    assert untouched(strangers)


@pytest.mark.parametrize("shape", SHAPES)
async def test_hurry_does_away_with_the_grace(
    shape: str, make_shape: MakeLaunch, watcher: Watcher, token: str, tmp_path: Path, strangers: Strangers
) -> None:
    hurry = anyio.Event()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: process.supervise(make_shape(shape, "stays", grace_s=60), watcher, hurry=hurry))
            await until_exists(tmp_path / f"{shape}.ready")
            tasks.cancel_scope.cancel()
            hurry.set()
    assert alive_with(token) == []
    assert untouched(strangers)


async def start_lone_drover(
    make_shape: MakeLaunch, tmp_path: Path
) -> tuple[subprocess.Popen[bytes], list[process.Launch], list[int]]:
    launches = [make_shape(shape, "stays") for shape in SHAPES]
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps([launch.model_dump(mode="json") for launch in launches]))
    lone = subprocess.Popen([sys.executable, str(Path(__file__).with_name("lone_drover.py")), str(spec)])
    await until_exists(*(tmp_path / f"{shape}.ready" for shape in SHAPES))
    identities = [process.parse_identity(launch.record_path.with_name("supervisor").read_text()) for launch in launches]
    return lone, launches, [identity.pid for identity in identities if identity]


async def test_after_a_killed_drover_its_supervisors_end_their_agents(
    make_shape: MakeLaunch, tmp_path: Path, token: str, strangers: Strangers, tally: Tally
) -> None:
    lone, launches, supervisors = await start_lone_drover(make_shape, tmp_path)
    handles = [os.pidfd_open(pid) for pid in supervisors]
    lone.kill()
    lone.wait()
    with anyio.fail_after(60):
        for handle in handles:
            await anyio.wait_readable(handle)
            os.close(handle)
    assert len(handles) == len(SHAPES)
    assert alive_with(token) == []
    exits = [process.adopt(launch.record_path) for launch in launches]
    assert [exit and exit.stopped for exit in exits] == ["orphaned"] * len(SHAPES)
    assert untouched(strangers)
    tally(points=len(SHAPES))


async def test_after_a_killed_drover_and_killed_supervisors_the_marker_finds_all(
    make_shape: MakeLaunch, tmp_path: Path, token: str, strangers: Strangers, tally: Tally
) -> None:
    lone, launches, supervisors = await start_lone_drover(make_shape, tmp_path)
    os.kill(lone.pid, signal.SIGSTOP)  # so that it cannot clean up after its supervisors
    for pid in supervisors:
        os.kill(pid, signal.SIGKILL)
    lone.kill()
    lone.wait()
    assert alive_with(token)
    async with anyio.create_task_group() as tasks:
        for launch in launches:
            tasks.start_soon(process.end_marked, launch.marker, 0.3)
    assert alive_with(token) == []
    assert all(process.adopt(launch.record_path) is None for launch in launches)
    assert untouched(strangers)
    tally(points=len(SHAPES))


async def test_a_killed_supervisor_is_replaced_by_drover_itself(
    make_shape: MakeLaunch, watcher: Watcher, tmp_path: Path, token: str
) -> None:
    exits: list[process.Exit] = []

    async def supervise() -> None:
        exits.append(await process.supervise(make_shape("double_fork", "stays"), watcher))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(supervise)
        await until_exists(tmp_path / "double_fork.ready")
        assert watcher.identity is not None
        os.kill(watcher.identity.pid, signal.SIGKILL)
    assert exits[0].lost
    assert alive_with(token) == []

"""Doors that one process at a time goes through: who is inside, since when, and what a person is told of it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from drover.engine import gate
from drover.engine.gate import find_holder, find_standstills, only_one_at_a_time
from drover.engine.places import Places
from drover.process import current_identity

pytestmark = pytest.mark.anyio
HOLD = """\
import anyio, sys
from pathlib import Path
from drover.engine.gate import only_one_at_a_time
async def main():
    async with only_one_at_a_time(Path(sys.argv[1])):
        print("in", flush=True)
        sys.stdin.read()
anyio.run(main)
"""
MINUTE = 60_000


@contextmanager
def somebody_in(door: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has gone in, and stays until it is told or killed."""
    argv = [sys.executable, "-c", HOLD, str(door)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdin is not None
    try:
        assert process.stdout.readline() == "in\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def stopped(process: subprocess.Popen[str]) -> Iterator[None]:
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    yield
    os.kill(process.pid, signal.SIGCONT)
    os.waitid(os.P_PID, process.pid, os.WCONTINUED)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


async def test_who_is_inside_can_be_told_and_only_while_it_is(places: Places) -> None:
    door, began = places.state / "lane.lock", time.time() * 1000
    assert find_holder(door) is None
    async with only_one_at_a_time(door):
        inside = find_holder(door)
        assert inside is not None and inside.process == current_identity()
        assert began - 1_000 < inside.since < time.time() * 1000 + 1_000
    assert find_holder(door) is None
    with somebody_in(door) as process:
        inside = find_holder(door)
        assert inside is not None and inside.process is not None
        assert (inside.process.pid, inside.stopped) == (process.pid, False)
    assert find_holder(door) is None, "the kernel takes it from the dead"


async def test_a_door_that_was_not_signed_has_somebody_behind_it(places: Places) -> None:
    door = places.state / "lane.lock"
    with door.open("ab") as file:
        assert find_holder(door) is None
        gate.fcntl.flock(file, gate.fcntl.LOCK_EX)
        inside = find_holder(door)
        assert inside is not None and inside.process is None
        (line,) = find_standstills(places, inside.since + MINUTE)
        assert "a process that has not said which it is" in line.says


@pytest.mark.parametrize("door", ["lane.lock", "publishing.lock", "start.lock"])
async def test_a_process_that_is_stopped_inside_is_told_at_once_with_what_to_type(places: Places, door: str) -> None:
    with somebody_in(places.state / door) as process:
        now = int(time.time() * 1000)
        assert find_standstills(places, now) == []
        with stopped(process):
            (found,) = find_standstills(places, now)
            assert found.stopped and f"process {process.pid}, which is stopped" in found.says
            assert found.advice.startswith(f"kill -CONT {process.pid}")
            assert f"kill -KILL {process.pid}" in found.advice
        assert find_standstills(places, now) == []


async def test_a_long_turn_of_the_lane_is_told_and_a_long_publication_is_not(places: Places) -> None:
    with somebody_in(places.state / "lane.lock") as process, somebody_in(places.state / "publishing.lock"):
        inside = find_holder(places.state / "lane.lock")
        assert inside is not None
        assert find_standstills(places, inside.since + 9_000) == []
        (found,) = find_standstills(places, inside.since + 3 * MINUTE)
        assert found.says.startswith(f"landings wait: process {process.pid} has been at lane.lock since ")
        assert not found.stopped and found.advice.startswith(f"if process {process.pid} hangs")


async def test_who_waits_long_says_for_whom_and_goes_in_when_it_may(
    places: Places, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "TOLD_AFTER_S", 0.1)
    door = places.state / "lane.lock"
    with somebody_in(door) as process, caplog.at_level(logging.WARNING, "drover"), anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            entered = anyio.Event()

            async def enter() -> None:
                async with only_one_at_a_time(door):
                    entered.set()

            group.start_soon(enter)
            while not caplog.messages:
                await anyio.sleep(0.01)
            assert not entered.is_set()
            process.kill()
            await entered.wait()
    (said,) = caplog.messages
    assert f"process {process.pid}" in said


async def test_a_disk_without_room_for_a_name_keeps_nobody_out(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    door = places.state / "lane.lock"
    async with only_one_at_a_time(door):
        inside = find_holder(door)
        assert inside is not None and inside.process is None

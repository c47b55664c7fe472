"""A child that is spoken with: everything arrives, its end is noticed, and nothing of it is left."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from drover.process import birth
from drover.process.spawn import start

pytestmark = pytest.mark.anyio
ENV = {"PATH": os.environ["PATH"]}


@pytest.fixture(params=["by the C library", "by the standard library"], autouse=True)
def born(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "by the standard library":
        monkeypatch.setattr(birth, "_library", lambda: None)


async def test_what_is_more_than_a_pipe_holds_arrives_and_comes_back() -> None:
    child = await start(["cat"], cwd=None, env=ENV, stdin=True)
    data, heard = os.urandom(500_000), b""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(child.tell, data)
        async for chunk in child.said():
            heard += chunk
            if len(heard) == len(data):
                break
    assert heard == data
    await child.end()
    assert child.returncode == -9


async def test_two_who_speak_at_once_are_not_mixed() -> None:
    child = await start(["cat"], cwd=None, env=ENV, stdin=True)
    heard = b""
    async with anyio.create_task_group() as tasks:
        for letter in (b"a", b"b"):
            tasks.start_soon(child.tell, letter * 200_000)
        async for chunk in child.said():
            heard += chunk
            if len(heard) == 400_000:
                break
    assert heard in (b"a" * 200_000 + b"b" * 200_000, b"b" * 200_000 + b"a" * 200_000)
    await child.end()


async def test_its_end_is_noticed_and_who_speaks_to_it_then_is_not_troubled() -> None:
    child = await start(["sh", "-c", "echo out; echo err >&2; exit 3"], cwd=None, env=ENV, stdin=True)
    assert [chunk async for chunk in child.said()] == [b"out\n"]
    assert [chunk async for chunk in child.complained()] == [b"err\n"]
    with anyio.fail_after(60):
        assert await child.wait() == 3
    await child.tell(b"are you there?\n")
    child.kill()
    await child.end()
    assert child.returncode == 3


async def test_it_is_ended_reaped_and_leaves_no_file_open() -> None:
    await (await start(["true"], cwd=None, env=ENV, stdin=False)).end()
    before = os.listdir("/proc/self/fd")
    child = await start(["sleep", "300"], cwd=None, env=ENV, stdin=True)
    with anyio.move_on_after(0.05):
        await child.wait()
    await child.end()
    assert not Path(f"/proc/{child.pid}").exists()
    assert len(os.listdir("/proc/self/fd")) == len(before)


async def test_a_program_that_is_not_there_is_said_at_once() -> None:
    with pytest.raises(FileNotFoundError):
        await start(["/nowhere/program"], cwd=None, env=ENV, stdin=True)

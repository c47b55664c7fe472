"""A run told to stop: what has landed is finished, what has not is given back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest

from drover.domain.errors import GitError
from drover.domain.states import Status
from drover.engine import publishing, workplace
from drover.engine.workers import Stop
from tests.engine.places import Site

pytestmark = pytest.mark.anyio


def interrupt(
    monkeypatch: pytest.MonkeyPatch, room: Any, name: str, stop: Stop, again: Exception | None = None
) -> None:
    """The run is told to stop when it comes to that call, which does not end before it was; the next one does."""
    work: Callable[..., Awaitable[Any]] = getattr(room, name)
    calls = []

    async def interrupted(*given: Any, **named: Any) -> Any:
        if len(given) == 2:  # of a task, not of the run as a whole
            calls.append(given)
        if len(calls) == 1:
            stop.soft()
            await anyio.sleep_forever()
        if again is not None:
            raise again
        return await work(*given, **named)

    monkeypatch.setattr(room, name, interrupted)


@pytest.mark.parametrize(("room", "name"), [(workplace, "remove"), (publishing, "publish")])
async def test_what_has_landed_is_completed_before_the_run_ends(
    site: Site, monkeypatch: pytest.MonkeyPatch, room: Any, name: str
) -> None:
    stop = Stop()
    async with site.open() as drover:
        task = await drover.add("First")
        interrupt(monkeypatch, room, name, stop)
        await drover.run(workers=1, stop=stop)
        done = await drover.task(task.id)
    assert (done.status, done.attempt, done.interruptions) == (Status.COMPLETED, 1, 0)
    assert "First" in site.git("log", "--format=%s", "main")


async def test_what_cannot_be_finished_is_left_to_the_next_run(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Stop()
    async with site.open() as drover:
        task = await drover.add("First")
        with monkeypatch.context() as patch:
            interrupt(patch, workplace, "remove", stop, again=GitError("the disk is away"))
            await drover.run(workers=1, stop=stop)
        assert (await drover.task(task.id)).status is Status.READY
        await drover.run(workers=1)
        assert (await drover.task(task.id)).status is Status.COMPLETED
    assert site.git("log", "--format=%s", "main").splitlines().count("First") == 1


async def test_a_stop_begins_no_command_of_the_operators(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    told = site.top / "told"
    site.configure(f'[hooks]\npost_land = "echo x >> {told}; test $(wc -l < {told}) = 2 || sleep 60"\n')
    stop = Stop()
    async with site.open() as drover:
        await drover.approve_hooks()
        task = await drover.add("First")
        async with anyio.create_task_group() as group:
            group.start_soon(partial(drover.run, workers=1, stop=stop))
            await site.eventually(told)
            stop.soft()
        assert (await drover.task(task.id)).status is Status.READY
        assert told.read_text() == "x\n"
        await drover.run(workers=1)
        assert (await drover.task(task.id)).status is Status.COMPLETED

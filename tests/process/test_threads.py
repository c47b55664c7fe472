"""Work in threads: answered, lived to its end, and forgotten when nobody is left who asked."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import anyio
import pytest

from drover.process import threads
from drover.process.threads import in_thread

pytestmark = pytest.mark.anyio


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "drover worker thread"]


async def test_it_returns_and_raises_what_the_function_does() -> None:
    assert await in_thread(lambda a, b: a + b, 1, 2) == 3
    assert await in_thread(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await in_thread(lambda: next(iter([])))
    with pytest.raises(SystemExit):
        await in_thread(exit_now)


def exit_now() -> None:
    raise SystemExit(3)


async def test_whoever_is_cancelled_already_begins_nothing_and_whoever_is_later_sees_it_through() -> None:
    done: list[str] = []
    begun, go = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go.wait(60)
        done.append("slow")

    with anyio.CancelScope() as scope:
        scope.cancel()
        await in_thread(done.append, "never")
    assert done == []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(in_thread, slow)
        await in_thread(begun.wait, 60)
        tasks.cancel_scope.cancel()
        threading.Timer(0.05, go.set).start()
    assert done == ["slow"]


async def test_one_that_is_abandoned_goes_on_by_itself() -> None:
    begun, go, over = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go.wait(60)
        over.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: in_thread(slow, abandon=True))
        await in_thread(begun.wait, 60)
        tasks.cancel_scope.cancel()
    assert not over.is_set()
    go.set()
    assert await in_thread(over.wait, 60)


async def test_more_than_there_are_threads_for_waits_its_turn() -> None:
    gate, running, most, guard = threading.Event(), 0, 0, threading.Lock()

    def work() -> None:
        nonlocal running, most
        with guard:
            running += 1
            most = max(most, running)
            if running == threads.MOST:
                gate.set()
        gate.wait(60)
        with guard:
            running -= 1

    async with anyio.create_task_group() as tasks:
        for _ in range(3 * threads.MOST):
            tasks.start_soon(in_thread, work)
    assert most == threads.MOST


def test_threads_end_when_idle_and_keep_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE_S", 0.05)
    before = set(ours())

    async def main() -> weakref.ref[object]:
        import asyncio

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(in_thread, time.sleep, 0.01)
        for _ in range(20):  # some come just when a thread gives up
            await anyio.sleep(0.05)
            await in_thread(int)
        return weakref.ref(asyncio.get_running_loop())

    loop = anyio.run(main)
    for thread in set(ours()) - before:
        thread.join(60)
        assert not thread.is_alive()
    gc.collect()
    assert loop() is None

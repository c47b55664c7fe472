"""Does short work in a thread. A life asks for that fifty times, and what anyio's own way does besides adds up.

The event loop is asyncio's. Threads are kept with the loop that they work for, and end when they have been idle.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, TypeVarTuple, Unpack
from weakref import WeakKeyDictionary

import anyio

MOST = 40
IDLE_S = 10.0

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


async def in_thread(
    function: Callable[[Unpack[Arguments]], Result], *args: *Arguments, abandon: bool = False
) -> Result:
    """What the function returns or raises. Not begun when the caller is cancelled, but then lived to its end.

    With ``abandon`` a caller who is cancelled goes, and the thread goes on by itself.
    """
    await anyio.lowlevel.checkpoint_if_cancelled()
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Result] = loop.create_future()
    pool = _pools.get(loop)
    if pool is None:
        pool = _pools[loop] = _Pool()
    pool.put(answer, function, args)
    if abandon:
        return await answer
    with anyio.CancelScope(shield=True):
        result = await answer
    return result  # noqa: RET504 - mypy: a cancel scope might swallow what is raised in it


class _Pool:
    """The threads of one loop; it does not keep the loop, or the loop would keep it for ever."""

    def __init__(self) -> None:
        self._work: SimpleQueue[tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._free = 0  # threads that wait, less the work that waits for them

    def put(self, answer: asyncio.Future[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        with self._lock:
            self._free -= 1
            more = self._free < 0 and self._threads < MOST
            self._threads += more
        self._work.put((answer, function, args))
        if more:
            threading.Thread(target=self._serve, name="drover worker thread", daemon=True).start()

    def _serve(self) -> None:
        while True:
            with self._lock:
                self._free += 1
            try:
                answer, function, args = self._work.get(timeout=IDLE_S)
            except Empty:
                with self._lock:
                    if self._free <= 0:  # something was put just now
                        self._free -= 1
                        continue
                    self._free -= 1
                    self._threads -= 1
                    return
            _do(answer, function, args)
            del answer, function, args  # what was answered is not held while there is nothing to do


def _do(answer: asyncio.Future[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    result: object = None
    failed: BaseException | None = None
    try:
        result = function(*args)
    except StopIteration as error:  # which no future takes
        failed = RuntimeError("StopIteration was raised")
        failed.__cause__ = error
    except BaseException as error:  # noqa: BLE001 - it is the caller's
        failed = error
    with suppress(RuntimeError):  # the loop is closed, its caller has gone
        answer.get_loop().call_soon_threadsafe(_settle, answer, result, failed)


def _settle(answer: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if answer.done():  # its caller was cancelled
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)


_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool] = WeakKeyDictionary()

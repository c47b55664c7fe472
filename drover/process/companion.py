"""A child that is spoken with for as long as it lives, by the event loop itself."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress

import anyio

from drover.process.birth import Child
from drover.process.command import CHUNK

LOOK_S = 0.02  # where nothing tells of the end of a child


class Companion:
    """Its pipes are read and written by whoever awaits them; nothing is buffered here, and nobody watches beside."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self.pid = child.pid
        self.returncode: int | None = None
        self._mouth = anyio.Lock()
        self._pipes = [pipe for pipe in (child.stdin, child.stdout, child.stderr) if pipe >= 0]
        for pipe in self._pipes:
            os.set_blocking(pipe, False)

    async def tell(self, data: bytes) -> None:
        """Returns when it has been written, or when the child does not listen any more."""
        left = memoryview(data)
        async with self._mouth:
            with suppress(BrokenPipeError):
                while left:
                    try:
                        left = left[os.write(self._child.stdin, left) :]
                    except BlockingIOError:
                        await anyio.wait_writable(self._child.stdin)

    def said(self) -> AsyncIterator[bytes]:
        """What it prints, until it has closed its output."""
        return self._chunks(self._child.stdout)

    def complained(self) -> AsyncIterator[bytes]:
        """The same of its errors."""
        return self._chunks(self._child.stderr)

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        while (code := self.poll()) is None:
            if not hasattr(os, "pidfd_open"):
                await anyio.sleep(LOOK_S)
                continue
            with suppress(ProcessLookupError):  # somebody else has reaped it
                handle = os.pidfd_open(self.pid)
                try:
                    await anyio.wait_readable(handle)
                finally:
                    os.close(handle)
        return code

    def poll(self) -> int | None:
        """The same if it has ended, else None."""
        self.returncode = self._child.poll()
        return self.returncode

    def kill(self) -> None:
        """At once; nothing happens when it has ended."""
        if self.poll() is None:  # until it is reaped its pid is its own
            os.kill(self.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Kill it if it is there, reap it, and let go of its pipes. Lived to its end."""
        with anyio.CancelScope(shield=True):
            self.kill()
            await self.wait()
        for pipe in self._pipes:
            os.close(pipe)

    async def _chunks(self, pipe: int) -> AsyncIterator[bytes]:
        while True:
            try:
                chunk = os.read(pipe, CHUNK)
            except BlockingIOError:
                await anyio.wait_readable(pipe)
                continue
            if not chunk:
                return
            yield chunk

"""A door that one process at a time goes through."""

from __future__ import annotations

import fcntl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

LOOK_AGAIN_S = 0.02  # flock has no wait that can be cancelled; the door is closed for milliseconds


@asynccontextmanager
async def only_one_at_a_time(path: Path) -> AsyncGenerator[None]:
    """Hold an exclusive lock on the file; the kernel gives it back when the process dies."""
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                await anyio.sleep(LOOK_AGAIN_S)
        yield

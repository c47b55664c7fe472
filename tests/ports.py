"""Ports for what is stopped and started again under the same address."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

PORTS = range(20_000, 30_000)  # below those that a kernel hands out to whoever asks for any
HELD: list[IO[str]] = []


def hold_port() -> int:
    """A port that is this process's own for as long as it lives, also while nothing listens there.

    One of the kernel's, given back for a moment, may come to be a stranger's end of some connection: among several
    processes that run tests this happens within hours.
    """
    shared = Path("/tmp")  # whatever TMPDIR says: the tests of a mutation have one of their own
    place = (shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())) / f"drover-ports-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        lock = (place / f"{port}").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            lock.close()
            continue
        HELD.append(lock)
        return port
    raise OSError(f"no port is free from {PORTS.start} to {PORTS.stop}")

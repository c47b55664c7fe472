"""Ten ports for an execution: leased in the store, kept apart from other projects', and found to be free."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from drover.domain.models import Claim
from drover.engine.tools import Tools
from drover.store.ports import BLOCK

FAMILIES = (socket.AF_INET, socket.AF_INET6)


@asynccontextmanager
async def ten(tools: Tools, claim: Claim) -> AsyncGenerator[int | None]:
    """The first of ten ports in a row that nothing listens on and no other execution on this host has.

    Held until the context is left. None when there is no such block. A program that is not drover's
    may still take one of them later: nobody can prevent that.
    """
    unusable: set[int] = set()
    first = claim.first_port
    with ExitStack() as stack:
        while first is not None and not (_are_free(first) and stack.enter_context(_reserved(first))):
            unusable.add(first)
            first = await tools.store.ports.exchange(claim, tools.host, unusable=unusable)
        yield first


def _are_free(first: int) -> bool:
    """Whether each can be bound, on all addresses of either kind; microseconds."""
    return all(_is_free(port, family) for port in range(first, first + BLOCK) for family in FAMILIES)


def _is_free(port: int, family: socket.AddressFamily) -> bool:
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one in TIME_WAIT is free
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(("", port))
    except OSError as error:
        return error.errno not in (errno.EADDRINUSE, errno.EACCES)  # otherwise there is no such kind of address here
    return True


@contextmanager
def _reserved(first: int) -> Iterator[bool]:
    """Keep the block from the user's other projects, whose stores know nothing of this one; False when one has it.

    The kernel gives a lock back when its process dies. Without a directory for locks it is done without them.
    """
    handle = _open_lock(first)
    try:
        yield handle is None or _lock(handle)
    finally:
        if handle is not None:
            os.close(handle)


def _open_lock(first: int) -> int | None:
    place = Path(tempfile.gettempdir()) / f"drover-ports-{os.getuid()}"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return None  # in a directory that everybody may write into, anybody may have put it there
        return os.open(place / str(first), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

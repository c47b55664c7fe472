"""Doors that one process at a time goes through, and who has been inside of one for too long."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import anyio

from drover.domain.models import ProcessIdentity
from drover.engine.places import Places

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 0.02  # flock has no wait that can be cancelled; the door is closed for milliseconds
TOLD_AFTER_S = 10.0  # so long nobody is in the lane who is well
NAME_BYTES = 128  # a name always takes the same place, so that a full disk has room for the next one, too
LANE = "lane.lock"
# What waits at each door. Only a turn of the lane is always short: the others are as long as a remote or a disk takes.
WAITING = {
    LANE: "landings wait",
    "publishing.lock": "landed work waits to be published",
    "start.lock": "runs that begin wait",
    "worktrees.lock": "who looks at worktrees waits",
    "pool.lock": "clones made ahead wait",
}


class Holder(NamedTuple):
    """Who is inside."""

    process: ProcessIdentity | None  # None: it could not say
    since: int  # unix ms
    stopped: bool  # by a signal or a debugger: it does nothing until somebody lets it go on


class Standstill(NamedTuple):
    """What waits for whom, and what to do about it."""

    says: str
    advice: str
    stopped: bool


@asynccontextmanager
async def only_one_at_a_time(path: Path) -> AsyncGenerator[None]:
    """Hold an exclusive lock on the file; the kernel gives it back when the process dies.

    It is not taken from a process that is only stopped: nobody can know what that would do first when it goes on.
    """
    door = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        await _enter(door, path)
        yield
    finally:
        os.close(door)


async def _enter(door: int, path: Path) -> None:
    told, look_at = False, anyio.current_time() + TOLD_AFTER_S
    while True:
        with suppress(OSError):
            fcntl.flock(door, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        if not told and anyio.current_time() > look_at:
            look_at += TOLD_AFTER_S
            if (found := _standstill(path, patient=False)) is not None:
                log.warning("%s; %s", found.says, found.advice)
                told = True
        await anyio.sleep(LOOK_AGAIN_S)
    from drover.process import current_identity  # noqa: PLC0415 - a status, which asks who is inside, needs no process

    with suppress(OSError):  # a full disk keeps nobody out
        os.pwrite(door, str(current_identity()).ljust(NAME_BYTES).encode(), 0)


def find_holder(path: Path) -> Holder | None:
    """Who is inside now; None when nobody is."""
    try:
        door = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        with suppress(OSError):
            fcntl.flock(door, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        name, since = os.pread(door, NAME_BYTES, 0), os.fstat(door).st_mtime_ns // 1_000_000
    finally:
        os.close(door)
    from drover.process import is_alive, is_stopped, parse_identity  # noqa: PLC0415 - nearly always nobody is

    process = parse_identity(name.decode("utf-8", "replace").strip())
    if process is None or not is_alive(process):
        return Holder(None, since, stopped=False)
    return Holder(process, since, is_stopped(process))


def find_standstills(places: Places, now: int) -> list[Standstill]:
    """What waits for a process that does not go on, for whatever reason; nearly always nothing.

    ``now``: of this machine's clock, by which files are dated, and not of a database's.
    """
    found = [_standstill(places.state / name, now=now) for name in WAITING]
    return [one for one in found if one is not None]


def _standstill(path: Path, *, now: int = 0, patient: bool = True) -> Standstill | None:
    """``patient``: who is in the lane may be there as long as anybody is."""
    inside = find_holder(path)
    if inside is None:
        return None
    is_long = path.name == LANE and (not patient or now - inside.since > TOLD_AFTER_S * 1000)
    if not (inside.stopped or is_long):
        return None
    since = f"{datetime.fromtimestamp(inside.since / 1000).astimezone():%H:%M:%S}"
    where = f"at {path.name} since {since}"
    if inside.process is None:
        who, advice = "a process that has not said which it is", f"find it: fuser -v {path}"
    elif inside.stopped:
        pid = inside.process.pid
        who = f"process {pid}, which is stopped,"
        advice = f"kill -CONT {pid} lets it go on, kill -KILL {pid} ends it; nothing is lost by either"
    else:
        pid = inside.process.pid
        who, advice = f"process {pid}", f"if process {pid} hangs, kill -KILL {pid} ends it; nothing is lost by that"
    return Standstill(f"{WAITING.get(path.name, 'somebody waits')}: {who} has been {where}", advice, inside.stopped)

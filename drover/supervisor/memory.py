"""The limit on the memory of an agent and of all that it starts: the kernel's where it lets us, else measured."""

from __future__ import annotations

import os
import time

from drover.supervisor.slim import suppress
from drover.supervisor.table import ProcTable, read

LOOK_S = 0.2
STALE_S = 60.0
NAME = "drover-agent-"


class Limit:
    """Bytes that the tree below this process may use. Over it, everything below is to be killed."""

    def __init__(self, limit: int, table: ProcTable) -> None:
        self.limit = limit
        self.table = table
        self.group = Group.make(limit)
        self.look_at = time.monotonic() + LOOK_S

    def enter(self) -> None:
        """From here on, what this process starts is counted by the kernel, if it does that for us."""
        if self.group is not None and not self.group.enter():
            self.close()

    def leave(self) -> None:
        if self.group is not None:
            self.group.leave()

    def exceeded(self, root: int, now: float) -> int:
        """What the tree below ``root`` uses if that is more than the limit, else 0. Looks at most five times a second.

        Resident sizes count what is shared once for each process, so they can only be too large; before
        they count as a breach the proportional ones are asked for, which cost more.
        """
        if self.group is not None or now < self.look_at:
            return 0
        self.look_at = now + LOOK_S
        pids = self.table.descendants(root)
        if sum(map(self.table.resident, pids)) <= self.limit:
            return 0
        used = sum(map(self.table.proportional, pids))
        return used if used > self.limit else 0

    def struck(self) -> bool:
        """Whether the kernel has ended the tree for its memory."""
        return self.group is not None and self.group.kills() > 0

    def close(self) -> None:
        """When nothing of the tree is alive."""
        if self.group is not None:
            self.group.remove()
        self.group = None


class Group:
    """A cgroup v2 of our own beside the one we are in, or below it; needs no privilege where that is delegated."""

    def __init__(self, path: str, home: str) -> None:
        self.path, self.home = path, home

    @classmethod
    def make(cls, limit: int) -> Group | None:
        """A group that may use so much, or None where there is no cgroup v2 with memory that we may divide."""
        home = own_group()
        if home is None:
            return None
        for parent in (home.rpartition("/")[0], home):
            if b"memory" not in read(f"{parent}/cgroup.subtree_control").split():
                continue
            remove_stale(parent)
            group = cls(f"{parent}/{NAME}{os.getpid()}", home)
            try:
                os.mkdir(group.path, 0o755)  # noqa: PTH102 - importing pathlib costs each agent 5 ms
                write(f"{group.path}/memory.max", str(limit))
                write(f"{group.path}/memory.oom.group", "1")
            except OSError:
                group.remove()
                continue
            with suppress(OSError):  # a kernel without swap accounting
                write(f"{group.path}/memory.swap.max", "0")
            return group
        return None

    def enter(self) -> bool:
        """Move this process in; False where that is not allowed."""
        try:
            write(f"{self.path}/cgroup.procs", "0")
        except OSError:
            return False
        return True

    def leave(self) -> None:
        with suppress(OSError):  # who may come may go
            write(f"{self.home}/cgroup.procs", "0")

    def kills(self) -> int:
        for line in read(f"{self.path}/memory.events").splitlines():
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
        return 0

    def remove(self) -> None:
        with suppress(OSError):  # somebody is still in it: whoever finds it empty later removes it
            os.rmdir(self.path)  # noqa: PTH106 - as above


def own_group() -> str | None:
    """The directory of the cgroup v2 that this process is in."""
    path = next((line[3:] for line in read("/proc/self/cgroup").splitlines() if line.startswith(b"0::")), None)
    for line in read("/proc/self/mountinfo").splitlines():
        mount, _, kind = line.partition(b" - ")
        if path is not None and kind.startswith(b"cgroup2 "):
            return (mount.split()[4].rstrip(b"/") + b"/" + path.strip(b"/")).decode().rstrip("/")
    return None


def remove_stale(parent: str) -> None:
    """Empty groups of supervisors that were killed."""
    with suppress(OSError):
        for name in os.listdir(parent):  # noqa: PTH208 - no pathlib
            path = f"{parent}/{name}"
            if name.startswith(NAME) and os.stat(path).st_mtime < time.time() - STALE_S:  # noqa: PTH116 - no pathlib
                with suppress(OSError):
                    os.rmdir(path)  # noqa: PTH106 - as above


def write(path: str, text: str) -> None:
    """One write, as control files want it."""
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)

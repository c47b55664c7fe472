"""The processes of this machine: who started whom, who carries a marker, and what they have used."""

from __future__ import annotations

import os
import sys

from drover.supervisor.slim import signal, suppress

Process = tuple[int, int, float]  # parent, start (in units of the system's own), CPU seconds
MARKER = "DROVER_MARKER"
TICKS = os.sysconf("SC_CLK_TCK")  # a second


class ProcTable:
    """As Linux shows them in /proc. Zombies are not processes here."""

    def one(self, pid: int) -> Process | None:
        fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split(None, 20)
        if not fields or fields[0] in (b"Z", b"X"):
            return None
        return int(fields[1]), int(fields[19]), sum(map(int, fields[11:15])) / TICKS

    def all(self) -> dict[int, Process]:
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 - no pathlib
        return {pid: process for pid in pids if (process := self.one(pid))}

    def marked(self, pid: int, marker: str) -> bool:
        return f"\0{MARKER}={marker}\0".encode() in b"\0" + read(f"/proc/{pid}/environ") + b"\0"

    def descendants(self, root: int) -> set[int]:
        """The pids below ``root``, found from parent to child: the same cost on a machine with many others."""
        found: set[int] = set()
        fresh = {root}
        while fresh:
            fresh = {child for pid in fresh for child in self.children(pid)} - found
            found |= fresh
        return found

    def children(self, pid: int) -> set[int]:
        try:
            threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - no pathlib
        except OSError:  # it has ended
            return set()
        return {int(child) for thread in threads for child in read(f"/proc/{pid}/task/{thread}/children").split()}

    def resident(self, pid: int) -> int:
        """Bytes in memory, what is shared with others included; 0 when it has gone."""
        fields = read(f"/proc/{pid}/statm").split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if fields else 0

    def proportional(self, pid: int) -> int:
        """Bytes that are its own, and its part of what is shared; files that the kernel can read again left out."""
        lines = dict(line.split()[:2] for line in read(f"/proc/{pid}/smaps_rollup").splitlines()[1:])
        parts = [lines.get(name) for name in (b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:")]
        if parts[0] is None:  # an older kernel
            return self.resident(pid)
        return sum(int(part) for part in parts if part) * 1024


class PsutilTable(ProcTable):
    """The same from psutil, for systems without /proc; ``site`` is the directory to import it from."""

    def __init__(self, site: str) -> None:
        sys.path.append(site)
        import psutil  # noqa: PLC0415 - only where there is no /proc; it is not of the standard library

        self.psutil = psutil

    def one(self, pid: int) -> Process | None:
        try:
            process = self.psutil.Process(pid)
            if process.status() in ("zombie", "dead"):
                return None
            return process.ppid(), int(process.create_time() * 1e6), sum(process.cpu_times()[:4])
        except (self.psutil.Error, OSError):
            return None

    def all(self) -> dict[int, Process]:
        return {pid: process for pid in self.psutil.pids() if (process := self.one(pid))}

    def marked(self, pid: int, marker: str) -> bool:
        try:
            return bool(self.psutil.Process(pid).environ().get(MARKER) == marker)
        except (self.psutil.Error, OSError):
            return False

    def descendants(self, root: int) -> set[int]:
        return below(root, self.all())

    def resident(self, pid: int) -> int:
        try:
            return int(self.psutil.Process(pid).memory_info().rss)
        except (self.psutil.Error, OSError):
            return 0

    def proportional(self, pid: int) -> int:
        return self.resident(pid)


def below(root: int, table: dict[int, Process]) -> set[int]:
    """The pids of all descendants of ``root``."""
    found: set[int] = set()
    fresh = {root}
    while fresh:
        fresh = {pid for pid, process in table.items() if process[0] in fresh} - found
        found |= fresh
    return found - {root}


def signal_exactly(pid: int, started: int, number: int, table: ProcTable) -> None:
    """Signal that very process: when its pid has changed hands meanwhile, nobody."""
    with suppress(ProcessLookupError, PermissionError):
        if not hasattr(os, "pidfd_open"):
            process = table.one(pid)
            if process and process[1] == started:
                os.kill(pid, number)
            return
        handle = os.pidfd_open(pid)  # what is checked after this stays true of the handle
        try:
            process = table.one(pid)
            if process and process[1] == started:
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def oom_kills() -> int:
    """How many processes this machine's kernel has killed for want of memory since it started."""
    for line in read("/proc/vmstat").splitlines():
        if line.startswith(b"oom_kill "):
            return int(line.split()[1])
    return 0


def read(path: str) -> bytes:
    """A whole small file; empty when it cannot be read (any more)."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        parts = []
        while part := os.read(file, 65536):
            parts.append(part)
        return b"".join(parts)
    except OSError:
        return b""
    finally:
        os.close(file)

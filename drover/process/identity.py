"""Who a process is: identities that outlive the reuse of a pid, and the marker its children inherit."""

from __future__ import annotations

import ctypes
import os
import re
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import psutil

from drover.domain.clock import SystemClock
from drover.domain.models import ProcessIdentity

MARKER = "DROVER_MARKER"
# A look at everybody takes longer than some processes live: one that ends meanwhile may leave an heir that
# was not on the list. So after the first look only newcomers are looked at, which is quick, until there are none.
LOOKS = 8
# Before the later looks, where a child so young is in the middle of its exec: on a busy machine it is put aside there.
WAITS_S = (0, 0, 0, 0.002, 0.005, 0.01, 0.02, 0.04)
YOUNG_S = 2.0
_PROC = Path("/proc")
_DEAD = (b"Z", b"X")
_LINUX = sys.platform == "linux"


@cache
def boot_id() -> str:
    """Names this run of the machine; another value after every boot."""
    if _LINUX:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    size = ctypes.c_size_t(64)
    value = ctypes.create_string_buffer(size.value)
    # macOS: the boot *time* moves when the clock is set, this does not.
    if ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", value, ctypes.byref(size), None, 0) == 0:
        return value.value.decode()
    return f"boot-{int(psutil.boot_time())}"


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of a living process; None when there is none with that pid, or only its zombie."""
    started = _started_proc(pid) if _LINUX else _started_psutil(pid)
    return None if started is None else ProcessIdentity(boot_id=boot_id(), pid=pid, started=started)


def current_identity() -> ProcessIdentity:
    """The identity of this process."""
    identity = identify(os.getpid())
    assert identity is not None  # noqa: S101 - it is running this line
    return identity


def parse_identity(text: str) -> ProcessIdentity | None:
    """Read back what ``str(identity)`` wrote; None for anything else."""
    parts = text.rsplit(":", 2)
    if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        return None
    return ProcessIdentity(boot_id=parts[0], pid=int(parts[1]), started=int(parts[2]))


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether exactly that process still runs. A zombie does not; nor does its pid's next owner."""
    return identify(identity.pid) == identity


def is_stopped(identity: ProcessIdentity) -> bool:
    """Whether a process that is alive does nothing, for a signal or a debugger has stopped it."""
    if _LINUX:
        return _stat(identity.pid)[:1] in ([b"T"], [b"t"])
    try:
        return str(psutil.Process(identity.pid).status()) in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def find_marked(marker: str) -> list[ProcessIdentity]:
    """Every living process whose DROVER_MARKER is ``marker``, or begins with it, except this one.

    A beginning ends where a word does: ``run-1`` finds ``run-1`` and ``run-1/task-x/2``, not ``run-10``.
    Only processes whose environment this user may read are found. The environment is the one the
    program was started with, so the marker cannot be taken off later, except by another exec.
    """
    has_it = _has_marker_proc(marker) if _LINUX else _has_marker_psutil(marker)
    seen: set[int] = {os.getpid()}
    found, is_due = [], False
    for look in range(LOOKS):
        if is_due:
            time.sleep(WAITS_S[look])
        fresh, is_due = set(psutil.pids()) - seen, False
        if not fresh:
            break
        for pid in fresh:
            answer = has_it(pid)
            is_due = is_due or (answer is None and _is_young(pid))
            if answer is not None:
                seen.add(pid)
            if answer and (identity := identify(pid)):
                found.append(identity)
    return [identity for identity in found if is_alive(identity)]


def group_lives(group: int) -> bool:
    """Whether a process group has a living member. Zombies that nobody buries are none, where that can be told."""
    if not _LINUX:
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True
    stats = (_stat(pid) for pid in psutil.pids())
    return any(int(stat[2]) == group and stat[0] not in _DEAD for stat in stats if stat)


def _started_proc(pid: int) -> int | None:
    """Field 22: clock ticks between boot and the process's start."""
    stat = _stat(pid)
    return None if not stat or stat[0] in _DEAD else int(stat[19])


def _is_young(pid: int) -> bool:
    """Others without an environment were started without one."""
    started = _started_proc(pid) if _LINUX else None
    ticks = os.sysconf("SC_CLK_TCK")
    return started is not None and SystemClock().boottime() / 1000 - started / ticks < YOUNG_S


def _stat(pid: int) -> list[bytes]:
    """/proc/PID/stat from its third field on: the name before it may hold blanks and brackets."""
    try:
        return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def _read(path: str) -> bytes:
    """A whole file of /proc, with little ado: every process there is may be asked about."""
    file = os.open(path, os.O_RDONLY)
    try:
        parts = []
        while part := os.read(file, 65536):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(file)


def _started_psutil(pid: int) -> int | None:
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        return int(process.create_time() * 1_000_000)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def _has_marker_proc(marker: str) -> Callable[[int], bool | None]:
    """Asks about a pid; None: ask again, it is in the middle of its exec and shows no environment yet.

    That lasts for microseconds, but a single look right after a spawn missed 8 of 600, and on a machine with 20
    processes waiting for four cores eight looks without a pause missed one.
    """
    pattern = re.compile(rb"(?:^|\0)" + _pattern(marker).encode())

    def ask(pid: int) -> bool | None:
        try:
            environment = _read(f"/proc/{pid}/environ")
            if environment:
                return pattern.search(environment) is not None
            # Zombies and the kernel's own threads have no memory, and never an environment.
            return None if _read(f"/proc/{pid}/statm").split(b" ", 1)[0] != b"0" else False
        except OSError:  # it has ended, or is another user's
            return False

    return ask


def _has_marker_psutil(marker: str) -> Callable[[int], bool | None]:
    pattern = re.compile(_pattern(marker))

    def ask(pid: int) -> bool | None:
        try:
            environment = psutil.Process(pid).environ()
            return pattern.match(f"{MARKER}={environment.get(MARKER)}") is not None if environment else None
        except (psutil.Error, OSError):
            return False

    return ask


def _pattern(marker: str) -> str:
    return re.escape(f"{MARKER}={marker}") + (r"(?![A-Za-z0-9])" if marker[-1:].isalnum() else "")

"""Who a process is: identities that outlive the reuse of a pid, and the marker its children inherit."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from functools import cache
from pathlib import Path

import psutil

from drover.domain.models import ProcessIdentity

MARKER = "DROVER_MARKER"
LOOKS = 6  # a chain of processes that live 20 ms each slips through one look in four
_PROC = Path("/proc")
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


def find_marked(marker: str) -> list[ProcessIdentity]:
    """Every living process whose DROVER_MARKER is ``marker``, or begins with it, except this one.

    A beginning ends where a word does: ``run-1`` finds ``run-1`` and ``run-1/task-x/2``, not ``run-10``.
    Only processes whose environment this user may read are found. The environment is the one the
    program was started with, so the marker cannot be taken off later, except by another exec.
    """
    found: dict[int, ProcessIdentity] = {}
    for _ in range(LOOKS):
        pids, sure = _marked_proc(marker) if _LINUX else _marked_psutil(marker)
        found |= {pid: identity for pid in pids if pid != os.getpid() and (identity := identify(pid))}
        if sure:
            break
    return [identity for identity in found.values() if is_alive(identity)]


def _started_proc(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat: clock ticks between boot and the process's start."""
    try:
        # The name in field 2 may hold blanks and brackets; nothing after its last bracket does.
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return None if not fields or fields[0] in (b"Z", b"X") else int(fields[19])


def _started_psutil(pid: int) -> int | None:
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        return int(process.create_time() * 1_000_000)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def _marked_proc(marker: str) -> tuple[list[int], bool]:
    """Pids, and whether none can be missing.

    One may be: a process that ends between list and look may leave an heir not on the list, and one
    in the middle of its exec shows no environment for some microseconds (a single look right after a
    spawn missed 8 of 600 on a loaded machine, this one none).
    """
    pattern = re.compile(rb"(?:^|\0)" + _pattern(marker).encode())
    pids, sure = [], True
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            environment = (entry / "environ").read_bytes()
            if pattern.search(environment):
                pids.append(int(entry.name))
            elif not environment and _has_memory(entry):
                sure = False
        except PermissionError:  # another user's
            continue
        except OSError:
            sure = False
    return pids, sure


def _has_memory(entry: Path) -> bool:
    """False for zombies and the kernel's own threads, which never have an environment."""
    return (entry / "statm").read_bytes().split(b" ", 1)[0] != b"0"


def _marked_psutil(marker: str) -> tuple[list[int], bool]:
    pattern = re.compile(_pattern(marker))
    pids, sure = [], True
    for process in psutil.process_iter():
        try:
            if pattern.match(f"{MARKER}={process.environ().get(MARKER)}"):
                pids.append(process.pid)
        except (psutil.AccessDenied, psutil.ZombieProcess):
            continue
        except (psutil.NoSuchProcess, OSError):
            sure = False
    return pids, sure


def _pattern(marker: str) -> str:
    return re.escape(f"{MARKER}={marker}") + (r"(?![A-Za-z0-9])" if marker[-1:].isalnum() else "")

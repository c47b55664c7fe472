"""The memory that there is for more processes."""

from __future__ import annotations

from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes that could be had without swapping, of this machine and of the cgroup v2 that drover is in."""
    return min(int(psutil.virtual_memory().available), *_left_of_groups(Path("/proc/self/cgroup"), CGROUPS))


def _left_of_groups(membership: Path, root: Path) -> list[int]:
    """What each limited group from ours upwards has left, the cache that the kernel would give up counted as left."""
    try:
        own = next(line[3:] for line in membership.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return [1 << 62]
    left = [1 << 62]
    group = root / own.lstrip("/")
    while group != root.parent:
        try:
            limit = int((group / "memory.max").read_text())
            used = int((group / "memory.current").read_text())
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            left.append(max(0, limit - used + int(stat.get("inactive_file", 0))))
        except (OSError, ValueError):  # "max", or no such controller
            pass
        group = group.parent
    return left

"""The free space below which no new task is started: those at work may need what is left."""

from __future__ import annotations

import shutil

from drover.domain.quantities import format_size
from drover.engine.places import Places
from drover.settings import Settings


def find_shortage(places: Places, settings: Settings) -> str | None:
    """What to tell a person when less is free than ``[disk] floor``; None when there is enough. Microseconds."""
    floor = settings.disk.floor
    if not floor:
        return None
    free = free_bytes(places)
    if free >= floor:
        return None
    return (
        f"no new task starts: {format_size(free)} free at {places.state}, the floor is {format_size(floor)}; "
        "it goes on by itself when there is more ([disk] floor)"
    )


def has_room(places: Places, settings: Settings) -> bool:
    """Whether directories may be kept for later tasks: twice the floor is free."""
    return free_bytes(places) >= 2 * settings.disk.floor


def free_bytes(places: Places) -> int:
    """Bytes that drover could still write where it keeps its state."""
    return shutil.disk_usage(places.state).free

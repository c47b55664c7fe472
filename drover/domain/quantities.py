"""How durations, sizes and switches are written by people: ``1h30m``, ``512M``, ``yes``."""

from __future__ import annotations

import re

_DURATION_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?", re.ASCII | re.IGNORECASE)
_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SWITCHES = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def parse_duration(text: str) -> int:
    """``90s``, ``5m``, ``1h30m``, ``2d``, ``500ms`` or a bare ``0`` → milliseconds; else ValueError.

    Units go from large to small and none comes twice, so that ``5m1h`` is a typing error, not six parts.
    """
    wanted = text.strip().lower()
    if wanted == "0":
        return 0
    total, position, last = 0.0, 0, float("inf")
    while position < len(wanted):
        part = _DURATION_PART.match(wanted, position)
        if part is None or _DURATION_UNITS[part[2]] >= last:
            break
        last = _DURATION_UNITS[part[2]]
        total += float(part[1]) * last
        position = part.end()
    if not wanted or position != len(wanted):
        unit = " with its unit" if wanted.isdigit() else ""
        raise ValueError(f"{text!r} is not a duration; write it{unit} like 90s, 5m, 1h30m")
    return round(total)


def parse_size(text: str) -> int:
    """``512M``, ``2G``, ``64KB``, ``1.5GiB``, ``100B`` or a bare ``0`` → bytes (units of 1024); else ValueError."""
    wanted = text.strip()
    size = _SIZE.fullmatch(wanted)
    if size is None or (wanted.isdigit() and wanted != "0"):
        unit = " with its unit" if wanted.isdigit() else ""
        raise ValueError(f"{text!r} is not a size; write it{unit} like 512M or 2G")
    return int(float(size[1]) * _SIZE_UNITS[size[2].upper()])


def parse_switch(text: str) -> bool:
    """``true/1/yes/on`` and ``false/0/no/off``, in any case; else ValueError."""
    try:
        return _SWITCHES[text.strip().lower()]
    except KeyError:
        raise ValueError(f"{text!r} is neither true nor false; write one of true, false, yes, no, on, off") from None


def format_duration(milliseconds: int) -> str:
    """The shortest text that :func:`parse_duration` reads as the same number: 5_400_000 → ``1h30m``, 0 → ``0``."""
    parts, rest = [], milliseconds
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(rest, _DURATION_UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0"


def format_size(size: int) -> str:
    """Bytes as a person reads them, to one decimal: 67108864 → ``64M``, 1536 → ``1.5K``."""
    amount, unit = float(size), ""
    for larger in "KMGT":
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.1f}".removesuffix(".0") + (unit or "B")

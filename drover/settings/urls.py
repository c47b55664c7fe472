"""Database URLs: which are understood, and how one is shown without its secrets."""

from __future__ import annotations

import re
from pathlib import Path

SCHEMES = ("sqlite", "postgresql", "postgres")
_SQLITE = "sqlite:///"
# Greedy up to the last @: a password may hold an unquoted @ or /, and showing too little is the safe side.
_USERINFO = re.compile(r"([a-z][a-z0-9+.-]*://[^:@/?#]*):.*@", re.IGNORECASE | re.DOTALL)
_SECRET_PARAMETER = re.compile(r"(?<=[?&])([^=&]*(?:password|secret|token|key)[^=&]*)=[^&]*", re.IGNORECASE)


def redact(url: str) -> str:
    """The URL with its password, and any parameter that could hold one, shown as ``***``."""
    return _SECRET_PARAMETER.sub(r"\1=***", _USERINFO.sub(r"\1:***@", url))


def check_url(url: str) -> str:
    """The URL itself if a store can be opened by it; else ValueError, without the URL's secrets."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES or not rest:
        raise ValueError(f"{redact(url)!r} is not a database URL; write sqlite:///PATH or postgresql://USER@HOST/NAME")
    if scheme == "sqlite" and not url.removeprefix(_SQLITE).strip("/"):
        raise ValueError(f"{url!r} names no file; write sqlite:///PATH")
    if scheme == "sqlite" and not url.startswith(_SQLITE):
        raise ValueError(f"{url!r} has a host where SQLite has none; write sqlite:///{rest}")
    return url


def anchor_url(url: str, root: Path) -> str:
    """The URL with a relative SQLite path made absolute below ``root``; any other URL as it is."""
    if not url.startswith(_SQLITE):
        return url
    return f"{_SQLITE}{root / url.removeprefix(_SQLITE)}"

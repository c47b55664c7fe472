"""The index with which drover reads a clone: kept between looks, so that only what has changed is read again.

It is drover's own. The clone's ``.git/index`` belongs to whoever works there.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path


def hand_over(index: Path, scratch: Path, base: str) -> None:
    """Keep a copy of the index of a clone just made, which says ``base`` and knows its files.

    With its time: git takes an entry as new as the index for possibly edited, and a younger copy would hide that.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "index.lock").unlink(missing_ok=True)
    shutil.copy2(index, scratch / "index")
    (scratch / "base").write_text(f"{base} {_stamp(scratch / 'index')}")


def says(scratch: Path, base: str) -> bool:
    """Whether the index is known to say ``base``: nobody has written to it since it was handed over."""
    with suppress(OSError):
        return (scratch / "base").read_text() == f"{base} {_stamp(scratch / 'index')}"
    return False


def _stamp(index: Path) -> str:
    about = index.stat()
    return f"{about.st_ino} {about.st_size} {about.st_mtime_ns}"

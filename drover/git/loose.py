"""Writes an object into a file of its own, as git does."""

from __future__ import annotations

import hashlib
import os
import zlib
from pathlib import Path

from drover.domain.ids import new_token


def object_id(kind: str, content: bytes, object_format: str) -> str:
    """The id that git gives to an object of this content."""
    made = hashlib.sha256 if object_format == "sha256" else hashlib.sha1
    return made(b"%b %d\0%b" % (kind.encode(), len(content), content), usedforsecurity=False).hexdigest()


def write_loose(objects: Path, kind: str, content: bytes, object_format: str) -> str:
    """The id of an object that is among these now, under its name wholly or not at all; not forced to the disk.

    One that is there already gets a new time, as from git, so that no ``git gc`` takes it for forgotten.
    """
    oid = object_id(kind, content, object_format)
    path = objects / oid[:2] / oid[2:]
    try:
        os.utime(path)
    except FileNotFoundError:
        path.parent.mkdir(exist_ok=True)
        draft = path.with_name(f"tmp_obj_{new_token()}")  # git's name for it, so git clears it should we be killed
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        with os.fdopen(handle, "wb") as file:
            file.write(zlib.compress(b"%b %d\0%b" % (kind.encode(), len(content), content), 1))
        draft.rename(path)
    return oid

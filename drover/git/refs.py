"""Reads refs from their files: a life asks dozens of times where a ref is, and each git costs milliseconds.

The order is git's own, and what makes it sound beside a `git pack-refs`: the ref's own file first, then
``packed-refs``, which is replaced before a file that went into it is removed. Whatever is not as plain as
that (a symbolic ref, another kind of storage, a file cut short) is left to git.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

_OID = re.compile(rb"[0-9a-f]{40}([0-9a-f]{24})?")
_PACKED = re.compile(rb"^([0-9a-f]{40,64}) (refs/[^\n]+)$", re.MULTILINE)
_HEAD = re.compile(rb"ref: (refs/[^\n]+)\n")


class NotPlain(Exception):
    """Only git can say."""


class RefFiles:
    """The refs below a repository's common directory."""

    def __init__(self, git_dir: Path) -> None:
        self._git_dir = os.fspath(git_dir)
        self._packed: dict[bytes, bytes] = {}
        self._seen: tuple[int, int, int] | None = None  # which packed-refs that is from

    def read(self, ref: str) -> str | None:
        """Where a ref is; None when there is no such ref. Microseconds. Raises NotPlain."""
        if os.path.lexists(f"{self._git_dir}/reftable"):
            raise NotPlain
        try:
            with open(f"{self._git_dir}/{ref}", "rb", buffering=0) as file:  # noqa: PTH123 - a dozen in every life
                text = file.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            packed = self._read_packed().get(ref.encode())
            return None if packed is None else packed.decode()
        except OSError as error:
            raise NotPlain from error
        oid = text.rstrip(b"\n")
        if not _OID.fullmatch(oid):
            raise NotPlain
        return oid.decode()

    def _read_packed(self) -> dict[bytes, bytes]:
        path = Path(self._git_dir, "packed-refs")
        try:
            with path.open("rb") as file:
                about = path.stat()
                seen = (about.st_mtime_ns, about.st_size, about.st_ino)
                if seen != self._seen:
                    self._packed = {ref: oid for oid, ref in _PACKED.findall(file.read())}
                    self._seen = seen
        except FileNotFoundError:
            self._packed, self._seen = {}, None
        except OSError as error:
            raise NotPlain from error
        return self._packed


def read_head_file(git_dir: Path) -> str | None:
    """The ref that HEAD of a checkout names; None when its file does not plainly name one."""
    with suppress(OSError):
        match = _HEAD.fullmatch((git_dir / "HEAD").read_bytes())
        if match and match[1] != b"refs/heads/.invalid":  # what stands there when refs are not kept in files
            return match[1].decode("utf-8", "surrogateescape")
    return None

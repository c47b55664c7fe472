"""Reads what an agent prints, while it prints: lines of a growing file, events of a line, facts of an event."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

CHUNK = 256 * 1024
LINE_LIMIT = 1024 * 1024
_BEGINNING = re.compile(r'\{"type":')


class Json:
    """A JSON object read with suspicion: what is missing, or of another type, is empty."""

    def __init__(self, value: object) -> None:
        self.value = value

    def get(self, *path: str) -> Json:
        value = self.value
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return Json(value)

    def text(self, *path: str) -> str:
        value = self.get(*path).value
        return value if isinstance(value, str) else ""

    def number(self, *path: str) -> float:
        value = self.get(*path).value
        return value if isinstance(value, int | float) and not isinstance(value, bool) else 0

    def count(self, *path: str) -> int:
        return int(self.number(*path))

    def true(self, *path: str) -> bool:
        return self.get(*path).value is True

    def items(self, *path: str) -> tuple[Json, ...]:
        value = self.get(*path).value
        return tuple(Json(item) for item in value) if isinstance(value, list) else ()

    def keys(self, *path: str) -> tuple[str, ...]:
        value = self.get(*path).value
        return tuple(value) if isinstance(value, dict) else ()

    def __bool__(self) -> bool:
        return bool(self.value)


class Follower:
    """The complete lines of a file that grows; lines over 1 MiB are left out. Memory is bounded by that."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._begun = b""
        self._skipping = False

    def read(self) -> list[bytes] | None:
        """The lines completed by the next 256 KiB; None at the end of what there is now."""
        try:
            handle = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            data = os.pread(handle, CHUNK, self._offset)
        finally:
            os.close(handle)
        if not data:
            return None
        self._offset += len(data)
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = self._begun + lines[0]
            self._begun = b""
            if self._skipping:
                self._skipping = False
                del lines[0]
        self._begun += rest
        if len(self._begun) > LINE_LIMIT:
            self._begun, self._skipping = b"", True
        return lines

    def rest(self) -> list[bytes]:
        """The line that was begun and, now that nobody writes any more, will not be completed."""
        rest, self._begun = self._begun, b""
        return [rest] if rest and not self._skipping else []


def events(line: bytes) -> Iterator[Json]:
    """The JSON objects of a line: one, none, or one that was written into the middle of another."""
    text = line.decode(errors="replace").strip()
    if not text.startswith("{"):
        return
    whole = _object(text)
    if whole is not None:
        yield whole
        return
    pairs = list(_parted(text))
    if pairs:  # parts of an event begin like events, but only events name their session
        yield from max(pairs, key=lambda pair: bool(pair[0].text("session_id")))


def _parted(text: str) -> Iterator[tuple[Json, Json]]:
    """The ways in which a text can be one object written into the middle of another."""
    for match in _BEGINNING.finditer(text, 1):
        try:
            inner, length = json.JSONDecoder().raw_decode(text[match.start() :])
        except (ValueError, RecursionError):
            continue
        outer = _object(text[: match.start()] + text[match.start() + length :])
        if outer is not None:
            yield Json(inner), outer


def tail(path: Path, limit: int) -> str:
    """The last ``limit`` bytes of a file as text; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - limit))
            return file.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def _object(text: str) -> Json | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # depth is the agent's to choose
        return None
    return Json(value) if isinstance(value, dict) else None

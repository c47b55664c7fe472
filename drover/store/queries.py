"""Named SQL: read once from ``sql/``, said as each database wants it."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Literal

Dialect = Literal["sqlite", "postgres"]

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_TOKEN = re.compile(r"/\*pg:(.*?)\*/(.*?)/\*:pg\*/", re.DOTALL)
_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)
_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)\b")


def say(text: str, dialect: Dialect) -> str:
    """The text as ``dialect`` wants it: ``/*pg: X */ Y /*:pg*/`` reads Y in SQLite and X in Postgres."""
    return _TOKEN.sub(lambda m: m[1] if dialect == "postgres" else m[2], text)


def numbered(sql: str) -> tuple[str, tuple[str, ...]]:
    """``:name`` parameters as ``$1 …``, and the names in that order."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return _PARAMETER.sub(number, sql), tuple(names)


@cache
def load(dialect: Dialect) -> dict[str, str]:
    """Every query by name. A file under ``sql/<dialect>/`` replaces queries of the same name."""
    found: dict[str, str] = {}
    root = files("drover.store") / "sql"
    for folder in (root, root / dialect):
        if not folder.is_dir():
            continue
        for file in sorted(folder.iterdir(), key=lambda f: f.name):
            if file.name.endswith(".sql"):
                found |= _split(say(file.read_text("utf-8"), dialect))
    return found


def _split(text: str) -> dict[str, str]:
    parts = _NAME.split(text)
    return {
        name: _COMMENT.sub("", body).strip().rstrip(";") for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }

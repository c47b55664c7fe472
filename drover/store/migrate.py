"""Migrations: up only, each in one transaction, each remembered with its checksum."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple

from drover.domain.errors import SchemaError
from drover.store.queries import Dialect, say

_COLUMN = re.compile(r"^(\s+|\s*ALTER TABLE \w+ ADD COLUMN )(\w+) text\b", re.MULTILINE)

LEDGER = """
CREATE TABLE IF NOT EXISTS drover_migrations (
    number bigint NOT NULL PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, applied_at bigint NOT NULL
)
"""


class Migration(NamedTuple):
    """One file: its number, its name, what it says to one database."""

    number: int
    name: str
    checksum: str
    script: str

    def statements(self) -> Iterator[str]:
        """The statements one by one, split where SQLite says a statement is complete."""
        pending = ""
        for line in self.script.splitlines(keepends=True):
            pending += line
            if sqlite3.complete_statement(pending):
                if pending.strip().strip(";"):
                    yield pending.strip()
                pending = ""


def folder() -> Traversable:
    """Where the files are: inside the installed package, or beside it in a checkout."""
    packaged = files("drover") / "migrations"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "migrations"


def available(dialect: Dialect) -> list[Migration]:
    """All migrations in order. A file of the same name under ``migrations/<dialect>/`` wins."""
    shared = {f.name: f for f in folder().iterdir() if f.name.endswith(".sql")}
    own = folder() / dialect
    if own.is_dir():
        shared |= {f.name: f for f in own.iterdir() if f.name.endswith(".sql")}
    found = []
    for name, file in sorted(shared.items()):
        text = file.read_text("utf-8")
        checksum = hashlib.sha256(text.encode()).hexdigest()
        script = say(text, dialect)
        if dialect == "postgres":
            # SQLite compares text as bytes; a server's own order would put task-a.10 between task-a.1 and task-a1.
            script = _COLUMN.sub(r'\1\2 text COLLATE "C"', script)
        found.append(Migration(int(name.split("_")[0]), name.removesuffix(".sql"), checksum, script))
    return found


def refuse_newer(newest: int) -> None:
    """Raise when the database has had a migration that this program does not know; asked while it is in use, too."""
    if newest > known_newest():
        raise SchemaError(
            f"a newer drover has migrated the database meanwhile (to {newest:04})",
            hint="install a drover at least as new, then type: drover resume",
        )


@cache
def known_newest() -> int:
    """The number of this program's last migration."""
    return max(int(file.name.split("_")[0]) for file in folder().iterdir() if file.name.endswith(".sql"))


def pending(applied: dict[int, tuple[str, str]], known: list[Migration]) -> list[Migration]:
    """What is still to be applied; refuses a database that this program does not understand.

    ``applied``: number → (name, checksum), as the ledger holds it.
    """
    newest = max((m.number for m in known), default=0)
    if ahead := [name for number, (name, _) in sorted(applied.items()) if number > newest]:
        raise SchemaError(
            f"the database was made by a newer drover (it has {ahead[-1]})", hint="install a drover at least as new"
        )
    for migration in known:
        was = applied.get(migration.number)
        if was is not None and was != (migration.name, migration.checksum):
            raise SchemaError(
                f"migration {migration.name} is not the one this database was made with ({was[0]})",
                hint="install the drover that made it",
            )
    return [m for m in known if m.number not in applied]

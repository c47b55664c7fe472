"""A database looked over: is it whole, is it shaped as its migrations made it, do its counters agree with their rows.

What of it has to agree with git is handed out as :class:`Books`; see :mod:`drover.app.audit`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

from drover.store import migrate
from drover.store.database import Database, Row, Transaction
from drover.store.moving import Progress
from drover.store.tables import Table, count, count_orphans, list_tables

DOCTOR = "drover doctor --fix"
RESTORE = "go back to a backup (docs/how-to/look-after-the-database.md)"


class Fault(NamedTuple):
    """Something that is not as it has to be."""

    about: str  # integrity, schema, references, counters, landings, events, git
    what: str
    fix: str = ""


class Standing(NamedTuple):
    """A task as the rows have it."""

    id: str
    state: str
    fence: int
    first_attempt: int
    landed_commit: str | None
    landed: bool


class LedgerRow(NamedTuple):
    """One row of the landing ledger."""

    task_id: str
    attempt: int
    state: str
    commit: str
    target: str


class Told(NamedTuple):
    """One event that says what became of a task."""

    type: str
    task_id: str
    commit: str | None


class Books(NamedTuple):
    """What the database says of every task, for comparison with what git holds; of one moment."""

    tasks: tuple[Standing, ...]
    landings: tuple[LedgerRow, ...]
    told: tuple[Told, ...]
    empty: frozenset[tuple[str, str]]  # task and commit of landings without a change, so without a commit of their own


async def look_over(database: Database, progress: Progress) -> list[Fault]:
    """Every fault of the database by itself, all in one snapshot. Reads every row."""

    async def verb(tx: Transaction) -> list[Fault]:
        faults = [Fault("integrity", str(row["message"]), RESTORE) for row in await tx.all("check_integrity")]
        tables = await list_tables(tx)
        faults += await _shape(tx, tables)
        total, done = sum([await count(tx, table) for table in tables]), 0
        for table in tables:
            async for rows in tx.tables().read(table):  # a page that is damaged is found by reading it
                done += len(rows)
                progress("looked at", done, total)
            for reference in table.references:
                if orphans := await count_orphans(tx, table, reference):
                    columns = ", ".join(reference.columns)
                    what = f"{orphans} row(s) of {table.name} refer by {columns} to what is not in {reference.table}"
                    faults.append(Fault("references", what, RESTORE))
        return faults + await _counters(tx)

    return await database.read(verb)


async def open_books(database: Database) -> Books:
    """Everything of the database that git and the event log have to agree with, in one snapshot."""

    async def verb(tx: Transaction) -> Books:
        steps = [(str(row["task_id"]), json.loads(str(row["result"]))) for row in await tx.all("list_land_steps")]
        return Books(
            tasks=tuple(_standing(row) for row in await tx.all("list_standings")),
            landings=tuple(_ledger_row(row) for row in await tx.all("list_all_landings")),
            told=tuple(_told(row) for row in await tx.all("list_told")),
            empty=frozenset((id, str(landed["commit"])) for id, landed in steps if landed.get("empty")),
        )

    return await database.read(verb)


async def _shape(tx: Transaction, tables: Sequence[Table]) -> list[Fault]:
    wanted, indexes = expected_shape()
    found = {table.name: set(table.columns) for table in tables}
    missing = [f"the table {name}" for name in wanted if name not in found]
    missing += [
        f"the column {name} of {table}"
        for table, columns in wanted.items()
        for name in sorted(columns - found.get(table, columns))
    ]
    there = {str(row["name"]) for row in await tx.all("list_indexes")}
    missing += [f"the index {name}" for name in sorted(indexes - there)]
    return [Fault("schema", f"{what} is missing", RESTORE) for what in missing]


def expected_shape() -> tuple[dict[str, set[str]], set[str]]:
    """Tables with their columns, and indexes, as the migrations of this program make them in either database."""
    with closing(sqlite3.connect(":memory:")) as fresh:
        for migration in migrate.available("sqlite"):
            for statement in migration.statements():
                fresh.execute(statement)
        named = (
            "SELECT name FROM sqlite_schema WHERE type = ? AND sql IS NOT NULL AND name NOT LIKE 'sqlite#_%' ESCAPE '#'"
        )
        tables = [str(name) for (name,) in fresh.execute(named, ("table",))]
        columns = {name: {str(c[1]) for c in fresh.execute(f"PRAGMA table_info({name})")} for name in tables}
        return columns, {str(name) for (name,) in fresh.execute(named, ("index",))}


async def _counters(tx: Transaction) -> list[Fault]:
    faults = [
        Fault("counters", f"{row['id']} counts {row['open_blockers']} open blockers, and has {row['counted']}", DOCTOR)
        for row in await tx.all("list_miscounted")
    ]
    for row in await tx.all("list_wrong_fences"):
        what = f"{row['id']} is at fence {row['fence']}, and an attempt of it at {row['newest']}"
        faults.append(Fault("counters", what, RESTORE))
    for row in await tx.all("list_wrong_executions"):
        what = f"{row['id']} counts {row['executions']} executions, and {row['started']} were started"
        faults.append(Fault("counters", what, RESTORE))
    for row in await tx.all("list_wrong_attempts"):
        faults.append(Fault("counters", f"{row['id']} and its attempts do not agree whether it is running", RESTORE))
    return faults


def _standing(row: Row) -> Standing:
    return Standing(
        id=str(row["id"]), state=str(row["state"]), fence=int(row["fence"] or 0),
        first_attempt=int(row["first_attempt"] or 0), landed=row["landed_at"] is not None,
        landed_commit=str(row["landed_commit"]) if row["landed_commit"] is not None else None,
    )  # fmt: skip


def _ledger_row(row: Row) -> LedgerRow:
    return LedgerRow(
        str(row["task_id"]), int(row["attempt"] or 0), str(row["state"]), str(row["commit_oid"]), str(row["target"])
    )


def _told(row: Row) -> Told:
    data: dict[str, object] = json.loads(str(row["data"]))
    commit = data.get("commit")
    return Told(str(row["type"]), str(row["task_id"]), str(commit) if commit is not None else None)

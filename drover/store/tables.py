"""Whole tables, as the schema itself lists them: what a backlog is moved and looked over by.

Nothing here knows a table by name, so one that a later migration adds is moved and looked over, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, Protocol

from drover.domain.errors import StoreError

if TYPE_CHECKING:
    from drover.store.database import Row, Transaction, Value

LEDGER = "drover_migrations"  # what brought a schema about is each database's own, and stays there
BATCH = 2_000  # rows

Batch = Sequence[Sequence["Value"]]


class Reference(NamedTuple):
    """Columns that have to be found in another table, or be NULL."""

    columns: tuple[str, ...]
    table: str
    theirs: tuple[str, ...]


class Table(NamedTuple):
    """One table of the backlog."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]  # the primary key, in whose order rows are read
    references: tuple[Reference, ...]


class Tables(Protocol):
    """The rows of whole tables inside one transaction; made by :meth:`drover.store.database.Transaction.tables`."""

    def read(self, table: Table) -> AsyncIterator[Batch]:
        """Every row in the order of the key, which is the same in every database; a batch at a time."""
        ...

    async def number(self, sql: str) -> int:
        """The one number that a query comes to."""
        ...

    async def reserve(self, tables: Collection[Table]) -> None:
        """Nobody else writes any of these until the transaction ends."""
        ...

    async def clear(self, table: Table) -> None:
        """Drop every row."""
        ...

    async def fill(self, table: Table, rows: Batch) -> None:
        """Add rows whose columns are the table's."""
        ...

    async def go_on(self, table: str, column: str) -> None:
        """Let the numbers that the database gives go on behind those that are there."""
        ...


async def list_tables(tx: Transaction) -> list[Table]:
    """Every table but the migrations' ledger; what one refers to stands before it."""
    references = _grouped(await tx.all("list_references"), "name")
    found = []
    for name, columns in _grouped(await tx.all("list_columns"), "name").items():
        key = sorted((int(row["place"] or 0), str(row["column_name"])) for row in columns if row["place"])
        pairs = _grouped(references.get(name, []), "reference").values()
        found.append(
            Table(
                name=str(name),
                columns=_words(columns, "column_name"),
                key=tuple(column for _, column in key),
                references=tuple(Reference(_words(p, "mine"), str(p[0]["other"]), _words(p, "theirs")) for p in pairs),
            )
        )
    return _in_order([table for table in found if table.name != LEDGER])


async def count(tx: Transaction, table: Table) -> int:
    """How many rows it has."""
    return await tx.tables().number(f"SELECT count(*) AS n FROM {quote(table.name)}")  # noqa: S608 - a name of the schema


async def count_orphans(tx: Transaction, table: Table, reference: Reference) -> int:
    """Rows that refer to what is not there."""
    given = " AND ".join(f"a.{quote(column)} IS NOT NULL" for column in reference.columns)
    pairs = zip(reference.columns, reference.theirs, strict=True)
    same = " AND ".join(f"b.{quote(theirs)} = a.{quote(column)}" for column, theirs in pairs)
    there = f"SELECT 1 FROM {quote(reference.table)} b WHERE {same}"  # noqa: S608 - names of the schema
    return await tx.tables().number(
        f"SELECT count(*) AS n FROM {quote(table.name)} a WHERE {given} AND NOT EXISTS ({there})"  # noqa: S608
    )


def quote(name: str) -> str:
    """An identifier as SQL spells it."""
    return '"' + name.replace('"', '""') + '"'


def listed(names: Collection[str]) -> str:
    """Identifiers with commas between them."""
    return ", ".join(quote(name) for name in names)


def select(table: Table) -> str:
    """All rows of a table, its columns in their order, sorted by its key."""
    return f"SELECT {listed(table.columns)} FROM {quote(table.name)} ORDER BY {listed(table.key)}"  # noqa: S608


def _in_order(tables: Collection[Table]) -> list[Table]:
    """What a table refers to before the table, otherwise by name."""
    left = {table.name: table for table in sorted(tables)}
    placed: list[Table] = []
    while left:
        free = [t for t in left.values() if not {r.table for r in t.references} & (left.keys() - {t.name})]
        if not free:
            raise StoreError(f"tables refer to one another in a circle: {', '.join(left)}")
        placed += [left.pop(table.name) for table in free]
    return placed


def _grouped(rows: Sequence[Row], by: str) -> dict[Value, list[Row]]:
    return {value: list(group) for value, group in groupby(rows, key=lambda row: row[by])}


def _words(rows: Sequence[Row], column: str) -> tuple[str, ...]:
    return tuple(str(row[column]) for row in rows)

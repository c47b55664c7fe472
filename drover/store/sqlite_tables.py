"""The rows of whole tables on SQLite. Its awaits never suspend, as a verb's may not."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Collection

from drover.store.tables import BATCH, Batch, Table, listed, quote, select


class SqliteTables:
    """See :class:`drover.store.tables.Tables`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def read(self, table: Table) -> AsyncIterator[Batch]:
        cursor = self._connection.execute(select(table))
        cursor.row_factory = None
        while rows := cursor.fetchmany(BATCH):
            yield rows

    async def number(self, sql: str) -> int:
        (value,) = self._connection.execute(sql).fetchone().values()
        return int(value)

    async def reserve(self, tables: Collection[Table]) -> None:
        """Whoever writes to SQLite writes alone."""

    async def clear(self, table: Table) -> None:
        self._connection.execute(f"DELETE FROM {quote(table.name)}")  # noqa: S608 - a name of the schema

    async def fill(self, table: Table, rows: Batch) -> None:
        places = ", ".join("?" * len(table.columns))
        into = f"{quote(table.name)} ({listed(table.columns)})"
        self._connection.executemany(f"INSERT INTO {into} VALUES ({places})", rows)  # noqa: S608 - names of the schema

    async def go_on(self, table: str, column: str) -> None:
        """SQLite does by itself."""

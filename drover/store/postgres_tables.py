"""The rows of whole tables on Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection

from drover.store.postgres_link import Connection
from drover.store.tables import BATCH, Batch, Table, listed, quote, select


class PostgresTables:
    """See :class:`drover.store.tables.Tables`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def read(self, table: Table) -> AsyncIterator[Batch]:
        # A name of its own: asyncpg keeps what FETCH of a name returned, and tables have different columns.
        cursor = quote(f"rows of {table.name}")
        await self._connection.execute(f"DECLARE {cursor} NO SCROLL CURSOR FOR {select(table)}")
        while rows := await self._connection.fetch(f"FETCH {BATCH} FROM {cursor}"):
            yield [tuple(row.values()) for row in rows]
        await self._connection.execute(f"CLOSE {cursor}")

    async def number(self, sql: str) -> int:
        return int(await self._connection.fetchval(sql) or 0)

    async def reserve(self, tables: Collection[Table]) -> None:
        await self._connection.execute(f"LOCK TABLE {listed([t.name for t in tables])} IN EXCLUSIVE MODE")

    async def clear(self, table: Table) -> None:
        await self._connection.execute(f"DELETE FROM {quote(table.name)}")  # noqa: S608 - a name of the schema

    async def fill(self, table: Table, rows: Batch) -> None:
        await self._connection.copy_records_to_table(table.name, records=rows, columns=table.columns)

    async def go_on(self, table: str, column: str) -> None:
        newest = f"SELECT max({quote(column)}) FROM {quote(table)}"  # noqa: S608 - names of the schema
        sequence = await self._connection.fetchval("SELECT pg_get_serial_sequence($1, $2)", quote(table), column)
        await self._connection.fetchval(f"SELECT setval($1, coalesce(({newest}), 1), ({newest}) IS NOT NULL)", sequence)

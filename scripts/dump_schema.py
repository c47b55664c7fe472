"""Write the schema that the migrations come to, in both databases, to tests/golden."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import sys
from pathlib import Path

import asyncpg

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
sys.path.insert(0, str(ROOT))

from drover.store import migrate, open_store  # noqa: E402 - found by the line above, as the tests' server is
from drover.store.postgres_link import schema_of  # noqa: E402
from tests import postgres_server  # noqa: E402

TABLES = """
SELECT c.relname AS name FROM pg_class c WHERE c.relnamespace = CAST($1 AS regnamespace) AND c.relkind = 'r' ORDER BY 1
"""
COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS filled,
       CASE WHEN l.collname = 'default' THEN NULL ELSE l.collname END AS sorted_as,
       CASE WHEN a.attidentity = '' THEN pg_get_expr(d.adbin, d.adrelid) ELSE 'identity' END AS given
  FROM pg_attribute a
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  LEFT JOIN pg_collation l ON l.oid = a.attcollation
 WHERE a.attrelid = CAST($1 AS regclass) AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum
"""
CONSTRAINTS = """
SELECT conname AS name, pg_get_constraintdef(oid) AS says FROM pg_constraint
 WHERE conrelid = CAST($1 AS regclass) AND contype IN ('c', 'p', 'u', 'f') ORDER BY contype, conname
"""
INDEXES = """
SELECT pg_get_indexdef(i.indexrelid) AS says FROM pg_index i
 WHERE i.indrelid = CAST($1 AS regclass) AND NOT EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conindid = i.indexrelid)
 ORDER BY 1
"""


def sqlite_schema() -> str:
    """The migrated schema as SQLite says it."""
    connection = sqlite3.connect(":memory:")
    for migration in migrate.available("sqlite"):
        for statement in migration.statements():
            connection.execute(statement)
    ours = "sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
    rows = connection.execute(f"SELECT sql FROM sqlite_schema WHERE {ours} ORDER BY tbl_name, type DESC, name")
    text = "\n\n".join(f"{sql};" for (sql,) in rows) + "\n"
    connection.close()
    return text


async def postgres_schema(url: str, project_id: str) -> str:
    """The schema of a project on a server, made and migrated first, in words that do not depend on its version."""
    async with open_store(url, project_id=project_id):
        pass
    schema = schema_of(project_id)
    connection = await asyncpg.connect(url, server_settings={"search_path": f'"{schema}"'})
    try:
        parts = [
            await _table(connection, f'"{schema}"."{row["name"]}"', row["name"])
            for row in await connection.fetch(TABLES, f'"{schema}"')
            if row["name"] != "drover_migrations"
        ]
    finally:
        await connection.close()
    return re.sub(rf'"?{re.escape(schema)}"?\.', "", "\n".join(parts))


async def _table(connection: asyncpg.Connection, table: str, name: str) -> str:
    lines = [f"TABLE {name}"]
    for c in await connection.fetch(COLUMNS, table):
        sorted_as = f' COLLATE "{c["sorted_as"]}"' if c["sorted_as"] else ""
        given = f" DEFAULT {c['given']}" if c["given"] else ""
        lines.append(f"    {c['name']} {c['type']}{sorted_as}{' NOT NULL' if c['filled'] else ''}{given}")
    lines += [f"    {c['name']}: {c['says']}" for c in await connection.fetch(CONSTRAINTS, table)]
    lines += [f"    {i['says']}" for i in await connection.fetch(INDEXES, table)]
    return "\n".join(lines) + "\n"


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "schema.sqlite.sql").write_text(sqlite_schema())
    url = postgres_server.shared().url()
    (GOLDEN / "schema.postgres.sql").write_text(asyncio.run(postgres_schema(url, "golden")))


if __name__ == "__main__":
    main()

"""The judge's eyes on a Postgres: plain SQL over a connection of its own."""

from __future__ import annotations

from typing import Any

import anyio
import asyncpg

from tests.proof.checker import Rows


def rows_of_postgres(url: str, project: str) -> Rows:
    """Reads the schema of a project as anybody could."""
    schema = f"drover_{project}"

    async def ask(sql: str) -> list[dict[str, Any]]:
        link = await asyncpg.connect(url, server_settings={"search_path": schema})
        try:
            return [dict(row) for row in await link.fetch(sql)]
        finally:
            await link.close()

    return lambda sql: anyio.run(ask, sql)

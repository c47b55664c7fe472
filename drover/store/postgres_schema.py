"""The schema of a project: made and migrated under a lock, left alone when it is up to date."""

from __future__ import annotations

from drover.store import migrate
from drover.store.postgres_link import Address, Connection

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"


async def ensure_schema(connection: Connection, address: Address, now: int) -> None:
    """Bring the schema up to this program's. One that is needs no right to change it.

    Each migration is one transaction, and those who come at the same time wait for one another.
    """
    known = migrate.available("postgres")
    if await connection.fetchval("SELECT to_regclass($1)", f"{address.quoted}.drover_migrations") is not None:
        if not migrate.pending(await read_ledger(connection), known):
            return
    elif await connection.fetchval("SELECT to_regnamespace($1)", address.quoted) is None:
        # Only where it is missing: IF NOT EXISTS asks for the right to create one all the same.
        await _locked(connection, address, [f"CREATE SCHEMA IF NOT EXISTS {address.quoted}"])
    while await _apply_next(connection, address, known, now):
        pass


async def _locked(connection: Connection, address: Address, statements: list[str]) -> None:
    await connection.execute("BEGIN")
    await connection.execute(_LOCK, address.schema)
    for statement in statements:
        await connection.execute(statement)
    await connection.execute("COMMIT")


async def _apply_next(connection: Connection, address: Address, known: list[migrate.Migration], now: int) -> bool:
    """Apply the first migration that is missing; False when none is."""
    await connection.execute("BEGIN")
    await connection.execute(_LOCK, address.schema)
    await connection.execute(migrate.LEDGER)
    missing = migrate.pending(await read_ledger(connection), known)
    if missing:
        for statement in missing[0].statements():
            await connection.execute(statement)
        await connection.execute("INSERT INTO drover_migrations VALUES ($1, $2, $3, $4)", *missing[0][:3], now)
    await connection.execute("COMMIT")
    return len(missing) > 1


async def read_ledger(connection: Connection) -> dict[int, tuple[str, str]]:
    """The migrations that the schema has had: number → name and checksum."""
    rows = await connection.fetch("SELECT number, name, checksum FROM drover_migrations")
    return {int(r["number"] or 0): (str(r["name"]), str(r["checksum"])) for r in rows}

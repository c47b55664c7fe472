"""What a project's schema on a Postgres server is, read without changing it."""

from __future__ import annotations

from drover.store.facts import COUNT_TASKS, Seen, Setting
from drover.store.postgres_link import DRIVER_ERRORS, OLDEST, Address, connect, schema_of, translated
from drover.store.postgres_schema import read_ledger

_SERVER = """
SELECT current_setting('server_version') AS version, CAST(current_setting('server_version_num') AS integer) AS number,
       current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit,
       pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS standby,
       CAST(current_setting('max_connections') AS integer) AS most,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connected"""
_SIZE = """
SELECT CAST(coalesce(sum(pg_total_relation_size(c.oid)), 0) AS bigint)
  FROM pg_class c WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'r'"""

_TOO_OLD = Setting(name="too_old", value="PostgreSQL 13 or newer is needed", good=False)


async def see(url: str, project_id: str) -> tuple[str, Seen]:
    """The schema's name, and what it and its server are. A server that drover would refuse is looked at, too."""
    address = Address(url, schema_of(project_id))
    connection = await connect(address)
    try:
        said = await connection.fetchrow(_SERVER)
        assert said is not None  # noqa: S101 - a SELECT without FROM has one row
        settings = (
            *([] if int(said["number"] or 0) >= OLDEST else [_TOO_OLD]),
            Setting(name="fsync", value=str(said["fsync"]), good=said["fsync"] == "on"),
            Setting(name="synchronous_commit", value=str(said["synchronous_commit"])),  # asked for in every session
            Setting(name="full_page_writes", value=str(said["full_page_writes"])),
            Setting(name="read_only", value="yes" if said["standby"] else "no", good=not said["standby"]),
            Setting(name="connections", value=f"{said['connected']} of {said['most']}"),
        )
        size = int(await connection.fetchval(_SIZE, address.quoted) or 0)
        there = await connection.fetchval("SELECT to_regclass($1)", f"{address.quoted}.drover_migrations")
        ledger = await read_ledger(connection) if there is not None else None
        tasks = int(await connection.fetchval(COUNT_TASKS) or 0) if ledger else 0
    except DRIVER_ERRORS as error:
        raise translated(error, address) from error
    finally:
        connection.terminate()
    return address.schema, Seen(f"PostgreSQL {said['version']}", size, settings, ledger, tasks)

"""The event log: what happened, written in the transaction that made it happen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from drover.domain.models import Event
from drover.store.database import Database, Row, Transaction, Value

PAGE = 500
_as_json = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would make an encoder for every event


async def tell(
    tx: Transaction,
    type: str,
    at: int,
    *,
    task_id: str | None = None,
    epic_id: str | None = None,
    attempt: int | None = None,
    worker: str | None = None,
    host: str | None = None,
    data: Mapping[str, Value | Sequence[str]] | None = None,
) -> None:
    """Write one event inside a verb's transaction; ``data`` becomes its JSON object."""
    await tx.run(
        "add_event",
        type=type,
        at=at,
        task_id=task_id,
        epic_id=epic_id,
        attempt=attempt,
        worker=worker,
        host=host,
        data=_as_json(data or {}),
    )


class Events:
    """Reading the log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        *,
        after: int = 0,
        task_id: str | None = None,
        epic_id: str | None = None,
        since: int | None = None,
        until: int | None = None,
        limit: int = PAGE,
    ) -> list[Event]:
        """At most ``limit`` events with ``seq > after``, oldest first; times are unix ms, both ends included.

        Whoever goes on from the last ``seq`` seen misses nothing: a number is shown only when every smaller
        one is committed, or never will be.
        """
        last = await self.last_seq()

        async def verb(tx: Transaction) -> list[Row]:
            return await tx.all(
                "list_events",
                after=after,
                last=last,
                task_id=task_id,
                epic_id=epic_id,
                since=since,
                until=until,
                page=limit,
            )

        return [event_of(row) for row in await self._database.read(verb)]

    async def last_seq(self) -> int:
        """The number of the newest event that none can come before any more; 0 when there is none."""

        async def verb(tx: Transaction) -> int:
            # In this order: a writer that got its number before the first look is seen by the second.
            last, first_open = await tx.one("last_event"), await tx.one("first_open_event")
            numbers = [int(r["seq"]) for r in (last, first_open) if r is not None and r["seq"] is not None]
            return min(numbers, default=0)

        return await self._database.read(verb)


def event_of(row: Row) -> Event:
    """A row as the value people see."""
    return Event.model_validate({**row, "data": json.loads(str(row["data"]))})

"""Epics: containers of tasks, with their progress."""

from __future__ import annotations

from drover.domain.clock import Clock
from drover.domain.errors import StoreError, WrongState
from drover.domain.ids import new_id
from drover.domain.models import Epic
from drover.store.database import Database, Transaction
from drover.store.events import tell
from drover.store.reading import resolve_epic
from drover.store.rows import epic_of


class Epics:
    """Verbs of an epic."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def add(self, title: str, description: str = "", *, by: str | None = None) -> Epic:
        """A new, open epic."""

        async def verb(tx: Transaction) -> Epic:
            now = self._clock.now()
            for length in range(4, 12):
                id = new_id("epic", length)
                if await tx.run("add_epic", id=id, title=title, description=description, now=now) == 1:
                    await tell(tx, "epic.created", now, epic_id=id, data={"title": title, "by": by})
                    return Epic(id=id, title=title, description=description, created_at=now)
            raise StoreError("no free epic id was found")

        return await self._database.write(verb)

    async def list_epics(self) -> list[Epic]:
        """Every epic in the order they were added."""

        async def verb(tx: Transaction) -> list[Epic]:
            counts = {r["epic_id"]: r for r in await tx.all("count_epic_tasks")}
            return [
                epic_of(
                    row,
                    total=int(counts[row["id"]]["total"] or 0) if row["id"] in counts else 0,
                    completed=int(counts[row["id"]]["completed"] or 0) if row["id"] in counts else 0,
                )
                for row in await tx.all("list_epics")
            ]

        return await self._database.read(verb)

    async def get(self, name: str) -> Epic:
        """The epic with this id or the only one that begins so."""

        async def verb(tx: Transaction) -> str:
            return await resolve_epic(tx, name)

        id = await self._database.read(verb)
        return next(e for e in await self.list_epics() if e.id == id)

    async def close(self, name: str, *, by: str | None = None) -> Epic:
        """Close an epic all of whose tasks are finished."""

        async def verb(tx: Transaction) -> str:
            now = self._clock.now()
            id = await resolve_epic(tx, name)
            open_tasks = [
                r for r in await tx.all("list_tasks_of_epic", epic_id=id)
                if r["state"] not in ("completed", "failed", "cancelled")
            ]  # fmt: skip
            if open_tasks:
                raise WrongState(
                    f"{id} has {len(open_tasks)} unfinished tasks",
                    hint=f"drover list --epic {id}, cancel or finish them",
                )
            if await tx.run("close_epic", id=id, now=now) != 1:
                raise WrongState(f"{id} is closed already")
            await tell(tx, "epic.closed", now, epic_id=id, data={"by": by})
            return id

        return await self.get(await self._database.write(verb))

"""Limits of an agent's account: until when no task of that agent is begun, whoever runs, whenever drover restarts."""

from __future__ import annotations

import zlib

from drover.domain.clock import Clock
from drover.domain.models import AgentLimit
from drover.store.database import Database, Transaction

STAGGER_LIMIT_MS = 30_000  # those that wait for one limit wake within this time after its end, not all at once


class Limits:
    """Verbs of limits."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def note(self, agent: str, until: int, *, reason: str, detail: str) -> None:
        """Remember that ``agent`` is limited until then (unix ms). A limit that ends later stands."""

        async def verb(tx: Transaction) -> None:
            now = self._clock.now()
            await tx.run("note_limit", agent=agent, until=until, reason=reason, detail=detail, now=now)

        await self._database.write(verb)

    async def lift(self, agent: str) -> bool:
        """Forget the limit of ``agent``, and whether there was one. Tasks that wait for it go on waiting."""

        async def verb(tx: Transaction) -> bool:
            return await tx.run("lift_limit", agent=agent) > 0

        return await self._database.write(verb)

    async def standing(self) -> list[AgentLimit]:
        """The limits that have not ended, by agent."""

        async def verb(tx: Transaction) -> list[AgentLimit]:
            return list((await standing(tx, self._clock.now())).values())

        return await self._database.read(verb)


async def standing(tx: Transaction, now: int) -> dict[str, AgentLimit]:
    """Within a transaction: agent → the limit that stands."""
    return {str(row["agent"]): AgentLimit.model_validate(dict(row)) for row in await tx.all("list_limits", now=now)}


def wake_at(limit: AgentLimit, task_id: str, now: int) -> int:
    """When a task that waits for the limit is tried: after its end, a tenth of the wait later at most.

    Whoever ran into the limit is tried at its very end; should it still stand, the others do not try.
    """
    spread = min(STAGGER_LIMIT_MS, max(0, limit.until - now) // 10)
    return limit.until + zlib.crc32(task_id.encode()) % (spread + 1)

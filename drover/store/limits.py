"""Limits of an agent's account: until when no task of that agent is begun, whoever runs, whenever drover restarts."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

from drover.domain.clock import Clock
from drover.domain.models import AgentLimit
from drover.store.database import Database, Transaction
from drover.store.events import tell

USED_UP = "usage_limit"
STAGGER_LIMIT_MS = 30_000  # those that wait for one limit wake within this time after its end, not all at once


class Limits:
    """Verbs of limits."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def note(self, agent: str, until: int, *, reason: str, detail: str) -> bool:
        """Remember that ``agent`` is limited until then (unix ms). False: a limit that ends no sooner stood already."""

        async def verb(tx: Transaction) -> bool:
            now = self._clock.now()
            return await tx.run("note_limit", agent=agent, until=until, reason=reason, detail=detail, now=now) > 0

        return await self._database.write(verb)

    async def lift(self, agent: str, *, default: str | None = None, operator: str | None = None) -> int | None:
        """Forget the limit of ``agent`` and wake who waits for it: how many tasks. None when there was no limit.

        ``default`` is the agent of tasks that name none.
        """

        async def verb(tx: Transaction) -> int | None:
            now = self._clock.now()
            if agent not in await standing(tx, now):
                return None
            await tx.run("lift_limit", agent=agent)
            woken = await tx.run("wake_limited", agent=agent, is_default=int(agent == default), now=now)
            await tell(tx, "agent.lifted", now, data={"agent": agent, "tasks": woken, "by": operator})
            tx.ring()
            return woken

        return await self._database.write(verb)

    async def standing(self) -> list[AgentLimit]:
        """The limits that have not ended, by agent."""

        async def verb(tx: Transaction) -> list[AgentLimit]:
            return list((await standing(tx, self._clock.now())).values())

        return await self._database.read(verb)


async def standing(tx: Transaction, now: int) -> dict[str, AgentLimit]:
    """Within a transaction: agent → the limit that stands."""
    return {str(row["agent"]): AgentLimit.model_validate(dict(row)) for row in await tx.all("list_limits", now=now)}


def choose_agent(agents: Sequence[str], limits: Mapping[str, AgentLimit]) -> tuple[str, AgentLimit | None]:
    """Who works, of those who may, and the limit that keeps all of them from it.

    Others stand in for the first only while what its account may use is used up, not while it asks too often.
    """
    first = limits.get(agents[0])
    if first is None or first.reason != USED_UP:
        return agents[0], first
    free = next((agent for agent in agents if agent not in limits), None)
    if free is not None:
        return free, None
    return agents[0], min((limits[agent] for agent in agents), key=lambda limit: limit.until)


def wake_at(limit: AgentLimit, task_id: str, now: int) -> int:
    """When a task that waits for the limit is tried: after its end, a tenth of the wait later at most.

    Whoever ran into the limit is tried at its very end; should it still stand, the others do not try.
    """
    spread = min(STAGGER_LIMIT_MS, max(0, limit.until - now) // 10)
    return limit.until + zlib.crc32(task_id.encode()) % (spread + 1)

"""Blocks of ten ports, each leased to one execution on a host, so that two agents' servers never meet."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from drover.domain.clock import Clock
from drover.domain.models import Claim
from drover.store.database import Database, Transaction

FIRST, BLOCKS, BLOCK = 21_000, 1_000, 10  # below every system's range of ports that it gives out itself


class Ports:
    """Verbs of leased ports. A block is leased with its claim and freed when the claim is closed."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def exchange(self, claim: Claim, host: str, *, unusable: Collection[int]) -> int | None:
        """Another block for the claim than these (first ports); None when every one is leased or unusable."""

        async def verb(tx: Transaction) -> int | None:
            await tx.run("free_ports", task_id=claim.task_id, fence=claim.fence)
            return await lease_block(tx, host, claim.task_id, claim.fence, self._clock.now(), unusable)

        return await self._database.write(verb)

    async def free(self, claim: Claim) -> None:
        """The claim was taken away, and its processes are gone."""

        async def verb(tx: Transaction) -> None:
            await tx.run("free_ports", task_id=claim.task_id, fence=claim.fence)

        await self._database.write(verb)

    async def free_lost(self, host: str) -> None:
        """Blocks of this host whose claims are closed; only while no process of theirs can be alive."""

        async def verb(tx: Transaction) -> None:
            await tx.run("free_lost_ports", host=host)

        await self._database.write(verb)

    async def leased(self, host: str) -> frozenset[int]:
        """The first ports of the leased blocks."""

        async def verb(tx: Transaction) -> frozenset[int]:
            return await _leased(tx, host)

        return await self._database.read(verb)


async def lease_block(
    tx: Transaction, host: str, task_id: str, fence: int, now: int, unusable: Collection[int] = ()
) -> int | None:
    """The first port of a block that is now this claim's. A task gets the block it had before when that is free."""
    taken = await _leased(tx, host) | set(unusable)
    start = int.from_bytes(hashlib.sha256(task_id.encode()).digest()[:4], "big")
    for step in range(BLOCKS):
        first = FIRST + (start + step) % BLOCKS * BLOCK
        if first in taken:
            continue
        # Another process may have been faster with this one.
        if await tx.run("lease_ports", host=host, first_port=first, task_id=task_id, fence=fence, now=now) == 1:
            return first
    return None


async def _leased(tx: Transaction, host: str) -> frozenset[int]:
    return frozenset(int(row["first_port"] or 0) for row in await tx.all("list_leased_ports", host=host))

"""Blocks of ports: one claim each, freed when it is closed, whatever closes it."""

from __future__ import annotations

import anyio
import pytest

from drover.domain.verdicts import Released
from drover.store import Store
from drover.store.ports import BLOCK, BLOCKS, FIRST
from tests.store.scenes import add, complete, hire, hire_many, take

pytestmark = pytest.mark.anyio
ALL = [FIRST + number * BLOCK for number in range(BLOCKS)]


async def test_claims_that_stand_at_once_have_blocks_of_their_own(store: Store) -> None:
    for number in range(30):
        await add(store, f"task {number}")
    firsts: list[int | None] = []

    async def claim(worker: object) -> None:
        firsts.append((await take(store, worker=worker)).first_port)  # type: ignore[arg-type]

    async with anyio.create_task_group() as group:
        for worker in await hire_many(store, 30):
            group.start_soon(claim, worker)
    assert len(set(firsts)) == 30 and None not in firsts
    assert await store.ports.leased("here") == set(firsts)


async def test_another_host_has_ports_of_its_own(store: Store) -> None:
    task = await add(store, "first")
    first = await take(store, task, await hire(store, "here"))
    await store.claims.settle(first, Released())
    again = await take(store, task, await hire(store, "there"))
    assert again.first_port == first.first_port, "a task gets its block again when it is free"
    assert await store.ports.leased("here") == frozenset()


async def test_a_block_is_freed_with_its_claim(store: Store) -> None:
    await complete(store, await add(store, "settled"))
    task = await add(store, "rescued")
    await take(store, task)
    [held] = await store.claims.running()
    assert len(await store.ports.leased("here")) == 1
    await store.claims.rescue(held, dead=True)
    assert await store.ports.leased("here") == frozenset()


async def test_a_block_of_a_cancelled_task_stays_until_its_agent_is_gone(store: Store) -> None:
    task = await add(store, "cancelled")
    claim = await take(store, task)
    await store.tasks.cancel(task.id)
    assert await store.ports.leased("here") == {claim.first_port}
    await store.ports.free(claim)
    assert await store.ports.leased("here") == frozenset()


async def test_an_exchange_gives_another_block_and_keeps_no_more_than_one(store: Store) -> None:
    claim = await take(store, await add(store, "exchanged"))
    assert claim.first_port is not None
    other = await store.ports.exchange(claim, "here", unusable=[claim.first_port])
    assert other not in (None, claim.first_port)
    assert await store.ports.leased("here") == {other}
    assert await store.ports.exchange(claim, "here", unusable=ALL) is None
    assert await store.ports.leased("here") == frozenset()

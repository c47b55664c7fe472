"""Ten ports for each execution, and a floor of free space below which nothing new begins."""

from __future__ import annotations

import shutil
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from drover.domain.models import Worker
from drover.domain.states import State
from drover.engine import ports, space
from drover.engine import workers as crew
from drover.process import current_identity
from drover.store.ports import BLOCK, BLOCKS, FIRST
from tests.engine.places import Site

pytestmark = pytest.mark.anyio

SERVER = """
import os, pathlib, socket, sys, time
first, top = int(os.environ["DROVER_PORT"]), pathlib.Path(sys.argv[1])
sockets = []
for port in range(first, first + 10):
    sockets.append(socket.create_server(("127.0.0.1", port)))
me = top / "up" / os.environ["DROVER_TASK_ID"]
me.write_text(str(first))
end = time.monotonic() + 30
while len(list((top / "up").iterdir())) < 4 and time.monotonic() < end:
    time.sleep(0.02)
pathlib.Path(os.environ["DROVER_TASK_ID"]).write_text("served")
"""


async def test_agents_that_work_at_once_listen_on_different_ports(site: Site) -> None:
    """Each listens on all of its ten until all four do."""
    (site.top / "up").mkdir()
    (site.top / "server.py").write_text(SERVER)
    site.says(f"exec python3 {site.top}/server.py {site.top}")
    async with site.open() as drover:
        for number in range(4):
            await drover.add(f"Serves {number}")
        report = await drover.run(workers=4)
        assert len(report.completed) == 4
        firsts = {int(path.read_text()) for path in (site.top / "up").iterdir()}
        assert len(firsts) == 4
        assert all((first - FIRST) % BLOCK == 0 for first in firsts)
        tools = await drover.tools()
        assert await drover.store.ports.leased(tools.host) == frozenset(), "freed with their claims"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_block_that_somebody_listens_on_is_passed_over(site: Site, address: str) -> None:
    async with site.open() as drover:
        task = await drover.add("Work")
        tools = await drover.tools()
        worker = Worker(id="w", host=tools.host, process=current_identity())
        await drover.store.workers.start_run(await drover._asked(1, None, (), None), [worker])
        claim = await drover.store.claims.claim(worker)
        assert claim is not None and claim.first_port is not None
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            server = socket.create_server((address, claim.first_port + 7), family=family)
        except OSError:
            pytest.skip(f"there is no {address} here")
        with server:
            async with ports.ten(tools, claim) as first:
                assert first is not None and first != claim.first_port
                assert await drover.store.ports.leased(tools.host) == {first}, "the store knows of it"
                async with ports.ten(tools, claim.model_copy(update={"first_port": first})) as other:
                    assert other not in (first, claim.first_port), "another project of this user has that one"
        await drover.cancel([task.id])


async def test_a_task_gets_its_ports_again_and_none_are_left_when_all_are_taken(site: Site) -> None:
    async with site.open() as drover:
        task = await drover.add("Work")
        tools = await drover.tools()
        worker = Worker(id="w", host=tools.host, process=current_identity())
        await drover.store.workers.start_run(await drover._asked(1, None, (), None), [worker])
        claim = await drover.store.claims.claim(worker)
        assert claim is not None
        everything = [FIRST + number * BLOCK for number in range(BLOCKS)]
        assert await drover.store.ports.exchange(claim, tools.host, unusable=everything) is None
        assert await drover.store.ports.exchange(claim, tools.host, unusable=()) == claim.first_port
        await drover.store.ports.free_lost(tools.host)
        assert await drover.store.ports.leased(tools.host) == {claim.first_port}, "its claim stands"
        await drover.cancel([task.id])
        await drover.store.ports.free_lost(tools.host)
        assert await drover.store.ports.leased(tools.host) == frozenset()


@pytest.mark.suite("T15")
async def test_below_the_floor_nothing_new_begins_and_above_it_work_goes_on_by_itself(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "IDLE_LOOK_S", 0.05)
    free = 10 << 30
    monkeypatch.setattr(space, "free_bytes", lambda places: free)
    site.says(f"touch {site.top}/$DROVER_TASK_ID; echo x > $DROVER_TASK_ID; test -e {site.top}/go || sleep 0.5")
    async with site.open(**{"disk.floor": "1G"}) as drover:
        first = await drover.add("At work when it gets scarce", priority=1)
        second = await drover.add("Begins later")

        async def fill_and_free() -> None:
            nonlocal free
            with anyio.fail_after(60):
                while not (site.top / first.id).exists():
                    await anyio.sleep(0.02)
                free = 100 << 20
                while (await drover.task(first.id)).state is not State.COMPLETED:
                    await anyio.sleep(0.02)
            await anyio.sleep(0.3)  # several looks
            assert not (site.top / second.id).exists()
            [note] = [n for n in (await drover.status()).notes if "no new task starts" in n]
            assert "100M free" in note and "the floor is 1G" in note
            free = 10 << 30

        async with anyio.create_task_group() as group:
            group.start_soon(fill_and_free)
            report = await drover.run(workers=1)
        assert set(report.completed) == {first.id, second.id}
        assert (await drover.status()).notes == ()


async def test_the_floor_is_measured_where_the_state_is_and_can_be_turned_off(site: Site) -> None:
    async with AsyncExitStack() as stack:
        drover = await stack.enter_async_context(site.open(**{"disk.floor": "60000T"}))
        [note] = (await drover.status()).notes
        assert str(drover.places.state) in note
        assert [check.level for check in await drover.doctor() if check.message == note] == ["problem"]
        assert abs(space.free_bytes(drover.places) - shutil.disk_usage(Path(site.root)).free) < 1 << 30
    async with site.open(**{"disk.floor": "0"}) as drover:
        assert (await drover.status()).notes == ()

"""Taking back from the dead: claims whose worker is gone, processes nobody owns, locks nobody holds."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio

from drover.domain.errors import DroverError
from drover.domain.models import Worker
from drover.engine import keeping, landing, pool, usage
from drover.engine.lane import target_of
from drover.engine.tools import Tools
from drover.git import reuse
from drover.git.checkout import finish_publishing
from drover.git.landing import branch_ref
from drover.git.locks import clear_stale_locks
from drover.git.worktree import clear_leftovers
from drover.process import boot_id, end_marked, is_alive
from drover.store.claims import Held

log = logging.getLogger(__name__)

PATROL_S = 2.0  # how soon the death of another process on this host is noticed
LEFTOVER_GRACE_S = 3.0


async def recover(tools: Tools) -> list[str]:
    """At a run's start: everything dead processes of this host left is taken back; what was done, in words.

    A worker of this host is dead when its process (pid and the kernel's start time) is gone, or, where
    nobody else can have written its record, when its machine has started again since. Its agents are
    ended before its claims are given back.
    """
    done = await rescue_from_dead(tools, tools.host)
    if not [w for w in await tools.store.workers.list_workers() if w.host == tools.host and _is_at_work(w)]:
        await clear_stale_locks(tools.repo, [branch_ref(target_of(tools))])
        await finish_publishing(tools.repo)
        await clear_leftovers(tools.places.worktrees)
        await pool.tidy(tools)
        await reuse.drop(tools.places.reuse.parent, but=tools.places.reuse if tools.settings.disk.reuse else None)
        await tools.store.ports.free_lost(tools.host)
        await usage.count_all(tools)
        done += await landing.reconcile(tools)
        done += await keeping.forget_old_work(tools)
    return done


async def patrol(tools: Tools) -> None:
    """While a run lasts: claims of processes that died, and claims whose lease has ended."""

    async def look() -> None:
        await rescue_from_dead(tools, tools.host)
        await _rescue_expired(tools)

    await every(PATROL_S, look)


async def rescue_from_dead(tools: Tools, host: str) -> list[str]:
    """Claims of this host's dead workers are queued again, their attempts given back."""
    workers = await tools.store.workers.list_workers()
    processes = {(w.host, w.process): w for w in workers}.items()  # many workers are one process
    gone = {who for who, w in processes if _is_dead(w, host, one_machine=tools.local_lease_clock)}
    dead = [w for w in workers if (w.host, w.process) in gone]
    if not dead:
        return []
    ids = {w.id for w in dead}
    done = []
    for held in [h for h in await tools.store.claims.running() if h.worker.id in ids]:
        if await _take_back(tools, held, dead=True):
            done.append(f"{held.task_id}: taken back from {held.worker.id}, whose process is gone")
    for worker in dead:
        await tools.store.workers.stop(worker.id)
    return done


async def _rescue_expired(tools: Tools) -> None:
    expired = set(await tools.store.claims.expired())
    if not expired:
        return
    for held in [h for h in await tools.store.claims.running() if h.task_id in expired]:
        if await _take_back(tools, held, dead=False):
            log.warning("%s: the lease of %s on %s had ended", held.task_id, held.worker.id, held.worker.host)


async def _take_back(tools: Tools, held: Held, *, dead: bool) -> bool:
    """End what the execution left running on this host, then take the claim."""
    try:
        await end_marked(tools.places.marker(held.task_id, held.fence), LEFTOVER_GRACE_S)
    except DroverError as trouble:
        # Taken back all the same: the next attempt's first step proves that nobody is alive before it begins.
        log.warning("%s: %s", held.task_id, trouble.message)
    if not await tools.store.claims.rescue(held, dead=dead):
        return False
    await usage.count(tools, held.task_id, held.fence)
    return True


def _is_dead(worker: Worker, host: str, *, one_machine: bool) -> bool:
    """Whether the worker's process is proven to be gone.

    A SQLite file has one machine: a worker of another boot is dead there, whatever the machine is called now.
    Elsewhere another boot may be another machine of the same name, so only its lease tells.
    """
    if worker.process.boot_id != boot_id():
        return one_machine
    return worker.host == host and not is_alive(worker.process)


def _is_at_work(worker: Worker) -> bool:
    return worker.process.boot_id == boot_id() and is_alive(worker.process)


async def every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do the work again and again; trouble that passes is told, once, and waited out."""
    told = ""
    while True:
        await anyio.sleep(seconds)
        try:
            await work()
            told = ""
        except (DroverError, OSError) as trouble:
            if str(trouble) != told:
                log.warning("%s", trouble)
            told = str(trouble)

"""The lane that hosts share: the target branch of the remote, on which one lands at a time.

With a store that many hosts use, what stands on the remote's branch has landed and nothing else has. The
lane in each repository follows it. Whose turn it is to land is said by the database, so that hosts do
not overtake each other all the time; that nobody lands over another is refused by the remote itself.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

import anyio

from drover.domain.errors import LeaseLost, StoreUnavailable, Unreachable
from drover.domain.models import Claim
from drover.engine.tools import Tools
from drover.git import remote
from drover.git.landing import Lease, lease_ref
from drover.git.remote_work import push_landing, raise_remote_lease
from drover.git.repo import RefMoved
from drover.process import sole_error

log = logging.getLogger(__name__)

TURN_MS = 30_000  # after which the turn of a host that does not come back is another's
LOOK_AGAIN_S = 1.0  # the safety net behind the bell


@asynccontextmanager
async def turn(tools: Tools, branch: str) -> AsyncGenerator[None]:
    """One landing at a time among all hosts; whoever takes longer than its turn is no longer alone."""
    async with tools.upstream.landing:
        await _take(tools, branch)
        try:
            yield
        finally:
            await _leave(tools, branch)


@asynccontextmanager
async def kept(tools: Tools, branch: str) -> AsyncGenerator[Callable[[], None]]:
    """Nobody on another host lands while something here gets ready to; calling what it gives keeps it so afterwards.

    For a result that others have overtaken often enough: its tests take longer than the time between
    two landings. The turn that follows finds the lane still ours, if it comes soon.
    """
    await _take(tools, branch)
    keep_on = False

    def keep() -> None:
        nonlocal keep_on
        keep_on = True

    async def renew() -> None:
        while True:
            await anyio.sleep(_turn_ms(tools) / 3000)
            with suppress(StoreUnavailable):
                await tools.store.landings.take_lane(branch, _holder(tools), for_ms=_turn_ms(tools))

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(renew, name="keep the lane")
            yield keep
            group.cancel_scope.cancel()
    except BaseExceptionGroup as several:
        raise sole_error(several) from several
    finally:
        if not keep_on:
            await _leave(tools, branch)


def _holder(tools: Tools) -> str:
    return f"{tools.host} {tools.run_id}"


def _turn_ms(tools: Tools) -> int:
    return min(TURN_MS, tools.store.claims.lease_ms)


async def _take(tools: Tools, branch: str) -> None:
    bell = tools.store.bell
    while True:
        ticket = bell.ticket()
        if await tools.store.landings.take_lane(branch, _holder(tools), for_ms=_turn_ms(tools)):
            return
        await bell.wait(ticket, LOOK_AGAIN_S)


async def _leave(tools: Tools, branch: str) -> None:
    with anyio.move_on_after(TURN_MS / 1000, shield=True):
        try:
            await tools.store.landings.leave_lane(branch, _holder(tools))
        except StoreUnavailable as trouble:  # it ends by itself
            log.info("%s", trouble.message)


async def look(tools: Tools, branch: str) -> str | None:
    """Where the remote's branch is now, fetched; None when it has none. Raises Unreachable."""
    upstream = tools.upstream
    async with upstream.turn:
        if upstream.resting:
            raise Unreachable(upstream.why)
        try:
            upstream.tip = await remote.fetch(tools.repo, tools.remote, branch)
        except Unreachable as away:
            upstream.rest(away.message)
            raise
        upstream.asked = True
        return upstream.tip


async def raise_lease(tools: Tools, claim: Claim, lease: Lease, *, believed: str | None) -> None:
    """The remote knows that only this claim may land its task. Raises LeaseLost when a later one may, Unreachable."""
    try:
        await raise_remote_lease(tools.repo, tools.remote, claim.task_id, lease, believed=believed)
    except RefMoved as moved:
        raise LeaseLost(f"{claim.task_id}: {moved.ref} of {tools.remote} is held by a later claim") from moved


async def push(tools: Tools, claim: Claim, lease: Lease, *, branch: str, new: str) -> bool:
    """Bring the remote's branch to ``new``, in whose history it was when last looked at; False when it moved since.

    Raises LeaseLost when a later claim may land the task, Unreachable when nobody knows whether it has landed.
    """
    upstream = tools.upstream
    async with upstream.turn:
        old, upstream.asked = upstream.tip, False  # until the outcome is known
        outcome = await push_landing(
            tools.repo, tools.remote, branch, new=new, old=old, task_id=claim.task_id, lease=lease
        )
        if outcome == "landed":
            upstream.tip, upstream.asked = new, True
            return True
    if outcome == "fenced":
        # Ours was never told there, or was taken away by a push of ours that was cut off.
        log.info("%s: %s of %s is not at fence %d", claim.task_id, lease_ref(claim.task_id), tools.remote, lease.fence)
        await raise_lease(tools, claim, lease, believed=None)
    return False

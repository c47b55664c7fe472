"""Publishing: the target branch follows the lane, and a remote follows the branch where one is pushed to.

None of it is done in the lane's turn, so landings go on meanwhile; whoever publishes does so for everybody
who has landed by then. What stands in the way, a checkout or a remote, only makes landed tasks wait.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from drover.domain.errors import GitError, Unreachable
from drover.domain.models import Landed, Published
from drover.engine import lane, remote_lane
from drover.engine.gate import only_one_at_a_time
from drover.engine.tools import Tools
from drover.git import checkout, remote
from drover.git.landing import branch_ref
from drover.git.overlap import Blocked

log = logging.getLogger(__name__)

REMOTE_MOVES_WAITED_OUT = 8  # how often others may push first before we try again later


async def publish(tools: Tools, landed: Landed | None = None) -> Published:
    """Let the target branch follow the lane and the remote the branch; completes every task that only waited for it."""
    if tools.shared:
        return await _publish_shared(tools, landed)
    async with _door(tools):
        if landed is not None and await _is_out(tools, landed.commit):
            return Published(done=True)  # the one before published for both
        blocked = await _follow(tools)
    if tools.settings.landing.push is not None and (landed or await tools.store.landings.unpublished()):
        blocked = await _push(tools, patient=landed is None) or blocked
    await _settle_waiting(tools, blocked)
    if landed is None:
        return Published(done=not blocked, detail=blocked)
    if await _is_out(tools, landed.commit):
        return Published(done=True)
    return Published(done=False, detail=blocked or f"{lane.target_of(tools)} does not hold it yet")


async def _publish_shared(tools: Tools, landed: Landed | None) -> Published:
    """Where hosts share the lane, what has landed is out; the branch here follows when nothing is in the way."""
    why = ""
    if landed is not None and not await _is_there(tools, landed.commit):
        try:
            await remote_lane.look(tools, lane.target_of(tools))
        except Unreachable as away:
            why = away.message
    try:
        async with _door(tools):
            if blocked := await _follow(tools):
                log.info("%s here stays behind: %s", lane.target_of(tools), blocked)
    except GitError as trouble:
        log.info("%s here stays behind: %s", lane.target_of(tools), trouble.message)
    if await tools.store.landings.unpublished():  # landed before hosts shared the lane, or while the remote was away
        why = await _push(tools, patient=landed is None) or why
        await _settle_waiting(tools, why)
    if landed is None or await _is_there(tools, landed.commit):
        return Published(done=True)
    return Published(done=False, detail=why or f"{tools.remote} does not hold it yet")


async def _settle_waiting(tools: Tools, blocked: str) -> None:
    """Complete what is out, and tell the others why they are not."""
    waiting = await tools.store.landings.unpublished()
    done = [task for task in waiting if await _is_out(tools, task.commit)]
    left = [task.task_id for task in waiting if task not in done]
    if blocked and left:
        await tools.store.landings.describe_wait(left, blocked)
    if done:
        await tools.store.landings.published(done, lane.target_of(tools))


async def _is_out(tools: Tools, commit: str) -> bool:
    """Whether the commit is where ``completed`` says it is: in the target branch, and on the remote if there is one.

    Where hosts share the lane it is the remote's branch alone: a checkout on one of them is its operator's own.
    """
    if tools.shared:
        return await _is_there(tools, commit)
    ref = branch_ref(lane.target_of(tools))
    reached = (await tools.repo.read_refs([ref]))[ref]
    if reached is None or not await tools.repo.is_ancestor(commit, reached):
        return False
    return tools.settings.landing.push is None or await _is_there(tools, commit)


async def _is_there(tools: Tools, commit: str) -> bool:
    """Whether the remote had the commit when last looked at."""
    there = tools.upstream.tip
    return there is not None and await lane.holds(tools, there, commit)


async def _follow(tools: Tools) -> str:
    """The branch at the lane's tip; why not, if something is in the way."""
    branch = lane.target_of(tools)
    async with lane.turn(tools):
        found = await lane.absorbed(tools)
    if found.conflicts:
        return f"your commits on {branch} conflict with what landed in {', '.join(found.conflicts[:8])}"
    outcome = await checkout.publish(tools.repo, branch=branch, new=found.tip)
    return outcome.why if isinstance(outcome, Blocked) else ""


@asynccontextmanager
async def _door(tools: Tools) -> AsyncGenerator[None]:
    async with tools.publishing, only_one_at_a_time(tools.places.state / "publishing.lock"):
        yield


# ---------------------------------------------------------------- the remote


async def _push(tools: Tools, *, patient: bool) -> str:
    """The remote at the branch's tip; why not, if it is not. An impatient caller does not wait for one that is away."""
    upstream = tools.upstream
    if upstream.resting and not patient:
        return upstream.why
    async with upstream.turn:
        if upstream.resting:
            return upstream.why
        try:
            why = await _push_over_moves(tools)
        except GitError as error:
            why = error.message
            upstream.rest(why)
        return why


async def _push_over_moves(tools: Tools) -> str:
    """Push; when somebody else has pushed, take that in, publish and push again. Why it was not done, if so."""
    branch, name, upstream = lane.target_of(tools), str(tools.settings.landing.push), tools.upstream
    for _ in range(REMOTE_MOVES_WAITED_OUT):
        if not upstream.asked:
            upstream.tip, upstream.asked = await remote.fetch(tools.repo, name, branch), True
        old, blocked = upstream.tip, ""
        if old is not None and not await _holds(tools, branch, old):
            blocked = await _take_in(tools, old, name)
        new = (await tools.repo.read_refs([branch_ref(branch)]))[branch_ref(branch)]
        if new is None or new == old:
            return blocked
        if old is not None and not await tools.repo.is_ancestor(old, new):
            return blocked or f"{branch} does not hold yet what {name} has"
        upstream.asked = False  # until the outcome is known
        if await remote.push(tools.repo, name, branch, new=new, old=old):
            upstream.tip, upstream.asked = new, True
            return ""
    return f"others push to {branch} of {name} all the time"


async def _holds(tools: Tools, branch: str, commit: str) -> bool:
    tip = (await tools.repo.read_refs([branch_ref(branch)]))[branch_ref(branch)]
    return tip is not None and await tools.repo.is_ancestor(commit, tip)


async def _take_in(tools: Tools, theirs: str, name: str) -> str:
    """What others pushed, merged into the lane and published; what is in the way, if something is."""
    branch = lane.target_of(tools)
    found = await lane.take_in(tools, theirs, f"{branch} of {name}")
    if found.conflicts:
        return f"what {name} has on {branch} conflicts with what landed in {', '.join(found.conflicts[:8])}"
    async with _door(tools):
        return await _follow(tools)

"""The lane of a target branch: where finished work stands in line, and how the branch follows it.

Work lands in the lane (a ref of drover's own), so that an operator's checkout never stops the night. The
target branch follows by fast-forward as soon as that checkout allows it; an operator's own commits on
the target are merged into the lane first.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import NamedTuple

from drover.domain.errors import GitError
from drover.domain.models import Landed, Published
from drover.engine.gate import only_one_at_a_time
from drover.engine.tools import Tools
from drover.git import checkout
from drover.git.landing import Conflicted, branch_ref, lane_ref
from drover.git.overlap import Blocked
from drover.git.repo import RefChange


def target_of(tools: Tools) -> str:
    """The branch that work lands on."""
    target = tools.settings.project.target
    if target is None:
        raise GitError("no target branch is recorded", hint="run `drover init` on the branch that work is to land on")
    return target


async def tip(tools: Tools) -> str:
    """Where new work starts: the lane, with every commit of the operator on the target merged in."""
    async with turn(tools):
        return (await absorbed(tools)).tip


async def publish(tools: Tools, landed: Landed | None = None) -> Published:
    """Let the target branch follow the lane; completes every task that only waited for it."""
    async with turn(tools):
        return await _publish(tools, landed)


async def _publish(tools: Tools, landed: Landed | None) -> Published:
    branch = target_of(tools)
    waiting = await tools.store.landings.unpublished()
    lane = await absorbed(tools)
    blocked = ""
    if lane.conflicts:
        blocked = f"your commits on {branch} conflict with what landed in {', '.join(lane.conflicts[:8])}"
    else:
        outcome = await checkout.publish(tools.repo, branch=branch, new=lane.tip)
        if isinstance(outcome, Blocked):
            blocked = outcome.why
    if blocked:
        await tools.store.landings.describe_wait([w.task_id for w in waiting], blocked)
    reached = await tools.repo.resolve(branch_ref(branch))
    done = [w for w in waiting if reached and await tools.repo.is_ancestor(w.commit, reached)]
    if done:
        await tools.store.landings.published(done, branch)
    if landed is None or (reached and await tools.repo.is_ancestor(landed.commit, reached)):
        return Published(done=not blocked, detail=blocked) if landed is None else Published(done=True)
    return Published(done=False, detail=blocked or f"{branch} does not hold it yet")


class Lane(NamedTuple):
    tip: str
    conflicts: tuple[str, ...] = ()  # between the operator's commits on the target and what landed


async def absorbed(tools: Tools) -> Lane:
    """The lane as it is with the operator's commits in it; made at the target's tip at first. Call it in one's turn.

    While a train is pinned the operator's commits wait: somebody who commits more often than the tests
    end would otherwise keep everything from landing.
    """
    branch = target_of(tools)
    lane_tip = await tools.repo.resolve(lane_ref(branch)) or await _make_lane(tools, branch)
    if tools.train.pinned:
        tools.train.follow(lane_tip)
        return Lane(lane_tip)
    found = await checkout.absorb(
        tools.repo, branch=branch, lane_tip=lane_tip, identity=tools.identity, at_ms=tools.clock.now()
    )
    lane = Lane(lane_tip, found.paths) if isinstance(found, Conflicted) else Lane(found.tip)
    tools.train.follow(lane.tip)
    return lane


async def _make_lane(tools: Tools, branch: str) -> str:
    tip = await tools.repo.resolve(branch_ref(branch))
    if tip is None:
        raise GitError(f"there is no branch {branch}", hint="set [project] target in .drover.toml to one there is")
    await tools.repo.update_refs([RefChange(ref=lane_ref(branch), new=tip, old=None)], since=(tip,))
    return tip


@asynccontextmanager
async def turn(tools: Tools) -> AsyncGenerator[None]:
    """One at a time in this process, and among the processes of this project on this host."""
    async with tools.turn, only_one_at_a_time(tools.places.state / "lane.lock"):
        yield

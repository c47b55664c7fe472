"""The lane of a target branch: where finished work stands in line, and how the branch follows it.

Work lands in the lane (a ref of drover's own), so that an operator's checkout never stops the night. The
target branch follows by fast-forward as soon as that checkout allows it; an operator's own commits on
the target are merged into the lane first.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from drover.domain.errors import GitError, Unreachable
from drover.engine import remote_lane
from drover.engine.gate import only_one_at_a_time
from drover.engine.tools import Tools
from drover.git import checkout
from drover.git.landing import Conflicted, branch_ref, lane_ref
from drover.git.repo import RefChange


def target_of(tools: Tools) -> str:
    """The branch that work lands on."""
    target = tools.settings.project.target
    if target is None:
        raise GitError("no target branch is recorded", hint="run `drover init` on the branch that work is to land on")
    return target


async def tip(tools: Tools) -> str:
    """Where new work starts: the lane, with every commit of the operator on the target merged in.

    Of a lane that hosts share it is what the remote has; while that is away, what it had when last looked at.
    """
    if tools.shared:
        with suppress(Unreachable):
            await remote_lane.look(tools, target_of(tools))
    return await standing(tools)


async def standing(tools: Tools) -> str:
    """As :func:`tip`, without a question to the remote."""
    async with turn(tools):
        return (await absorbed(tools)).tip


async def holds(tools: Tools, tip: str, commit: str) -> bool:
    """Whether the commit is in the history of ``tip``; one that another host made may not even be here."""
    if tools.shared and await tools.repo.resolve(commit) is None:
        return False
    return await tools.repo.is_ancestor(commit, tip)


async def take_in(tools: Tools, theirs: str, name: str) -> Lane:
    """The lane with a fetched commit in it, beside the operator's; ``name`` says in the history whose it is.

    While a train is pinned it is the lane as it was, as with :func:`absorbed`.
    """
    async with turn(tools):
        lane = await absorbed(tools)
        if lane.conflicts or tools.train.pinned:
            return lane
        found = await checkout.absorb(
            tools.repo, branch=target_of(tools), lane_tip=lane.tip, identity=tools.identity, at_ms=tools.clock.now(),
            theirs=theirs, name=name,
        )  # fmt: skip
        return _seen(tools, lane.tip, found)


class Lane(NamedTuple):
    tip: str
    conflicts: tuple[str, ...] = ()  # between the operator's commits on the target and what landed


async def absorbed(tools: Tools) -> Lane:
    """The lane as it is with the operator's commits in it; made at the target's tip at first. Call it in one's turn.

    While a train is pinned the operator's commits wait: somebody who commits more often than the tests
    end would otherwise keep everything from landing.
    """
    branch = target_of(tools)
    if tools.shared:
        return await _caught_up(tools, branch)
    refs = await tools.repo.read_refs([lane_ref(branch), branch_ref(branch)])
    theirs = refs[branch_ref(branch)]
    lane_tip = refs[lane_ref(branch)] or await _make_lane(tools, branch, theirs)
    if tools.train.pinned or (theirs is not None and await tools.repo.is_ancestor(theirs, lane_tip)):
        return _seen(tools, lane_tip, None)
    found = await checkout.absorb(
        tools.repo, branch=branch, lane_tip=lane_tip, identity=tools.identity, at_ms=tools.clock.now()
    )
    return _seen(tools, lane_tip, found)


async def _caught_up(tools: Tools, branch: str) -> Lane:
    """The lane with everything in it that the remote's branch had when last looked at.

    Commits that the operator has not pushed are not the other hosts' business, and stay out.
    """
    theirs, ref = tools.upstream.tip, lane_ref(branch)
    lane_tip = (await tools.repo.read_refs([ref]))[ref]
    if lane_tip is None:
        start = theirs or await tools.repo.resolve(branch_ref(branch))
        return _seen(tools, await _make_lane(tools, branch, start), None)
    if theirs is None:
        return _seen(tools, lane_tip, None)
    found = await checkout.absorb(
        tools.repo, branch=branch, lane_tip=lane_tip, identity=tools.identity, at_ms=tools.clock.now(),
        theirs=theirs, name=f"{branch} of {tools.remote}",
    )  # fmt: skip
    if isinstance(found, Conflicted):
        raise GitError(
            f"what had landed here conflicts with what {tools.remote} has on {branch} in {', '.join(found.paths[:8])}",
            hint=f"merge {ref} into {branch} by hand and push it to {tools.remote}",
        )
    return _seen(tools, lane_tip, found)


def _seen(tools: Tools, lane_tip: str, found: checkout.Absorbed | Conflicted | None) -> Lane:
    lane = Lane(lane_tip)
    if isinstance(found, Conflicted):
        lane = Lane(lane_tip, found.paths)
    elif found is not None:
        lane = Lane(found.tip)
    tools.train.follow(lane.tip)
    return lane


async def _make_lane(tools: Tools, branch: str, tip: str | None) -> str:
    if tip is None:
        raise GitError(f"there is no branch {branch}", hint="set [project] target in .drover.toml to one there is")
    await tools.repo.update_refs([RefChange(ref=lane_ref(branch), new=tip, old=None)], since=(tip,))
    return tip


@asynccontextmanager
async def turn_to_land(tools: Tools) -> AsyncGenerator[None]:
    """As :func:`turn`; where hosts share the lane it is one among all of them, and what the others landed is here."""
    if not tools.shared:
        async with turn(tools):
            yield
        return
    async with remote_lane.turn(tools, target_of(tools)):
        await remote_lane.look(tools, target_of(tools))
        async with turn(tools):
            yield


@asynccontextmanager
async def turn(tools: Tools) -> AsyncGenerator[None]:
    """One at a time in this process, and among the processes of this project on this host."""
    async with tools.turn, only_one_at_a_time(tools.places.state / "lane.lock"):
        yield

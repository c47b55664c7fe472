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
    """Where new work starts: the lane, with every commit of the operator on the target merged in."""
    async with turn(tools):
        return (await absorbed(tools)).tip


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
    refs = await tools.repo.read_refs([lane_ref(branch), branch_ref(branch)])
    lane_tip, theirs = refs[lane_ref(branch)] or await _make_lane(tools, branch), refs[branch_ref(branch)]
    if tools.train.pinned or (theirs is not None and await tools.repo.is_ancestor(theirs, lane_tip)):
        return _seen(tools, lane_tip, None)
    found = await checkout.absorb(
        tools.repo, branch=branch, lane_tip=lane_tip, identity=tools.identity, at_ms=tools.clock.now()
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

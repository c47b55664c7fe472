"""A result's ride on the train: it stands on what will land before it, is tested there, and is proven or refused."""

from __future__ import annotations

from typing import NamedTuple

import anyio

from drover.domain.models import Commit, Proof
from drover.engine import lane, remote_lane, trial
from drover.engine.steps import Run
from drover.engine.train import Car
from drover.engine.workplace import conflict
from drover.git.commit import make_commit, task_message
from drover.git.landing import Conflicted, merge_trees


class Coupled(NamedTuple):
    """A result as a commit on another one. ``conflicts`` are the paths because of which there is none."""

    tip: str = ""
    tree: str = ""
    conflicts: tuple[str, ...] = ()


async def to_a_proof(run: Run, commit: Commit) -> Proof:
    """Ride until the tests have passed on the very tree that will land if those before it do.

    The car stays in the train for the landing. Raises AttemptFailed when the work conflicts with the
    lane, or when its tests fail and everything before it in that tree has landed: then it is its own doing.
    """
    tools, task_id = run.tools, run.claim.task_id
    if commit.empty:
        return Proof(tree=commit.tree, passed=True, mode="disabled")
    while True:
        if tools.train.find(task_id) is None:
            await tools.reservations.wait_turn(task_id, commit.paths)
        if trial.command_of(run) is None and tools.train.empty:
            return await _untested(run, commit)
        proof = await _ride(run, tools.train.board(task_id), commit)
        if proof is not None:
            return proof


async def couple(run: Run, commit: Commit, on: str) -> Coupled:
    """The commit with which the result lands on ``on``."""
    tools, task = run.tools, run.claim.task
    merged = await merge_trees(tools.repo, ours=on, theirs=commit.oid)
    if isinstance(merged, Conflicted):
        return Coupled(conflicts=merged.paths)
    tip = await make_commit(
        tools.repo,
        tree=merged.tree,
        parents=(on, commit.oid) if tools.settings.landing.style == "merge" else (on,),
        message=task_message(task.title, task.id, task.attempt),
        identity=tools.identity,
        at_ms=tools.clock.now(),
    )
    return Coupled(tip, merged.tree)


async def _untested(run: Run, commit: Commit) -> Proof:
    """Nobody is in line and nothing is to be tested; a conflict is found here rather than in the lane's turn."""
    merged = await merge_trees(run.tools.repo, ours=await lane.standing(run.tools), theirs=commit.oid)
    if isinstance(merged, Conflicted):
        raise conflict(run, merged.paths)
    return Proof(tree=merged.tree, passed=True, mode="disabled")


async def _ride(run: Run, car: Car, commit: Commit) -> Proof | None:
    """None when the car has to stand up anew."""
    tools, train = run.tools, run.tools.train
    await train.reach_window(car, tools.settings.landing.parallel)
    before = train.before(car)
    if before is None and tools.shared and train.pinned:
        async with remote_lane.kept(tools, lane.target_of(tools)) as keep:
            if (proof := await _stand_and_prove(run, car, commit, before)) is not None:
                keep()
            return proof
    return await _stand_and_prove(run, car, commit, before)


async def _stand_and_prove(run: Run, car: Car, commit: Commit, before: Car | None) -> Proof | None:
    tools, train = run.tools, run.tools.train
    on = await lane.tip(tools) if before is None else before.tip
    if on is None:
        return None
    coupled = await couple(run, commit, on)
    if coupled.conflicts:
        train.leave(car.task_id)
        if await train.fate(before, on):
            raise conflict(run, coupled.conflicts)
        return None
    if not train.stand(car, on=on, tip=coupled.tip, tree=coupled.tree):
        return None
    proof = await _tested(run, car, coupled.tip)
    if proof is None or proof.passed or proof.mode != "strict":
        return proof
    train.leave(car.task_id)  # those behind it go on without it; a red one never holds them up
    if await train.fate(before, on):
        raise trial.refusal(run, proof)
    return None


async def _tested(run: Run, car: Car, tip: str) -> Proof | None:
    """The verdict on the car where it stands; None when it was derailed before there was one."""
    proof: Proof | None = None
    with anyio.CancelScope() as tests:
        car.tests = tests
        try:
            proof = await trial.of_tree(run, car.tree, car.on or "")
        finally:
            car.tests = None
    if proof is None or car.tip != tip:
        return None
    if proof.passed or proof.mode != "strict":
        run.tools.train.prove(car)
    return proof

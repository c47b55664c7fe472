"""Landing: a commit in the target's lane exactly once, and how a crash in the middle is settled.

A landing is: intent row (fenced) → one ref transaction that verifies the task's lease ref and moves the
lane by compare-and-swap → outcome row. Whether something has landed is asked of the lane's history, never
of the database alone.
"""

from __future__ import annotations

from drover.domain.errors import GitError, LeaseLost, Unreachable
from drover.domain.models import Claim, Commit, Landed, Landing, Proof
from drover.engine import lane, publishing, remote_lane, ride, trial
from drover.engine.ride import Coupled
from drover.engine.steps import Run
from drover.engine.tools import Tools
from drover.engine.workplace import conflict, lease_in_git
from drover.git.landing import (
    Lease,
    changed_paths,
    check_content,
    find_landed,
    lane_ref,
    lease_ref,
    swap_lane,
)
from drover.git.repo import RefChange, RefMoved

MOVES_WAITED_OUT = 100  # how often others may win the swap before a landing is given back


async def land(run: Run, commit: Commit, proof: Proof) -> Landed:
    """Bring the commit into the lane exactly once; found when it is there already."""
    tools, task_id = run.tools, run.claim.task_id
    if tools.train.find(task_id) is None:
        await tools.reservations.wait_turn(task_id, commit.paths)
    lease = await lease_in_git(run)  # which the swap verifies
    for _ in range(MOVES_WAITED_OUT):
        if await tools.train.reach_head(task_id):
            async with lane.turn_to_land(tools):
                landed = await _land_once(run, commit, proof, lease)
            if landed is not None:
                tools.train.leave(task_id)
                return landed
        proof = await ride.to_a_proof(run, commit)  # never in the lane's turn: tests may take long
    raise GitError(f"the lane of {lane.target_of(tools)} moved {MOVES_WAITED_OUT} times while {task_id} landed")


async def reconcile(tools: Tools) -> list[str]:
    """Settle what a crash left open between the ledger and the repository; what was done, in words.

    ==================== =========================================== ==================================
    ledger               lane                                        done
    ==================== =========================================== ==================================
    intent               the commit is in it                         recorded as landed when it is taken up
    intent               it is not                                   abandoned; landing begins anew
    landed               the commit is in it                         published when the checkout allows
    landed               it is not, the lane is its ancestor         the lane is moved to it again
    landed               it is not, and the lane went elsewhere      reported; nothing is marked again
    ==================== =========================================== ==================================

    Where hosts share the lane it is the remote's branch, which nobody moves back: the last but one is reported, too.
    A second call changes nothing. Only for a process that knows no other drover to be at work here.
    """
    done: list[str] = []
    rows = await tools.store.landings.open(lane.target_of(tools))
    if tools.shared:  # asked after the rows were read: what has landed by then is there
        try:
            await remote_lane.look(tools, lane.target_of(tools))
        except Unreachable as away:
            return [f"nothing was reconciled: {away.message}"]
    async with lane.turn(tools):
        tip = (await lane.absorbed(tools)).tip
        for row in rows:
            done += await _reconciled(tools, row, tip)
    await publishing.publish(tools)
    return done


async def _reconciled(tools: Tools, row: Landing, lane_tip: str) -> list[str]:
    inside = await tools.repo.resolve(row.commit) is not None and await tools.repo.is_ancestor(row.commit, lane_tip)
    if row.state == "intent" or inside:
        return []  # the holder's own landing step finds it, or begins anew
    here = await tools.repo.resolve(row.commit) is not None
    if here and not tools.shared and await tools.repo.is_ancestor(lane_tip, row.commit):
        branch = lane.target_of(tools)
        await tools.repo.update_refs([RefChange(ref=lane_ref(branch), new=row.commit, old=lane_tip)])
        return [f"{row.task_id}: the lane of {branch} had gone back; {row.commit[:12]} is in it again"]
    return [
        f"{row.task_id}: {row.commit[:12]} was landed and is no longer in {lane.target_of(tools)}; nothing was changed"
    ]


async def _land_once(run: Run, commit: Commit, proof: Proof, lease: Lease) -> Landed | None:
    """None when somebody else moved the lane first, or when what would land now is another tree than was tested."""
    tools, task, branch = run.tools, run.claim.task, lane.target_of(run.tools)
    old = (await lane.absorbed(tools)).tip
    if (found := await _found(tools, run.claim, old, commit)) is not None:
        return await _record(run, found)
    if commit.empty:
        tree = await tools.repo.tree(old)
        return await _record(run, Landed(commit=old, tree=tree, parent=old, target=branch, empty=True))
    coupled = await _coupled(run, commit, old)
    if coupled.conflicts:
        raise conflict(run, coupled.conflicts)
    if not await trial.may_land(run, coupled.tree, proof):
        return None
    new = coupled.tip
    run.hold()
    await tools.store.landings.intend(run.claim, target=branch, old=old, commit=new, tree=coupled.tree)
    if tools.shared and not await remote_lane.push(tools, run.claim, lease, branch=branch, new=new):
        await tools.store.landings.abandon(run.claim)
        return None
    try:
        await swap_lane(tools.repo, branch=branch, old=old, new=new, task_id=task.id, lease_oid=lease.oid)
    except RefMoved as moved:
        await tools.store.landings.abandon(run.claim)
        if moved.ref == lease_ref(task.id):
            raise LeaseLost(f"{task.id}: a later claim holds {moved.ref}") from moved
        return None
    tools.train.landed(task.id, new)
    own = commit.paths if not commit.more_paths else await changed_paths(tools.repo, commit.base, commit.oid)
    await check_content(tools.repo, parent=old, landed=new, allowed_paths=own, base=commit.base)
    return await _record(run, Landed(commit=new, tree=coupled.tree, parent=old, target=branch))


async def _coupled(run: Run, commit: Commit, old: str) -> Coupled:
    """The commit that was tested if the lane is where it stands, else the result on the lane as it is."""
    car = run.tools.train.find(run.claim.task_id)
    if car is not None and car.proven and car.tip is not None and car.on == old:
        return Coupled(car.tip, car.tree)
    return await ride.couple(run, commit, old)


async def _found(tools: Tools, claim: Claim, lane_tip: str, commit: Commit) -> Landed | None:
    """The landing of this generation of the task, if the lane has it: by the ledger's intents, then by trailers."""
    branch, task = lane.target_of(tools), claim.task
    for row in await tools.store.landings.of_task(task.id):
        mine = row.attempt >= task.first_attempt and row.target == branch
        if mine and await tools.repo.resolve(row.commit) and await tools.repo.is_ancestor(row.commit, lane_tip):
            return Landed(commit=row.commit, tree=row.tree, parent=row.old, target=branch, found=True)
    known = await find_landed(
        tools.repo, tip=lane_tip, since=commit.base, task_id=task.id, first_attempt=task.first_attempt
    )
    if known is None:
        return None
    tree, parent = await tools.repo.tree(known.oid), await tools.repo.resolve(f"{known.oid}^1")
    return Landed(commit=known.oid, tree=tree, parent=parent or known.oid, target=branch, found=True)


async def _record(run: Run, landed: Landed) -> Landed:
    await run.tools.store.landings.landed(run.claim, landed)
    return landed

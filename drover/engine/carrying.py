"""A task's work on its way from host to host: saved on the remote, and brought here when another host had begun.

Everything here is for a lane that hosts share. Saving is best effort and holds nobody up; bringing is not:
a task whose work cannot be fetched waits for the remote instead of being begun anew.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

import anyio
from anyio import to_thread

from drover.domain.errors import DroverError, LeaseLost, Unreachable
from drover.domain.models import STEPS, Attempt, Claim, Commit, StepRecord, Task, Worktree
from drover.domain.states import Status
from drover.domain.verdicts import Outcome
from drover.engine import remote_lane
from drover.engine.steps import Moved, Run
from drover.engine.tools import Tools
from drover.git.commit import task_message
from drover.git.durable import write_durably
from drover.git.landing import attempt_ref, lease_ref, raise_lease
from drover.git.remote_work import drop_work, fetch_work, list_work, push_work, snapshot_ref
from drover.git.repo import RefMoved
from drover.git.snapshot import SNAPSHOTS, Kept, list_kept, save_snapshot
from drover.git.worktree import ensure_worktree
from drover.settings import HookName

log = logging.getLogger(__name__)

FAREWELL_PUSH_S = 4.0  # what a farewell may spend on a remote that is slow
SESSION_PUSH_S = 2.0  # the same, for what is only good to have
TIDY_S = 20.0
AT_ITS_END_S = 2  # how old what a farewell has saved may look
_NEEDS_A_CLONE: tuple[HookName, ...] = ("pre_land", "post_land", "before_remove")


async def arrive(run: Run) -> None:
    """At the beginning of a claim: only it may land from now on, and the work of the one before it is here.

    If that is not in the clone here it is fetched, steps whose outcome stayed on the other host are forgotten,
    and it is recorded what this execution goes on from. Raises LeaseLost, Unreachable.
    """
    await _raise_lease(run)
    tools, task = run.tools, run.claim.task
    if "remove_worktree" in run.recalled:
        return  # nothing in a clone matters any more
    known = await tools.store.claims.attempts(task.id)
    since = task.first_attempt if task.fresh else 0  # what was done before a fresh start is not gone on with
    history = [a for a in known if a.fence < run.claim.fence and a.attempt >= since and a.purpose == "build"]
    last = _last(history, [record for name, record in run.recalled.items() if name in STEPS])
    held = read_fence(tools, task.id)
    if last is None or (held is not None and held >= last.fence):
        if held is not None:
            await to_thread.run_sync(write_fence, tools, run.claim)
        return
    await fetch_work(tools.repo, tools.remote, task.id)
    if "commit_changes" in run.recalled:
        run.moved = await _go_on_to_land(run, last)
    else:
        await _keep_ours(tools, task, history, held)
        run.moved = await _go_on_to_work(run, history, last, held)


def read_fence(tools: Tools, task_id: str) -> int | None:
    """The fence of the last claim whose work is in the clone here; None when there is no clone of it."""
    try:
        if not tools.places.worktree(task_id).is_dir():
            return None
        return int(tools.places.fence(task_id).read_text())
    except (FileNotFoundError, ValueError):
        return None


def write_fence(tools: Tools, claim: Claim) -> None:
    """From now on the clone here holds the work of this claim."""
    write_durably(tools.places.fence(claim.task_id), f"{claim.fence}\n")


async def _raise_lease(run: Run) -> None:
    tools, claim = run.tools, run.claim
    ref = lease_ref(claim.task_id)
    believed = (await tools.repo.read_refs([ref]))[ref]
    try:
        lease = await raise_lease(tools.repo, claim.task_id, claim.fence)
    except RefMoved as moved:
        raise LeaseLost(f"{claim.task_id}: {ref} is held by a later claim") from moved
    with suppress(Unreachable):  # then the landing raises it
        await remote_lane.raise_lease(tools, claim, lease, believed=believed)


def _last(history: Sequence[Attempt], steps: Iterable[StepRecord]) -> Attempt | None:
    """The last execution that may have left something: it started an agent, or finished a step."""
    fences = {a.fence for a in history if a.agent_started_at is not None} | {s.fence for s in steps}
    return next((a for a in reversed(history) if a.fence in fences), None)


async def _go_on_to_land(run: Run, last: Attempt) -> Moved:
    """The result is on a ref; of the clone only the place is needed, and the files by hooks."""
    tools, claim = run.tools, run.claim
    commit = Commit.model_validate_json(run.recalled["commit_changes"].result)
    path = tools.places.worktree(claim.task_id)
    if any(tools.settings.hooks.stages(hook) for hook in _NEEDS_A_CLONE):
        await ensure_worktree(tools.repo, path, commit.base, tree=commit.tree)
    tree = Worktree.model_validate_json(run.recalled["prepare_worktree"].result)
    here = tree.model_copy(update={"path": str(path)}).model_dump_json()
    run.recalled["prepare_worktree"] = run.recalled["prepare_worktree"].model_copy(update={"result": here})
    moved = Moved(last.host, f"continued with the result that {last.host} had committed")
    await _record(run, moved, begin_anew=False)
    return moved


async def _go_on_to_work(run: Run, history: Sequence[Attempt], last: Attempt, held: int | None) -> Moved:
    tools, task = run.tools, run.claim.task
    saved = await _newest(tools, task.id, {a.fence for a in history})
    if saved is None:
        moved = Moved(last.host, f"begun anew: nothing of what {last.host} did was saved")
    elif saved.fence == held:
        moved = Moved(last.host, f"continued from what was here: nothing of {last.host} was saved", saved.kept.oid)
    else:
        moved = Moved(last.host, f"continued from {_age(saved, last, tools.store.claims.lease_ms)}", saved.kept.oid)
    await _record(run, moved, begin_anew=True)
    run.recalled = await tools.store.claims.recall(run.claim)
    return moved


async def _record(run: Run, moved: Moved, *, begin_anew: bool) -> None:
    claims = run.tools.store.claims
    await claims.move(
        run.claim, origin=moved.origin, begin_anew=begin_anew, from_host=moved.host, host=run.tools.host
    )  # fmt: skip
    log.warning("%s: %s", run.claim.task_id, moved.origin)


class _Saved(NamedTuple):
    fence: int
    kept: Kept


async def _newest(tools: Tools, task_id: str, fences: Collection[int]) -> _Saved | None:
    found = [
        _Saved(int(kept.ref.rsplit("/", 1)[1]), kept)
        for kept in await list_kept(tools.repo, task_id=task_id)
        if kept.ref.startswith(f"{SNAPSHOTS}/")
    ]
    return max((saved for saved in found if saved.fence in fences), default=None, key=lambda saved: saved.fence)


def _age(saved: _Saved, last: Attempt, lease_ms: int) -> str:
    """What a snapshot is to the end of the last execution, in words."""
    if saved.fence != last.fence:
        return f"an earlier snapshot: nothing was saved before the loss of {last.host}"
    lost = last.outcome == Outcome.FENCED  # its lease ended, so it was last heard of a lease before that
    gone = (last.ended_at or last.alive_at or saved.kept.saved_at) - (lease_ms if lost else 0)
    seconds = max(0, gone - saved.kept.saved_at) // 1000
    if not lost and seconds <= AT_ITS_END_S:
        return f"the snapshot that {last.host} took at its end"
    spoken = f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
    return f"snapshot {spoken} before the loss of {last.host}"


# ---------------------------------------------------------------- saving


async def keep_left(tools: Tools, task: Task, fence: int, base: str | None) -> None:
    """What an execution left in the clone here, on the ref of its fence; it is somebody else's to go on with."""
    path = tools.places.worktree(task.id)
    if base is None or not path.is_dir():
        return
    await save_snapshot(
        tools.repo,
        path,
        ref=snapshot_ref(task.id, fence),
        base=base,
        message=task_message(f"work in progress: {task.title}", task.id, task.attempt),
        identity=tools.identity,
        scratch=tools.places.scratch(f"{task.id}.{fence}"),
        at_ms=tools.clock.now(),
    )


async def _keep_ours(tools: Tools, task: Task, history: Sequence[Attempt], held: int | None) -> None:
    """The clone that is here gives way to what another host did later; what is in it stays on a ref."""
    mine = [a for a in history if a.base and (a.host == tools.host if held is None else a.fence <= held)]
    if mine:
        await keep_left(tools, task, mine[-1].fence, mine[-1].base)


async def push_result(tools: Tools, claim: Claim, oid: str) -> None:
    """The attempt's result is on the remote before anybody hears of it. Raises Unreachable."""
    await push_work(tools.repo, tools.remote, {attempt_ref(claim.task_id, claim.fence): oid})


async def push_snapshot(tools: Tools, claim: Claim, oid: str) -> None:
    """Save work in progress on the remote, if it can be had and does not have it."""
    ref = snapshot_ref(claim.task_id, claim.fence)
    if tools.upstream.saved.get(ref) == oid:
        return
    try:
        await push_work(tools.repo, tools.remote, {ref: oid})
        tools.upstream.saved[ref] = oid
    except DroverError as trouble:
        log.info("%s: no snapshot on %s: %s", claim.task_id, tools.remote, trouble.message)


async def push_session(tools: Tools, ref: str, oid: str) -> None:
    """Save a session's files on the remote, if it can be had soon and does not have them."""
    if tools.upstream.saved.get(ref) == oid:
        return
    try:
        with anyio.move_on_after(SESSION_PUSH_S):
            await push_work(tools.repo, tools.remote, {ref: oid})
            tools.upstream.saved[ref] = oid
    except DroverError as trouble:
        log.info("%s is not on %s: %s", ref, tools.remote, trouble.message)


async def push_last_snapshot(tools: Tools, claim: Claim, oid: str) -> None:
    """As :func:`push_snapshot`, by somebody who has to go."""
    with anyio.move_on_after(min(FAREWELL_PUSH_S, tools.store.claims.lease_ms / 3000)):
        await push_snapshot(tools, claim, oid)


async def tidy(tools: Tools) -> None:
    """Remove from the remote what is kept there of tasks that are finished. Best effort."""
    try:
        with anyio.move_on_after(TIDY_S):
            kept = await list_work(tools.repo, tools.remote)
            done = await tools.store.tasks.list_tasks(statuses=(Status.COMPLETED, Status.CANCELLED)) if kept else []
            refs = [ref for task in done for ref in kept.get(task.id, ())]
            if refs:
                await drop_work(tools.repo, tools.remote, refs)
    except DroverError as trouble:
        log.info("%s was not tidied: %s", tools.remote, trouble.message)

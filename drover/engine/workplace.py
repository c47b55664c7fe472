"""A task's clone: made on a base that proves its blockers, carried from attempt to attempt, never lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

from drover.domain.errors import AttemptFailed, GitError, LeaseLost
from drover.domain.models import Claim, Worktree
from drover.domain.verdicts import Outcome
from drover.engine import lane
from drover.engine.steps import Run
from drover.engine.tools import Tools
from drover.git.commit import task_message
from drover.git.landing import Conflicted, lease_ref, merge_trees, raise_lease, wip_ref
from drover.git.repo import RefMoved
from drover.git.snapshot import save_snapshot
from drover.git.worktree import ensure_worktree, rebase_worktree, remove_worktree
from drover.process import end_marked

LEFTOVER_GRACE_S = 3.0


async def prepare(run: Run) -> Worktree:
    """The clone for this attempt, with nobody of an earlier execution alive in it."""
    tools, task = run.tools, run.claim.task
    await end_marked(tools.places.marker(task.id), LEFTOVER_GRACE_S)
    try:
        await raise_lease(tools.repo, task.id, run.claim.fence)
    except RefMoved as moved:
        raise LeaseLost(f"{task.id}: {lease_ref(task.id)} is held by a later claim") from moved
    await tools.reservations.wait_turn(task.id, tools.reservations.paths_of(task.id))
    base = await lane.tip(tools)
    await _prove_base(run, base)
    path = tools.places.worktree(task.id)
    tools.places.worktrees.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = tools.settings.project.target or ""
    if task.fresh and task.attempt == task.first_attempt:
        await save(tools, run.claim, attempt=max(1, task.attempt - 1))
        await remove_worktree(path)
    elif (carried := await _carried_work(run, path)) is not None:
        conflicts = await _carry(run, path, base, carried)
        return Worktree(path=str(path), base=base, target=target, found=True, conflicts=conflicts)
    found = await ensure_worktree(tools.repo, path, base)
    return Worktree(path=str(path), base=base, target=target, found=found)


async def _prove_base(run: Run, base: str) -> None:
    """A base without a blocker's landed commit would let the agent work on the wrong code."""
    for id in run.claim.task.blocked_by:
        blocker = await run.tools.store.tasks.get(id)
        if blocker.landed_commit is None or not await run.tools.repo.is_ancestor(blocker.landed_commit, base):
            raise GitError(
                f"{run.claim.task_id}: the base {base[:12]} does not hold the work of its blocker {id}",
                hint=f"the target branch was rewritten? drover info {id}",
            )


async def _carried_work(run: Run, path: Path) -> str | None:
    """What an earlier attempt left, as a commit on its base; None when there is nothing to carry."""
    tools, task = run.tools, run.claim.task
    under_way = _read_carry(tools.places.carry(task.id), task.attempt)
    if under_way is not None:
        return under_way
    if path.is_dir():
        snapshot = await save(tools, run.claim)
        if snapshot is not None:
            return snapshot
        await remove_worktree(path)  # nothing in it differs from its base
        return None
    for attempt in range(task.attempt, task.first_attempt - 1, -1):
        if (oid := await tools.repo.resolve(wip_ref(task.id, attempt))) is not None:
            return oid
    return None


async def _carry(run: Run, path: Path, base: str, work: str) -> tuple[str, ...]:
    """Put the work on the new base. Conflicts stay in the files as markers; their paths are returned.

    A note names the work first. As long as this attempt's step has no result the note counts and the
    clone does not, so neither a half-brought clone nor markers left by a killed try are taken for the work.
    """
    tools, task = run.tools, run.claim.task
    merged = await merge_trees(tools.repo, ours=base, theirs=work)
    conflicts = merged.paths if isinstance(merged, Conflicted) else ()
    _write_carry(tools.places.carry(task.id), task.attempt, work)
    if path.is_dir():
        await rebase_worktree(tools.repo, path, base, tree=merged.tree)
    else:
        await ensure_worktree(tools.repo, path, base, tree=merged.tree)
    return conflicts


async def save(tools: Tools, claim: Claim, *, attempt: int | None = None) -> str | None:
    """The clone's content, tracked and untracked, on the snapshot ref of the attempt; what the ref holds now.

    None when the clone is not there or holds nothing that its base does not.
    """
    task = claim.task
    path = tools.places.worktree(task.id)
    if not path.is_dir():
        return None
    base = await _base_of(tools, claim)
    if base is None:
        return None
    ref = wip_ref(task.id, attempt or task.attempt)
    saved = await save_snapshot(
        tools.repo,
        path,
        ref=ref,
        base=base,
        message=task_message(f"work in progress: {task.title}", task.id, task.attempt),
        identity=tools.identity,
        scratch=tools.places.scratch(f"{task.id}.wip"),
        at_ms=tools.clock.now(),
    )
    return saved or await tools.repo.resolve(ref)


async def _base_of(tools: Tools, claim: Claim) -> str | None:
    """The base of the work in the clone: of the newest attempt that prepared it."""
    for attempt in range(claim.task.attempt, 0, -1):
        for record in await tools.store.claims.steps(claim.task_id, attempt):
            if record.name == "prepare_worktree":
                return Worktree.model_validate_json(record.result).base
    return None


def conflict(run: Run, paths: tuple[str, ...]) -> AttemptFailed:
    """The attempt's work does not merge: its paths are reserved, and the agent is asked to resolve it."""
    task_id = run.claim.task_id
    run.tools.reservations.take(task_id, paths)
    shown = ", ".join(paths[:8]) + (f" and {len(paths) - 8} more" if len(paths) > 8 else "")
    return AttemptFailed(
        Outcome.CONFLICT,
        f"the work conflicts with what landed meanwhile in {shown}",
        advice=f"the work is kept: cd $(drover edit {task_id}), resolve it there, then drover retry {task_id}",
        overtaken=isinstance(tree := run.results.get("prepare_worktree"), Worktree) and bool(tree.conflicts),
    )


def _read_carry(note: Path, attempt: int) -> str | None:
    try:
        found = json.loads(note.read_text())
        return str(found["work"]) if found["attempt"] == attempt else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return None  # cut off while it was written: nothing had been moved yet


def _write_carry(note: Path, attempt: int, work: str) -> None:
    fresh = note.with_suffix(".new")
    with fresh.open("w") as file:
        json.dump({"attempt": attempt, "work": work}, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(note)

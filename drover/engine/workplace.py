"""A task's clone: made on a base that proves its blockers, carried from attempt to attempt, never lost."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path

from anyio import to_thread

from drover.domain.errors import AttemptFailed, GitError, LeaseLost, Unreachable
from drover.domain.models import Task, Worktree
from drover.domain.verdicts import Outcome
from drover.engine import carrying, hooks, lane, pool, space
from drover.engine.steps import Run
from drover.engine.tools import Tools
from drover.git import reuse as directories
from drover.git.commit import task_message
from drover.git.durable import sync_filesystem
from drover.git.landing import Conflicted, Lease, lease_ref, merge_trees, raise_lease, read_lease, wip_ref
from drover.git.repo import RefMoved
from drover.git.snapshot import save_snapshot
from drover.git.worktree import ensure_worktree, rebase_worktree, remove_worktree
from drover.process import end_marked

LEFTOVER_GRACE_S = 3.0
NOTHING = ""  # what a note names when there is no work to begin with


async def prepare(run: Run) -> Worktree:
    """The clone for this attempt, with nobody of an earlier execution alive in it; it survives a power cut."""
    tree = await _prepare(run)
    await to_thread.run_sync(sync_filesystem, run.tools.places.worktrees)
    if run.tools.shared:
        await to_thread.run_sync(carrying.write_fence, run.tools, run.claim)
    return tree


async def _prepare(run: Run) -> Worktree:
    tools, task = run.tools, run.claim.task
    if not await _is_first(run):
        await end_marked(tools.places.marker(task.id), LEFTOVER_GRACE_S)
    await lease_in_git(run)
    await tools.reservations.wait_turn(task.id, tools.reservations.paths_of(task.id))
    base = await lane.tip(tools)
    await _prove_base(run, base)
    path = tools.places.worktree(task.id)
    tools.places.worktrees.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = tools.settings.project.target or ""
    if task.fresh and task.attempt == task.first_attempt and run.moved is None:
        await _put_away(run)
    elif (carried := await _carried_work(run, path)) is not None:
        conflicts = await _carry(run, path, base, carried)
        return Worktree(path=str(path), base=base, target=target, found=True, conflicts=conflicts)
    if not path.is_dir():
        _forget_set_up(tools, task.id)
        if await pool.take(tools, task.id, base):
            return Worktree(path=str(path), base=base, target=target)
    scratch, reuse = tools.places.scratch(task.id), tools.places.reuse
    found = await ensure_worktree(tools.repo, path, base, scratch=scratch, reuse=reuse)
    return Worktree(path=str(path), base=base, target=target, found=found)


async def _is_first(run: Run) -> bool:
    """Whether no execution of the task can have started anything: each begins with a fence, and puts it in git.

    The database alone does not tell: a backup of it that was restored knows less than has happened.
    """
    ref = lease_ref(run.claim.task_id)
    return run.claim.fence == 1 and (await run.tools.repo.read_refs([ref]))[ref] is None


async def lease_in_git(run: Run) -> Lease:
    """The task's lease ref at this claim's fence, found or raised; :class:`LeaseLost` where git knows a later claim.

    Where the database has not come so far, for a backup of it was restored, the task goes on behind what git knows.
    """
    tools, task_id = run.tools, run.claim.task_id
    try:
        return await raise_lease(tools.repo, task_id, run.claim.fence)
    except RefMoved as moved:
        known = await read_lease(tools.repo, task_id)
        if known is not None and await tools.store.claims.catch_up(run.claim, known.fence):
            raise LeaseLost(f"{task_id}: git knows fence {known.fence}, the database is older") from moved
        raise LeaseLost(f"{task_id}: {lease_ref(task_id)} is held by a later claim") from moved


async def _prove_base(run: Run, base: str) -> None:
    """A base without a blocker's landed commit would let the agent work on the wrong code."""
    for id in run.claim.task.blocked_by:
        blocker = await run.tools.store.tasks.get(id)
        if blocker.landed_commit is None or not await lane.holds(run.tools, base, blocker.landed_commit):
            if run.tools.shared and not run.tools.upstream.asked:
                raise Unreachable(f"the work of the blocker {id} is not here yet: {run.tools.upstream.why}")
            raise GitError(
                f"{run.claim.task_id}: the base {base[:12]} does not hold the work of its blocker {id}",
                hint=f"the target branch was rewritten? drover info {id}",
            )


async def _put_away(run: Run) -> None:
    """Save what an earlier generation left, then remove its clone.

    The note keeps a second try from taking the clone that the first one made for that work: saved in its
    place, it would overwrite the snapshot of the work.
    """
    tools, task = run.tools, run.claim.task
    note = tools.places.carry(task.id)
    if _read_carry(note, task.attempt) is None:
        await save(tools, task, attempt=max(1, task.attempt - 1))
        _write_carry(note, task.attempt, NOTHING)
    await _discard(run)


async def _carried_work(run: Run, path: Path) -> str | None:
    """What an earlier attempt left, as a commit on its base; None when there is nothing to carry."""
    tools, task = run.tools, run.claim.task
    if run.moved is not None:
        await _discard(run)  # arrived from elsewhere; what was here before is on a ref
        return run.moved.work or None
    note = tools.places.carry(task.id)
    under_way = _read_carry(note, task.attempt)
    if under_way is None and path.is_dir():
        under_way = await save(tools, task) or NOTHING  # nothing in it differs from its base
        _write_carry(note, task.attempt, under_way)
    if under_way == NOTHING:
        await _discard(run)
    if under_way is not None:
        return under_way or None
    return await _saved_work(tools, task)


async def _saved_work(tools: Tools, task: Task) -> str | None:
    """The newest work that is only on a ref any more; none that is older than the last landing or fresh start."""
    before = task.first_attempt - 1 if task.fresh else 0
    if before == 0 and task.first_attempt > 1:
        rows = await tools.store.landings.of_task(task.id)
        before = max((row.attempt for row in rows if row.landed_at is not None), default=0)
    for attempt in range(task.attempt, before, -1):
        if (oid := await tools.repo.resolve(wip_ref(task.id, attempt))) is not None:
            return oid
        if attempt < task.first_attempt and await _began_with_nothing(tools, task.id, attempt):
            return None
    return None


async def _began_with_nothing(tools: Tools, task_id: str, attempt: int) -> bool:
    records = await tools.store.claims.steps(task_id, attempt)
    trees = [Worktree.model_validate_json(r.result) for r in records if r.name == "prepare_worktree"]
    return any(not tree.found for tree in trees)


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
        # What after_create has set up stays: ignored files are not touched by this.
        await rebase_worktree(tools.repo, path, base, tree=merged.tree)
    else:
        _forget_set_up(tools, task.id)
        scratch, reuse = tools.places.scratch(task.id), tools.places.reuse
        await ensure_worktree(tools.repo, path, base, tree=merged.tree, scratch=scratch, reuse=reuse)
    return conflicts


async def _discard(run: Run) -> None:
    tools, task = run.tools, run.claim.task
    path = tools.places.worktree(task.id)
    if path.is_dir():
        base = await base_of(tools, task) or ""
        await hooks.run_hook(run, "before_remove", Worktree(path=str(path), base=base, target=lane.target_of(tools)))
    await remove(tools, task.id)


async def remove(tools: Tools, task_id: str, *, keep: bool = False) -> None:
    """The task's clone goes, with the memory of its set-up. Only when what it holds is landed or saved.

    With ``keep`` the directory may become another task's, if there is room for it.
    """
    _forget_set_up(tools, task_id)
    path, scratch = tools.places.worktree(task_id), tools.places.scratch(task_id)
    if keep and space.has_room(tools.places, tools.settings):
        await directories.keep(path, scratch, tools.places.reuse, tools.settings.disk.reuse)
    await remove_worktree(path)
    await to_thread.run_sync(partial(shutil.rmtree, scratch, ignore_errors=True))
    await remove_worktree(tools.places.planning(task_id))


async def leave(tools: Tools, task_id: str) -> None:
    """As :func:`remove`, and what was noted of the work that the attempt began with goes too: it has landed."""
    await remove(tools, task_id, keep=True)
    tools.places.carry(task_id).unlink(missing_ok=True)


def _forget_set_up(tools: Tools, task_id: str) -> None:
    """Before a clone is made or removed: what after_create did, it did in one clone."""
    shutil.rmtree(tools.places.set_up(task_id), ignore_errors=True)


async def save(tools: Tools, task: Task, *, attempt: int | None = None) -> str | None:
    """The clone's content, tracked and untracked, on the snapshot ref of the attempt; what the ref holds now.

    None when the clone is not there or holds nothing that its base does not.
    """
    path = tools.places.worktree(task.id)
    if not path.is_dir():
        return None
    base = await base_of(tools, task)
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


async def base_of(tools: Tools, task: Task) -> str | None:
    """The base of the work in the clone: of the newest attempt that prepared it."""
    for attempt in range(task.attempt, 0, -1):
        for record in await tools.store.claims.steps(task.id, attempt):
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

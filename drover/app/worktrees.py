"""The clones on disk: whose they are, which may go and why nothing is lost with them, and how one comes back."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import NamedTuple

from anyio import to_thread

from drover.app.readings import WorktreeRow
from drover.domain.errors import GitError, NotFound, WrongState
from drover.domain.models import Claim, Commit, Task, Worktree
from drover.domain.states import State
from drover.engine import hooks, pool, workplace
from drover.engine.gate import only_one_at_a_time
from drover.engine.steps import Run
from drover.engine.tools import Tools
from drover.git.commit import take_tree
from drover.git.landing import lane_ref, wip_ref
from drover.git.snapshot import list_kept, restore_snapshot
from drover.git.worktree import list_worktrees

NEVER = 2**62
WARM = "warm"  # the status of a clone that has no task yet
LEFT = ("failed", "cancelled", WARM)


class Fate(NamedTuple):
    """Why a clone is there, whether it may go, and why nothing is lost with it."""

    why: str
    removable: bool = False
    proof: str = ""


async def list_rows(tools: Tools) -> list[WorktreeRow]:
    """Every clone on disk, those of the pool last. ``removable`` is what ``prune`` would remove; nothing is written."""
    async with _alone(tools):
        rows = [await _row(tools, path) for path in list_worktrees(tools.places.worktrees)]
    return [*rows, *await _warm_rows(tools)]


async def prune(tools: Tools, *, dry_run: bool, everything: bool) -> list[WorktreeRow]:
    """Remove clones of landed tasks, with ``everything`` also of failed and cancelled ones, and the pool's.

    Returns the rows that went.

    Each only when all of it that git would keep has provably landed or is on a ref, which is made now
    where there is none. Ignored files are not work. With ``dry_run`` nothing is saved or removed.
    """
    async with _alone(tools):
        rows = [await _row(tools, path) for path in list_worktrees(tools.places.worktrees)]
        rows += await _warm_rows(tools)
        going = [r for r in rows if r.removable or (everything and r.proof and r.status in LEFT)]
        if dry_run:
            return going
        gone = [await _remove(tools, row) for row in going]
        return [row for row in gone if row is not None]


async def _warm_rows(tools: Tools) -> list[WorktreeRow]:
    return [
        WorktreeRow(
            path=path,
            task_id=path.name.lstrip("."),
            status=WARM,
            why="made ahead, for a task to begin in at once",
            bytes=await to_thread.run_sync(_size, path),
            removable=False,
            proof="no task has worked in it",
        )
        for path in await pool.list_warm(tools)
    ]


async def _remove(tools: Tools, row: WorktreeRow) -> WorktreeRow | None:
    """What it holds is saved where that is needed, then it goes; None when it stays after all."""
    if row.status == WARM:
        return row if await pool.discard(tools, row.path) else None
    task = await tools.store.tasks.get(row.task_id)
    if task.state is not State.RUNNING:
        await _run_before_remove(tools, task, row.path)
    row = await _row(tools, row.path, save=True)
    now = await tools.store.tasks.get(row.task_id)
    if not row.proof or (now.state, now.fence) != (task.state, task.fence):  # taken up again meanwhile
        return None
    await workplace.remove(tools, now.id)
    return row


async def restore(tools: Tools, task: Task) -> WorktreeRow:
    """Bring the task's clone back as it was last saved or committed; one that is there stays as it is.

    Raises NotFound when nothing of it is kept (any more), WrongState while a worker has the task.
    """
    if task.state is State.RUNNING:
        raise WrongState(f"{task.id} is at work in its worktree", hint=f"drover info {task.id}")
    path = tools.places.worktree(task.id)
    async with _alone(tools):
        if not path.is_dir():
            await _bring_back(tools, task, path)
        return await _row(tools, path)


async def _bring_back(tools: Tools, task: Task, path: Path) -> None:
    kept = await list_kept(tools.repo, task_id=task.id)
    if not kept:
        raise NotFound(f"nothing of {task.id} is kept", hint="work is kept for 14 days after its task was finished")
    await workplace.remove(tools, task.id)  # what is remembered of the clone before
    await restore_snapshot(tools.repo, kept[-1].ref, path)


def _alone(tools: Tools) -> AbstractAsyncContextManager[None]:
    """Among the processes that look at worktrees: they share the index with which a clone is read."""
    return only_one_at_a_time(tools.places.state / "worktrees.lock")


async def _run_before_remove(tools: Tools, task: Task, path: Path) -> None:
    """The hook outside of a life: nobody holds a lease, and it only warns."""
    nobody = Claim(task=task, fence=task.fence, worker_id="", lease_until=NEVER)
    base = await workplace.base_of(tools, task) or ""
    tree = Worktree(path=str(path), base=base, target=tools.settings.project.target or "")
    await hooks.run_hook(Run(nobody, tools, {}), "before_remove", tree)


async def _row(tools: Tools, path: Path, *, save: bool = False) -> WorktreeRow:
    size = await to_thread.run_sync(_size, path)
    try:
        task = await tools.store.tasks.get(path.name)
    except NotFound:
        why = "no such task in this backlog"
        return WorktreeRow(path=path, task_id=path.name, status="unknown", why=why, bytes=size, removable=False)
    fate = await _fate(tools, task, path, save=save)
    return WorktreeRow(
        path=path,
        task_id=task.id,
        status=task.status.value,
        why=fate.why,
        bytes=size,
        removable=fate.removable,
        proof=fate.proof,
    )


async def _fate(tools: Tools, task: Task, path: Path, *, save: bool) -> Fate:
    if task.state is State.RUNNING:
        return Fate("an agent works in it")
    if task.landed_at is None and task.state not in (State.FAILED, State.CANCELLED):
        return Fate("its task is not finished")
    try:
        proof = await _prove(tools, task, path, save=save)
    except (GitError, OSError) as trouble:
        return Fate(f"kept: what it holds cannot be told ({trouble})")
    if not proof:
        return Fate("kept: it holds what neither a commit nor a snapshot can hold, or nobody knows its base")
    if task.landed_at is not None:
        return Fate("left behind after landing", removable=True, proof=proof)
    return Fate(f"{task.state.value}; kept to be looked at", proof=proof)


async def _prove(tools: Tools, task: Task, path: Path, *, save: bool) -> str:
    """Where all that the clone holds is, too; empty when that is nowhere. Read from the clone, not from a record."""
    base = await workplace.base_of(tools, task)
    if base is None:
        return ""
    taken = await take_tree(tools.repo, path, base=base, scratch=tools.places.scratch(f"{task.id}.proof"))
    if taken.refused:
        return ""
    if taken.tree == await tools.repo.tree(base):
        return f"holds nothing but its base {base[:12]}"
    if await _has_landed(tools, task, taken.tree):
        return f"landed as {(task.landed_commit or '')[:12]}"
    for kept in reversed(await list_kept(tools.repo, task_id=task.id)):
        if await tools.repo.tree(kept.oid) == taken.tree:
            return f"saved on {kept.ref}"
    if save:
        return f"saved on {wip_ref(task.id, task.attempt)}" if await workplace.save(tools, task) else ""
    return f"would be saved on {wip_ref(task.id, task.attempt)}"


async def _has_landed(tools: Tools, task: Task, tree: str) -> bool:
    """Whether exactly this tree was committed as the task's result, and the result is in the lane or the target."""
    records = await tools.store.claims.steps(task.id, task.attempt)
    commits = [Commit.model_validate_json(r.result) for r in records if r.name == "commit_changes"]
    if task.landed_commit is None or not any(commit.tree == tree for commit in commits):
        return False
    branch = tools.settings.project.target or ""
    for ref in (lane_ref(branch), f"refs/heads/{branch}"):
        tip = await tools.repo.resolve(ref)
        if tip is not None and await tools.repo.is_ancestor(task.landed_commit, tip):
            return True
    return False


def _size(path: Path) -> int:
    total, folders = 0, [os.fspath(path)]
    while folders:  # not os.walk, which ends where Python's recursion does
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total

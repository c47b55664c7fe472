"""Work in progress, saved as a commit on a ref of its own."""

from __future__ import annotations

from pathlib import Path

from drover.domain.errors import GitError
from drover.domain.models import Frozen
from drover.git.commit import make_commit, take_tree
from drover.git.repo import Identity, RefChange, Repo
from drover.git.worktree import ensure_worktree

WIP = "refs/drover/wip"
ATTEMPTS = "refs/drover/attempts"
SNAPSHOTS = "refs/drover/snapshots"  # of executions on any host, by fence
SESSIONS = "refs/drover/sessions"  # the files of their agents' sessions, by fence


class Snapshot(Frozen):
    """A saved state of an attempt's work. ``base`` is the commit the attempt started from."""

    ref: str
    oid: str
    base: str
    task_id: str
    attempt: int
    saved_at: int  # unix milliseconds, whole seconds


class Kept(Frozen):
    """A task's work on a ref of drover's: a snapshot, or what an attempt came to."""

    ref: str
    oid: str
    task_id: str
    saved_at: int  # unix milliseconds, whole seconds


async def save_snapshot(
    repo: Repo,
    worktree: Path,
    *,
    ref: str,
    base: str,
    message: str,
    identity: Identity,
    scratch: Path,
    at_ms: int,
) -> str | None:
    """Save the files that are tracked or not ignored as a commit on ``ref``, durably; its id.

    None, and nothing written, when they are what ``base`` has or what the ref has already. What
    :func:`take_tree` refuses is not in it. May run while the agent works: a file that changes
    meanwhile is saved in one of its states.
    """
    taken = await take_tree(repo, worktree, base=base, scratch=scratch)
    held = (await repo.read_refs([ref]))[ref]
    if taken.tree in (await repo.tree(base), None if held is None else await repo.tree(held)):
        return None
    oid = await make_commit(repo, tree=taken.tree, parents=(base,), message=message, identity=identity, at_ms=at_ms)
    since = (base,) if held is None else (base, held)
    await repo.update_refs([RefChange(ref=ref, new=oid, old=held)], since=since, reason="drover: snapshot")
    return oid


async def list_snapshots(repo: Repo, *, task_id: str | None = None) -> tuple[Snapshot, ...]:
    """Every snapshot, or those of one task, by task and attempt."""
    below = WIP if task_id is None else f"{WIP}/{task_id}"
    form = "--format=%(refname) %(objectname) %(parent) %(committerdate:unix)"
    text = await repo.refs_place.line("for-each-ref", form, below)
    snapshots = []
    for line in text.splitlines():
        ref, oid, base, seconds = line.split(" ")
        task, attempt = ref.removeprefix(f"{WIP}/").rsplit("/", 1)
        snapshots.append(
            Snapshot(ref=ref, oid=oid, base=base, task_id=task, attempt=int(attempt), saved_at=int(seconds) * 1000)
        )
    return tuple(sorted(snapshots, key=lambda snapshot: (snapshot.task_id, snapshot.attempt)))


async def list_kept(repo: Repo, *, task_id: str | None = None, sessions: bool = False) -> tuple[Kept, ...]:
    """Every snapshot and every attempt's result, or those of one task, the oldest first; also ``sessions`` if asked."""
    places = (WIP, ATTEMPTS, SNAPSHOTS, *([SESSIONS] if sessions else []))
    below = [place if task_id is None else f"{place}/{task_id}" for place in places]
    form = "--format=%(refname) %(objectname) %(committerdate:unix)"
    text = await repo.refs_place.line("for-each-ref", form, *below)
    kept = []
    for line in text.splitlines():
        ref, oid, seconds = line.split(" ")
        kept.append(Kept(ref=ref, oid=oid, task_id=ref.rsplit("/", 2)[1], saved_at=int(seconds) * 1000))
    return tuple(sorted(kept, key=lambda one: (one.saved_at, one.ref)))


async def restore_snapshot(repo: Repo, ref: str, path: Path) -> bool:
    """A clone at ``path`` whose HEAD is the snapshot's base and whose files are the snapshot's.

    True when a worktree was there already, which is left as it is. Raises GitError when the ref is not there.
    """
    oid = await repo.resolve(ref)
    base = await repo.resolve(f"{ref}^")
    if oid is None or base is None:
        raise GitError(f"there is no snapshot {ref}", hint="`drover worktree list` shows what can be restored")
    return await ensure_worktree(repo, path, base, tree=await repo.tree(oid))

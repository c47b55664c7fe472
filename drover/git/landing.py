"""The git side of a landing: its refs, the merge without a checkout, and the swap that a zombie cannot make."""

from __future__ import annotations

from collections.abc import Collection

from drover.domain.errors import GitError
from drover.domain.models import Frozen
from drover.git.command import shown, split0
from drover.git.commit import ATTEMPT_TRAILER, TASK_TRAILER
from drover.git.repo import RefChange, RefMoved, Repo, check_ref

_TRIES = 10  # of a compare-and-swap that others keep winning
_SHOWN_PATHS = 20


class Lease(Frozen):
    """The fence that may write for a task, as git knows it. ``oid`` is the blob that holds it."""

    fence: int
    oid: str


class LandedCommit(Frozen):
    """The commit that holds a task's work in a branch's history."""

    oid: str
    attempt: int


class Merged(Frozen):
    """Two commits merge without a question; ``tree`` is what comes out."""

    tree: str


class Conflicted(Frozen):
    """They do not. ``tree`` holds the files with conflict markers, ``paths`` are those in question."""

    tree: str
    paths: tuple[str, ...]


def lane_ref(branch: str) -> str:
    """Where tasks land for ``branch``; the branch itself follows it."""
    return check_ref(f"refs/drover/target/{check_ref(branch)}")


def branch_ref(branch: str) -> str:
    """The branch itself."""
    return check_ref(f"refs/heads/{check_ref(branch)}")


def attempt_ref(task_id: str, fence: int) -> str:
    """Holds the result of one attempt."""
    return check_ref(f"refs/drover/attempts/{check_ref(task_id)}/{fence}")


def wip_ref(task_id: str, attempt: int) -> str:
    """Holds the last snapshot of one attempt's work in progress."""
    return check_ref(f"refs/drover/wip/{check_ref(task_id)}/{attempt}")


def lease_ref(task_id: str) -> str:
    """Names the fence that may land the task."""
    return check_ref(f"refs/drover/lease/{check_ref(task_id)}")


async def read_lease(repo: Repo, task_id: str) -> Lease | None:
    """The fence recorded for a task, or None. Raises GitError when what is there is no fence."""
    ref = lease_ref(task_id)
    oid = (await repo.read_refs([ref]))[ref]
    if oid is None:
        return None
    text = await (await repo.objects_place()).line("cat-file", "blob", oid)
    if not text.isdecimal():
        raise GitError(f"{ref} does not hold a fence")
    return Lease(fence=int(text), oid=oid)


async def raise_lease(repo: Repo, task_id: str, fence: int) -> Lease:
    """Record that only ``fence`` may land this task from now on. Finding it recorded is as good.

    Raises RefMoved when a higher fence is there.
    """
    text = f"{fence}\n".encode()
    oid, ref = repo.blob_id(text), lease_ref(task_id)
    if (await repo.read_refs([ref]))[ref] == oid:  # as nearly always: raised at the beginning of the attempt
        await repo.sync_refs([ref])
        return Lease(fence=fence, oid=oid)
    await repo.ensure_blob(text)
    for _ in range(_TRIES):
        held = await read_lease(repo, task_id)
        if held is not None and held.fence > fence:
            raise RefMoved(ref, expected=oid, found=held.oid)
        if held is not None and held.fence == fence:
            await repo.sync_refs([ref])
            return held
        try:
            old = None if held is None else held.oid
            await repo.update_refs([RefChange(ref=ref, new=oid, old=old)])
        except RefMoved:
            continue
        return Lease(fence=fence, oid=oid)
    raise GitError(f"{ref} is being moved all the time")


async def find_landed(
    repo: Repo, *, tip: str, since: str | None, task_id: str, first_attempt: int = 0
) -> LandedCommit | None:
    """The task's commit in the history of ``tip``, not looking at or behind ``since``; None when there is none.

    A commit counts by its trailers, with an attempt of ``first_attempt`` or later. All of the history is
    asked, for the operator may have merged the lane into a commit of theirs; of several commits one
    on the first-parent chain is preferred.
    """
    if tip == since or (since and repo.ancestry.nothing_says(f"{TASK_TRAILER}: {task_id}", tip, since)):
        return None
    revs = (tip, *([f"^{since}"] if since else []))
    found = await _search(repo, revs, task_id, first_attempt)
    if found is None:
        return None
    return await _search(repo, ("--first-parent", *revs), task_id, first_attempt) or found


async def _search(repo: Repo, revs: tuple[str, ...], task_id: str, first_attempt: int) -> LandedCommit | None:
    values = "".join(
        f"%x00%(trailers:key={key},valueonly,unfold,separator=%x1f)" for key in (TASK_TRAILER, ATTEMPT_TRAILER)
    )
    only = ("--fixed-strings", f"--grep={TASK_TRAILER}: {task_id}")
    place = await repo.objects_place()
    done = await place.git("log", "-z", "--encoding=UTF-8", f"--format=%H{values}", *only, *revs, "--", timeout_s=600)
    items = split0(done.stdout)
    for oid, tasks, attempts in zip(items[::3], items[1::3], items[2::3], strict=True):
        for task, attempt in zip(shown(tasks).split("\x1f"), shown(attempts).split("\x1f"), strict=False):
            if task == task_id and attempt.isdecimal() and int(attempt) >= first_attempt:
                return LandedCommit(oid=oid.decode(), attempt=int(attempt))
    return None


async def list_landed(repo: Repo, tips: Collection[str], *, first_parent: bool = False) -> list[tuple[str, str, int]]:
    """Every commit of a task in the history of ``tips``, newest first: its id, the task, the attempt."""
    if not tips:
        return []
    values = "".join(
        f"%x00%(trailers:key={key},valueonly,unfold,separator=%x1f)" for key in (TASK_TRAILER, ATTEMPT_TRAILER)
    )
    only = ("--fixed-strings", f"--grep={TASK_TRAILER}: ", *(["--first-parent"] if first_parent else []))
    place = await repo.objects_place()
    done = await place.git("log", "-z", "--encoding=UTF-8", f"--format=%H{values}", *only, *tips, "--", timeout_s=600)
    items = split0(done.stdout)
    found = []
    for oid, tasks, attempts in zip(items[::3], items[1::3], items[2::3], strict=True):
        for task, attempt in zip(shown(tasks).split("\x1f"), shown(attempts).split("\x1f"), strict=False):
            if attempt.isdecimal():
                found.append((oid.decode(), task, int(attempt)))
    return found


async def list_leases(repo: Repo) -> dict[str, int]:
    """The fence that git knows of each task."""
    place, prefix = await repo.objects_place(), "refs/drover/lease/"
    refs = await repo.list_refs(prefix)
    asked = "".join(f"{oid}\n" for oid in refs.values())
    done = await place.git("cat-file", "--batch=%(objectsize)", stdin=asked.encode()) if refs else None
    lines = done.stdout.splitlines()[1::3] if done else []  # a size, the fence, and the end of its line
    return {ref.removeprefix(prefix): int(line) for ref, line in zip(refs, lines, strict=True) if line.isdigit()}


async def merge_trees(repo: Repo, *, ours: str, theirs: str) -> Merged | Conflicted:
    """Merge two commits without touching any checkout.

    Attributes of either side do not choose how: a ``.gitattributes`` that an agent brings along
    cannot turn a conflict into a silent union. Raises GitError when they have no common history.
    """
    made = repo.ancestry.made(theirs)
    if made is not None and made.parents == (ours,):
        return Merged(tree=made.tree)  # nothing happened beside it
    if (plain := await repo.merge_plainly(ours=ours, theirs=theirs)) is not None:
        return Merged(tree=plain)
    place = (await repo.objects_place()).using("merge.conflictStyle=zdiff3")
    argv = ("merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", ours, theirs)
    done = await place.git(*argv, ok=(0, 1), timeout_s=600)
    tree, *paths = split0(done.stdout)
    if done.returncode == 0:
        return Merged(tree=tree.decode())
    return Conflicted(tree=tree.decode(), paths=tuple(dict.fromkeys(shown(path) for path in paths)))


async def changed_paths(repo: Repo, old: str, new: str) -> tuple[str, ...]:
    """Every path that differs between two commits or trees, in order."""
    return tuple(shown(change.path) for change in await repo.changes(old, new))


async def check_content(
    repo: Repo, *, parent: str, landed: str, allowed_paths: Collection[str], base: str | None = None
) -> None:
    """That a landing changed only what its task changed: the paths of ``parent..landed`` are all allowed.

    With ``base``, the commit the task started from, a path is also allowed when the target has
    renamed an allowed one to it meanwhile. Raises GitError naming the others; then stop landing.
    """
    allowed = set(allowed_paths)
    changes = await repo.changes(parent, landed)
    repo.pass_on_layout(parent, landed, changes)
    strangers = [path for change in changes if (path := shown(change.path)) not in allowed]
    if strangers and base is not None:
        renamed = await _renames(repo, base, parent)
        strangers = [path for path in strangers if renamed.get(path) not in allowed]
    if strangers:
        names = ", ".join(strangers[:_SHOWN_PATHS])
        raise GitError(
            f"{landed[:12]} changes what its task did not: {names}",
            hint="nothing more was landed; compare it with its parent before you go on",
        )


async def _renames(repo: Repo, old: str, new: str) -> dict[str, str]:
    """New name → old name."""
    argv = ("diff-tree", "-r", "-z", "-M", "-l7000", "--diff-filter=R", "--name-status", old, new)
    done = await (await repo.objects_place()).git(*argv)
    items = split0(done.stdout)
    return {shown(name): shown(before) for before, name in zip(items[1::3], items[2::3], strict=True)}


async def swap_lane(repo: Repo, *, branch: str, old: str | None, new: str, task_id: str, lease_oid: str) -> bool:
    """Move the lane of ``branch`` from ``old`` to ``new`` if the lease is still the task's; durable when it returns.

    Lease and lane are compared in git's own transaction, so neither a stale worker nor a stale tip
    gets through. True when it was moved by this same call before (the lane is at ``new`` or beyond).
    Raises RefMoved, whose ``ref`` says whether the lease or the lane was elsewhere.
    """
    lane = lane_ref(branch)
    try:
        await repo.update_refs([RefChange(ref=lane, new=new, old=old)], verify={lease_ref(task_id): lease_oid})
    except RefMoved:
        tip = (await repo.read_refs([lane]))[lane]
        if tip is not None and await repo.is_ancestor(new, tip):
            await repo.sync_refs([lane])
            return True
        raise
    return False

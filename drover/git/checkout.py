"""Publishing: the operator's branch, and every checkout of it, follows the lane."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from drover.domain.errors import DroverError, GitError
from drover.domain.models import Frozen
from drover.git.changes import Change
from drover.git.checkouts import Checkout, git_dirs, holds_lock, list_checkouts, release, take_lock
from drover.git.commit import make_commit
from drover.git.durable import on_disk
from drover.git.landing import Conflicted, branch_ref, lane_ref, merge_trees
from drover.git.overlap import Blocked
from drover.git.repo import Identity, RefChange, RefMoved, Repo
from drover.git.two_tree import Record, look, read_record, settle, write, write_record
from drover.process import end_marked

_TRIES = 3  # when others move the branch or switch to it meanwhile
_SECTION_S = 900.0  # the part that runs to its end even when cancelled
_GRACE_S = 2.0
_REFUSALS = ("would be overwritten", "not uptodate", "would lose untracked files", "would be removed")


class Published(Frozen):
    """The branch contains what was to be published. It went from ``old`` to ``new``; both the same: it did before."""

    old: str
    new: str


class Diverged(Frozen):
    """The branch has commits of its own, up to ``tip``; :func:`absorb` takes them into the lane."""

    tip: str


class Absorbed(Frozen):
    """The lane contains the branch. ``tip`` is the lane's, which moved unless ``found``."""

    tip: str
    found: bool = False


async def publish(repo: Repo, *, branch: str, new: str) -> Published | Blocked | Diverged:
    """Fast-forward a branch to ``new``, with the files and index of every checkout that is on it.

    A checkout is updated wholly or not at all; the operator's changes to other paths stay, and
    changes to touched paths block. Their configuration and filters apply, their hooks do not run.
    Killed at any point, the next call first finishes or takes back what was begun. Cancelled, it
    ends the update it has begun.

    Raises GitError when there is no such branch, DiskFull when the files do not fit.
    """
    await on_disk(_make_state_dir, repo)
    with _alone(repo) as alone:
        if not alone:
            return Blocked(why="another publishing is under way")
        blocked = await _finish(repo)
        if blocked is not None:
            return blocked
        for _ in range(_TRIES):
            outcome = await _publish_once(repo, branch_ref(branch), new)
            if outcome is not None:
                return outcome
    return Blocked(why=f"{branch} is being moved by others")


async def finish_publishing(repo: Repo) -> Blocked | None:
    """Finish or take back what a killed publishing left, as :func:`publish` does first; for drover's start."""
    if not await on_disk(repo.state_dir.is_dir):
        return None
    with _alone(repo) as alone:
        return await _finish(repo) if alone else Blocked(why="another publishing is under way")


async def absorb(
    repo: Repo, *, branch: str, lane_tip: str, identity: Identity, at_ms: int, theirs: str | None = None, name: str = ""
) -> Absorbed | Conflicted:
    """Take the operator's own commits on the branch into its lane, whose tip is ``lane_tip``; durably.

    With ``theirs``, a commit that was fetched, it is taken in instead and ``name`` says whose it is. The
    lane moves to it when it can, else to a merge commit whose first parent is the lane. With a conflict
    nothing is moved. Raises RefMoved when the lane is elsewhere, GitError when there is no such branch.
    """
    ref, lane = branch_ref(branch), lane_ref(branch)
    on_disk: tuple[str, ...] = (lane_tip,)
    if theirs is None:
        theirs = (await repo.read_refs([ref]))[ref]
        if theirs is None:
            raise GitError(f"there is no branch {branch}", hint="was it renamed or removed?")
        on_disk = (lane_tip, theirs)
    if await repo.is_ancestor(theirs, lane_tip):
        return Absorbed(tip=lane_tip, found=True)
    new = theirs
    if not await repo.is_ancestor(lane_tip, theirs):
        merged = await merge_trees(repo, ours=lane_tip, theirs=theirs)
        if isinstance(merged, Conflicted):
            return merged
        message = f"Merge {name or branch} into the work that was landed beside it\n"
        parents = (lane_tip, theirs)
        new = await make_commit(
            repo, tree=merged.tree, parents=parents, message=message, identity=identity, at_ms=at_ms
        )
    reason = f"drover: take in {name or branch}"
    await repo.update_refs([RefChange(ref=lane, new=new, old=lane_tip)], since=on_disk, reason=reason)
    return Absorbed(tip=new)


# ---------------------------------------------------------------- one at a time


def _make_state_dir(repo: Repo) -> None:
    repo.state_dir.mkdir(exist_ok=True)


@contextmanager
def _alone(repo: Repo) -> Iterator[bool]:
    """Whether nobody else publishes in this repository. The kernel ends the lock with its process."""
    handle = os.open(repo.state_dir / "publish.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _marker(repo: Repo) -> str:
    """In the environment of every git that writes into a checkout, so that one left alone can be found."""
    return f"publish-{hashlib.sha256(os.fsencode(repo.git_dir)).hexdigest()[:16]}"


async def _finish(repo: Repo) -> Blocked | None:
    record = await on_disk(read_record, repo)
    everywhere = [Checkout(path=git_dir, git_dir=git_dir) for git_dir in await on_disk(git_dirs, repo)]
    held = [checkout for checkout in everywhere if holds_lock(checkout)]
    if record is None and not held:
        return None
    # drover was killed, its git perhaps not: nothing is decided while that one still writes.
    await end_marked(_marker(repo), _GRACE_S)
    if record is not None:
        touched = await repo.changes(record.old, record.new)
        with anyio.fail_after(_SECTION_S, shield=True):
            blocked = await settle(repo, record, touched, _marker(repo))
        if blocked is not None:
            return blocked
    for checkout in held:  # locked, but killed before anything was begun
        release(checkout)
    return None


# ---------------------------------------------------------------- publishing


async def _publish_once(repo: Repo, ref: str, new: str) -> Published | Blocked | Diverged | None:
    """None: somebody moved the branch, or switched to it, at the same moment."""
    old = (await repo.read_refs([ref]))[ref]
    if old is None:
        raise GitError(f"there is no branch {ref.removeprefix('refs/heads/')}", hint="was it renamed or removed?")
    if await repo.is_ancestor(new, old):
        return Published(old=old, new=old)
    if not await repo.is_ancestor(old, new):
        return Diverged(tip=old)
    checkouts = await list_checkouts(repo, ref)
    if isinstance(checkouts, Blocked):
        return checkouts
    try:
        if checkouts:
            return await _move_with_checkouts(repo, Record(ref=ref, old=old, new=new, checkouts=checkouts))
        return await _move_alone(repo, ref, old, new)
    except RefMoved:
        return None


async def _move_alone(repo: Repo, ref: str, old: str, new: str) -> Published | None:
    await _move_ref(repo, ref, old, new)
    if not await list_checkouts(repo, ref):
        return Published(old=old, new=new)
    # Somebody switched to the branch in that moment, to its old files: take the move back, and do it with them.
    await _move_ref(repo, ref, new, old)
    return None


async def _move_ref(repo: Repo, ref: str, old: str, new: str) -> None:
    # Both ends are on the disk, in the lane's history.
    await repo.update_refs([RefChange(ref=ref, new=new, old=old)], since=(old, new), reason="drover: publish")


async def _move_with_checkouts(repo: Repo, record: Record) -> Published | Blocked:
    touched = await repo.changes(record.old, record.new)
    marker = _marker(repo)
    if repo.was_blocked and (blocked := await _look_unlocked(repo, record, touched, marker)) is not None:
        return blocked
    with anyio.fail_after(_SECTION_S, shield=True):
        blocked = await _lock_and_look(repo, record, touched, marker)
        if blocked is None:
            await on_disk(write_record, repo, record)
            blocked = await _carry_out(repo, record, touched, marker)
    repo.was_blocked = blocked is not None
    return blocked or Published(old=record.old, new=record.new)


async def _look_unlocked(repo: Repo, record: Record, touched: list[Change], marker: str) -> Blocked | None:
    """While a checkout is in the way, its operator is not disturbed by the locks of each new try."""
    for checkout in record.checkouts:
        try:
            blocked = await look(repo, checkout, touched, record.old, marker)
        finally:
            release(checkout)
        if blocked is not None:
            return blocked
    return None


async def _lock_and_look(repo: Repo, record: Record, touched: list[Change], marker: str) -> Blocked | None:
    """None with every checkout locked and free for the update; else none is locked."""
    try:
        blocked = await _look_locked(repo, record, touched, marker)
    except (DroverError, OSError):
        await on_disk(_release_all, record)
        raise
    if blocked is not None:
        await on_disk(_release_all, record)
    return blocked


async def _look_locked(repo: Repo, record: Record, touched: list[Change], marker: str) -> Blocked | None:
    for checkout in record.checkouts:
        if not await on_disk(take_lock, checkout):
            return Blocked(why=f"another git is at work in {checkout.path} (index.lock is there)")
        blocked = await look(repo, checkout, touched, record.old, marker)
        if blocked is not None:
            return blocked
        if await repo.head_ref(checkout.git_dir) != record.ref:
            return Blocked(why=f"{checkout.path} is being switched to another branch")
    return None


def _release_all(record: Record) -> None:
    for checkout in record.checkouts:
        release(checkout)


async def _carry_out(repo: Repo, record: Record, touched: list[Change], marker: str) -> Blocked | None:
    """All of the update, or none of it and why not. If even taking it back fails, the record stays for the next try."""
    try:
        for checkout in record.checkouts:
            await write(repo, checkout, touched, record.old, record.new, marker)
        await _move_ref(repo, record.ref, record.old, record.new)
    except (DroverError, OSError) as error:
        await settle(repo, record, touched, marker)
        if isinstance(error, GitError) and any(sign in error.stderr for sign in _REFUSALS):
            return Blocked(why=f"git will not update your checkout: {error.message}")
        raise
    return await settle(repo, record, touched, marker)

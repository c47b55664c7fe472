"""Drover's own refs on a remote that many hosts share: work on its way, fences, and the landing that checks them.

What is saved there for a task is named by the fence of the claim that saved it, so no host ever writes
over what another one has saved.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from drover.domain.errors import GitError, Unreachable
from drover.git.landing import Lease, branch_ref, lease_ref
from drover.git.remote import NETWORK_S, ask, fetch_refs, network_place, reason_of
from drover.git.repo import RefMoved, Repo, check_ref
from drover.git.snapshot import ATTEMPTS, SESSIONS, SNAPSHOTS

LEASES = "refs/drover/lease"
_OURS = (SNAPSHOTS, SESSIONS, ATTEMPTS, LEASES)
_TRIES = 5  # of raising a fence that others move
PUSH = ("push", "--porcelain", "--recurse-submodules=no")


def snapshot_ref(task_id: str, fence: int) -> str:
    """Holds the work in progress of one execution, for whoever goes on with it."""
    return check_ref(f"{SNAPSHOTS}/{check_ref(task_id)}/{fence}")


async def fetch_work(repo: Repo, remote: str, task_id: str) -> None:
    """Everything that is saved there for a task, under the same names here. Raises Unreachable."""
    below = [f"{place}/{check_ref(task_id)}/*" for place in (SNAPSHOTS, SESSIONS, ATTEMPTS)]
    await fetch_refs(repo, remote, *(f"+{ref}:{ref}" for ref in below))


async def push_work(repo: Repo, remote: str, refs: Mapping[str, str]) -> None:
    """Save commits there under these names. Raises Unreachable."""
    specs = [f"+{oid}:{check_ref(ref)}" for ref, oid in refs.items()]
    await ask(await network_place(repo), remote, *PUSH, "--end-of-options", remote, *specs, timeout_s=NETWORK_S)


async def list_work(repo: Repo, remote: str) -> dict[str, tuple[str, ...]]:
    """The refs that are kept there, by task. Raises Unreachable."""
    found: dict[str, list[str]] = {}
    for ref in await _look(repo, remote, *(f"{place}/*" for place in _OURS)):
        place = next(place for place in _OURS if ref.startswith(f"{place}/"))
        found.setdefault(ref.removeprefix(f"{place}/").split("/")[0], []).append(ref)
    return {task_id: tuple(refs) for task_id, refs in found.items()}


async def drop_work(repo: Repo, remote: str, refs: Collection[str]) -> None:
    """Remove refs there. Raises Unreachable; one that has gone already makes no difference to the others."""
    specs = [f":{check_ref(ref)}" for ref in refs]
    await ask(await network_place(repo), remote, *PUSH, "--end-of-options", remote, *specs, timeout_s=NETWORK_S)


# ---------------------------------------------------------------- fences


async def raise_remote_lease(repo: Repo, remote: str, task_id: str, lease: Lease, *, believed: str | None) -> None:
    """Record there that only this fence may land the task from now on. Finding it recorded is as good.

    ``believed`` is what is thought to be there; a wrong belief costs a question. Raises RefMoved when a
    higher fence is there, Unreachable.
    """
    ref, old = lease_ref(task_id), believed
    place = await network_place(repo)
    for _ in range(_TRIES):
        argv = (*PUSH, f"--force-with-lease={ref}:{old or ''}", "--end-of-options", remote, f"{lease.oid}:{ref}")
        try:
            await place.git(*argv, timeout_s=NETWORK_S)
            return
        except GitError as error:
            refusal = reason_of(error)
        found = (await _look(repo, remote, ref)).get(ref)
        if found == lease.oid:
            return
        if found is not None and found not in _below(repo, lease.fence):
            raise RefMoved(ref, expected=lease.oid, found=found)
        if found == old:
            raise Unreachable(f"{remote} does not take {ref}: {refusal}")
        old = found
    raise Unreachable(f"{ref} of {remote} is being moved all the time")


def _below(repo: Repo, fence: int) -> set[str]:
    """The blobs of every lower fence: what is on the remote is known by its name, without fetching it."""
    return {repo.blob_id(f"{lower}\n".encode()) for lower in range(1, fence)}


async def push_landing(
    repo: Repo, remote: str, branch: str, *, new: str, old: str | None, task_id: str, lease: Lease
) -> Literal["landed", "moved", "fenced"]:
    """Bring the remote's branch from ``old`` to ``new`` if the fence recorded there is still this one; all or nothing.

    The fence is taken away with it, so both are compared in the remote's own transaction. ``moved``: the
    branch is elsewhere, or a push that was cut off has landed and others have pushed since: fetch and look.
    ``fenced``: it is not our fence that is recorded. Raises Unreachable when the outcome is not known, or
    when the remote refuses.
    """
    if old is not None and not await repo.is_ancestor(old, new):
        raise GitError(f"{new[:12]} does not contain {old[:12]}, which {remote} has")
    ref, fence = branch_ref(branch), lease_ref(task_id)
    leases = (f"--force-with-lease={ref}:{old or ''}", f"--force-with-lease={fence}:{lease.oid}")
    argv = (*PUSH, "--atomic", *leases, "--end-of-options", remote, f"{new}:{ref}", f":{fence}")
    try:
        await (await network_place(repo)).git(*argv, timeout_s=NETWORK_S)
        return "landed"
    except GitError as error:
        refusal = reason_of(error)
    found = await _look(repo, remote, ref, fence)
    if found.get(ref) == new:
        return "landed"
    if found.get(ref) != old:
        return "moved"
    if found.get(fence) != lease.oid:
        return "fenced"
    raise Unreachable(f"{remote} does not take the push: {refusal}")


async def _look(repo: Repo, remote: str, *patterns: str) -> dict[str, str]:
    text = await ask(await network_place(repo), remote, "ls-remote", "--refs", "--end-of-options", remote, *patterns)
    lines = (line.split("\t", 1) for line in text.splitlines() if "\t" in line)
    return {ref: oid for oid, ref in lines}

"""Drover's own refs on a remote: a landing that checks its fence there, and work that no host writes over."""

from __future__ import annotations

from pathlib import Path

import pytest

from drover.domain.errors import Unreachable
from drover.git.landing import Lease, attempt_ref, lease_ref, raise_lease
from drover.git.remote_work import (
    drop_work,
    fetch_work,
    list_work,
    push_landing,
    push_work,
    raise_remote_lease,
    snapshot_ref,
)
from drover.git.repo import RefMoved, Repo
from tests.git.conftest import Change, Git

pytestmark = pytest.mark.anyio

TASK = "task-a"


@pytest.fixture
def bare(repository: Path, tmp_path: Path, git: Git) -> Path:
    """The remote ``origin``, with the repository's main."""
    where = tmp_path / "origin.git"
    git(tmp_path, "clone", "-q", "--bare", str(repository), str(where))
    git(repository, "remote", "add", "origin", str(where))
    return where


async def fence(repo: Repo, number: int, *, believed: str | None = None) -> Lease:
    lease = await raise_lease(repo, TASK, number)
    await raise_remote_lease(repo, "origin", TASK, lease, believed=believed)
    return lease


def hook(bare: Path, name: str, script: str) -> None:
    path = bare / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


async def test_a_landing_takes_its_fence_away_and_is_made_once(
    repo: Repo, repository: Path, bare: Path, git: Git, change: Change
) -> None:
    old = git(repository, "rev-parse", "main")
    new = change(repository, old, {"a": "1\n"})
    lease = await fence(repo, 1)
    land = {"branch": "main", "new": new, "old": old, "task_id": TASK, "lease": lease}
    assert await push_landing(repo, "origin", **land) == "landed"
    assert git(bare, "for-each-ref", "--format=%(refname) %(objectname)") == f"refs/heads/main {new}"
    assert await push_landing(repo, "origin", **land) == "landed", "asked again, it is where it was wanted"
    assert git(bare, "rev-parse", "main") == new


async def test_a_landing_with_a_lower_fence_moves_nothing(
    repo: Repo, repository: Path, bare: Path, git: Git, change: Change
) -> None:
    old = git(repository, "rev-parse", "main")
    new = change(repository, old, {"a": "1\n"})
    stale = await fence(repo, 1)
    later = await fence(repo, 2, believed=stale.oid)
    land = {"branch": "main", "new": new, "old": old, "task_id": TASK}
    assert await push_landing(repo, "origin", **land, lease=stale) == "fenced"
    assert git(bare, "rev-parse", "main", lease_ref(TASK)) == f"{old}\n{later.oid}"
    assert await push_landing(repo, "origin", **land, lease=later) == "landed"
    assert await push_landing(repo, "origin", **(land | {"new": change(repository, new, {"b": "1\n"}), "old": new}),
                              lease=stale) == "fenced", "nor when the fence went with a landing"  # fmt: skip


async def test_two_that_land_from_one_commit_do_not_both_win(
    repo: Repo, repository: Path, bare: Path, git: Git, change: Change
) -> None:
    old = git(repository, "rev-parse", "main")
    ours, theirs = change(repository, old, {"a": "1\n"}), change(repository, old, {"b": "1\n"})
    lease = await fence(repo, 1)
    git(repository, "push", "-q", "origin", f"{theirs}:refs/heads/main")
    assert await push_landing(repo, "origin", "main", new=ours, old=old, task_id=TASK, lease=lease) == "moved"
    assert git(bare, "rev-parse", "main", lease_ref(TASK)) == f"{theirs}\n{lease.oid}", "all or nothing"


async def test_a_refusal_or_an_absence_of_the_remote_is_no_outcome(
    repo: Repo, repository: Path, bare: Path, git: Git, change: Change
) -> None:
    old = git(repository, "rev-parse", "main")
    new = change(repository, old, {"a": "1\n"})
    lease = await fence(repo, 1)
    hook(bare, "pre-receive", "echo main is protected >&2; exit 1")
    with pytest.raises(Unreachable, match="main is protected"):
        await push_landing(repo, "origin", "main", new=new, old=old, task_id=TASK, lease=lease)
    away = bare.rename(bare.with_name("away"))
    with pytest.raises(Unreachable, match="origin cannot be reached"):
        await push_landing(repo, "origin", "main", new=new, old=old, task_id=TASK, lease=lease)
    assert git(away, "rev-parse", "main") == old


async def test_a_fence_on_the_remote_only_rises_whatever_was_believed(repo: Repo, bare: Path, git: Git) -> None:
    await fence(repo, 3)
    await raise_remote_lease(repo, "origin", TASK, await raise_lease(repo, TASK, 3), believed=None)  # found
    lower = await raise_lease(repo, TASK, 7)
    higher = await fence(repo, 12, believed="0" * 40)
    with pytest.raises(RefMoved):
        await raise_remote_lease(repo, "origin", TASK, lower, believed=higher.oid[:-1] + "0")
    assert git(bare, "cat-file", "blob", lease_ref(TASK)) == "12"


async def test_saved_work_is_fetched_by_whoever_goes_on_and_removed_when_it_is_done(
    repo: Repo, repository: Path, bare: Path, tmp_path: Path, git: Git, change: Change
) -> None:
    main = git(repository, "rev-parse", "main")
    half, whole = change(repository, main, {"a": "half\n"}), change(repository, main, {"a": "whole\n"})
    refs = {snapshot_ref(TASK, 1): half, attempt_ref(TASK, 2): whole, snapshot_ref("task-b", 1): half}
    await push_work(repo, "origin", refs)
    await push_work(repo, "origin", {snapshot_ref(TASK, 1): whole})  # saved anew
    git(tmp_path, "clone", "-q", str(bare), "other")
    other = await Repo.find(tmp_path / "other")
    await fetch_work(other, "origin", TASK)
    await fetch_work(other, "origin", "task-of-which-nothing-is-there")
    assert git(other.root, "show", f"{snapshot_ref(TASK, 1)}:a") == "whole"
    assert git(other.root, "for-each-ref", "--format=%(refname)", "refs/drover") == "\n".join(
        [attempt_ref(TASK, 2), snapshot_ref(TASK, 1)]
    )
    kept = await list_work(repo, "origin")
    assert kept == {TASK: (attempt_ref(TASK, 2), snapshot_ref(TASK, 1)), "task-b": (snapshot_ref("task-b", 1),)}
    await drop_work(repo, "origin", kept[TASK])
    assert await list_work(repo, "origin") == {"task-b": (snapshot_ref("task-b", 1),)}

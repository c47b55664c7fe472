"""The repository of record: found, read, and its refs moved only from where they are known to be."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import anyio
import pytest

from drover.domain.errors import GitError
from drover.git.landing import branch_ref, lane_ref
from drover.git.limits import find_limits
from drover.git.locks import clear_stale_locks
from drover.git.repo import Identity, RefChange, RefMoved, Repo

from .conftest import Change, Git

pytestmark = pytest.mark.anyio


async def test_a_repository_is_found_from_a_directory_inside_its_checkout(repository: Path) -> None:
    inside = repository / "a" / "b"
    inside.mkdir(parents=True)
    repo = await Repo.find(inside)
    assert (repo.root, repo.git_dir) == (repository, repository / ".git")


async def test_a_linked_checkout_shares_the_refs_and_has_its_own_head(
    repository: Path, git: Git, tmp_path: Path
) -> None:
    git(repository, "worktree", "add", "-q", "-b", "side", str(tmp_path / "linked"))
    repo = await Repo.find(tmp_path / "linked")
    assert (repo.root, repo.git_dir) == (tmp_path / "linked", repository / ".git")
    assert await repo.head_branch() == "side"
    assert await repo.resolve("HEAD") == git(repository, "rev-parse", "main")


async def test_no_repository_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(GitError, match="not in a git repository") as caught:
        await Repo.find(tmp_path)
    assert "git init" in (caught.value.hint or "")


async def test_a_bare_repository_is_refused_with_a_hint(tmp_path: Path, git: Git) -> None:
    git(tmp_path, "init", "-q", "--bare", "bare.git")
    with pytest.raises(GitError, match="bare") as caught:
        await Repo.find(tmp_path / "bare.git")
    assert "clone" in (caught.value.hint or "")


async def test_a_git_that_is_too_old_is_refused(repository: Path, tmp_path: Path, monkeypatch) -> None:
    old = tmp_path / "bin" / "git"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho git version 2.37.9\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}:{os.environ['PATH']}")
    with pytest.raises(GitError, match=r"2\.37\.9 is too old"):
        await Repo.find(repository)


async def test_a_repository_of_long_object_ids_works(tmp_path: Path, git: Git) -> None:
    where = tmp_path / "sha256"
    git(tmp_path, "init", "-q", "-b", "main", "--object-format=sha256", str(where))
    git(where, "-c", "user.name=o", "-c", "user.email=o@x", "commit", "-q", "--allow-empty", "-m", "first")
    repo = await Repo.find(where)
    first = await repo.resolve("HEAD")
    assert first is not None
    assert len(first) == 64
    await repo.update_refs([RefChange(ref=lane_ref("main"), new=first, old=None)])
    with pytest.raises(RefMoved):
        await repo.update_refs([RefChange(ref=lane_ref("main"), new=first, old=None)])


@pytest.mark.parametrize("branch", ["master", "trunk", "feature/x", "ümlaut", "a-b.c"])
async def test_any_branch_name_is_found_and_its_lane_made(repository: Path, git: Git, branch: str) -> None:
    git(repository, "switch", "-q", "-c", branch)
    repo = await Repo.find(repository)
    assert await repo.head_branch() == branch
    tip = await repo.resolve("HEAD")
    await repo.update_refs([RefChange(ref=lane_ref(branch), new=tip, old=None)])
    assert git(repository, "rev-parse", f"refs/drover/target/{branch}") == tip


async def test_a_detached_head_has_no_branch(repo: Repo, git: Git) -> None:
    git(repo.root, "switch", "-q", "--detach")
    assert await repo.head_branch() is None


@pytest.mark.parametrize("rev", ["nothing", "--help", "-n1", "main..", "", "HEAD:README.md", "@{u}", "x\ny"])
async def test_what_names_no_commit_resolves_to_none(repo: Repo, rev: str) -> None:
    assert await repo.resolve(rev) is None


@pytest.mark.parametrize("name", ["", "-x", "a..b", "a b", "a\nb", "x.lock", "a//b", "/a", "a/", "@{0}", "a~1", ".a"])
def test_a_name_git_could_misread_is_no_branch(name: str) -> None:
    with pytest.raises(GitError, match="cannot be the name"):
        branch_ref(name)


async def test_the_identity_is_the_operators(repo: Repo) -> None:
    assert await repo.identity() == Identity(name="Olive Operator", email="olive@example.org")


async def test_without_an_identity_the_error_says_how_to_set_one(repo: Repo, git: Git) -> None:
    git(repo.root, "config", "--unset", "user.email")
    with pytest.raises(GitError, match="whose commits") as caught:
        await repo.identity()
    assert "git config user.name" in (caught.value.hint or "")


async def test_a_ref_moves_only_from_where_it_was_known_to_be(repo: Repo, git: Git, change: Change) -> None:
    first = git(repo.root, "rev-parse", "main")
    second = change(repo.root, first, {"a": "1"})
    third = change(repo.root, first, {"a": "2"})
    lane = lane_ref("main")
    await repo.update_refs([RefChange(ref=lane, new=second, old=None)])
    with pytest.raises(RefMoved) as caught:
        await repo.update_refs([RefChange(ref=lane, new=third, old=first)])
    assert (caught.value.ref, caught.value.expected, caught.value.found) == (lane, first, second)
    assert (await repo.read_refs([lane]))[lane] == second


async def test_a_verified_ref_that_moved_stops_the_whole_transaction(repo: Repo, git: Git, change: Change) -> None:
    first = git(repo.root, "rev-parse", "main")
    second = change(repo.root, first, {"a": "1"})
    lane, guard = lane_ref("main"), "refs/drover/lease/t"
    await repo.update_refs([RefChange(ref=lane, new=first, old=None), RefChange(ref=guard, new=second, old=None)])
    with pytest.raises(RefMoved) as caught:
        await repo.update_refs([RefChange(ref=lane, new=second, old=first)], verify={guard: first})
    assert caught.value.ref == guard
    assert (await repo.read_refs([lane]))[lane] == first


async def test_a_ref_is_deleted_only_from_where_it_was_known_to_be(repo: Repo, git: Git) -> None:
    first = git(repo.root, "rev-parse", "main")
    await repo.update_refs([RefChange(ref="refs/drover/x/y", new=first, old=None)])
    await repo.update_refs([RefChange(ref="refs/drover/x/y", new=None, old=first)])
    assert await repo.list_refs("refs/drover") == {}


async def test_of_sixteen_swaps_from_the_same_place_one_wins(repo: Repo, git: Git, change: Change) -> None:
    first = git(repo.root, "rev-parse", "main")
    lane = lane_ref("main")
    await repo.update_refs([RefChange(ref=lane, new=first, old=None)])
    commits = [change(repo.root, first, {"a": str(n)}) for n in range(16)]
    won = []

    async def swap(new: str) -> None:
        try:
            await repo.update_refs([RefChange(ref=lane, new=new, old=first)])
        except RefMoved:
            return
        won.append(new)

    async with anyio.create_task_group() as tasks:
        for commit in commits:
            tasks.start_soon(swap, commit)
    assert won == [(await repo.read_refs([lane]))[lane]]


async def test_new_objects_and_the_directories_of_refs_are_forced_to_the_disk(
    repo: Repo, git: Git, change: Change, monkeypatch
) -> None:
    first = git(repo.root, "rev-parse", "main")
    second = change(repo.root, first, {"dir/a": "new"})
    synced: list[str] = []
    real = os.fsync

    def note(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    monkeypatch.setattr(os, "fsync", note)
    await repo.update_refs([RefChange(ref=lane_ref("feature/x"), new=second, old=None)], since=[first])
    tree, directory, blob = (git(repo.root, "rev-parse", second + tail) for tail in ("^{tree}", ":dir", ":dir/a"))
    objects = repo.git_dir / "objects"
    for oid in (second, tree, directory, blob):
        assert str(objects / oid[:2] / oid[2:]) in synced
        assert str(objects / oid[:2]) in synced
    lane = repo.git_dir / "refs/drover/target/feature"
    directories = [str(lane), *(str(lane.parents[n]) for n in range(3))]
    assert [path for path in synced if path in directories] == directories
    assert str(objects / first[:2] / first[2:]) not in synced


def _lock(repo: Repo, name: str) -> Path:
    path = repo.git_dir / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


async def test_the_locks_of_a_killed_git_are_taken_away_and_others_stay(repo: Repo, git: Git) -> None:
    first = git(repo.root, "rev-parse", "main")
    stale = [_lock(repo, name) for name in ("HEAD", "refs/drover/target/main", "refs/heads/main")]
    other = _lock(repo, "refs/heads/other")
    with pytest.raises(GitError, match="not moved"):
        await repo.update_refs([RefChange(ref=lane_ref("main"), new=first, old=None)])
    assert set(await clear_stale_locks(repo, ["refs/heads/main"])) == set(stale)
    assert other.exists()
    await repo.update_refs([RefChange(ref=lane_ref("main"), new=first, old=None)])
    assert await clear_stale_locks(repo, ["refs/heads/main"]) == ()


async def test_a_lock_whose_git_may_still_live_is_kept(repo: Repo, tmp_path: Path) -> None:
    with subprocess.Popen(["git", "cat-file", "--batch"], cwd=repo.root, stdin=subprocess.PIPE) as living:
        lock = _lock(repo, "refs/drover/target/main")
        assert await clear_stale_locks(repo) == ()
        assert lock.exists()
        living.communicate(b"")
    assert await clear_stale_locks(repo) == (lock,)


async def test_a_lock_that_a_process_has_open_is_kept(repo: Repo) -> None:
    lock = _lock(repo, "refs/heads/main")
    with lock.open() as handle, subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=handle) as living:
        os.utime(lock)  # not older than the process, as if the process had made it
        assert await clear_stale_locks(repo, ["refs/heads/main"]) == ()
        living.communicate(b"")
    assert await clear_stale_locks(repo, ["refs/heads/main"]) == (lock,)


async def test_an_ordinary_repository_has_no_limits(repo: Repo) -> None:
    assert await find_limits(repo) == ()


async def test_every_limit_is_named_with_its_reason(repo: Repo, git: Git) -> None:
    root = repo.root
    (root / ".gitattributes").write_text("*.bin filter=lfs -text\n*.key filter=vault\n*.x filter=unknown\n")
    git(root, "config", "filter.vault.clean", "cat")
    git(root, "config", "core.sparseCheckout", "true")
    git(root, "add", "-A")
    head = git(root, "rev-parse", "HEAD")
    git(root, "update-index", "--add", "--cacheinfo", f"160000,{head},vendor/lib")
    git(root, "commit", "-q", "-m", "all of it")
    found = {limit.what: limit.refused for limit in await find_limits(await Repo.find(root))}
    assert found == {"sparse checkout": False, "submodules": False, "Git LFS": False, "the filter vault": False}


async def test_a_partial_clone_and_an_empty_repository_are_refused(repo: Repo, git: Git, tmp_path: Path) -> None:
    git(repo.root, "config", "remote.origin.promisor", "true")
    assert [limit.what for limit in await find_limits(repo) if limit.refused] == ["partial clone"]
    git(tmp_path, "init", "-q", "empty")
    assert [limit.what for limit in await find_limits(await Repo.find(tmp_path / "empty"))] == ["no commit yet"]

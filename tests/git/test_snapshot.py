"""Work in progress is kept on a ref, and comes back from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from drover.domain.errors import GitError
from drover.git.landing import wip_ref
from drover.git.repo import Repo
from drover.git.snapshot import list_snapshots, restore_snapshot, save_snapshot
from drover.git.worktree import ensure_worktree, remove_worktree

from .conftest import AT, OLIVE, Git

pytestmark = pytest.mark.anyio
Save = Callable[..., object]


@pytest.fixture
async def base(repo: Repo, git: Git) -> str:
    return git(repo.root, "rev-parse", "main")


@pytest.fixture
async def path(repo: Repo, base: str, tmp_path: Path) -> Path:
    where = tmp_path / "worktrees" / "task-a"
    await ensure_worktree(repo, where, base)
    return where


async def save(repo: Repo, path: Path, base: str, *, attempt: int = 1, at: int = AT) -> str | None:
    return await save_snapshot(
        repo, path, ref=wip_ref("task-a", attempt), base=base, message="wip\n", identity=OLIVE,
        scratch=path.parent.parent / "scratch", at_ms=at,
    )  # fmt: skip


async def test_nothing_is_saved_while_nothing_differs(repo: Repo, path: Path, base: str) -> None:
    objects = sorted(repo.objects_dir.rglob("*"))
    assert await save(repo, path, base) is None
    assert await list_snapshots(repo) == ()
    assert sorted(repo.objects_dir.rglob("*")) == objects


async def test_tracked_and_untracked_work_is_saved_and_what_is_ignored_is_not(
    repo: Repo, path: Path, base: str, git: Git
) -> None:
    (path / "README.md").write_text("changed\n")
    (path / "new").write_text("n\n")
    (path / ".gitignore").write_text("*.log\n")
    (path / "x.log").write_text("ignored\n")
    oid = await save(repo, path, base)
    assert git(repo.root, "diff", "--name-only", base, oid).split() == [".gitignore", "README.md", "new"]
    assert git(repo.root, "rev-parse", wip_ref("task-a", 1)) == oid
    [snapshot] = await list_snapshots(repo)
    assert (snapshot.task_id, snapshot.attempt, snapshot.base, snapshot.oid) == ("task-a", 1, base, oid)
    assert snapshot.saved_at == AT


async def test_the_same_work_is_not_saved_twice_and_more_work_replaces_it(repo: Repo, path: Path, base: str) -> None:
    (path / "new").write_text("1\n")
    first = await save(repo, path, base)
    assert await save(repo, path, base, at=AT + 60_000) is None
    (path / "new").write_text("2\n")
    second = await save(repo, path, base, at=AT + 120_000)
    assert second not in (None, first)
    assert [snapshot.oid for snapshot in await list_snapshots(repo)] == [second]


async def test_work_that_was_undone_leaves_the_last_snapshot(repo: Repo, path: Path, base: str) -> None:
    (path / "new").write_text("1\n")
    oid = await save(repo, path, base)
    (path / "new").unlink()
    assert await save(repo, path, base) is None
    assert [snapshot.oid for snapshot in await list_snapshots(repo)] == [oid]


async def test_snapshots_are_listed_by_task_and_attempt(repo: Repo, path: Path, base: str) -> None:
    (path / "new").write_text("1\n")
    for attempt in (10, 9, 2):
        await save(repo, path, base, attempt=attempt)
    assert [snapshot.attempt for snapshot in await list_snapshots(repo, task_id="task-a")] == [2, 9, 10]
    assert await list_snapshots(repo, task_id="task") == ()


async def test_what_was_saved_comes_back_on_its_base(repo: Repo, path: Path, base: str, git: Git) -> None:
    (path / "README.md").write_text("changed\n")
    (path / "new").write_text("n\n")
    await save(repo, path, base)
    await remove_worktree(path)
    assert await restore_snapshot(repo, wip_ref("task-a", 1), path) is False
    assert git(path, "rev-parse", "HEAD") == base
    assert git(path, "status", "--porcelain").splitlines() == ["M README.md", "?? new"]
    (path / "more").write_text("m\n")
    assert await restore_snapshot(repo, wip_ref("task-a", 1), path) is True
    assert (path / "more").exists()


async def test_a_snapshot_that_is_not_there_cannot_be_restored(repo: Repo, tmp_path: Path) -> None:
    with pytest.raises(GitError, match="no snapshot"):
        await restore_snapshot(repo, wip_ref("task-a", 1), tmp_path / "x")
    assert not (tmp_path / "x").exists()


async def test_work_is_saved_while_files_come_go_and_change(repo: Repo, path: Path, base: str, git: Git) -> None:
    """An agent at work: every save succeeds, and the last one has the last state."""
    stop = anyio.Event()

    def churn(round: int) -> None:
        for number in range(60):
            file = path / f"d{number % 7}" / f"f{number}"
            file.parent.mkdir(exist_ok=True)
            file.write_text("x" * (round * 997 % 5000))
            if (round + number) % 3 == 0:
                file.unlink()

    async def work() -> None:
        round = 0
        while not stop.is_set():
            round += 1
            await anyio.to_thread.run_sync(churn, round)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        for number in range(8):
            await save(repo, path, base, at=AT + number * 1000)
        stop.set()
    (path / "last").write_text("last\n")
    oid = await save(repo, path, base)
    files = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and ".git" not in file.parts}
    assert set(git(repo.root, "ls-tree", "-r", "--name-only", oid).split()) == files

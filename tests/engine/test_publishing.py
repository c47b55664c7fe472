"""Publishing to a remote: what completed means with one, and what waits for whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from drover import app
from drover.domain.models import Task
from tests.conftest import Git

pytestmark = pytest.mark.anyio

PUSH = '[landing]\npush = "origin"\n'


@pytest.fixture
def bare(repository: Path, tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The remote that the project pushes to; agents write ``shared.txt`` and a file of their own."""
    agent = tmp_path / "agent.sh"
    agent.write_text('#!/bin/sh\necho "$DROVER_TASK_ID" > shared.txt\necho x > "$DROVER_TASK_ID.txt"\n')
    agent.chmod(0o755)
    monkeypatch.setenv("DROVER_AGENT_PATH", str(agent))
    (repository / ".drover.toml").write_text(PUSH)
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "push")
    git(tmp_path, "clone", "-q", "--bare", str(repository), "origin.git")
    git(repository, "remote", "add", "origin", str(tmp_path / "origin.git"))
    return tmp_path / "origin.git"


def push_theirs(git: Git, bare: Path, **files: str) -> str:
    """Somebody else's commit on the remote's main."""
    other = bare.parent / "other"
    if not other.exists():
        git(bare.parent, "clone", "-q", str(bare), "other")
        git(other, "config", "user.name", "Other")
        git(other, "config", "user.email", "other@example.org")
    git(other, "pull", "-q", "origin", "main")
    for name, text in files.items():
        (other / name).write_text(text)
    git(other, "add", "-A")
    git(other, "commit", "-q", "-m", "theirs")
    git(other, "push", "-q", "origin", "main")
    return git(other, "rev-parse", "HEAD")


async def run_one(repository: Path) -> Task:
    async with app.open(repo=repository, agent="command") as drover:
        task = await drover.add("Task")
        await drover.run(workers=1)
        return await drover.task(task.id)


async def test_a_completed_task_is_on_the_remote(repository: Path, bare: Path, git: Git) -> None:
    task = await run_one(repository)
    assert task.status == "completed"
    assert git(bare, "rev-parse", "main") == git(repository, "rev-parse", "main") == task.landed_commit


async def test_a_remote_that_has_no_such_branch_yet_gets_it(repository: Path, bare: Path, git: Git) -> None:
    git(bare, "update-ref", "-d", "refs/heads/main")
    task = await run_one(repository)
    assert task.status == "completed"
    assert git(bare, "rev-parse", "main") == task.landed_commit


async def test_what_others_pushed_is_merged_and_neither_side_is_lost(repository: Path, bare: Path, git: Git) -> None:
    theirs = push_theirs(git, bare, theirs="1\n")
    task = await run_one(repository)
    assert task.status == "completed"
    assert git(bare, "rev-parse", "main") == git(repository, "rev-parse", "main")
    history = git(bare, "rev-list", "main").split()
    assert {theirs, task.landed_commit} <= set(history)
    assert (repository / "theirs").read_text() == "1\n", "the operator's checkout has followed"
    assert git(repository, "status", "--porcelain", "--", "theirs", "shared.txt") == ""


async def test_what_conflicts_with_the_remote_waits_for_a_person_and_then_goes_on(
    repository: Path, bare: Path, git: Git
) -> None:
    theirs = push_theirs(git, bare, **{"shared.txt": "theirs\n"})
    task = await run_one(repository)
    assert (str(task.status), task.reason) == ("waiting", "publish")
    assert task.detail == "what origin has on main conflicts with what landed in shared.txt"
    assert git(bare, "rev-parse", "main") == theirs, "nothing of theirs was touched"
    assert git(repository, "rev-parse", "main") == task.landed_commit, "nor of ours"
    git(repository, "pull", "-q", "--no-rebase", "-X", "ours", "origin", "main")
    async with app.open(repo=repository, agent="command") as drover:
        await drover.run()
        assert str((await drover.task(task.id)).status) == "completed"
    assert git(bare, "rev-parse", "main") == git(repository, "rev-parse", "main")


async def test_a_run_without_landings_pushes_nothing(repository: Path, bare: Path, git: Git) -> None:
    before = git(bare, "rev-parse", "main")
    git(repository, "commit", "-q", "--allow-empty", "-m", "not ready to be seen")
    async with app.open(repo=repository, agent="command") as drover:
        await drover.run()
    assert git(bare, "rev-parse", "main") == before


async def test_a_push_that_nobody_recorded_is_found(repository: Path, bare: Path, git: Git) -> None:
    away = bare.rename(bare.with_name("away"))
    task = await run_one(repository)
    assert str(task.status) == "waiting"
    away.rename(bare)
    git(repository, "push", "-q", "origin", "main")  # as a run would have that was killed right after it
    async with app.open(repo=repository, agent="command") as drover:
        await drover.run()
        assert str((await drover.task(task.id)).status) == "completed"

"""What is brought along for the work to run never becomes the work, and never leaves the clone."""

from __future__ import annotations

from pathlib import Path

import pytest

from drover.git.commit import take_tree
from drover.git.repo import Repo
from drover.git.worktree import ensure_worktree

from .conftest import Change, Git

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(repo: Repo) -> Path:
    (repo.git_dir / "info" / "exclude").write_text("/.drover/\n*.local\n")
    (repo.root / ".worktreeinclude").write_text(".env\nconfig/\n*.local\n*.own\n")
    for name in (".env", "config/secret", "by.local", "by.own"):
        (repo.root / name).parent.mkdir(exist_ok=True)
        (repo.root / name).write_text("secret\n")
    return repo.root / ".drover" / "worktrees" / "task-a"


async def test_a_rule_that_is_not_committed_brings_nothing_that_would_be_taken_for_work(
    repo: Repo, git: Git, path: Path, tmp_path: Path
) -> None:
    (repo.root / ".gitignore").write_text(".env\nconfig/\n")
    base = git(repo.root, "rev-parse", "main")
    await ensure_worktree(repo, path, base)
    assert not (path / ".env").exists() and not (path / "config").exists()
    assert (path / "by.local").read_text() == "secret\n", "info/exclude holds in the clone, too"
    assert (await take_tree(repo, path, base=base, scratch=tmp_path / "scratch")).paths == ()


async def test_the_operators_own_rules_for_all_repositories_hold_in_the_clone(
    repo: Repo, git: Git, path: Path, tmp_path: Path
) -> None:
    rules = tmp_path / "my rules"
    rules.write_text("*.own\n")
    git(repo.root, "config", "core.excludesFile", str(rules))
    base = git(repo.root, "rev-parse", "main")
    await ensure_worktree(repo, path, base)
    assert (path / "by.own").read_text() == "secret\n"
    assert (await take_tree(repo, path, base=base, scratch=tmp_path / "scratch")).paths == ()


async def test_a_link_that_landed_where_the_operator_has_a_directory_is_not_followed(
    repo: Repo, git: Git, change: Change, path: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    files = {".gitignore": ".env\nconfig/\nconfig\n", "config": ("120000", str(outside))}
    base = change(repo.root, git(repo.root, "rev-parse", "main"), files)
    (repo.root / ".gitignore").write_text(".env\nconfig/\n")
    await ensure_worktree(repo, path, base)
    assert list(outside.iterdir()) == []
    assert (path / "config").is_symlink()
    assert (path / ".env").read_text() == "secret\n", "the rest is there"

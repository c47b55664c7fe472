"""Files that git does not carry come along when the operator lists them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drover.git.commit import take_tree
from drover.git.repo import Repo
from drover.git.worktree import ensure_worktree

from .conftest import Git

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(repo: Repo) -> Path:
    """Below the checkout, as drover keeps its clones."""
    return repo.root / ".drover" / "worktrees" / "task-a"


@pytest.fixture
def base(repo: Repo, git: Git) -> str:
    root = repo.root
    (repo.git_dir / "info" / "exclude").write_text("/.drover/\n")
    (root / ".gitignore").write_text(".env*\nbuilt/\n*.key\n")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "ignore")
    for name in (".env", ".env.local", "built/a", "built/deep/b", "x.key", "untracked"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{name}\n")
    (root / "built/link").symlink_to("/etc")
    (root / ".drover").mkdir()
    (root / ".drover" / "drover.db").write_text("state")
    return git(root, "rev-parse", "main")


def files_in(path: Path) -> set[str]:
    found = (Path(top) / name for top, _, names in os.walk(path) for name in names)
    return {str(file.relative_to(path)) for file in found if ".git" not in file.relative_to(path).parts}


async def test_without_a_list_nothing_but_the_commit_is_there(repo: Repo, path: Path, base: str) -> None:
    await ensure_worktree(repo, path, base)
    assert files_in(path) == {".gitignore", "README.md"}


async def test_what_is_ignored_and_listed_is_copied_and_is_no_change(
    repo: Repo, path: Path, base: str, tmp_path: Path
) -> None:
    (repo.root / ".worktreeinclude").write_text("*\n!*.key\n!.env.local\n")
    (repo.root / ".env").chmod(0o600)
    await ensure_worktree(repo, path, base)
    assert files_in(path) == {".gitignore", "README.md", ".env", "built/a", "built/deep/b"}
    assert (path / "built/link").is_symlink()
    assert (path / ".env").read_text() == ".env\n"
    assert (path / ".env").stat().st_mode & 0o777 == 0o600
    (path / ".env").write_text("the agent's own\n")
    assert (repo.root / ".env").read_text() == ".env\n"
    assert (await take_tree(repo, path, base=base, scratch=tmp_path / "scratch")).paths == ()


async def test_a_list_that_matches_nothing_copies_nothing(repo: Repo, path: Path, base: str) -> None:
    (repo.root / ".worktreeinclude").write_text("untracked\nREADME.md\nmissing\n")
    await ensure_worktree(repo, path, base)
    assert files_in(path) == {".gitignore", "README.md"}

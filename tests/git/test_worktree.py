"""Private clones: whole or not there, nobody else's, and gone without a trace when removed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from drover.domain.errors import GitError
from drover.git.repo import Repo
from drover.git.worktree import (
    clear_leftovers,
    ensure_worktree,
    list_worktrees,
    rebase_worktree,
    remove_worktree,
)

from .conftest import Change, Git

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "worktrees" / "task-k3f9"


@pytest.fixture
async def base(repo: Repo, git: Git, change: Change) -> str:
    first = git(repo.root, "rev-parse", "main")
    files = {"a": "1\n", "dir/b": "2\n", "run": ("100755", "#!/bin/sh\n"), "link": ("120000", "dir/b")}
    return change(repo.root, first, files)


async def test_a_clone_has_the_files_of_its_base_on_a_branch_of_its_own(repo: Repo, git: Git, path: Path, base: str):
    assert await ensure_worktree(repo, path, base) is False
    assert git(path, "status", "--porcelain") == ""
    assert git(path, "rev-parse", "HEAD") == base
    assert git(path, "branch", "--show-current") == "drover/task-k3f9"
    assert os.access(path / "run", os.X_OK)
    assert (path / "link").readlink() == Path("dir/b")


async def test_a_clone_that_is_there_is_found_with_every_byte_in_it(repo: Repo, path: Path, base: str) -> None:
    await ensure_worktree(repo, path, base)
    (path / "a").write_text("half done")
    (path / "new").write_text("x")
    assert await ensure_worktree(repo, path, base) is True
    assert ((path / "a").read_text(), (path / "new").read_text()) == ("half done", "x")


async def test_what_is_done_in_a_clone_by_habit_stays_in_it(repo: Repo, git: Git, path: Path, base: str) -> None:
    await ensure_worktree(repo, path, base)
    refs = git(repo.root, "for-each-ref")
    config = (repo.git_dir / "config").read_text()
    (path / "a").write_text("by the agent")
    git(path, "commit", "-q", "-am", "mine")
    assert git(path, "log", "-1", "--format=%an %ae") == "Olive Operator olive@example.org"
    git(path, "stash", "list")
    git(path, "config", "user.name", "Somebody")
    git(path, "gc", "-q")
    assert git(path, "remote") == ""
    assert "No configured push destination" in _error(git, path, "push")
    assert git(repo.root, "for-each-ref") == refs
    assert (repo.git_dir / "config").read_text() == config


def _error(git: Git, where: Path, *argv: str) -> str:
    with pytest.raises(AssertionError) as caught:
        git(where, *argv)
    return str(caught.value)


async def test_the_files_can_be_another_tree_than_the_base(repo: Repo, git: Git, path: Path, base: str, change: Change):
    merged = change(repo.root, base, {"a": "<<<<<<< ours\n1\n=======\n2\n>>>>>>> theirs\n", "new": "n", "dir/b": None})
    await ensure_worktree(repo, path, base, tree=await repo.tree(merged))
    assert git(path, "rev-parse", "HEAD") == base
    assert git(path, "status", "--porcelain").splitlines() == ["M a", " D dir/b", "?? new"]


async def test_a_half_made_clone_is_never_taken_for_a_whole_one(repo: Repo, git: Git, path: Path, base: str) -> None:
    half = path.with_name(f".{path.name}.making-0123456789")
    (half / ".git").mkdir(parents=True)
    (half / "a").write_text("half")
    assert list_worktrees(path.parent) == ()
    assert await ensure_worktree(repo, path, base) is False
    assert not half.exists()
    assert git(path, "status", "--porcelain") == ""


async def test_a_clone_whose_git_directory_was_removed_gets_one_and_keeps_its_files(
    repo: Repo, git: Git, path: Path, base: str
) -> None:
    await ensure_worktree(repo, path, base)
    (path / "a").write_text("work")
    (path / ".git").rename(path.parent / "away")
    assert await ensure_worktree(repo, path, base) is True
    assert git(path, "rev-parse", "HEAD", "--show-toplevel").split() == [base, str(path)]
    assert git(path, "status", "--porcelain") == "M a"


async def test_a_link_in_place_of_a_clone_is_refused_and_removed_as_a_link(
    repo: Repo, path: Path, base: str, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("keep")
    path.parent.mkdir()
    path.symlink_to(precious)
    with pytest.raises(GitError, match="symbolic link"):
        await ensure_worktree(repo, path, base)
    await remove_worktree(path)
    assert not path.is_symlink()
    assert (precious / "file").read_text() == "keep"


async def test_a_clone_goes_to_a_new_base_with_exactly_the_files_it_is_given(
    repo: Repo, git: Git, path: Path, base: str, change: Change
) -> None:
    await ensure_worktree(repo, path, base)
    (path / ".gitignore").write_text("built/\n")
    (path / "built").mkdir()
    (path / "built" / "cache").write_text("keep me")
    (path / "leftover" / "deep").mkdir(parents=True)
    (path / "leftover" / "deep" / "file").write_text("x")
    (path / "run").unlink()
    (path / "dir" / "b").unlink()
    (path / "dir").rmdir()
    (path / "dir").symlink_to("/")
    git(path, "add", "-A")
    git(path, "commit", "-q", "-m", "mine")
    newer = change(repo.root, base, {"c": "3\n", "a": None})
    wanted = change(repo.root, newer, {".gitignore": "built/\n", "c": "mine\n"})
    for _ in range(2):  # again, as after a kill at its end
        await rebase_worktree(repo, path, newer, tree=await repo.tree(wanted))
        assert git(path, "rev-parse", "HEAD") == newer
        assert git(path, "status", "--porcelain").splitlines() == ["M c", "?? .gitignore"]
        assert (path / "built" / "cache").read_text() == "keep me"
        assert not (path / "leftover").exists()
        assert (path / "dir" / "b").read_text() == "2\n"
    assert await ensure_worktree(repo, path, newer) is True
    assert list(path.parent.iterdir()) == [path]


async def test_a_git_repository_inside_of_a_clone_survives_the_new_base(
    repo: Repo, git: Git, path: Path, base: str
) -> None:
    await ensure_worktree(repo, path, base)
    git(path, "init", "-q", "inner")
    (path / "inner" / "file").write_text("only here")
    await rebase_worktree(repo, path, base)
    assert (path / "inner" / "file").read_text() == "only here"


async def test_a_clone_with_closed_directories_and_links_is_removed_and_nothing_else(
    repo: Repo, path: Path, base: str, tmp_path: Path
) -> None:
    await ensure_worktree(repo, path, base)
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o755)
    (precious / "file").write_text("keep")
    (path / "out").symlink_to(precious)
    (path / "out-file").symlink_to(precious / "file")
    closed = path / "closed" / "inner"
    closed.mkdir(parents=True)
    (closed / "file").write_text("x")
    (closed / "file").chmod(0o400)
    closed.chmod(0o500)
    (path / "closed").chmod(0o000)
    await remove_worktree(path)
    assert list(path.parent.iterdir()) == []
    assert (precious / "file").read_text() == "keep"
    assert stat.S_IMODE(precious.stat().st_mode) == 0o755


async def test_removing_what_is_not_there_changes_nothing(path: Path) -> None:
    await remove_worktree(path)
    assert not path.parent.exists()


async def test_what_killed_calls_left_is_cleared_and_worktrees_stay(repo: Repo, path: Path, base: str) -> None:
    await ensure_worktree(repo, path, base)
    for name in (".task-a.making-22", ".task-b.removing-33", ".keep"):
        (path.parent / name).mkdir()
    assert await clear_leftovers(path.parent) == 2
    assert list_worktrees(path.parent) == (path,)
    assert (path.parent / ".keep").is_dir()


async def test_the_operators_private_ignores_hold_in_the_clone(repo: Repo, git: Git, path: Path, base: str) -> None:
    (repo.git_dir / "info" / "exclude").write_text("*.local\n")
    await ensure_worktree(repo, path, base)
    (path / "notes.local").write_text("x")
    assert git(path, "status", "--porcelain") == ""


async def test_a_clone_of_a_shallow_repository_has_its_history_as_far_as_it_goes(
    repo: Repo, git: Git, path: Path, tmp_path: Path, base: str
) -> None:
    git(repo.root, "update-ref", "refs/heads/main", base)
    git(tmp_path, "clone", "-q", "--depth=1", "--branch=main", f"file://{repo.root}", "shallow")
    git(tmp_path / "shallow", "config", "user.name", "o")
    git(tmp_path / "shallow", "config", "user.email", "o@x")
    shallow = await Repo.find(tmp_path / "shallow")
    await ensure_worktree(shallow, path, base)
    assert git(path, "log", "--format=%H") == base


async def test_a_clone_of_a_repository_of_long_object_ids_works(tmp_path: Path, git: Git, path: Path) -> None:
    where = tmp_path / "sha256"
    git(tmp_path, "init", "-q", "-b", "main", "--object-format=sha256", str(where))
    git(where, "config", "user.name", 'O "the" \\ Operator')
    git(where, "config", "user.email", "o@x")
    (where / "f").write_text("f")
    git(where, "add", "-A")
    git(where, "commit", "-q", "-m", "first")
    repo, base = await Repo.find(where), git(where, "rev-parse", "HEAD")
    later = path.with_name("task-later")
    for clone in (path, later):  # the second is made without asking git for its form
        await ensure_worktree(repo, clone, base)
        assert git(clone, "status", "--porcelain") == ""
        assert git(clone, "log", "--format=%H") == base
        assert git(clone, "config", "user.name") == 'O "the" \\ Operator'
    configs = {git(clone, "config", "--list", "--local") for clone in (path, later)}
    assert len(configs) == 1

"""Kept directories: what an attempt has left in a clone is never found by the next one."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from drover.git import reuse
from drover.git.commit import make_commit, take_tree
from drover.git.repo import Repo
from drover.git.worktree import ensure_worktree, remove_worktree

from .conftest import AT, OLIVE, Change, Git

pytestmark = pytest.mark.anyio


@pytest.fixture
async def base(repo: Repo, git: Git, change: Change) -> str:
    first = git(repo.root, "rev-parse", "main")
    files = {"a": "1\n", "dir/b": "2\n", "dir/deep/c": "3\n", "run": ("100755", "#!/bin/sh\n"), ".gitignore": "*.o\n"}
    return change(repo.root, first, files)


class Pool:
    def __init__(self, repo: Repo, where: Path) -> None:
        self.repo, self.where, self.pool = repo, where, where / "reuse" / "boot"

    async def begin(self, name: str, base: str) -> Path:
        path = self.where / "worktrees" / name
        await ensure_worktree(self.repo, path, base, scratch=self.where / "tmp" / name, reuse=self.pool)
        return path

    async def end(self, name: str, base: str, most: int = 4) -> bool:
        path, scratch = self.where / "worktrees" / name, self.where / "tmp" / name
        await take_tree(self.repo, path, base=base, scratch=scratch)
        kept = await reuse.keep(path, scratch, self.pool, most)
        await remove_worktree(path)
        return kept

    def kept(self) -> int:
        return len(list(self.pool.iterdir())) if self.pool.is_dir() else 0


@pytest.fixture
def pool(repo: Repo, tmp_path: Path) -> Pool:
    return Pool(repo, tmp_path / "state")


def everything(path: Path) -> dict[str, tuple[int, bytes]]:
    """Every file and directory but those of .git: its mode and content."""
    found = {}
    for folder, directories, files in os.walk(path):
        if Path(folder) == path:
            directories.remove(".git")
        for name in (*directories, *files):
            one = Path(folder) / name
            mode = stat.S_IMODE(one.lstat().st_mode)
            plain = one.is_file() and not one.is_symlink()
            found[str(one.relative_to(path))] = (mode, one.read_bytes() if plain else b"")
    return found


def nothing(path: Path) -> None:
    pass


def edits(path: Path) -> None:
    (path / "a").write_text("9\n")
    (path / "new").write_text("x")
    (path / "dir" / "b").unlink()


def same_size_at_the_same_time(path: Path) -> None:
    about = (path / "a").stat()
    (path / "a").write_text("9\n")
    os.utime(path / "a", ns=(about.st_atime_ns, about.st_mtime_ns))


def ignored_and_hidden(path: Path) -> None:
    (path / "built.o").write_text("x")
    (path / "dir" / ".env").write_text("SECRET")
    (path / "empty" / "inner").mkdir(parents=True)
    (path / "dir" / "empty").mkdir()


def modes(path: Path) -> None:
    (path / "run").chmod(0o644)
    (path / "a").chmod(0o600)
    (path / "dir" / "deep").chmod(0o2555)
    (path / "locked").mkdir()
    (path / "locked" / "file").write_text("x")
    (path / "locked").chmod(0o500)


def repositories(path: Path) -> None:
    """One that git does not look into, in a directory of the tree, and one of their own."""
    for inner in (path / "dir" / ".git", path / "own" / ".git"):
        (inner / "objects").mkdir(parents=True)
        (inner / "refs").mkdir()
        (inner / "HEAD").write_text("ref: refs/heads/main\n")
        (inner / "config").write_text("[core]\n\tfsmonitor = touch /tmp/never\n")
    (path / "own" / "file").write_text("x")


def links(path: Path) -> None:
    (path / "a").unlink()
    (path / "a").symlink_to("/etc/passwd")
    for one in ("deep/c", "b"):
        (path / "dir" / one).unlink()
    (path / "dir" / "deep").rmdir()
    (path / "dir").rmdir()
    (path / "dir").symlink_to("/tmp")
    os.link(path / "run", path / "hard")


def kinds(path: Path) -> None:
    (path / "a").unlink()
    (path / "a").mkdir()
    (path / "a" / "b").write_text("x")
    (path / "dir" / "deep" / "c").unlink()
    (path / "dir" / "deep").rmdir()
    (path / "dir" / "deep").write_text("a file now")


def own_git_directory(path: Path) -> None:
    (path / ".git" / "config").write_text("[core]\n\thooksPath = /tmp/hooks\n")
    (path / ".git" / "index").write_bytes(b"rubbish")


LEFT = [
    nothing, edits, same_size_at_the_same_time, ignored_and_hidden, modes, repositories, links, kinds,
    own_git_directory,
]  # fmt: skip


@pytest.mark.parametrize("leave", LEFT, ids=lambda leave: leave.__name__)
async def test_a_clone_in_a_kept_directory_is_what_a_fresh_one_is(
    pool: Pool, git: Git, base: str, change: Change, leave: Callable[[Path], None]
) -> None:
    newer = change(pool.repo.root, base, {"a": None, "dir/b": "two\n", "later/d": "4\n"})
    first = await pool.begin("task-one", base)
    inode = first.stat().st_ino
    leave(first)
    assert await pool.end("task-one", base)
    for wanted in (newer, base):
        path = await pool.begin("task-two", wanted)
        assert path.stat().st_ino == inode, "the kept directory was not used"
        fresh = pool.where / "fresh" / "task-two"
        await ensure_worktree(pool.repo, fresh, wanted)
        assert everything(path) == everything(fresh)
        assert git(path, "status", "--porcelain", "--ignored") == ""
        assert git(path, "rev-parse", "HEAD", "--abbrev-ref", "HEAD").split() == [wanted, "drover/task-two"]
        assert (path / ".git" / "config").read_text() == (fresh / ".git" / "config").read_text()
        await remove_worktree(fresh)
        assert await pool.end("task-two", wanted)
    assert pool.kept() == 1
    assert list((pool.where / "worktrees").iterdir()) == []


async def test_what_changed_after_the_last_look_is_not_kept_either(pool: Pool, git: Git, base: str) -> None:
    path = await pool.begin("task-one", base)
    scratch = pool.where / "tmp" / "task-one"
    await take_tree(pool.repo, path, base=base, scratch=scratch)
    edits(path)  # as a hook after landing might
    assert await reuse.keep(path, scratch, pool.pool, 4)
    path = await pool.begin("task-two", base)
    assert git(path, "status", "--porcelain", "--ignored") == ""


async def test_no_more_are_kept_than_may_be(pool: Pool, base: str) -> None:
    names = [f"task-{n}" for n in range(3)]
    for name in names:
        await pool.begin(name, base)
    assert [await pool.end(name, base, most=2) for name in names] == [True, True, False]
    assert pool.kept() == 2
    assert await reuse.drop(pool.pool.parent) == 1
    assert pool.kept() == 0


async def test_a_kept_directory_that_cannot_be_used_is_replaced_by_a_fresh_one(pool: Pool, git: Git, base: str) -> None:
    await pool.begin("task-one", base)
    await pool.end("task-one", base)
    (entry,) = pool.pool.iterdir()
    (entry / "index").write_bytes(b"not an index")
    path = await pool.begin("task-two", base)
    assert git(path, "status", "--porcelain", "--ignored") == ""
    assert list(path.parent.iterdir()) == [path]
    assert pool.kept() == 0


async def test_where_there_are_submodules_nothing_kept_is_used(pool: Pool, base: str) -> None:
    await pool.begin("task-one", base)
    await pool.end("task-one", base)
    entries = subprocess.run(["git", "ls-tree", base], cwd=pool.repo.root, capture_output=True, text=True, check=True)
    call = ["git", "mktree", "--missing"]
    tree = f"{entries.stdout}160000 commit {base}\tsub\n"
    made = subprocess.run(call, cwd=pool.repo.root, input=tree, capture_output=True, text=True, check=True)
    linked = await make_commit(
        pool.repo, tree=made.stdout.strip(), parents=(base,), message="c", identity=OLIVE, at_ms=AT
    )
    path = await pool.begin("task-three", linked)
    assert (path / "sub").is_dir()
    assert pool.kept() == 1

"""An attempt's directory becomes a tree: all of it that git can keep, and word of the rest."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import anyio
import pytest

from drover.domain.errors import GitError
from drover.git.commit import TakenTree, take_tree
from drover.git.removing import remove_tree
from drover.git.repo import Repo
from drover.git.worktree import ensure_worktree

from .conftest import Change, Git, files_of

pytestmark = pytest.mark.anyio


class Attempt:
    """A clone on a base, and its directory taken."""

    def __init__(self, repo: Repo, path: Path, base: str, scratch: Path) -> None:
        self.repo, self.path, self.base, self.scratch = repo, path, base, scratch

    async def take(self) -> TakenTree:
        return await take_tree(self.repo, self.path, base=self.base, scratch=self.scratch)


@pytest.fixture
async def attempt(repo: Repo, git: Git, change: Change, tmp_path: Path) -> Attempt:
    first = git(repo.root, "rev-parse", "main")
    files = {f"dir/f{n}": f"{n}\n" for n in range(5)} | {"a": "1\n", ".gitignore": "*.log\n/built/\n"}
    base = change(repo.root, first, files)
    path = tmp_path / "worktrees" / "task-a"
    await ensure_worktree(repo, path, base)
    return Attempt(repo, path, base, tmp_path / "scratch")


async def test_a_directory_without_a_change_is_the_tree_of_its_base(attempt: Attempt) -> None:
    assert await attempt.take() == TakenTree(tree=await attempt.repo.tree(attempt.base), paths=())


async def test_every_kind_of_change_is_in_the_tree(attempt: Attempt, git: Git) -> None:
    path = attempt.path
    (path / "a").write_text("2\n")
    (path / "dir/f0").unlink()
    (path / "dir/f1").rename(path / "moved")
    (path / "dir/f2").chmod(0o755)
    (path / "dir/f3").unlink()
    (path / "dir/f3").symlink_to("/etc/hostname")
    (path / "dir/f4").unlink()
    (path / "dir/f4").mkdir()
    (path / "dir/f4/inner").write_text("x")
    (path / "empty").mkdir()
    (path / "x.log").write_text("ignored")
    (path / "built").mkdir()
    (path / "built/out").write_text("ignored")
    taken = await attempt.take()
    changed = ("a", "dir/f0", "dir/f1", "dir/f2", "dir/f3", "dir/f4", "dir/f4/inner", "moved")
    assert (taken.paths, taken.refused) == (changed, ())
    files = files_of(git, attempt.repo.root, taken.tree)
    assert set(files) == {".gitignore", "README.md", "a", "dir/f2", "dir/f3", "dir/f4/inner", "moved"}
    assert files["dir/f2"].startswith("100755")
    assert files["dir/f3"].startswith("120000")
    assert git(attempt.repo.root, "cat-file", "blob", f"{taken.tree}:dir/f3") == "/etc/hostname"


@pytest.mark.suite("T30")
@pytest.mark.parametrize(
    "name",
    [
        "--help",
        "-",
        "a b",
        'quo"te',
        "new\nline",
        "tab\t",
        "ünïcode",
        "日本",
        "*",
        "?",
        ":(top)x",
        "\\",
        "a\u202eb",
        "!x",
    ],
)
async def test_any_file_name_is_taken(attempt: Attempt, git: Git, name: str) -> None:
    (attempt.path / name).write_text("x\n")
    (attempt.path / "dir" / name).write_text("y\n")
    taken = await attempt.take()
    assert set(taken.paths) == {name, f"dir/{name}"}
    assert taken.refused == ()
    assert {name, f"dir/{name}"} < set(files_of(git, attempt.repo.root, taken.tree))


@pytest.mark.suite("T30")
async def test_a_name_that_is_not_utf8_is_taken_and_shown_escaped(attempt: Attempt) -> None:
    (attempt.path / os.fsdecode(b"caf\xe9")).write_text("x")
    taken = await attempt.take()
    assert taken.paths == ("caf\\xe9",)
    assert TakenTree.model_validate_json(taken.model_dump_json()) == taken


async def test_what_the_agent_committed_or_staged_itself_counts_by_its_files_only(attempt: Attempt, git: Git) -> None:
    (attempt.path / "a").write_text("2\n")
    git(attempt.path, "commit", "-q", "-am", "by the agent")
    (attempt.path / "b").write_text("3\n")
    git(attempt.path, "add", "b")
    git(attempt.path, "update-index", "--assume-unchanged", "dir/f0")
    (attempt.path / "dir/f0").write_text("hidden from its own git\n")
    assert (await attempt.take()).paths == ("a", "b", "dir/f0")


async def test_a_directory_without_a_git_directory_is_taken_all_the_same(attempt: Attempt) -> None:
    shutil.rmtree(attempt.path / ".git")
    (attempt.path / "a").write_text("2\n")
    assert (await attempt.take()).paths == ("a",)


async def test_an_edit_of_the_same_size_right_after_a_look_is_seen(attempt: Attempt) -> None:
    for text in "2323232323":
        (attempt.path / "a").write_text(f"{text}\n")
        (attempt.path / "dir/f0").write_text("0\n")
        taken = await attempt.take()
        assert taken.paths == ("a",)
        (attempt.path / "a").write_text("1\n")
        (attempt.path / "dir/f0").write_text(f"{text}\n")
        assert (await attempt.take()).paths == ("dir/f0",)


async def test_an_edit_that_keeps_size_and_time_is_seen(attempt: Attempt) -> None:
    await attempt.take()
    before = (attempt.path / "dir/f0").stat()
    (attempt.path / "dir/f0").write_text("9\n")
    os.utime(attempt.path / "dir/f0", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (await attempt.take()).paths == ("dir/f0",)


async def test_the_result_does_not_depend_on_an_earlier_look(attempt: Attempt, tmp_path: Path) -> None:
    (attempt.path / "secret.env").write_text("x")
    assert (await attempt.take()).paths == ("secret.env",)
    (attempt.path / ".gitignore").write_text("*.log\n/built/\n*.env\n")
    again = await attempt.take()
    fresh = await take_tree(attempt.repo, attempt.path, base=attempt.base, scratch=tmp_path / "other")
    assert again == fresh
    assert again.paths == (".gitignore",)


async def test_a_look_that_was_killed_or_cut_short_does_not_stop_the_next(attempt: Attempt) -> None:
    await attempt.take()
    (attempt.scratch / "index.lock").write_text("half")
    (attempt.scratch / "index").write_bytes((attempt.scratch / "index").read_bytes()[:100])
    (attempt.path / "a").write_text("2\n")
    assert (await attempt.take()).paths == ("a",)


async def test_the_operators_private_ignores_are_not_taken(attempt: Attempt, git: Git, tmp_path: Path) -> None:
    (attempt.repo.git_dir / "info" / "exclude").write_text("*.local\n")
    (tmp_path / "ignore").write_text(".DS_Store\n")
    git(attempt.repo.root, "config", "core.excludesFile", str(tmp_path / "ignore"))
    for name in ("notes.local", ".DS_Store", "kept"):
        (attempt.path / name).write_text("x")
    assert (await attempt.take()).paths == ("kept",)


async def test_repositories_inside_are_refused_by_name_and_never_taken_as_links(attempt: Attempt, git: Git) -> None:
    for name in ("with-commit", "dir/without-commit"):
        inner = attempt.path / name
        git(attempt.path, "init", "-q", str(inner))
        (inner / "file").write_text("x")
    git(attempt.path / "with-commit", "add", "-A")
    git(attempt.path / "with-commit", "-c", "user.name=a", "-c", "user.email=a@x", "commit", "-q", "-m", "x")
    git(attempt.path, "add", "with-commit")
    (attempt.path / "b").write_text("beside")
    taken = await attempt.take()
    assert taken.paths == ("b",)
    assert taken.refused == (
        "dir/without-commit/: is a git repository of its own",
        "with-commit/: is a git repository of its own",
    )


async def test_a_git_directory_made_inside_of_tracked_files_hides_none_of_them(attempt: Attempt, git: Git) -> None:
    git(attempt.path, "init", "-q", "dir")
    (attempt.path / "dir/new").write_text("x")
    (attempt.path / "dir/f0").write_text("changed\n")
    taken = await attempt.take()
    assert (taken.paths, taken.refused) == (("dir/f0", "dir/new"), ())


@pytest.mark.suite("T30")
@pytest.mark.parametrize("name", [".GIT", ".Git", "git~1", ".g\u200cit"])
async def test_a_name_that_is_git_on_another_system_is_refused(attempt: Attempt, name: str) -> None:
    (attempt.path / "sub" / name).mkdir(parents=True)
    (attempt.path / "sub" / name / "config").write_text("[core]\n\tfsmonitor = touch /tmp/x\n")
    taken = await attempt.take()
    assert taken.paths == ()
    assert [line.split(": ")[0] for line in taken.refused] == [f"sub/{name}/config"]


async def test_a_link_in_place_of_a_directory_is_taken_as_a_link(attempt: Attempt, git: Git, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for n in range(5):
        (outside / f"f{n}").write_text(f"{n}\n")  # the same files, so that whoever follows sees no change
    (outside / "secret").write_text("secret")
    shutil.rmtree(attempt.path / "dir")
    (attempt.path / "dir").symlink_to(outside)
    (attempt.path / "up").symlink_to("../..")
    taken = await attempt.take()
    assert taken.paths == ("dir", *(f"dir/f{n}" for n in range(5)), "up")
    files = files_of(git, attempt.repo.root, taken.tree)
    assert files["dir"].startswith("120000")
    assert files["up"].startswith("120000")


async def test_a_directory_replaced_by_a_link_is_not_taken_at_all(attempt: Attempt) -> None:
    attempt.path.rename(attempt.path.with_name("away"))
    attempt.path.symlink_to(attempt.repo.root)
    with pytest.raises(GitError, match="symbolic link"):
        await attempt.take()


async def test_a_directory_that_has_gone_is_an_error(attempt: Attempt) -> None:
    shutil.rmtree(attempt.path)
    with pytest.raises(GitError, match="not there any more"):
        await attempt.take()


@pytest.mark.suite("T26")
@pytest.mark.parametrize("depth", [3_000, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_what_is_too_deep_for_git_is_refused_and_can_be_removed(attempt: Attempt, depth: int) -> None:
    (attempt.path / "b").write_text("x")
    directory = os.open(attempt.path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=directory)
        inner = os.open("d", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    os.close(directory)
    taken = await attempt.take()
    assert taken.paths == ("b",)
    (refused,) = taken.refused
    assert refused.startswith("d/d/d/") and refused.endswith(": cannot be read")
    await anyio.to_thread.run_sync(remove_tree, attempt.path)
    assert not attempt.path.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
async def test_what_cannot_be_read_is_refused_by_name_and_the_rest_taken(attempt: Attempt) -> None:
    for name in ("closed", "also\nclosed", "dir/f0"):
        (attempt.path / name).write_text("changed, and then closed")
        (attempt.path / name).chmod(0)
    (attempt.path / "shut").mkdir()
    (attempt.path / "shut/file").write_text("x")
    (attempt.path / "shut").chmod(0)
    (attempt.path / "b").write_text("x")
    taken = await attempt.take()
    (attempt.path / "shut").chmod(0o700)
    assert taken.paths == ("b",)
    assert taken.refused == tuple(f"{name}: cannot be read" for name in ("also\nclosed", "closed", "dir/f0", "shut/"))


async def test_a_changed_file_of_a_content_filter_is_refused_and_an_untouched_or_moved_one_is_not(
    attempt: Attempt, change: Change
) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    files = {".gitattributes": "*.bin filter=lfs -text\n*.txt filter=nobody\n"}
    files |= {f"{name}.bin": pointer + name for name in ("changed", "moved", "same")}
    attempt.base = change(attempt.repo.root, attempt.base, files)
    path = attempt.path.with_name("task-b")
    await ensure_worktree(attempt.repo, path, attempt.base)
    attempt.path = path
    assert (path / "same.bin").read_text() == pointer + "same"
    (path / "changed.bin").write_bytes(b"\0" * 100)
    (path / "moved.bin").rename(path / "elsewhere.bin")
    (path / "x.txt").write_text("a filter that nobody has is none")
    taken = await attempt.take()
    assert taken.paths == ("changed.bin", "elsewhere.bin", "moved.bin", "x.txt")
    assert [line.split(": ")[0] for line in taken.refused] == ["changed.bin"]


async def test_line_ends_that_the_tree_asks_for_are_no_change(attempt: Attempt, change: Change, git: Git) -> None:
    attributes = "*.txt text eol=crlf\n*.u16 working-tree-encoding=UTF-16LE-BOM\n"
    files = {".gitattributes": attributes, "a.txt": "one\ntwo\n", "b.u16": "ü\n", "c": "one\r\n"}
    attempt.base = change(attempt.repo.root, attempt.base, files)
    attempt.path = attempt.path.with_name("task-b")
    await ensure_worktree(attempt.repo, attempt.path, attempt.base)
    assert (attempt.path / "a.txt").read_bytes() == b"one\r\ntwo\r\n"
    assert git(attempt.path, "status", "--porcelain") == ""
    assert (await attempt.take()).paths == ()
    (attempt.path / "new.txt").write_bytes(b"three\r\n")
    taken = await attempt.take()
    assert taken.paths == ("new.txt",)
    assert git(attempt.repo.root, "cat-file", "-s", f"{taken.tree}:new.txt") == "6"


async def test_a_submodule_stays_as_it_is_and_files_in_its_place_are_refused(
    attempt: Attempt, change: Change, git: Git
) -> None:
    first = git(attempt.repo.root, "rev-parse", "main")
    index = {"GIT_INDEX_FILE": str(attempt.scratch.with_name("sub.index"))}
    os.environ.update(index)
    git(attempt.repo.root, "read-tree", attempt.base)
    git(attempt.repo.root, "update-index", "--add", "--cacheinfo", f"160000,{first},vendor/lib")
    tree = git(attempt.repo.root, "write-tree")
    del os.environ["GIT_INDEX_FILE"]
    attempt.base = git(attempt.repo.root, "commit-tree", tree, "-p", attempt.base, "-m", "submodule")
    attempt.path = attempt.path.with_name("task-b")
    await ensure_worktree(attempt.repo, attempt.path, attempt.base)
    assert (await attempt.take()).paths == ()
    (attempt.path / "vendor/lib").rmdir()
    assert (await attempt.take()).paths == (), "an empty directory that got lost is no change"
    (attempt.path / "vendor/lib").mkdir()
    (attempt.path / "vendor/lib/file").write_text("x")
    assert (await attempt.take()).refused == ("vendor/lib: is a submodule, which drover leaves as it is",)


async def test_thousands_of_files_are_taken_and_one_change_among_them_is_seen(attempt: Attempt, git: Git) -> None:
    for directory in range(20):
        (attempt.path / f"d{directory}").mkdir()
        for number in range(100):
            (attempt.path / f"d{directory}/f{number}").write_text(f"{directory} {number}\n")
    assert len((await attempt.take()).paths) == 2_000
    (attempt.path / "d5/f5").write_text("changed\n")
    taken = await attempt.take()
    assert len(taken.paths) == 2_000
    assert git(attempt.repo.root, "cat-file", "blob", f"{taken.tree}:d5/f5") == "changed"

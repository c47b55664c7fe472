"""The branch and its checkouts follow the lane: wholly or not at all, and never over the operator's work."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from drover.domain.errors import DiskFull, GitError
from drover.git import checkout, two_tree
from drover.git.checkout import Diverged, Published, _marker, finish_publishing, publish
from drover.git.checkouts import Checkout, take_lock
from drover.git.overlap import Blocked
from drover.git.repo import Repo
from tests.small_disk import small_disk

from .conftest import Change, Git

pytestmark = pytest.mark.anyio

BASE = {
    "a": "1\n", "b": "1\n", "dir/x": "x\n", "dir/y": "y\n", "run": "#!/bin/sh\n", "swap": "file\n", "gone": "g\n",
    ".gitignore": "*.ignored\nbuilt/\n",
}  # fmt: skip
NEW = {
    "a": "2\n", "dir/x": None, "dir/moved": "x\n", "run": ("100755", "#!/bin/sh\n"), "swap": None,
    "swap/inner": "now a directory\n", "gone": None, "new/deep/file": "new\n", "link": ("120000", "a"),
    "ünï\ncode": "odd name\n",
}  # fmt: skip


class Scene:
    """A checkout on ``main`` at ``old``, and ``new`` on top of it."""

    def __init__(self, repo: Repo, git: Git, change: Change, branch: str) -> None:
        self.repo, self.call, self.branch = repo, git, branch
        self.old = change(repo.root, git(repo.root, "rev-parse", "HEAD"), BASE)
        self.git("reset", "-q", "--hard", self.old)
        self.new = change(repo.root, self.old, NEW)

    def git(self, *argv: str, ok: bool = True) -> str:
        return self.call(self.repo.root, *argv, ok=ok)

    def state(self) -> str:
        """Everything of the operator's, as one digest: every file, the index, HEAD, every ref of theirs."""
        digest = hashlib.sha256()
        for path in sorted(self.repo.root.rglob("*")):
            inside = path.relative_to(self.repo.root)
            if inside.parts[:2] == (".git", "drover") or inside.parts[:2] in ((".git", "objects"), (".git", "logs")):
                continue
            content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else "directory"
            digest.update(f"{inside}|{path.lstat().st_mode:o}|{content!r}\n".encode())
        return digest.hexdigest()

    def assert_published(self, *status: str) -> None:
        assert self.git("rev-parse", f"refs/heads/{self.branch}") == self.new
        assert self.git("status", "--porcelain", "-uall").splitlines() == list(status)
        self.assert_no_residue()

    def assert_no_residue(self) -> None:
        assert not (self.repo.git_dir / "index.lock").exists()
        assert not list(self.repo.git_dir.glob("drover-*"))
        assert not (self.repo.state_dir / "publish.json").exists()

    async def publish(self) -> Published | Blocked | Diverged:
        return await publish(self.repo, branch=self.branch, new=self.new)


@pytest.fixture(params=["main"])
async def scene(request, repository: Path, git: Git, change: Change) -> Scene:
    branch = request.param
    git(repository, "branch", "-m", branch)
    return Scene(await Repo.find(repository), git, change, branch)


@pytest.mark.parametrize("scene", ["main", "master", "feature/x", "ünï"], indirect=True)
async def test_a_clean_checkout_gets_files_index_and_branch_at_once(scene: Scene) -> None:
    assert await scene.publish() == Published(old=scene.old, new=scene.new)
    scene.assert_published()
    root = scene.repo.root
    assert (root / "swap/inner").read_text() == "now a directory\n"
    assert os.access(root / "run", os.X_OK)
    assert (root / "link").is_symlink()
    assert not (root / "gone").exists()
    assert scene.git("log", "-g", "-1", "--format=%gs") == "drover: publish"


async def test_publishing_again_finds_it_published(scene: Scene) -> None:
    await scene.publish()
    before = scene.state()
    assert await scene.publish() == Published(old=scene.new, new=scene.new)
    assert scene.state() == before


async def test_a_branch_that_went_on_from_there_has_it_already(scene: Scene, change: Change) -> None:
    later = change(scene.repo.root, scene.new, {"z": "1"})
    scene.git("reset", "-q", "--hard", later)
    assert await scene.publish() == Published(old=later, new=later)
    assert scene.git("rev-parse", "main") == later


async def test_a_branch_with_commits_of_its_own_is_left_alone(scene: Scene) -> None:
    scene.git("commit", "-q", "--allow-empty", "-m", "theirs")
    tip, before = scene.git("rev-parse", "main"), scene.state()
    assert await scene.publish() == Diverged(tip=tip)
    assert scene.state() == before


async def test_a_branch_that_is_not_there_is_an_error(scene: Scene) -> None:
    with pytest.raises(GitError, match="no branch elsewhere"):
        await publish(scene.repo, branch="elsewhere", new=scene.new)


async def test_a_branch_that_is_checked_out_nowhere_moves_by_itself(scene: Scene) -> None:
    scene.git("switch", "-q", "-c", "mine")
    (scene.repo.root / "a").write_text("edited\n")
    files = {path: path.read_bytes() for path in scene.repo.root.glob("[a-z]*") if path.is_file()}
    assert await scene.publish() == Published(old=scene.old, new=scene.new)
    assert scene.git("rev-parse", "main", "HEAD").split() == [scene.new, scene.old]
    assert {path: path.read_bytes() for path in scene.repo.root.glob("[a-z]*") if path.is_file()} == files


async def test_a_detached_head_is_left_where_it_is(scene: Scene) -> None:
    scene.git("switch", "-q", "--detach")
    (scene.repo.root / "a").write_text("edited\n")
    await scene.publish()
    assert scene.git("rev-parse", "main", "HEAD").split() == [scene.new, scene.old]
    assert scene.git("status", "--porcelain") == "M a"


async def test_what_the_operator_has_in_other_files_stays_as_it_is(scene: Scene) -> None:
    root = scene.repo.root
    (root / "b").write_text("staged\n")
    scene.git("add", "b")
    (root / "b").write_text("staged and edited\n")
    (root / "dir/y").write_text("edited\n")
    (root / "untracked").write_text("u\n")
    (root / "dir/untracked").write_text("u\n")
    (root / "x.ignored").write_text("i\n")
    (root / "built").mkdir()
    (root / "built/out").write_text("i\n")
    scene.git("stash", "push", "-q", "dir/y")
    (root / "dir/y").write_text("edited again\n")
    assert await scene.publish() == Published(old=scene.old, new=scene.new)
    scene.assert_published("MM b", " M dir/y", "?? dir/untracked", "?? untracked")
    assert (root / "b").read_text() == "staged and edited\n"
    assert scene.git("show", ":b") == "staged"
    assert ((root / "x.ignored").read_text(), (root / "built/out").read_text()) == ("i\n", "i\n")
    assert scene.git("stash", "list", "--format=%gd") == "stash@{0}"


def edit(path: str, text: str = "mine\n"):
    def do(scene: Scene) -> None:
        (scene.repo.root / path).parent.mkdir(parents=True, exist_ok=True)
        (scene.repo.root / path).write_text(text)

    return do


def staged(path: str):
    def do(scene: Scene) -> None:
        edit(path)(scene)
        scene.git("add", "-f", path)

    return do


def staged_and_put_back(scene: Scene) -> None:
    staged("a")(scene)
    edit("a", "1\n")(scene)


def remove(path: str):
    return lambda scene: (scene.repo.root / path).unlink()


def run(*argv: str):
    return lambda scene: scene.git(*argv, ok=False)


def looked_away(flag: str):
    def do(scene: Scene) -> None:
        scene.git("update-index", flag, "a")
        edit("a")(scene)

    return do


def link_in_the_way(scene: Scene) -> None:
    (scene.repo.root / "new").symlink_to("/")


def mode(path: str, bits: int):
    return lambda scene: (scene.repo.root / path).chmod(bits)


BLOCKERS = {
    "an edit": (edit("a"), ("a",)),
    "an edit of the same size": (edit("a", "9\n"), ("a",)),
    "a staged edit": (staged("a"), ("a",)),
    "a staged edit put back in the file": (staged_and_put_back, ("a",)),
    "a staged removal": (run("rm", "-q", "gone"), ("gone",)),
    "a removal": (remove("a"), ("a",)),
    "an edit of a file that goes": (edit("gone"), ("gone",)),
    "an edit below what becomes a file's place": (edit("dir/x"), ("dir/x",)),
    "a mode": (mode("run", 0o755), ("run",)),
    "an untracked file in the way": (edit("new/deep/file"), ("new/deep/file",)),
    "the same untracked file in the way": (edit("new/deep/file", "new\n"), ("new/deep/file",)),
    "an untracked file where a directory goes": (edit("new"), ("new",)),
    "a link where a directory goes": (link_in_the_way, ("new",)),
    "a directory where a file goes": (edit("link/inside"), ("link/inside",)),
    "a staged new file in the way": (staged("link"), ("link",)),
    "an edit git is told not to see": (looked_away("--assume-unchanged"), ("a",)),
    "an edit git is told to keep away from": (looked_away("--skip-worktree"), ("a",)),
    "an intended file in the way": (lambda s: (edit("link")(s), s.git("add", "-N", "link")), ("link",)),
}


@pytest.mark.suite("T21")
@pytest.mark.parametrize("name", BLOCKERS)
async def test_the_operators_changes_in_the_way_block_and_keep_every_byte(scene: Scene, name: str) -> None:
    prepare, paths = BLOCKERS[name]
    prepare(scene)
    before = scene.state()
    blocked = await scene.publish()
    assert isinstance(blocked, Blocked)
    assert blocked.paths == paths
    assert paths[0] in blocked.why
    assert scene.state() == before
    assert scene.git("rev-parse", "main") == scene.old
    scene.assert_no_residue()


async def test_an_ignored_file_in_the_way_blocks(scene: Scene, change: Change) -> None:
    scene.new = change(scene.repo.root, scene.new, {"x.ignored": "tracked now\n", "built/out": "too\n"})
    edit("x.ignored")(scene)
    edit("built/out/cache")(scene)
    before = scene.state()
    blocked = await scene.publish()
    assert isinstance(blocked, Blocked)
    assert blocked.paths == ("built/out/cache", "x.ignored")
    assert scene.state() == before


async def test_a_directory_that_becomes_a_file_keeps_what_git_does_not_know_in_it(scene: Scene, change: Change) -> None:
    scene.new = change(scene.repo.root, scene.old, {"dir/x": None, "dir/y": None, "dir": "a file now\n"})
    edit("dir/notes")(scene)
    blocked = await scene.publish()
    assert isinstance(blocked, Blocked)
    assert blocked.paths == ("dir/notes",)
    (scene.repo.root / "dir/notes").unlink()
    (scene.repo.root / "dir/empty").mkdir()
    assert isinstance(await scene.publish(), Published)
    scene.assert_published()


def begin_merge(scene: Scene) -> None:
    scene.git("switch", "-q", "-c", "side", "HEAD~1")
    edit("side")(scene)
    scene.git("add", "-A")
    scene.git("commit", "-q", "-m", "side")
    scene.git("switch", "-q", "main")
    scene.git("merge", "--no-commit", "--no-ff", "side")


def begin_picking(scene: Scene) -> None:
    begin_merge(scene)
    scene.git("merge", "--abort")
    scene.git("switch", "-q", "side")
    edit("b", "conflict\n")(scene)
    scene.git("add", "-A")
    scene.git("commit", "-q", "-m", "conflict")
    scene.git("switch", "-q", "main")
    scene.git("cherry-pick", "side", ok=False)


def begin_rebase(scene: Scene) -> None:
    scene.git("-c", "sequence.editor=sed -i s/^pick/edit/", "rebase", "-q", "-i", "HEAD~1", ok=False)
    assert (scene.repo.git_dir / "rebase-merge").exists()


def begin_am(scene: Scene) -> None:
    (scene.repo.root / "mail").write_text("From x\nFrom: a <a@x>\nSubject: [PATCH] p\n\n---\n nothing\n")
    scene.git("am", "mail", ok=False)
    assert (scene.repo.git_dir / "rebase-apply").exists()


def begin_bisect(scene: Scene) -> None:
    scene.git("bisect", "start", "main", "main~1")


def begin_revert(scene: Scene) -> None:
    scene.git("revert", "--no-commit", "HEAD")


def lock_index(scene: Scene) -> None:
    (scene.repo.git_dir / "index.lock").write_text("somebody's")


OPERATIONS = {
    "a merge": begin_merge,
    "a cherry-pick": begin_picking,
    "a rebase": begin_rebase,
    "an am": begin_am,
    "a bisect": begin_bisect,
    "a revert": begin_revert,
    "a locked index": lock_index,
}


@pytest.mark.suite("T21")
@pytest.mark.parametrize("name", OPERATIONS)
async def test_an_operation_under_way_is_left_to_its_end(scene: Scene, name: str) -> None:
    OPERATIONS[name](scene)
    before = scene.state()
    blocked = await scene.publish()
    assert isinstance(blocked, Blocked), blocked
    assert "under way" in blocked.why or "index.lock" in blocked.why or "unmerged" in blocked.why
    assert scene.state() == before
    assert scene.git("rev-parse", "main") == scene.old


async def test_it_goes_on_as_soon_as_the_operator_is_done(scene: Scene) -> None:
    edit("a")(scene)
    assert isinstance(await scene.publish(), Blocked)
    scene.git("stash", "-q")
    assert isinstance(await scene.publish(), Published)
    scene.assert_published()


async def test_every_checkout_of_the_branch_follows_or_none(scene: Scene, tmp_path: Path, git: Git) -> None:
    linked = tmp_path / "linked checkout"
    scene.git("worktree", "add", "-q", "--force", str(linked), "main")
    (linked / "a").write_text("mine\n")
    before = scene.state()
    blocked = await scene.publish()
    assert isinstance(blocked, Blocked)
    assert blocked.paths == ("a",)
    assert scene.state() == before
    git(linked, "checkout", "-q", "a")
    assert isinstance(await scene.publish(), Published)
    scene.assert_published()
    assert git(linked, "status", "--porcelain") == ""
    assert (linked / "a").read_text() == "2\n"


async def test_drover_started_in_a_linked_checkout_serves_the_main_one_too(
    scene: Scene, tmp_path: Path, git: Git
) -> None:
    scene.git("worktree", "add", "-q", "-b", "side", str(tmp_path / "linked"))
    repo = await Repo.find(tmp_path / "linked")
    assert isinstance(await publish(repo, branch="main", new=scene.new), Published)
    scene.assert_published()
    assert isinstance(await publish(repo, branch="side", new=scene.new), Published)
    assert git(tmp_path / "linked", "status", "--porcelain") == ""


async def test_a_linked_checkout_of_a_bare_repository_follows(scene: Scene, tmp_path: Path, git: Git) -> None:
    git(tmp_path, "clone", "-q", "--bare", str(scene.repo.root), "bare.git")
    git(tmp_path / "bare.git", "worktree", "add", "-q", str(tmp_path / "main"), "main")
    git(tmp_path / "bare.git", "fetch", "-q", str(scene.repo.root), f"{scene.new}:refs/drover/target/main")
    repo = await Repo.find(tmp_path / "main")
    assert isinstance(await publish(repo, branch="main", new=scene.new), Published)
    assert git(tmp_path / "main", "status", "--porcelain") == ""
    assert git(tmp_path / "main", "rev-parse", "HEAD") == scene.new


async def test_a_checkout_with_its_git_directory_elsewhere_follows(scene: Scene, tmp_path: Path, git: Git) -> None:
    git(scene.repo.root, "init", "-q", "--separate-git-dir", str(tmp_path / "elsewhere.git"))
    repo = await Repo.find(scene.repo.root)
    assert repo.git_dir == tmp_path / "elsewhere.git"
    assert isinstance(await publish(repo, branch="main", new=scene.new), Published)
    assert scene.git("status", "--porcelain") == ""
    assert scene.git("rev-parse", "HEAD") == scene.new


async def test_a_checkout_that_was_deleted_does_not_stop_the_branch_and_one_that_is_away_does(
    scene: Scene, tmp_path: Path
) -> None:
    scene.git("switch", "-q", "--detach")
    scene.git("worktree", "add", "-q", "--lock", str(tmp_path / "drive"), "main")
    (tmp_path / "drive").rename(tmp_path / "unmounted")
    blocked = await scene.publish()
    assert isinstance(blocked, Blocked)
    assert "away" in blocked.why
    scene.git("worktree", "unlock", str(tmp_path / "drive"))
    assert isinstance(await scene.publish(), Published)


async def test_a_sparse_checkout_keeps_its_selection(scene: Scene) -> None:
    scene.git("sparse-checkout", "set", "--no-cone", "/*", "!/dir/", "!/new/")
    assert not (scene.repo.root / "dir").exists()
    assert isinstance(await scene.publish(), Published)
    scene.assert_published()
    assert not (scene.repo.root / "dir").exists()
    assert not (scene.repo.root / "new").exists()
    assert (scene.repo.root / "a").read_text() == "2\n"


async def test_the_operators_filters_and_line_ends_hold_in_their_checkout(scene: Scene, change: Change) -> None:
    scene.git("config", "filter.shout.smudge", "tr a-z A-Z")
    scene.git("config", "filter.shout.clean", "tr A-Z a-z")
    scene.git("config", "core.autocrlf", "true")
    (scene.repo.git_dir / "info" / "attributes").write_text("*.shout filter=shout\n*.txt text\n")
    scene.new = change(scene.repo.root, scene.new, {"x.shout": "hello\n", "crlf.txt": "one\ntwo\n"})
    assert isinstance(await scene.publish(), Published)
    assert (scene.repo.root / "x.shout").read_text() == "HELLO\n"
    assert (scene.repo.root / "crlf.txt").read_bytes() == b"one\r\ntwo\r\n"
    scene.assert_published()


async def test_a_filter_that_fails_takes_the_whole_update_back(scene: Scene, change: Change) -> None:
    scene.git("config", "filter.broken.smudge", "false")
    scene.git("config", "filter.broken.required", "true")
    (scene.repo.git_dir / "info" / "attributes").write_text("*.broken filter=broken\n")
    scene.new = change(scene.repo.root, scene.new, {"zz.broken": "x\n"})
    before = scene.state()
    with pytest.raises(GitError, match="read-tree"):
        await scene.publish()
    assert scene.state() == before
    scene.assert_no_residue()


async def test_no_hook_of_the_operator_runs(scene: Scene, tmp_path: Path) -> None:
    for name in ("post-index-change", "reference-transaction", "post-checkout", "post-merge"):
        hook = scene.repo.git_dir / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\necho {name} >> {tmp_path}/ran\n")
        hook.chmod(0o755)
    scene.git("update-ref", "refs/heads/probe", scene.old)
    assert (tmp_path / "ran").exists(), "the hooks would run"
    (tmp_path / "ran").unlink()
    assert isinstance(await scene.publish(), Published)
    assert not (tmp_path / "ran").exists()


async def test_a_branch_that_another_moves_at_that_moment_is_not_moved_back(
    scene: Scene, change: Change, monkeypatch
) -> None:
    """Files and index are written already when the branch turns out to have moved: they are taken back."""
    other = change(scene.repo.root, scene.old, {"other": "1\n"})
    real = two_tree.put_index

    def move_too(checkout: Checkout) -> None:
        real(checkout)
        if scene.git("rev-parse", "main") == scene.old:
            scene.git("update-ref", "refs/heads/main", other)

    monkeypatch.setattr(two_tree, "put_index", move_too)
    (scene.repo.root / "b").write_text("mine\n")
    assert await scene.publish() == Diverged(tip=other)
    assert scene.git("rev-parse", "main") == other
    assert scene.git("diff", "--name-only", scene.old) == "b"
    assert scene.git("diff", "--cached", "--name-only", scene.old) == ""
    scene.assert_no_residue()


async def test_while_one_publishes_another_waits_its_turn(scene: Scene) -> None:
    outcomes: list[Published | Blocked | Diverged] = []

    async def once() -> None:
        outcomes.append(await scene.publish())

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(once)
    assert Published(old=scene.old, new=scene.new) in outcomes
    assert all(isinstance(o, Published) or o.why == "another publishing is under way" for o in outcomes)
    scene.assert_published()


async def test_a_caller_that_is_cancelled_leaves_the_update_whole(scene: Scene) -> None:
    """Cancelled after each of many short times: at the old commit or at the new one, with nothing left behind."""
    seen = set()
    for number in range(40):
        scene.git("reset", "-q", "--hard", scene.old)
        with anyio.move_on_after(number * 0.0015):
            await scene.publish()
        scene.assert_no_residue()
        tip = scene.git("rev-parse", "main")
        assert tip in (scene.old, scene.new)
        assert scene.git("status", "--porcelain") == ""
        seen.add(tip)
    assert scene.old in seen


async def test_an_edit_made_after_a_crash_stays_and_the_rest_is_taken_back(scene: Scene, monkeypatch) -> None:
    """Killed between files and index; before drover runs again the operator edits a file it had written."""

    class Killed(BaseException):
        pass

    def die(checkout: Checkout) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(two_tree, "put_index", die)
        with pytest.raises(Killed):
            await scene.publish()
    assert scene.git("rev-parse", "main") == scene.old
    assert (scene.repo.root / "a").read_text() == "2\n"
    edit("a", "mine, after the crash\n")(scene)
    edit("new/deep/beside", "mine too\n")(scene)
    assert await finish_publishing(scene.repo) is None
    assert scene.git("status", "--porcelain", "-uall").splitlines() == ["M a", "?? new/deep/beside"]
    assert (scene.repo.root / "a").read_text() == "mine, after the crash\n"
    scene.assert_no_residue()
    blocked = await scene.publish()
    assert isinstance(blocked, Blocked)
    assert blocked.paths == ("a",)


async def test_a_lock_of_ours_without_a_record_goes_at_the_next_call(scene: Scene) -> None:
    await scene.publish()
    checkout = Checkout(path=scene.repo.root, git_dir=scene.repo.git_dir)
    assert take_lock(checkout)
    assert scene.git("add", "a", ok=False) == ""
    assert await finish_publishing(scene.repo) is None
    scene.assert_published()


@pytest.mark.parametrize("record", [False, True])
async def test_a_git_that_outlived_its_drover_is_ended_before_what_it_began_is_settled(
    scene: Scene, record: bool
) -> None:
    here = Checkout(path=scene.repo.root, git_dir=scene.repo.git_dir)
    scene.repo.state_dir.mkdir(exist_ok=True)
    assert take_lock(here)
    if record:
        under_way = two_tree.Record(ref="refs/heads/main", old=scene.old, new=scene.new, checkouts=(here,))
        two_tree.write_record(scene.repo, under_way)
    env = {**os.environ, "DROVER_MARKER": _marker(scene.repo)}
    with subprocess.Popen(["sleep", "300"], env=env, start_new_session=True) as writing:
        try:
            assert await finish_publishing(scene.repo) is None
            assert writing.wait(60) == -15
        finally:
            writing.kill()
    scene.assert_no_residue()
    assert scene.git("rev-parse", "main") == scene.old
    assert scene.git("status", "--porcelain") == ""
    assert isinstance(await scene.publish(), Published)
    scene.assert_published()


async def test_a_checkout_that_left_the_branch_in_the_middle_gets_its_files_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed with everything written; then its HEAD is another branch, which is where all were."""

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    scene.git("branch", "other", scene.old)
    with monkeypatch.context() as patched:
        patched.setattr(checkout, "settle", die)
        with pytest.raises(Killed):
            await scene.publish()
    assert scene.git("rev-parse", "main") == scene.new
    scene.git("symbolic-ref", "HEAD", "refs/heads/other")
    assert await finish_publishing(scene.repo) is None
    scene.assert_no_residue()
    assert scene.git("status", "--porcelain", "-uall") == ""
    assert (scene.repo.root / "a").read_text() == "1\n"


async def test_an_operator_in_the_way_is_not_disturbed_by_a_lock_at_each_new_try(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[Checkout] = []

    def note(one: Checkout) -> bool:
        locked.append(one)
        return take_lock(one)

    monkeypatch.setattr(checkout, "take_lock", note)
    edit("a", "mine\n")(scene)
    assert isinstance(await scene.publish(), Blocked)
    before = len(locked)
    assert isinstance(await scene.publish(), Blocked)
    assert len(locked) == before
    edit("a", "1\n")(scene)
    assert isinstance(await scene.publish(), Published)
    scene.assert_published()


async def test_a_checkout_that_goes_away_in_the_middle_does_not_stop_what_is_settled(
    scene: Scene, tmp_path: Path
) -> None:
    here = Checkout(path=scene.repo.root, git_dir=scene.repo.git_dir)
    gone = Checkout(path=tmp_path / "gone", git_dir=scene.repo.git_dir / "worktrees" / "gone")
    scene.repo.state_dir.mkdir(exist_ok=True)
    assert take_lock(here)
    under_way = two_tree.Record(ref="refs/heads/main", old=scene.old, new=scene.new, checkouts=(gone, here))
    two_tree.write_record(scene.repo, under_way)
    assert await finish_publishing(scene.repo) is None
    scene.assert_no_residue()
    assert scene.git("status", "--porcelain") == ""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", "1m") as where:
        yield where


@pytest.mark.suite("T15")
async def test_a_disk_that_is_too_small_takes_the_whole_update_back(
    scene: Scene, disk: Path, git: Git, change: Change
) -> None:
    linked = disk / "main"
    scene.git("switch", "-q", "--detach")
    scene.git("worktree", "add", "-q", str(linked), "main")
    scene.new = change(scene.repo.root, scene.old, {"a": "2\n", "big": "x" * 2_000_000, "gone": None})
    with pytest.raises(DiskFull):
        await scene.publish()
    assert git(linked, "status", "--porcelain") == ""
    assert (linked / "a").read_text() == "1\n"
    assert scene.git("rev-parse", "main") == scene.old
    scene.assert_no_residue()
    scene.new = change(scene.repo.root, scene.old, {"a": "3\n"})
    assert isinstance(await scene.publish(), Published)

"""What is read of trees without git is what git says; where it cannot be read, git is asked."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from drover.git.changes import GITLINK, changes_between
from drover.git.commit import make_commit, task_message
from drover.git.landing import find_landed
from drover.git.repo import Repo
from drover.git.trees import NotLoose, Trees
from tests.git.conftest import AT, OLIVE, Change, Git

pytestmark = pytest.mark.anyio

NAMES = ("a", "a.b", "a-b", "ä", "with blank", "z")
MODES = ("100644", "100755", "120000")


def tree_of(where: Path, files: dict[str, tuple[str, str]]) -> str:
    """A tree made by git, written into the repository's objects. A submodule's text is its commit."""

    def call(*argv: str, stdin: str = "") -> str:
        env = {**os.environ, "GIT_INDEX_FILE": str(where / ".git" / "test.index")}
        done = subprocess.run(
            ["git", *argv], cwd=where, env=env, input=stdin, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    lines = []
    for path, (mode, text) in files.items():
        oid = text if mode == GITLINK else call("hash-object", "-w", "--stdin", stdin=text)
        lines.append(f"{mode} {oid}\t{path}\0")
    call("read-tree", "--empty")
    call("update-index", "-z", "--index-info", stdin="".join(lines))
    return call("write-tree")


def some_files(dice: random.Random) -> dict[str, tuple[str, str]]:
    """Paths up to three deep; what is a directory in one tree may be a file in the next."""
    files: dict[str, tuple[str, str]] = {}
    for _ in range(dice.randint(1, 14)):
        path = "/".join(dice.choice(NAMES) for _ in range(dice.randint(1, 3)))
        if not any(path.startswith(f"{other}/") or other.startswith(f"{path}/") for other in files):
            files[path] = (dice.choice(MODES), dice.choice("123"))
    return files


@pytest.mark.parametrize("seed", range(12))
async def test_what_differs_is_what_git_says(repo: Repo, git: Git, seed: int) -> None:
    dice = random.Random(seed)
    trees, place = Trees(repo.objects_dir, repo.object_format), await repo.objects_place()
    head = git(repo.root, "rev-parse", "HEAD")
    found = [some_files(dice) for _ in range(3)]
    found[1]["sub"] = (GITLINK, head)
    oids = [tree_of(repo.root, files) for files in found]
    for old in oids:
        for new in oids:
            assert trees.changes(old, new) == await changes_between(place, old, new)


@pytest.mark.parametrize("seed", range(6))
async def test_no_new_object_is_missed(repo: Repo, git: Git, seed: int) -> None:
    dice = random.Random(seed)
    trees = Trees(repo.objects_dir, repo.object_format)
    old, new = (tree_of(repo.root, some_files(dice)) for _ in range(2))
    commits = [git(repo.root, "commit-tree", tree, "-m", "c") for tree in (old, new)]
    listed = git(repo.root, "rev-list", "--objects", "--no-object-names", commits[1], f"^{commits[0]}").split()
    assert {*listed} - {commits[1]} <= {*trees.new_objects(trees.tree_of(commits[0]), new)}


async def test_what_is_packed_is_left_to_git(repo: Repo, git: Git, change: Change) -> None:
    head = git(repo.root, "rev-parse", "HEAD")
    new = change(repo.root, head, {"fresh": "1\n"})
    git(repo.root, "update-ref", "refs/heads/kept", new)
    git(repo.root, "gc", "-q")
    with pytest.raises(NotLoose):
        Trees(repo.objects_dir, repo.object_format).tree_of(new)
    assert [change.path for change in await repo.changes(head, new)] == [b"fresh"]


async def test_a_file_cut_short_is_left_to_git(repo: Repo, git: Git) -> None:
    oid = git(repo.root, "rev-parse", "HEAD^{tree}")
    file = repo.objects_dir / oid[:2] / oid[2:]
    whole = file.read_bytes()
    file.chmod(0o600)
    for length in range(0, len(whole), 7):
        file.write_bytes(whole[:length])
        with pytest.raises(NotLoose):
            Trees(repo.objects_dir, repo.object_format).changes(oid, "0" * 40)


async def test_a_landing_of_ours_is_found_behind_others_of_ours(repo: Repo, git: Git) -> None:
    since = git(repo.root, "rev-parse", "HEAD")
    tree, tip = git(repo.root, "rev-parse", "HEAD^{tree}"), since
    made: dict[str, str] = {}
    for number in range(4):
        message = task_message("t", f"task-{number}", 1)
        tip = made[f"task-{number}"] = await make_commit(
            repo, tree=tree, parents=(tip,), message=message, identity=OLIVE, at_ms=AT + number * 1000
        )
    for task, oid in made.items():
        landed = await find_landed(repo, tip=tip, since=since, task_id=task)
        assert landed is not None
        assert landed.oid == oid
    assert await find_landed(repo, tip=tip, since=since, task_id="task-9") is None
    theirs = git(repo.root, "commit-tree", tree, "-p", tip, "-m", task_message("t", "task-9", 1))
    landed = await find_landed(repo, tip=theirs, since=since, task_id="task-9")
    assert landed is not None
    assert landed.oid == theirs, "a commit that somebody else made was not looked at"

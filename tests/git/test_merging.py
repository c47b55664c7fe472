"""What is merged without git is what git merges; where git would look closer it is asked."""

from __future__ import annotations

import random
import subprocess

import pytest

from drover.git.changes import GITLINK
from drover.git.commit import make_commit
from drover.git.landing import Conflicted, Merged, merge_trees
from drover.git.merging import merge_plainly
from drover.git.repo import Repo
from drover.git.trees import NotLoose, Trees
from tests.git.conftest import AT, OLIVE, Change, Git
from tests.git.test_trees import MODES, NAMES, some_files, tree_of

pytestmark = pytest.mark.anyio
Files = dict[str, tuple[str, str]]


def edited(dice: random.Random, files: Files) -> Files:
    """Some of it changed: edits, additions, and seldom a removal, a rename or a submodule."""
    found = dict(files)
    for _ in range(dice.randint(1, 2)):
        kind = dice.choice(["add"] * 5 + ["edit"] * 4 + ["mode", "remove", "rename", "sub"])
        known = sorted(found)
        path = dice.choice(known) if known and kind != "add" else "/".join(dice.choices(NAMES, k=dice.randint(1, 3)))
        if kind in ("remove", "rename"):
            moved = found.pop(path, None)
            path = f"{path}x"
            if kind == "remove" or moved is None:
                continue
            found[path] = moved
        elif kind == "sub":
            found[path] = (GITLINK, "0" * 39 + dice.choice("123"))
        else:
            mode = (
                found[path][0] if path in found and kind == "edit" and found[path][0] in MODES else dice.choice(MODES)
            )
            found[path] = (mode, dice.choice("456"))
        for other in [one for one in found if one.startswith(f"{path}/") or path.startswith(f"{one}/")]:
            del found[other]
    return found


async def test_it_is_what_git_merges(repo: Repo, git: Git) -> None:
    dice, seen = random.Random(7), {True: 0, False: 0}
    for _ in range(40):
        trees = Trees(repo.objects_dir, repo.object_format)
        base = some_files(dice)
        oids = [tree_of(repo.root, files) for files in (base, edited(dice, base), edited(dice, base))]
        first = git(repo.root, "commit-tree", oids[0], "-m", "base")
        ours, theirs = (git(repo.root, "commit-tree", oid, "-p", first, "-m", "side") for oid in oids[1:])
        by_git = subprocess.run(
            ["git", "merge-tree", "--write-tree", ours, theirs],
            cwd=repo.root,
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            found = merge_plainly(
                trees, repo.objects_dir, repo.object_format, base=oids[0], ours=oids[1], theirs=oids[2]
            )
        except NotLoose:
            seen[False] += 1
            continue
        seen[True] += 1
        assert (by_git.returncode, by_git.stdout.strip()) == (0, found)
    assert min(seen.values()) >= 8, seen


async def test_a_directory_that_one_side_renames_takes_the_others_new_files_only_by_git(
    repo: Repo, git: Git, change: Change
) -> None:
    first = git(repo.root, "rev-parse", "main")
    base = change(repo.root, first, {f"old/{n}": f"{n}\n" * 9 for n in range(3)})
    ours = change(repo.root, base, {f"old/{n}": None for n in range(3)} | {f"new/{n}": f"{n}\n" * 9 for n in range(3)})
    theirs = change(repo.root, base, {"old/fresh": "f\n"})
    trees = [git(repo.root, "rev-parse", f"{commit}^{{tree}}") for commit in (base, ours, theirs)]
    for mine, other in ((trees[1], trees[2]), (trees[2], trees[1])):
        with pytest.raises(NotLoose):
            merge_plainly(
                Trees(repo.objects_dir, repo.object_format), repo.objects_dir, repo.object_format,
                base=trees[0], ours=mine, theirs=other,
            )  # fmt: skip


async def test_a_tree_that_git_would_not_have_written_so_is_left_to_git(repo: Repo, git: Git) -> None:
    oids = [
        tree_of(repo.root, files) for files in ({"a": ("100644", "1")}, {"a": ("100644", "1"), "b": ("100644", "2")})
    ]
    raw = subprocess.run(["git", "cat-file", "tree", oids[1]], cwd=repo.root, capture_output=True, check=True).stdout
    odd = subprocess.run(
        ["git", "hash-object", "-w", "-t", "tree", "--literally", "--stdin"],
        cwd=repo.root, input=raw.replace(b"100644 b", b"100664 b"), capture_output=True, check=True,
    ).stdout.decode().strip()  # fmt: skip
    theirs = tree_of(repo.root, {"a": ("100644", "1"), "c": ("100644", "3")})
    with pytest.raises(NotLoose):
        merge_plainly(
            Trees(repo.objects_dir, repo.object_format), repo.objects_dir, repo.object_format,
            base=oids[0], ours=odd, theirs=theirs,
        )  # fmt: skip


class Counted:
    """How often git was asked to merge."""

    def __init__(self, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        place = repo.objects_place

        async def counted() -> object:
            self.asked += 1
            return await place()

        monkeypatch.setattr(repo, "objects_place", counted)


async def test_git_is_asked_when_the_history_between_is_not_all_of_our_making(
    repo: Repo, git: Git, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def made(tree: str, *parents: str) -> str:
        return await make_commit(repo, tree=tree, parents=parents, message="m\n", identity=OLIVE, at_ms=AT)

    first = git(repo.root, "rev-parse", "main")
    one, two = (git(repo.root, "rev-parse", f"{change(repo.root, first, {n: n})}^{{tree}}") for n in "ab")
    ours, theirs = await made(one, first), await made(two, first)
    counted = Counted(repo, monkeypatch)
    plain = await merge_trees(repo, ours=ours, theirs=theirs)
    assert counted.asked == 0
    assert isinstance(plain, Merged)
    assert git(repo.root, "ls-tree", "--name-only", plain.tree).split() == sorted(
        {*git(repo.root, "ls-tree", "--name-only", one).split(), "b"}
    )
    operators = git(repo.root, "commit-tree", one, "-p", first, "-m", "by hand")
    assert await merge_trees(repo, ours=operators, theirs=theirs) == plain
    assert counted.asked == 1
    # A commit that is in the other's history already brings nothing, also when that was taken back since.
    landed = await made(plain.tree, ours, theirs)
    taken_back = await made(one, landed)
    assert await merge_trees(repo, ours=taken_back, theirs=theirs) == Merged(tree=one)
    assert counted.asked == 2
    straight = await made(one, await made(two, first))
    assert not isinstance(await merge_trees(repo, ours=straight, theirs=await made(two, first)), Conflicted)

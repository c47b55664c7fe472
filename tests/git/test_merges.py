"""Many tasks land one after the other from older bases; each landing changes its own paths and no others."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from drover.git.commit import make_commit, task_message
from drover.git.landing import (
    Conflicted,
    changed_paths,
    check_content,
    find_landed,
    lane_ref,
    merge_trees,
    raise_lease,
    swap_lane,
)
from drover.git.repo import RefChange, Repo

from .conftest import AT, OLIVE, Change, Git, files_of

pytestmark = pytest.mark.anyio
Tree = dict[str, str]  # path → mode and content id


def work(rng: random.Random, tree: Tree, number: int) -> dict[str, str | tuple[str, str] | None]:
    """Some changes to a tree: new files, edits, removals, modes, links, renames."""
    files: dict[str, str | tuple[str, str] | None] = {}
    for _ in range(rng.randint(1, 4)):
        path = rng.choice(sorted(tree))
        kind = rng.choice(["add", "edit", "edit", "remove", "mode", "link"])
        text = f"task {number} {rng.random()}\n" * 3
        if kind == "add":
            files[f"d{rng.randrange(6)}/new{number}-{rng.randrange(1000)}"] = text
        elif kind == "remove":
            files[path] = None
        elif kind == "link":
            files[path] = ("120000", f"target{number}")
        else:
            files[path] = ("100755", text) if kind == "mode" else text
    return files


def wrong_paths(base: Tree, ours: Tree, theirs: Tree, merged: Tree) -> list[str]:
    """An oracle that knows nothing of git: a path changed on one side only is that side's."""
    wrong = []
    for path in {*base, *ours, *theirs, *merged}:
        before, our, their = base.get(path), ours.get(path), theirs.get(path)
        expected = our if their == before else their
        if (our in (before, their) or their == before) and merged.get(path) != expected:
            wrong.append(path)
    return wrong


async def test_of_sixty_random_tasks_each_lands_only_its_own_paths(repo: Repo, git: Git, change: Change) -> None:
    rng = random.Random(20260101)
    first = git(repo.root, "rev-parse", "main")
    start = change(repo.root, first, {f"d{n % 6}/f{n}": f"file {n}\n" * 5 for n in range(60)})
    lane = lane_ref("main")
    await repo.update_refs([RefChange(ref=lane, new=start, old=None)])
    tips, seen = [start], Counter[str]()
    for number in range(60):
        old = tips[-1]
        base = rng.choice(tips[-6:])
        before = files_of(git, repo.root, base)
        commit = change(repo.root, base, work(rng, before, number))
        own = await changed_paths(repo, base, commit)
        merged = await merge_trees(repo, ours=old, theirs=commit)
        if isinstance(merged, Conflicted):
            # A file and a link of one name are both kept; git calls the second ``name~commit``.
            names = {path.split("~")[0] for path in merged.paths}
            assert names <= {*own, *await changed_paths(repo, base, old)}
            seen["conflict"] += 1
            continue
        task = f"task-{number}"
        message = task_message(f"Task {number}", task, 1)
        landed = await make_commit(
            repo, tree=merged.tree, parents=(old,), message=message, identity=OLIVE, at_ms=AT + number * 1000
        )
        lease = await raise_lease(repo, task, 1)
        await swap_lane(repo, branch="main", old=old, new=landed, task_id=task, lease_oid=lease.oid)
        await check_content(repo, parent=old, landed=landed, allowed_paths=own, base=base)
        trees = [files_of(git, repo.root, rev) for rev in (base, old, commit, landed)]
        assert wrong_paths(*trees) == []
        tips.append(landed)
        seen["stale" if base != old else "fresh"] += 1
    assert git(repo.root, "rev-list", "--first-parent", "--count", f"{start}..{lane}") == str(len(tips) - 1)
    for number in rng.sample(range(60), 10):
        found = await find_landed(repo, tip=tips[-1], since=start, task_id=f"task-{number}")
        assert (found is not None) == (f"Task {number}" in git(repo.root, "log", "--format=%s", lane).split("\n"))
    assert min(seen[kind] for kind in ("conflict", "stale", "fresh")) >= 3, seen

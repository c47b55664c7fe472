"""The swap that a zombie cannot make, and a merge that nobody's attributes bend."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from drover.domain.errors import GitError
from drover.git.checkout import Absorbed, absorb
from drover.git.landing import (
    Conflicted,
    Merged,
    attempt_ref,
    changed_paths,
    check_content,
    lane_ref,
    lease_ref,
    merge_trees,
    raise_lease,
    read_lease,
    swap_lane,
    wip_ref,
)
from drover.git.repo import RefChange, RefMoved, Repo

from .conftest import AT, OLIVE, Change, Git

pytestmark = pytest.mark.anyio
Files = Mapping[str, str | tuple[str, str] | None]


@pytest.fixture
async def first(repo: Repo, git: Git) -> str:
    """The lane's first commit."""
    oid = git(repo.root, "rev-parse", "main")
    await repo.update_refs([RefChange(ref=lane_ref("main"), new=oid, old=None)])
    return oid


def test_refs_say_what_they_hold() -> None:
    assert lane_ref("feature/x") == "refs/drover/target/feature/x"
    assert attempt_ref("task-a.2", 7) == "refs/drover/attempts/task-a.2/7"
    assert wip_ref("task-a", 1) == "refs/drover/wip/task-a/1"
    assert lease_ref("task-a") == "refs/drover/lease/task-a"


async def test_a_lease_is_only_ever_raised(repo: Repo) -> None:
    assert await read_lease(repo, "task-a") is None
    low = await raise_lease(repo, "task-a", 3)
    assert await raise_lease(repo, "task-a", 3) == low
    high = await raise_lease(repo, "task-a", 10)
    assert (await read_lease(repo, "task-a"), high.fence) == (high, 10)
    with pytest.raises(RefMoved) as caught:
        await raise_lease(repo, "task-a", 9)
    assert caught.value.ref == lease_ref("task-a")
    assert await read_lease(repo, "task-a") == high


async def _swap(repo: Repo, old: str, new: str, lease_oid: str) -> bool:
    return await swap_lane(repo, branch="main", old=old, new=new, task_id="task-a", lease_oid=lease_oid)


async def test_the_lane_moves_once_and_doing_it_again_finds_it(
    repo: Repo, first: str, change: Change, git: Git
) -> None:
    lease = await raise_lease(repo, "task-a", 1)
    new = change(repo.root, first, {"a": "1"})
    assert await _swap(repo, first, new, lease.oid) is False
    assert await _swap(repo, first, new, lease.oid) is True
    later = change(repo.root, new, {"b": "1"})
    git(repo.root, "update-ref", lane_ref("main"), later)
    assert await _swap(repo, first, new, lease.oid) is True
    assert git(repo.root, "rev-parse", lane_ref("main")) == later


async def test_a_zombie_cannot_land(repo: Repo, first: str, change: Change, git: Git) -> None:
    stale = await raise_lease(repo, "task-a", 1)
    await raise_lease(repo, "task-a", 2)
    new = change(repo.root, first, {"a": "1"})
    with pytest.raises(RefMoved) as caught:
        await _swap(repo, first, new, stale.oid)
    assert caught.value.ref == lease_ref("task-a")
    assert git(repo.root, "rev-parse", lane_ref("main")) == first


async def test_a_lane_that_moved_meanwhile_is_named(repo: Repo, first: str, change: Change, git: Git) -> None:
    lease = await raise_lease(repo, "task-a", 1)
    other = change(repo.root, first, {"b": "1"})
    git(repo.root, "update-ref", lane_ref("main"), other)
    with pytest.raises(RefMoved) as caught:
        await _swap(repo, first, change(repo.root, first, {"a": "1"}), lease.oid)
    assert (caught.value.ref, caught.value.found) == (lane_ref("main"), other)


async def test_sides_that_touch_different_places_merge(repo: Repo, first: str, change: Change, git: Git) -> None:
    base = change(repo.root, first, {"f": "1\n2\n3\n4\n5\n", "g": "g\n"})
    ours = change(repo.root, base, {"f": "one\n2\n3\n4\n5\n"})
    theirs = change(repo.root, base, {"f": "1\n2\n3\n4\nfive\n", "g": None})
    merged = await merge_trees(repo, ours=ours, theirs=theirs)
    assert isinstance(merged, Merged)
    assert git(repo.root, "cat-file", "blob", f"{merged.tree}:f") == "one\n2\n3\n4\nfive"
    assert await changed_paths(repo, ours, merged.tree) == ("f", "g")


async def test_a_conflict_names_its_paths_and_gives_the_files_with_both_sides(
    repo: Repo, first: str, change: Change, git: Git
) -> None:
    base = change(repo.root, first, {"ünï\ncode": "1\n", "gone": "1\n", "same": "1\n"})
    ours = change(repo.root, base, {"ünï\ncode": "ours\n", "gone": None})
    theirs = change(repo.root, base, {"ünï\ncode": "theirs\n", "gone": "2\n", "same": "2\n"})
    merged = await merge_trees(repo, ours=ours, theirs=theirs)
    assert isinstance(merged, Conflicted)
    assert set(merged.paths) == {"ünï\ncode", "gone"}
    text = git(repo.root, "cat-file", "blob", f"{merged.tree}:ünï\ncode")
    assert [line[:7].strip() for line in text.split("\n")] == [
        "<<<<<<<",
        "ours",
        "|||||||",
        "1",
        "=======",
        "theirs",
        ">>>>>>>",
    ]


@pytest.mark.parametrize("where", ["ours", "theirs", "both"])
async def test_attributes_in_the_trees_do_not_choose_how_to_merge(
    repo: Repo, first: str, change: Change, git: Git, where: str
) -> None:
    base = change(repo.root, first, {"f": "1\n"})
    attributes = {".gitattributes": "* merge=union\n"}
    ours = change(repo.root, base, {"f": "1\nours\n"} | (attributes if where != "theirs" else {}))
    theirs = change(repo.root, base, {"f": "1\ntheirs\n"} | (attributes if where != "ours" else {}))
    git(repo.root, "config", "merge.union.driver", "true")
    git(repo.root, "update-ref", "refs/heads/main", ours)
    git(repo.root, "reset", "-q", "--hard")
    assert isinstance(await merge_trees(repo, ours=ours, theirs=theirs), Conflicted)


async def test_attributes_that_the_operator_keeps_outside_of_any_commit_do(
    repo: Repo, first: str, change: Change
) -> None:
    (repo.git_dir / "info" / "attributes").write_text("CHANGES merge=union\n")
    base = change(repo.root, first, {"CHANGES": "1\n", "f": "1\n"})
    ours = change(repo.root, base, {"CHANGES": "1\nours\n", "f": "ours\n"})
    theirs = change(repo.root, base, {"CHANGES": "1\ntheirs\n", "f": "theirs\n"})
    merged = await merge_trees(repo, ours=ours, theirs=theirs)
    assert isinstance(merged, Conflicted)
    assert merged.paths == ("f",)


async def test_commits_without_a_common_history_are_an_error(repo: Repo, first: str, git: Git) -> None:
    stranger = git(repo.root, "commit-tree", f"{first}^{{tree}}", "-m", "another root")
    with pytest.raises(GitError, match="unrelated histories"):
        await merge_trees(repo, ours=first, theirs=stranger)


async def test_a_landing_may_change_only_what_its_task_changed(repo: Repo, first: str, change: Change) -> None:
    base = change(repo.root, first, {"a": "1\n", "b": "1\n"})
    landed = change(repo.root, base, {"a": "2\n", "new": "1\n"})
    await check_content(repo, parent=base, landed=landed, allowed_paths=["a", "new", "other"])
    with pytest.raises(GitError, match=r"what its task did not: new$"):
        await check_content(repo, parent=base, landed=landed, allowed_paths=["a"])


async def test_a_landing_that_would_revert_a_neighbour_is_caught(repo: Repo, first: str, change: Change) -> None:
    neighbour = change(repo.root, first, {"theirs": "1\n"})
    wrong = change(repo.root, neighbour, {"mine": "1\n", "theirs": None})
    with pytest.raises(GitError, match="theirs"):
        await check_content(repo, parent=neighbour, landed=wrong, allowed_paths=["mine"], base=first)


async def test_a_file_that_was_renamed_meanwhile_may_be_changed_under_its_new_name(
    repo: Repo, first: str, change: Change
) -> None:
    text = "".join(f"line {n}\n" for n in range(30))
    other = text.replace("line", "word")
    base = change(repo.root, first, {"old": text, "older": other})
    ours = change(repo.root, base, {"old": None, "new": text, "older": None, "newer": other})
    theirs = change(repo.root, base, {"old": text + "more\n", "older": other + "more\n"})
    merged = await merge_trees(repo, ours=ours, theirs=theirs)
    assert isinstance(merged, Merged)
    own = await changed_paths(repo, base, theirs)
    await check_content(repo, parent=ours, landed=merged.tree, allowed_paths=own, base=base)
    with pytest.raises(GitError, match="new, newer"):
        await check_content(repo, parent=ours, landed=merged.tree, allowed_paths=own)


async def _absorb(repo: Repo, lane_tip: str) -> Absorbed | Conflicted:
    return await absorb(repo, branch="main", lane_tip=lane_tip, identity=OLIVE, at_ms=AT)


async def test_a_lane_without_landings_follows_the_operators_commits(
    repo: Repo, first: str, change: Change, git: Git
) -> None:
    assert await _absorb(repo, first) == Absorbed(tip=first, found=True)
    theirs = change(repo.root, first, {"a": "1"})
    git(repo.root, "update-ref", "refs/heads/main", theirs)
    assert await _absorb(repo, first) == Absorbed(tip=theirs)
    assert git(repo.root, "rev-parse", lane_ref("main")) == theirs


async def test_the_operators_commits_beside_landings_are_merged_into_the_lane(
    repo: Repo, first: str, change: Change, git: Git
) -> None:
    landed = change(repo.root, first, {"ours": "1"})
    git(repo.root, "update-ref", lane_ref("main"), landed)
    theirs = change(repo.root, first, {"theirs": "1"})
    git(repo.root, "update-ref", "refs/heads/main", theirs)
    absorbed = await _absorb(repo, landed)
    assert isinstance(absorbed, Absorbed)
    assert git(repo.root, "log", "-1", "--format=%P", lane_ref("main")) == f"{landed} {theirs}"
    assert git(repo.root, "ls-tree", "--name-only", absorbed.tip).split() == ["README.md", "ours", "theirs"]
    assert await _absorb(repo, absorbed.tip) == Absorbed(tip=absorbed.tip, found=True)


async def test_a_conflict_with_the_operators_commits_moves_nothing(
    repo: Repo, first: str, change: Change, git: Git
) -> None:
    landed = change(repo.root, first, {"f": "1"})
    git(repo.root, "update-ref", lane_ref("main"), landed)
    git(repo.root, "update-ref", "refs/heads/main", change(repo.root, first, {"f": "2"}))
    conflicted = await _absorb(repo, landed)
    assert isinstance(conflicted, Conflicted)
    assert conflicted.paths == ("f",)
    assert git(repo.root, "rev-parse", lane_ref("main")) == landed


async def test_a_lane_that_is_elsewhere_absorbs_nothing(repo: Repo, first: str, change: Change, git: Git) -> None:
    git(repo.root, "update-ref", lane_ref("main"), change(repo.root, first, {"f": "1"}))
    git(repo.root, "update-ref", "refs/heads/main", change(repo.root, first, {"g": "1"}))
    with pytest.raises(RefMoved):
        await _absorb(repo, first)

"""Refs read from their files say what git says; what is not plain is git's to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from drover.git.ancestry import Ancestry
from drover.git.refs import NotPlain, RefFiles, read_head_file
from drover.git.repo import RefChange, Repo

from .conftest import Git

pytestmark = pytest.mark.anyio
NAMES = ("refs/heads/main", "refs/heads/other", "refs/heads/deep/er", "refs/heads", "refs/heads/gone", "refs/tags/v1")


async def test_every_ref_is_where_git_says_loose_packed_and_moved_again(repo: Repo, git: Git) -> None:
    def by_git() -> dict[str, str | None]:
        found = dict(line.split(" ")[::-1] for line in git(repo.root, "show-ref").splitlines())
        return {name: found.get(name) for name in NAMES}

    for name in ("other", "deep/er"):
        git(repo.root, "branch", name)
    git(repo.root, "tag", "v1")
    assert await repo.read_refs(NAMES) == by_git()
    git(repo.root, "pack-refs", "--all")
    assert await repo.read_refs(NAMES) == by_git()
    git(repo.root, "commit", "-q", "--allow-empty", "-m", "second")
    assert await repo.read_refs(NAMES) == by_git()
    git(repo.root, "branch", "-D", "other")
    git(repo.root, "pack-refs", "--all")
    assert await repo.read_refs(NAMES) == by_git()
    main = by_git()["refs/heads/main"]
    await repo.update_refs([RefChange(ref="refs/heads/deep/er", new=None, old=by_git()["refs/heads/deep/er"])])
    await repo.update_refs([RefChange(ref="refs/heads/gone", new=main, old=None)])
    assert await repo.read_refs(NAMES) == by_git()


async def test_a_symbolic_ref_and_a_damaged_one_are_left_to_git(repo: Repo, git: Git) -> None:
    git(repo.root, "symbolic-ref", "refs/heads/alias", "refs/heads/main")
    with pytest.raises(NotPlain):
        RefFiles(repo.git_dir).read("refs/heads/alias")
    main = git(repo.root, "rev-parse", "main")
    assert await repo.read_refs(["refs/heads/alias"]) == {"refs/heads/alias": main}
    (repo.git_dir / "refs" / "heads" / "cut").write_text(main[:17])
    with pytest.raises(NotPlain):
        RefFiles(repo.git_dir).read("refs/heads/cut")


def test_a_head_that_does_not_name_a_branch_is_left_to_git(tmp_path: Path) -> None:
    head = tmp_path / "HEAD"
    assert read_head_file(tmp_path) is None
    for text in ("0" * 40 + "\n", "ref: refs/heads/.invalid\n", "ref: refs/heads/ma", ""):
        head.write_text(text)
        assert read_head_file(tmp_path) is None
    head.write_text("ref: refs/heads/main\n")
    assert read_head_file(tmp_path) == "refs/heads/main"


def test_a_history_is_known_both_ways_and_no_further_than_it_was_made() -> None:
    known = Ancestry()
    known.note_made("b", "t", ("a",), "")
    known.note_made("c", "t", ("b", "x"), "")
    known.note_contains("a", "root")
    assert known.contains("c", "a") is True
    assert known.contains("c", "x") is True
    assert known.contains("a", "c") is False
    assert known.contains("root", "a") is False
    assert known.contains("c", "root") is None
    assert known.contains("c", "elsewhere") is None
    assert known.contains("c", "c") is True

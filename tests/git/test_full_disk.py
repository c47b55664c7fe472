"""Whatever git says when its disk is full, it is understood as that, so that the work waits for room."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from drover.domain.errors import DiskFull, GitError
from drover.git.command import Place, our_environment
from tests.conftest import Git
from tests.proof.plugin import Tally
from tests.small_disk import small_disk

pytestmark = pytest.mark.anyio
PAGE = 4096
FILES = 300  # an index of several pages


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", "3m") as where:
        yield where


async def commit_a_change(place: Place, base: str, number: int) -> None:
    """The calls that a landing makes, with a new file of two pages."""
    (place.cwd / "index").unlink(missing_ok=True)
    mine = place.using(GIT_INDEX_FILE=place.cwd / "index")
    await mine.git("read-tree", base)
    blob = await mine.line("hash-object", "-w", "--stdin", stdin=random.Random(number).randbytes(2 * PAGE))
    await mine.git("update-index", "--add", "--cacheinfo", f"100644,{blob},new")
    tree = await mine.line("write-tree")
    commit = await mine.line("commit-tree", tree, "-p", base, "-m", f"{number}")
    await mine.git("update-ref", f"refs/drover/test/{number}", commit)


@pytest.mark.suite("T15")
async def test_any_call_of_git_on_a_full_disk_says_that_it_is_full(small: Path, git: Git, tally: Tally) -> None:
    repo, ballast = small / "repo", small / "ballast"
    repo.mkdir()
    git(repo, "init", "-q", "-b", "main")
    for n in range(FILES):
        (repo / f"a-file-of-the-repository-{n:04}").write_text("x\n")
    git(repo, "add", "-A")
    git(repo, "-c", "user.name=O", "-c", "user.email=o@example.org", "commit", "-q", "-m", "first")
    who = {f"GIT_{role}_{what}": "o@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    place = Place(repo, {**our_environment(), **who, "GIT_DIR": str(repo / ".git")})
    base = git(repo, "rev-parse", "main")
    full = 0
    for pages in range(40):
        room = shutil.disk_usage(small).free
        ballast.write_bytes(b"x" * max(0, room - pages * PAGE))
        try:
            await commit_a_change(place, base, pages)
        except DiskFull:
            full += 1
        except GitError as error:
            pytest.fail(f"{pages} pages left, and git's words were not understood: {error.stderr}")
        ballast.unlink()
        for lock in (*small.rglob("*.lock"), *small.rglob("tmp_obj_*")):
            lock.unlink()
    await commit_a_change(place, base, 1_000)
    assert 5 < full < 40
    tally(points=40, hit=full)

"""What is taken without git is what git takes; what git would look at twice is left to it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from drover.git.commit import TakenTree, take_tree
from drover.git.repo import Repo
from drover.git.taking import MOST_BYTES, MOST_FILES
from drover.git.worktree import ensure_worktree

from .conftest import Change, Git

pytestmark = pytest.mark.anyio


class Both:
    """A clone, and its directory taken with git and without."""

    def __init__(self, repo: Repo, path: Path, base: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.repo, self.path, self.base = repo, path, base
        self._place, self._patch, self._number = place, monkeypatch, 0
        self.plain = 0  # how often it was done without git

    async def take(self) -> TakenTree:
        self._number += 1
        plainly = self.repo.take_plainly

        async def counted(*argv: object) -> str | None:
            tree = await plainly(*argv)  # type: ignore[arg-type]
            self.plain += tree is not None
            return tree

        async def never(*_: object) -> None:
            return None

        with self._patch.context() as patch:
            patch.setattr(self.repo, "take_plainly", counted)
            first = await take_tree(self.repo, self.path, base=self.base, scratch=self._place / f"{self._number}.plain")
            patch.setattr(self.repo, "take_plainly", never)
            second = await take_tree(self.repo, self.path, base=self.base, scratch=self._place / f"{self._number}.git")
        assert first == second
        return first


@pytest.fixture
async def both(repo: Repo, git: Git, change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Both:
    first = git(repo.root, "rev-parse", "main")
    files: dict[str, str | tuple[str, str] | None] = {f"d{n}/e/f{n}": f"{n}\n" for n in range(4)}
    base = change(
        repo.root, first, files | {"a": "1\n", "a-b": "1\n", "link": ("120000", "a"), ".gitignore": "*.log\n"}
    )
    path = tmp_path / "worktrees" / "task-a"
    await ensure_worktree(repo, path, base)
    return Both(repo, path, base, tmp_path, monkeypatch)


def edit(dice: random.Random, path: Path) -> None:
    """A file is written or becomes a program; in directories that are there, and in new ones."""
    name = "/".join([*dice.choices(["d0", "d1", "a.d", "a-d", "e"], k=dice.randint(0, 3)), f"f{dice.randrange(6)}"])
    file = path / name
    if file.is_dir() or any(parent.is_file() for parent in file.parents):
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(dice.randbytes(dice.choice([0, 3, 4000])))
    file.chmod(dice.choice([0o644, 0o755, 0o600]))


async def test_edits_and_new_files_are_taken_as_git_takes_them(both: Both, git: Git) -> None:
    dice = random.Random(3)
    for _ in range(12):
        for _ in range(dice.randint(1, 4)):
            edit(dice, both.path)
        taken = await both.take()
        assert taken.refused == ()
    assert both.plain == 12
    git(both.repo.root, "fsck", "--strict", "--no-dangling")


@pytest.mark.parametrize(
    "what",
    ["gone", "a link", "a link to a directory", "a file for a directory", "a link made a file", "a name of git's",
     "a name with a blank", "attributes", "a repository", "a large file", "many files", "a name for one system only"],
)  # fmt: skip
async def test_everything_else_is_left_to_git(both: Both, git: Git, what: str) -> None:
    path = both.path
    (path / "plain").write_text("p\n")
    match what:
        case "gone":
            (path / "a").unlink()
        case "a link":
            (path / "new").symlink_to("/etc/hostname")
        case "a link to a directory":
            (path / "d0/e/f0").unlink()
            (path / "d0/e").rmdir()
            (path / "d0/e").symlink_to(path / "d1/e")
        case "a file for a directory":
            (path / "d0/e/f0").unlink()
            (path / "d0/e").rmdir()
            (path / "d0/e").write_text("x")
        case "a link made a file":
            (path / "link").unlink()
            (path / "link").write_text("x")
        case "a name of git's":
            (path / ".gitmodules").write_text("x")
        case "a name with a blank":
            (path / "a b").write_text("x")
        case "attributes":
            (path / ".gitattributes").write_text("* text eol=lf\n")
            (path / "lines").write_bytes(b"1\r\n")
        case "a repository":
            git(path, "init", "-q", "inner")
        case "a large file":
            (path / "large").write_bytes(bytes(MOST_BYTES + 1))
        case "many files":
            for number in range(MOST_FILES):
                (path / f"many{number}").write_text("x")
        case _:
            (path / "git~1").write_text("x")
    await both.take()
    assert both.plain == 0


async def test_attributes_that_the_base_has_leave_it_to_git(
    repo: Repo, git: Git, change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = change(repo.root, git(repo.root, "rev-parse", "main"), {"d/.gitattributes": "* text\n"})
    path = tmp_path / "worktrees" / "task-a"
    await ensure_worktree(repo, path, base)
    both = Both(repo, path, base, tmp_path, monkeypatch)
    (path / "d/lines").write_bytes(b"1\r\n")
    taken = await both.take()
    assert both.plain == 0
    assert git(repo.root, "cat-file", "-s", f"{taken.tree}:d/lines") == "2"


async def test_what_a_link_leads_to_is_not_taken(both: Both, tmp_path: Path) -> None:
    """Between git's look at the directory and ours, somebody puts a link in the place of a directory or a file."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "f").write_text("secret\n")
    (both.path / "x").symlink_to(secret)
    (both.path / "y").symlink_to(secret / "f")
    await both.repo.objects_place()
    for name in (b"x/f", b"y", b"a/f", b"d0", b"nothing"):
        assert await both.repo.take_plainly(both.path, both.base, [name]) is None, name

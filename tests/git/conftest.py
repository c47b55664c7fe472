"""What the tests of git share: the repository as drover sees it, and commits made without a checkout."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from drover.git.repo import Identity, Repo

OLIVE = Identity(name="Olive Operator", email="olive@example.org")
AT = 1_767_225_600_000

Git = Callable[..., str]
Change = Callable[..., str]


@pytest.fixture
async def repo(repository: Path) -> Repo:
    return await Repo.find(repository)


@pytest.fixture
def change(git: Git, tmp_path: Path) -> Change:
    """``change(where, parent, {"path": "text" | None | ("120000", "target")})`` → a commit on ``parent``.

    Made with an index of its own, so that no checkout notices. None removes; a pair gives the mode too.
    """

    def commit(where: Path, parent: str, files: Mapping[str, str | tuple[str, str] | None], message: str = "c") -> str:
        index = tmp_path / "change.index"
        index.unlink(missing_ok=True)
        env = {**os.environ, "GIT_INDEX_FILE": str(index)}

        def call(*argv: str, stdin: str | None = None) -> str:
            done = subprocess.run(
                ["git", *argv], cwd=where, env=env, input=stdin, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        call("read-tree", parent)
        gone = [path for path, content in files.items() if content is None]
        call("update-index", "-z", "--force-remove", "--stdin", stdin="".join(f"{path}\0" for path in gone))
        kept = {path: ("100644", held) if isinstance(held, str) else held for path, held in files.items() if held}
        blobs = [tmp_path / f"blob{number}" for number in range(len(kept))]
        for blob, (_, text) in zip(blobs, kept.values(), strict=True):
            blob.write_text(text)
        names = "".join(f"{blob}\n" for blob in blobs)
        oids = call("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=names).split()
        lines = [f"{mode} {oid}\t{path}\0" for (path, (mode, _)), oid in zip(kept.items(), oids, strict=True)]
        call("update-index", "-z", "--replace", "--index-info", stdin="".join(lines))
        return git(where, "commit-tree", call("write-tree"), "-p", parent, "-m", message)

    return commit


def files_of(git: Git, where: Path, rev: str) -> dict[str, str]:
    """Path → mode and content id of a tree."""
    listing = git(where, "ls-tree", "-r", "-z", rev)
    entries = (entry.split("\t", 1) for entry in listing.split("\0") if entry)
    return {path: head.split(" ")[0] + " " + head.split(" ")[2] for head, path in entries}

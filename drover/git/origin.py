"""What a repository is recognised by, wherever it is cloned: where its history begins, and where it is pushed to."""

from __future__ import annotations

import re

from drover.domain.models import Frozen
from drover.git.repo import Repo

_URL = re.compile(r"^(?:[a-z][a-z0-9+.-]*://)?(?:[^@/]*@)?([^/:]+)(?::\d+(?=/))?[:/]+(.+?)(?:\.git)?/*$", re.IGNORECASE)


class Origin(Frozen):
    """Ids of first commits, none where a shallow clone does not hold them; and remotes, without who asks."""

    roots: tuple[str, ...] = ()
    remotes: tuple[str, ...] = ()

    def is_same(self, other: Origin) -> bool:
        """False when nothing speaks for it that both are clones of one repository, and something against it."""
        if set(self.roots) & set(other.roots) or set(self.remotes) & set(other.remotes):
            return True
        told = (self.roots and other.roots) or (self.remotes and other.remotes)
        return not told

    def __str__(self) -> str:
        known = [*self.remotes[:1], *(f"first commit {root[:12]}" for root in self.roots[:1])]
        return ", ".join(known) or "nothing is known of it"


async def find_roots(repo: Repo, *branches: str) -> tuple[str, ...]:
    """The first commits of HEAD and these branches, in order; none in a shallow clone, which does not know them."""
    if (repo.git_dir / "shallow").exists():
        return ()
    tips = [tip for tip in [await repo.resolve(rev) for rev in ("HEAD", *branches)] if tip is not None]
    if not tips:
        return ()
    return tuple(sorted((await repo.refs_place.line("rev-list", "--max-parents=0", *dict.fromkeys(tips))).split()))


async def find_remotes(repo: Repo) -> tuple[str, ...]:
    """Where the repository is pushed to or fetched from, as host and path."""
    text = await repo.refs_place.line("config", "--get-regexp", r"^remote\..*\.url$", ok=(0, 1))
    return tuple(sorted({_plain(line.partition(" ")[2]) for line in text.splitlines()}))


def _plain(url: str) -> str:
    """``git@host:a/b.git`` and ``https://token@host/a/b`` are one place; a path is itself."""
    if url.startswith(("/", ".", "~", "file://")):
        return url.removeprefix("file://").rstrip("/").removesuffix(".git")
    match = _URL.match(url)
    return f"{match[1].lower()}/{match[2]}" if match else url

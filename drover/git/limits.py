"""What in a repository drover cannot work with, or only in part; for ``init`` and ``doctor``."""

from __future__ import annotations

import re

from drover.domain.models import Frozen
from drover.git.command import split0
from drover.git.repo import Repo

_FILTER = re.compile(rb"\bfilter=([^\s]+)")


class Limit(Frozen):
    """One thing found. ``refused``: drover cannot work here; otherwise it works, with this to know."""

    what: str
    why: str
    refused: bool


async def find_limits(repo: Repo) -> tuple[Limit, ...]:
    """Everything of that kind in the repository and the commit at HEAD; empty is the usual answer."""
    limits = []
    if await _config(repo, r"^(extensions\.partialclone|remote\..*\.promisor)$"):
        why = "objects may be missing, and drover never fetches: clone it without a filter"
        limits.append(Limit(what="partial clone", why=why, refused=True))
    if "true" in await _config(repo, r"^core\.sparsecheckout$"):
        why = "attempts see all files; your own checkout keeps its selection"
        limits.append(Limit(what="sparse checkout", why=why, refused=False))
    head = await repo.resolve("HEAD")
    if head is None:
        why = "an attempt starts from a commit: make a first one"
        return (Limit(what="no commit yet", why=why, refused=True), *limits)
    return (*limits, *await _limits_of(repo, head))


async def _config(repo: Repo, pattern: str) -> list[str]:
    """The values of every matching key of the repository itself."""
    place = repo.refs_place.using(GIT_DIR=repo.checkout_dir)
    text = await place.line("config", "--get-regexp", pattern, ok=(0, 1))
    return [line.partition(" ")[2] for line in text.splitlines()]


async def _limits_of(repo: Repo, head: str) -> list[Limit]:
    limits = []
    if submodules := (await repo.layout(head)).gitlinks:
        why = f"attempts see {len(submodules)} empty directories and cannot change which commits they stand for"
        limits.append(Limit(what="submodules", why=why, refused=False))
    in_use = await _filters_in_use(repo, head) & await repo.filter_drivers()
    for name in sorted(in_use):
        what = "Git LFS" if name == "lfs" else f"the filter {name}"
        why = "attempts see such files as git stores them, and a change to one is refused; your checkout is filtered"
        limits.append(Limit(what=what, why=why, refused=False))
    return limits


async def _filters_in_use(repo: Repo, head: str) -> set[str]:
    """The names that ``.gitattributes`` files give to content filters."""
    place = await repo.objects_place()
    form = "--format=%(objectname) %(path)"
    done = await place.git("ls-tree", "-r", "-z", "--full-tree", form, head)
    entries = (entry.split(b" ", 1) for entry in split0(done.stdout))
    oids = [oid for oid, path in entries if path.split(b"/")[-1] == b".gitattributes"]
    if not oids:
        return set()
    done = await place.git("cat-file", "--batch", stdin=b"".join(oid + b"\n" for oid in oids))
    return {name.decode("utf-8", "replace") for name in _FILTER.findall(done.stdout)}

"""Files of an agent's session, kept on a ref of their own beside the work: they are no part of its tree."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, unquote

from drover.git.command import split0
from drover.git.commit import make_commit
from drover.git.repo import Identity, RefChange, Repo, check_ref
from drover.git.snapshot import SESSIONS


def session_ref(task_id: str, fence: int) -> str:
    """Holds the session of one execution, for whoever goes on with it."""
    return check_ref(f"{SESSIONS}/{check_ref(task_id)}/{fence}")


async def keep_files(
    repo: Repo, ref: str, files: Mapping[str, bytes], *, message: str, identity: Identity, at_ms: int
) -> str:
    """Save these files, by name, as a commit without parents on ``ref``, durably; its id. The same moves nothing."""
    place, entries = await repo.objects_place(), []
    for name, content in files.items():
        oid = await place.line("hash-object", "-w", "--stdin", stdin=content)
        entries.append(f"100644 blob {oid}\t{quote(name, safe='')}")
    tree = await place.line("mktree", "-z", stdin="".join(f"{entry}\0" for entry in entries).encode())
    held = (await repo.read_refs([ref]))[ref]
    if held is not None and await repo.tree(held) == tree:
        return held
    oid = await make_commit(repo, tree=tree, parents=(), message=message, identity=identity, at_ms=at_ms)
    since = () if held is None else (held,)
    await repo.update_refs([RefChange(ref=ref, new=oid, old=held)], since=since, reason="drover: session")
    return oid


async def read_files(repo: Repo, ref: str) -> dict[str, bytes]:
    """The files that are kept there, by name; none when the ref is not there."""
    commit = (await repo.read_refs([ref]))[ref]
    if commit is None:
        return {}
    place, found = await repo.objects_place(), {}
    for entry in split0((await place.git("ls-tree", "-z", commit)).stdout):
        about, name = entry.decode().split("\t", 1)
        found[unquote(name)] = (await place.git("cat-file", "blob", about.split(" ")[2])).stdout
    return found

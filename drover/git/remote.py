"""The remote that the target branch is pushed to: where it is, what it has, and a push that overwrites nobody."""

from __future__ import annotations

from drover.domain.errors import GitError, Unreachable
from drover.git.command import NETWORK, SETTINGS, Place, network_environment, operator_environment
from drover.git.landing import branch_ref
from drover.git.repo import Repo, check_ref

NETWORK_S = 300.0  # for one conversation with a remote, a large push included
LOOK_S = 30.0  # for a question that is answered in one line
_NO_SUCH_REF = "find remote ref"  # in any version of git, in the language that we ask for


def fetched_ref(remote: str, branch: str) -> str:
    """Where a remote's branch is kept, apart from the operator's own remote-tracking branches."""
    name = "".join(sign if sign.isalnum() or sign in "-_" else "-" for sign in remote).strip("-") or "remote"
    return check_ref(f"refs/drover/remotes/{name}/{check_ref(branch)}")


async def is_known(repo: Repo, remote: str) -> bool:
    """Whether ``remote`` names a remote of this repository, or is itself a place to push to."""
    if "/" in remote or ":" in remote:
        return True
    place = Place(repo.root, operator_environment(), SETTINGS)
    return bool(await place.line("config", "--get", f"remote.{remote}.url", ok=(0, 1)))


async def look_at(repo: Repo, remote: str, branch: str) -> str | None:
    """Where the remote's branch is now; None when it has none. Raises Unreachable."""
    ref = branch_ref(branch)
    text = await ask(await network_place(repo), remote, "ls-remote", "--refs", "--end-of-options", remote, ref)
    return next((line.split("\t")[0] for line in text.splitlines() if line.endswith(f"\t{ref}")), None)


async def fetch(repo: Repo, remote: str, branch: str) -> str | None:
    """The tip of the remote's branch, with all of its history here; None when it has none. Raises Unreachable."""
    kept = fetched_ref(remote, branch)
    try:
        await fetch_refs(repo, remote, f"+{branch_ref(branch)}:{kept}")
    except Unreachable as error:
        if _NO_SUCH_REF in error.stderr:
            return None
        raise
    return (await repo.read_refs([kept]))[kept]


async def fetch_refs(repo: Repo, remote: str, *refspecs: str) -> None:
    """Fetch into refs of drover's own, with all of their history; a pattern may match nothing. Raises Unreachable."""
    quiet = ("--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-maintenance", "--refmap=")
    place = (await network_place(repo)).using("core.fsync=all")
    await ask(place, remote, "fetch", "-q", *quiet, "--end-of-options", remote, *refspecs, timeout_s=NETWORK_S)


async def push(repo: Repo, remote: str, branch: str, *, new: str, old: str | None) -> bool:
    """Bring the remote's branch from ``old`` (None: not there) to ``new``, which contains it.

    True when it is at ``new``, also when an earlier push that was cut off had done it. False when it is
    neither there nor at ``old``: somebody else pushed; nothing of theirs was touched. Raises Unreachable
    when nobody can say, GitError when the remote refuses.
    """
    if old is not None and not await repo.is_ancestor(old, new):
        raise GitError(f"{new[:12]} does not contain {old[:12]}, which {remote} has")
    ref = branch_ref(branch)
    options = ("--porcelain", "--recurse-submodules=no", f"--force-with-lease={ref}:{old or ''}")
    argv = ("push", *options, "--end-of-options", remote, f"{new}:{ref}")
    refusal = ""
    try:
        await (await network_place(repo)).git(*argv, timeout_s=NETWORK_S)
        return True
    except GitError as error:
        refusal = reason_of(error)
    found = await look_at(repo, remote, branch)  # the outcome is unknown until the remote has been asked
    if found == new:
        return True
    if found != old:
        return False
    raise GitError(f"{remote} does not take the push: {refusal}")


async def network_place(repo: Repo) -> Place:
    """Where git talks to a remote as the operator would."""
    operators = Place(repo.root, operator_environment(), NETWORK)
    ssh = await operators.line("config", "--get", "core.sshCommand", ok=(0, 1))
    return Place(repo.root, network_environment(ssh), NETWORK)


async def ask(place: Place, remote: str, *argv: str, timeout_s: float = LOOK_S) -> str:
    """What a command that talks to the remote printed. Raises Unreachable when it failed."""
    try:
        done = await place.git(*argv, timeout_s=timeout_s)
    except GitError as error:
        raise Unreachable(f"{remote} cannot be reached: {reason_of(error)}", stderr=error.stderr) from error
    return done.stdout.decode("utf-8", "backslashreplace").rstrip("\n")


def reason_of(error: GitError) -> str:
    """The line of git's or the remote's words that says why."""
    lines = [line.strip() for line in error.stderr.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("remote:", "fatal:", "error:", "ssh:", "!"))]
    return (told or lines or [error.message])[0].removeprefix("fatal: ").removeprefix("error: ")

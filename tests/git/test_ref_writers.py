"""gits that are kept to move refs do what one for each move does."""

from __future__ import annotations

import array
import fcntl
import os
import signal
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import anyio
import psutil
import pytest

from drover.domain.errors import GitError
from drover.git.repo import RefChange, RefMoved, Repo

from .conftest import Change, Git

pytestmark = pytest.mark.anyio
REF = "refs/drover/test/a"


def kept_ones() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.ZombieProcess):  # of another test
            found += [child] if "update-ref" in child.cmdline() else []
    return found


async def gone(child: psutil.Process) -> None:
    with anyio.fail_after(60):
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            await anyio.sleep(0.01)


@pytest.fixture
def commits(repo: Repo, git: Git, change: Change) -> list[str]:
    first = git(repo.root, "rev-parse", "main")
    return [change(repo.root, first, {"n": str(number)}) for number in range(4)]


async def test_one_git_makes_many_moves_and_ends_with_the_run(repo: Repo, git: Git, commits: list[str]) -> None:
    async with repo.keeping_writers():
        for old, new in zip([None, *commits], commits, strict=False):
            await repo.update_refs([RefChange(ref=REF, new=new, old=old)], since=commits)
            assert git(repo.root, "rev-parse", REF) == new
        await repo.update_refs([RefChange(ref=REF, new=None, old=commits[-1])])
        (child,) = kept_ones()
        async with repo.keeping_writers():
            pass
        assert kept_ones() == [child], "the first who entered is not the last who leaves"
    assert kept_ones() == []
    await repo.update_refs([RefChange(ref=REF, new=commits[0], old=None)], since=commits)
    assert git(repo.root, "rev-parse", REF) == commits[0]


async def test_a_ref_that_is_elsewhere_is_named_and_nothing_moves(repo: Repo, git: Git, commits: list[str]) -> None:
    other = "refs/drover/test/b"
    async with repo.keeping_writers():
        await repo.update_refs([RefChange(ref=REF, new=commits[0], old=None)], since=commits)
        for wrong in (commits[1], None):
            with pytest.raises(RefMoved) as caught:
                await repo.update_refs(
                    [RefChange(ref=other, new=commits[1], old=None), RefChange(ref=REF, new=commits[2], old=wrong)],
                    since=commits,
                )
            assert (caught.value.ref, caught.value.found) == (REF, commits[0])
        with pytest.raises(RefMoved) as caught:
            await repo.update_refs(
                [RefChange(ref=other, new=commits[1], old=None)], verify={REF: commits[3]}, since=commits
            )
        assert caught.value.ref == REF
        assert await repo.list_refs("refs/drover/test/") == {REF: commits[0]}
        await repo.update_refs([RefChange(ref=REF, new=commits[2], old=commits[0])], since=commits)
    assert git(repo.root, "rev-parse", REF) == commits[2]


async def test_what_others_do_between_two_moves_is_seen(repo: Repo, git: Git, commits: list[str]) -> None:
    async with repo.keeping_writers():
        await repo.update_refs([RefChange(ref=REF, new=commits[0], old=None)], since=commits)
        git(repo.root, "pack-refs", "--all", "--prune")
        await repo.update_refs([RefChange(ref=REF, new=commits[1], old=commits[0])], since=commits)
        git(repo.root, "update-ref", REF, commits[2])
        git(repo.root, "gc", "-q")
        with pytest.raises(RefMoved):
            await repo.update_refs([RefChange(ref=REF, new=commits[3], old=commits[1])], since=commits)
        git(repo.root, "update-ref", "-d", REF)
        git(repo.root, "update-ref", f"{REF}/below", commits[0])
        with pytest.raises(GitError, match="not moved"):
            await repo.update_refs([RefChange(ref=REF, new=commits[3], old=None)], since=commits)
        git(repo.root, "update-ref", "-d", f"{REF}/below")
        await repo.update_refs([RefChange(ref=REF, new=commits[3], old=None)], since=commits)
    assert git(repo.root, "rev-parse", REF) == commits[3]


async def test_a_reflog_is_written_where_the_operator_keeps_one(repo: Repo, git: Git, commits: list[str]) -> None:
    git(repo.root, "switch", "-q", "--detach")
    old = git(repo.root, "rev-parse", "main")
    async with repo.keeping_writers():
        changes = [RefChange(ref="refs/heads/main", new=commits[0], old=old)]
        await repo.update_refs(changes, since=commits, reason="drover: publish")
    assert git(repo.root, "reflog", "-1", "--format=%gs", "main") == "drover: publish"


async def test_one_that_was_ended_while_idle_is_replaced(repo: Repo, git: Git, commits: list[str]) -> None:
    async with repo.keeping_writers():
        await repo.update_refs([RefChange(ref=REF, new=commits[0], old=None)], since=commits)
        (child,) = kept_ones()
        child.kill()
        await gone(child)
        await repo.update_refs([RefChange(ref=REF, new=commits[1], old=commits[0])], since=commits)
    assert git(repo.root, "rev-parse", REF) == commits[1]


async def test_one_that_is_killed_in_the_middle_leaves_the_next_to_find_out(
    repo: Repo, git: Git, commits: list[str]
) -> None:
    async with repo.keeping_writers():
        await repo.update_refs([RefChange(ref=REF, new=commits[0], old=None)], since=commits)
        (child,) = kept_ones()
        child.suspend()
        async with anyio.create_task_group() as tasks:

            async def kill() -> None:
                with anyio.fail_after(60):
                    while not _is_asked(child.pid):
                        await anyio.sleep(0.01)
                child.kill()

            tasks.start_soon(kill)
            with pytest.raises(GitError, match="signal 9"):
                await repo.update_refs([RefChange(ref=REF, new=commits[1], old=commits[0])], since=commits)
        await repo.update_refs([RefChange(ref=REF, new=commits[2], old=commits[0])], since=commits)
    assert git(repo.root, "rev-parse", REF) == commits[2]


def _is_asked(pid: int) -> bool:
    """Whether there is something in its input that it has not read."""
    waiting = array.array("i", [0])
    with Path(f"/proc/{pid}/fd/0").open("rb") as pipe:
        fcntl.ioctl(pipe, termios.FIONREAD, waiting)
    return waiting[0] > 0


async def test_a_caller_that_is_cancelled_has_moved_the_ref_or_not_begun(
    repo: Repo, git: Git, commits: list[str]
) -> None:
    async with repo.keeping_writers():
        await repo.update_refs([RefChange(ref=REF, new=commits[0], old=None)], since=commits)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await repo.update_refs([RefChange(ref=REF, new=commits[1], old=commits[0])], since=commits)
        here = git(repo.root, "rev-parse", REF)
        assert here in commits[:2]
        await repo.update_refs([RefChange(ref=REF, new=commits[2], old=here)], since=commits)
        assert len(kept_ones()) == 1


async def test_many_at_once_and_the_idle_ones_end(repo: Repo, git: Git, commits: list[str]) -> None:
    async with repo.keeping_writers():
        async with anyio.create_task_group() as tasks:
            for number in range(12):
                change = RefChange(ref=f"refs/drover/test/{number}", new=commits[number % 4], old=None)
                tasks.start_soon(lambda c=change: repo.update_refs([c], since=commits))
        assert 1 <= len(kept_ones()) <= 12
        await repo.end_idle_writers(3600.0)
        assert kept_ones()
        await repo.end_idle_writers(0.0)
        assert kept_ones() == []
        await repo.update_refs([RefChange(ref=REF, new=commits[0], old=None)], since=commits)
    assert len(git(repo.root, "for-each-ref", "refs/drover/test/").splitlines()) == 13


DYING = """
import sys
from pathlib import Path
import anyio, os
from drover.git.repo import RefChange, Repo
async def main():
    repo = await Repo.find(Path(sys.argv[1]))
    async with repo.keeping_writers():
        await repo.update_refs([RefChange(ref=sys.argv[2], new=sys.argv[3], old=None)])
        print("moved", flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


async def test_a_kept_git_does_not_outlive_a_killed_drover(repo: Repo, git: Git, commits: list[str]) -> None:
    argv = [sys.executable, "-c", DYING, str(repo.root), REF, commits[0]]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=dict(os.environ)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"moved\n"
        (child,) = [c for c in psutil.Process(process.pid).children() if "update-ref" in c.cmdline()]
        process.send_signal(signal.SIGKILL)
    await gone(child)
    assert git(repo.root, "rev-parse", REF) == commits[0]
    assert [*(repo.git_dir / "refs").rglob("*.lock")] == []

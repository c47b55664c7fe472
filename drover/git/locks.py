"""Takes away the lock files that a killed git of ours has left."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from drover.git.durable import on_disk, sync_path
from drover.git.repo import Repo

_YOUNG_S = 60.0  # a draft of the control repository may still be in the making
_SLACK_S = 1.0  # process start times are kept in ticks, file times are cut to the clock's


async def clear_stale_locks(repo: Repo, refs: Sequence[str] = ()) -> tuple[Path, ...]:
    """Remove locks under ``refs/drover`` and of ``refs`` that no living process can own; which they were.

    Called at start under drover's own lock. A lock's owner made it, so it was running by then: any
    git of this user that works in this repository and is older than the lock keeps it, and so does
    any process that has it open. What is kept is looked at again by calling this again.
    """
    return await on_disk(_clear, repo, tuple(refs))


def _clear(repo: Repo, refs: tuple[str, ...]) -> tuple[Path, ...]:
    removed = []
    for draft in repo.state_dir.glob("control.*"):
        if draft.stat().st_mtime < time.time() - _YOUNG_S:
            shutil.rmtree(draft)
    for lock in _locks(repo, refs):
        try:
            about = lock.lstat()
        except FileNotFoundError:  # its owner was alive, and has finished
            continue
        if not any(_may_own(process, lock, about, repo) for process in psutil.process_iter()):
            lock.unlink(missing_ok=True)
            sync_path(lock.parent)
            removed.append(lock)
    return tuple(removed)


def _locks(repo: Repo, refs: tuple[str, ...]) -> Iterator[Path]:
    yield from sorted((repo.git_dir / "refs" / "drover").rglob("*.lock"))
    # Moving the branch that is checked out locks HEAD too (for its reflog), deleting any ref packed-refs.
    for name in (*refs, "HEAD", "packed-refs"):
        if (lock := repo.git_dir / f"{name}.lock").is_file():
            yield lock


def _may_own(process: psutil.Process, lock: Path, about: os.stat_result, repo: Repo) -> bool:
    try:
        if process.pid == os.getpid() or process.uids().real != about.st_uid:
            return False
        if process.create_time() > about.st_mtime + _SLACK_S:
            return False
        if process.name().startswith("git"):
            return _works_in(process, repo)
        return any(file.path == str(lock) for file in process.open_files())
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # ssh-agent and its like cannot be looked into, and own none
        return False


def _works_in(process: psutil.Process, repo: Repo) -> bool:
    try:
        if "daemon" in " ".join(process.cmdline()):  # fsmonitor--daemon and others live for days and lock nothing
            return False
        words = [process.cwd(), *process.environ().values()]
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    return any(word.startswith((str(repo.root), str(repo.git_dir))) for word in words)

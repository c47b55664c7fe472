"""Moves refs by gits that are kept between transactions: a process for each costs more than the move."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import anyio

from drover import process
from drover.domain.errors import GitError
from drover.git.command import Place
from drover.git.durable import on_disk

_ANSWER = b"start: ok\nprepare: ok\ncommit: ok\n"
_ARGS = ("update-ref", "--stdin", "-z", "-m")
_TRIES = 8


class RefWriters:
    """Makes one transaction at a time in each git, and starts another git when all of them are busy.

    What git read when it started (its configuration) it does not read again, so :meth:`end_idle` is to be called
    now and then. Killed with drover, a git sees the end of its input: it ends, and drops what was not committed.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._idle: dict[str, list[process.Lasting]] = {}
        self._lock = threading.Lock()
        self.users = 0

    async def move(self, transaction: bytes, reason: str, *, then: Callable[[], None]) -> process.Finished:
        """As ``git update-ref``, which fails with 128 if it says why. Lived to its end, whatever becomes of the caller.

        ``transaction`` goes from ``start`` to ``commit``, and is not longer than QUESTION_BYTES; ``then`` is done,
        in a thread, once it is committed. Raises GitError, and what ``then`` raises as :func:`on_disk` does.
        """
        with anyio.CancelScope(shield=True):
            done = await on_disk(self._move, transaction, reason, then)
        return done  # noqa: RET504 - mypy: a cancel scope might swallow what is raised in it

    def end_idle(self, after_s: float) -> None:
        """End those that had nothing to do for as long as that."""
        before = time.monotonic() - after_s
        with self._lock:
            idle = [(reason, git) for reason, gits in self._idle.items() for git in gits if git.used_at <= before]
            for reason, git in idle:
                self._idle[reason].remove(git)
        for _, git in idle:
            git.end()

    def _move(self, transaction: bytes, reason: str, then: Callable[[], None]) -> process.Finished:
        for _ in range(_TRIES):
            git = self._take(reason)
            try:
                done = self._place.ask(git, transaction, _ANSWER, *_ARGS, reason)
            except process.Ended:  # somebody ended it while it was idle
                continue
            if done.returncode == 0:
                with self._lock:
                    self._idle.setdefault(reason, []).append(git)
                then()
            return done
        raise GitError("git update-ref ends as soon as it is started")

    def _take(self, reason: str) -> process.Lasting:
        with self._lock:
            idle = self._idle.get(reason)
            if idle:
                return idle.pop()
        return self._place.kept(*_ARGS, reason)

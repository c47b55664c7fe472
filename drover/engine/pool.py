"""Warm clones: made ahead with ``after_create`` already run, so that a task begins at once.

Beside the worktrees stand, for each clone of the pool:

=================================== ===================================================================
``.pool-<token>``                   the clone
``.pool-<token>.warm``              what it is at (:class:`Warm`): it may be taken
``.pool-<token>.hand-<process>``    that process makes, refreshes, takes or removes it
``..pool-<token>.set-up``           the records of ``after_create``
=================================== ===================================================================

A clone is taken by renaming ``warm`` to ``hand``: of all who try, in whatever process, one succeeds. What a dead
process has in its hand, or a clone with neither, belongs to nobody and is removed.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import anyio
from anyio import to_thread
from pydantic import ValidationError

from drover.domain.errors import AttemptFailed, DiskFull, DroverError, GitError
from drover.domain.ids import new_token
from drover.domain.models import Claim, Frozen, Task, Worktree
from drover.engine import hooks, lane
from drover.engine.gate import only_one_at_a_time
from drover.engine.steps import Run
from drover.engine.tools import Tools
from drover.git.durable import on_disk, sync_filesystem, write_durably
from drover.git.landing import lane_ref
from drover.git.warm import bring_to, mark_of_included, names_changed
from drover.git.worktree import ensure_worktree, remove_worktree
from drover.process import current_identity, end_marked, is_alive, parse_identity
from drover.settings import digest_of

log = logging.getLogger(__name__)

LOOK_S = 2.0
AFTER_TROUBLE_S = 60.0  # before a clone is made again whose making failed
NEVER = 2**62
_PART = re.compile(r"^\.?(\.pool-[a-z0-9]+)(?:\.(warm|hand-.+|set-up))?$")


class Warm(Frozen):
    """What a clone of the pool is at: the commit it has, the set-up it has had, the operator's files it got."""

    base: str
    set_up: str  # digest of the commands of after_create
    included: str = ""


class _Place(NamedTuple):
    """Where one clone of the pool is."""

    clone: Path

    @property
    def name(self) -> str:
        return self.clone.name

    @property
    def warm(self) -> Path:
        return self.clone.with_name(f"{self.name}.warm")

    @property
    def hand(self) -> Path:
        return self.clone.with_name(f"{self.name}.hand-{current_identity()}")

    def take_in_hand(self) -> bool:
        """Whether it was warm, and is ours now."""
        try:
            self.warm.rename(self.hand)
        except FileNotFoundError:
            return False
        return True


# ---------------------------------------------------------------- by the life of a task


async def take(tools: Tools, task_id: str, base: str) -> bool:
    """Put a warm clone where the task's worktree belongs, at ``base``, set up; False when there is none that fits.

    Killed in between, it leaves no clone there, or a whole one.
    """
    if not tools.settings.pool.enabled:
        return False
    for place in await on_disk(_warm_ones, tools.places.worktrees):
        if not await on_disk(place.take_in_hand):
            continue
        try:
            if await _hand_over(tools, place, task_id, base):
                return True
        except GitError as trouble:
            log.info("%s: a warm clone is of no use: %s", task_id, trouble.message)
        await _remove(tools, place)
    tools.missed.add(task_id)
    return False


async def _hand_over(tools: Tools, place: _Place, task_id: str, base: str) -> bool:
    warm = await on_disk(_read, place.hand)
    if warm is None or not await _fits(tools, place, warm, base):
        return False
    path = tools.places.worktree(task_id)
    await bring_to(tools.repo, place.clone, old=warm.base, new=base, branch=f"drover/{path.name}")
    await on_disk(_move, place, tools.places.set_up(place.name), tools.places.set_up(task_id), path)
    return True


async def _fits(tools: Tools, place: _Place, warm: Warm, base: str) -> bool:
    """Whether its set-up is the one that a clone at ``base`` would get now."""
    if warm.set_up != _digest(tools):
        return False
    if warm.included != await mark_of_included(tools.repo, place.clone):
        return False
    return not await names_changed(tools.repo, warm.base, base) & set(tools.settings.pool.lock_files)


# ---------------------------------------------------------------- beside a run


class Keeper:
    """Keeps the pool of a run filled and fresh."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._table = tools.settings.pool
        self._wanted = self._table.min_size
        self._not_before = 0.0

    async def look(self) -> None:
        """Remove what nobody owns or fits no more, bring the others to the lane's tip, make what is missing.

        One more than before is wanted for each task that had found none, up to the pool's largest size.
        """
        tools = self._tools
        self._wanted = max(self._table.min_size, min(self._table.max_size, self._wanted + len(tools.missed)))
        tools.missed.clear()
        await tidy(tools)
        base = await _tip(tools)
        for place in await on_disk(_warm_ones, tools.places.worktrees):
            await self._refresh(place, base)
        if anyio.current_time() >= self._not_before and (await tools.store.tasks.outlook()).ready:
            await self._fill(base)

    async def _refresh(self, place: _Place, base: str) -> None:
        warm = await on_disk(_read, place.warm)
        if warm is not None and warm.base == base and warm.set_up == _digest(self._tools):
            return
        if not await on_disk(place.take_in_hand):
            return
        try:
            if warm is not None and await _fits(self._tools, place, warm, base):
                branch = f"drover/{place.name.lstrip('.')}"
                await bring_to(self._tools.repo, place.clone, old=warm.base, new=base, branch=branch)
                await _put(place, warm.model_copy(update={"base": base}))
                return
        except GitError as trouble:
            log.info("%s cannot be refreshed: %s", place.name, trouble.message)
        await _remove(self._tools, place)

    async def _fill(self, base: str) -> None:
        places = await self._reserve()
        async with anyio.create_task_group() as group:
            for place in places:
                group.start_soon(self._make, place, base, name=f"warm {place.name}")

    async def _reserve(self) -> list[_Place]:
        """Places for the clones that are missing, taken in hand so that no other process makes them, too."""
        worktrees = self._tools.places.worktrees
        worktrees.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with only_one_at_a_time(self._tools.places.state / "pool.lock"):
            there = len(await on_disk(_all, worktrees))
            places = [_Place(worktrees / f".pool-{new_token()}") for _ in range(max(0, self._wanted - there))]
            for place in places:
                place.hand.touch(mode=0o600)
        return places

    async def _make(self, place: _Place, base: str) -> None:
        tools = self._tools
        began = time.monotonic()
        try:
            with anyio.fail_after(self._table.warmup_ms / 1000):
                included = await mark_of_included(tools.repo, place.clone)
                await ensure_worktree(tools.repo, place.clone, base, branch=f"drover/{place.name.lstrip('.')}")
                tree = Worktree(path=str(place.clone), base=base, target=lane.target_of(tools))
                if tools.settings.hooks.after_create:
                    await hooks.run_hook(_nobodys_run(tools, place), "after_create", tree)
                await to_thread.run_sync(sync_filesystem, tools.places.worktrees)
                await _put(place, Warm(base=base, set_up=_digest(tools), included=included))
            log.info("%s is warm after %.1f s", place.name, time.monotonic() - began)
            return
        except (DroverError, AttemptFailed, OSError, TimeoutError) as trouble:
            words = str(trouble) or f"not ready within {self._table.warmup_ms // 1000} s"
            log.warning("no warm clone was made: %s", words.splitlines()[0])
            self._not_before = anyio.current_time() + AFTER_TROUBLE_S
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await _remove(tools, place)
            raise
        await _remove(tools, place)

    async def leave(self) -> None:
        """At the end of a run that did all there was: the clones go, unless they are to stay for the next one."""
        if not self._table.cleanup_on_exit:
            return
        async with anyio.create_task_group() as group:
            for place in await on_disk(_warm_ones, self._tools.places.worktrees):
                if await on_disk(place.take_in_hand):
                    group.start_soon(_remove, self._tools, place)


async def tidy(tools: Tools) -> int:
    """Remove clones of the pool that nobody owns, and all that are warm where the pool is off; how many."""
    gone = 0
    for place in await on_disk(_all, tools.places.worktrees):
        if place.warm.exists():
            if tools.settings.pool.enabled or not await on_disk(place.take_in_hand):
                continue
        elif await on_disk(_is_in_hand, place):
            continue
        await _remove(tools, place)
        gone += 1
    return gone


async def list_warm(tools: Tools) -> list[Path]:
    """The clones that a task could take now."""
    return [place.clone for place in await on_disk(_warm_ones, tools.places.worktrees)]


async def discard(tools: Tools, clone: Path) -> bool:
    """Remove a warm clone; False when it was taken meanwhile."""
    place = _Place(clone)
    if not await on_disk(place.take_in_hand):
        return False
    await _remove(tools, place)
    return True


async def _tip(tools: Tools) -> str:
    """The lane as it is; before anything has landed it is made."""
    found = (await tools.repo.read_refs([ref := lane_ref(lane.target_of(tools))]))[ref]
    return found or await lane.tip(tools)


async def _remove(tools: Tools, place: _Place) -> None:
    await end_marked(tools.places.marker(place.name), 1.0)
    try:
        await remove_worktree(place.clone)
    except (DiskFull, OSError) as trouble:
        log.warning("%s: %s", place.name, trouble)
        return  # what is in nobody's hand is found again
    await on_disk(_forget, place, tools.places.set_up(place.name))


def _nobodys_run(tools: Tools, place: _Place) -> Run:
    """For the set-up of a clone that has no task yet."""
    task = Task(id=place.name, title="a warm clone")
    return Run(Claim(task=task, fence=0, worker_id="", lease_until=NEVER), tools, {})


def _digest(tools: Tools) -> str:
    stages = tools.settings.hooks.stages("after_create")
    return digest_of({str(n): [command.command for command in stage] for n, stage in enumerate(stages)})


# ---------------------------------------------------------------- files, in a thread


async def _put(place: _Place, warm: Warm) -> None:
    await on_disk(_write, place, warm)


def _write(place: _Place, warm: Warm) -> None:
    write_durably(place.warm, warm.model_dump_json())
    place.hand.unlink(missing_ok=True)


def _read(path: Path) -> Warm | None:
    try:
        return Warm.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _move(place: _Place, records: Path, wanted: Path, path: Path) -> None:
    """The records first: without a clone they are forgotten, a clone without them would be set up once more."""
    shutil.rmtree(wanted, ignore_errors=True)
    if records.is_dir():
        records.rename(wanted)
    place.clone.rename(path)
    place.hand.unlink(missing_ok=True)


def _forget(place: _Place, records: Path) -> None:
    shutil.rmtree(records, ignore_errors=True)
    for path in place.clone.parent.glob(f"{place.name}.*"):
        if _PART.match(path.name):
            path.unlink(missing_ok=True)


def _parts(worktrees: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in worktrees.iterdir() if worktrees.is_dir() else ():
        if match := _PART.match(path.name):
            found.setdefault(match[1], []).append(match[2] or "")
    return found


def _all(worktrees: Path) -> list[_Place]:
    return [_Place(worktrees / name) for name in sorted(_parts(worktrees))]


def _warm_ones(worktrees: Path) -> Sequence[_Place]:
    return [_Place(worktrees / name) for name, parts in sorted(_parts(worktrees).items()) if "warm" in parts]


def _is_in_hand(place: _Place) -> bool:
    """Whether a living process of this machine works on it. One whose hand was just opened is in it."""
    for path in place.clone.parent.glob(f"{place.name}.hand-*"):
        identity = parse_identity(path.name.partition(".hand-")[2])
        if identity is not None and is_alive(identity):
            return True
    return place.warm.exists()  # put back while we looked

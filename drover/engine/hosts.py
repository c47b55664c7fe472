"""What hosts that share a backlog know of each other: who is there, and that they land in one place."""

from __future__ import annotations

import logging

from drover.domain.errors import UsageError
from drover.engine import reaper
from drover.engine.lane import target_of
from drover.engine.tools import Tools
from drover.git import remote

log = logging.getLogger(__name__)

SEEN_EVERY_S = 20.0
SEEN_WITHIN_MS = 90_000  # a host that has said nothing for so long is not counted on


async def insist(tools: Tools) -> None:
    """Refuse a run that would land where other hosts cannot see it, or beside one that does."""
    if tools.local_lease_clock:
        return  # a SQLite file has one host
    if tools.shared:
        await _insist_on_clone(tools)
    for other in await tools.store.workers.others_at_work(tools.host, within_ms=SEEN_WITHIN_MS):
        if tools.shared and other.push is None:
            raise UsageError(
                f"{other.host} is at work on this backlog and lands where no other host sees it",
                hint=f"stop it, set [landing] push in its .drover.toml, too, and start it again; "
                f"if it is gone, wait {SEEN_WITHIN_MS // 1000} s",
            )
        if not tools.shared:
            raise UsageError(
                f"{other.host} is at work on this backlog, and this run would land where it cannot see it",
                hint='set push = "origin" under [landing] in .drover.toml, the same on every host; '
                "docs/how-to/many-hosts.md says how hosts share a backlog",
            )
        if other.target == target_of(tools) and other.push != tools.remote:
            log.warning(
                "%s lands on %s of %s, this run on that of %s", other.host, other.target, other.push, tools.remote
            )


async def _insist_on_clone(tools: Tools) -> None:
    """What a clone needs to land where the other hosts do."""
    if not await remote.is_known(tools.repo, tools.remote):
        raise UsageError(
            f"[landing] push names {tools.remote!r}, which is no remote of this clone",
            hint=f"git remote add {tools.remote} URL, the same repository on every host",
        )
    if (tools.repo.git_dir / "shallow").exists():
        raise UsageError(
            "this clone is shallow: it cannot tell what other hosts have landed", hint="git fetch --unshallow"
        )


async def keep_seen(tools: Tools) -> None:
    """While a run lasts, say that its workers are there."""
    if tools.local_lease_clock:
        return

    async def say() -> None:
        await tools.store.workers.note_seen(tools.run_id, unseen_ms=2 * SEEN_WITHIN_MS)

    await reaper.every(SEEN_EVERY_S, say)

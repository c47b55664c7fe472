"""What an unattended night needs, looked at line by line."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from anyio import to_thread

from drover.agents import registry
from drover.app.readings import Check
from drover.domain.clock import SystemClock
from drover.domain.errors import DroverError
from drover.engine import gate, hosts, reaper, space
from drover.engine.lane import target_of
from drover.git import remote
from drover.git.limits import find_limits
from drover.process import end_marked, find_containment, find_marked, is_alive

if TYPE_CHECKING:
    from drover.app.drover import Drover

SPACE_NEEDED = 2 << 30
SPACE_WANTED = 10 << 30
WAL_RESET_SAFE = ((3, 51, 3), (3, 50, 7), (3, 44, 6))


async def examine(drover: Drover, *, fix: bool) -> list[Check]:
    """Every check in order; with ``fix`` what is safe to repair is repaired."""
    found: list[Check] = []
    for look in (_git, _remote, _agent, _disk, _store, _counters, _doors, _leftovers, _hooks, _containment, _settings):
        try:
            found += [check async for check in look(drover, fix)]
        except DroverError as error:
            found.append(
                Check(name=look.__name__.strip("_"), level="problem", message=error.message, fix=error.hint or "")
            )
    return found


async def _git(drover: Drover, fix: bool) -> AsyncIterator[Check]:
    tools = await drover.tools()
    yield Check(name="git", level="ok", message=f"git can be used; commits are by {tools.identity.name}")
    for limit in await find_limits(tools.repo):
        level = "problem" if limit.refused else "warning"
        yield Check.model_validate({"name": "repository", "level": level, "message": f"{limit.what}: {limit.why}"})
    target = drover.settings.project.target
    if target is None or await tools.repo.resolve(f"refs/heads/{target}") is None:
        yield Check(
            name="target", level="problem", message=f"the target branch {target!r} does not exist",
            fix="set [project] target in .drover.toml",
        )  # fmt: skip
    else:
        yield Check(name="target", level="ok", message=f"work lands on {target}")


async def _remote(drover: Drover, fix: bool) -> AsyncIterator[Check]:
    tools = await drover.tools()
    if drover.settings.landing.push is None:
        return
    await hosts.insist(tools)
    tip = await remote.look_at(tools.repo, tools.remote, target_of(tools))
    has = f"{target_of(tools)} is at {tip[:12]} there" if tip else f"it has no {target_of(tools)} yet"
    yield Check(name="remote", level="ok", message=f"{tools.remote} answers: {has}")


async def _agent(drover: Drover, fix: bool) -> AsyncIterator[Check]:
    types = {drover.settings.agent} | {t.agent for t in await drover.tasks() if t.agent and t.completed_at is None}
    for type in sorted(types):
        found = await registry.find(type).check(drover.agent_settings(type))
        if found.problem is not None:
            yield Check(name=f"agent {type}", level="problem", message=found.problem, fix=found.hint or "")
        else:
            yield Check(name=f"agent {type}", level="ok", message=f"{found.program} {found.version}".strip())
        for note in found.notes:
            yield Check(name=f"agent {type}", level="ok", message=note)


async def _disk(drover: Drover, fix: bool) -> AsyncIterator[Check]:
    free = shutil.disk_usage(drover.project.root).free
    level = "problem" if free < SPACE_NEEDED else "warning" if free < SPACE_WANTED else "ok"
    message = f"{free / (1 << 30):.1f} GiB free at {drover.project.root}"
    yield Check.model_validate(
        {"name": "disk", "level": level, "message": message, "fix": "" if level == "ok" else "free some space"}
    )
    if (shortage := space.find_shortage(drover.places, drover.settings)) is not None:
        yield Check(name="disk", level="problem", message=shortage, fix="free some space")


async def _store(drover: Drover, fix: bool) -> AsyncIterator[Check]:
    if drover.store.database.dialect != "sqlite":
        return
    version = sqlite3.sqlite_version_info
    safe = any(version >= v and (version[:2] == v[:2] or v == WAL_RESET_SAFE[0]) for v in WAL_RESET_SAFE)
    note = "" if safe else "; this version must not checkpoint from two processes, and drover never does"
    yield Check(
        name="database", level="ok",
        message=f"SQLite {sqlite3.sqlite_version}, WAL, every commit synced (synchronous=FULL){note}",
    )  # fmt: skip


async def _counters(drover: Drover, fix: bool) -> AsyncIterator[Check]:
    wrong = await drover.store.tasks.miscounted()
    if not wrong:
        yield Check(name="backlog", level="ok", message="every blocker counter agrees with its definition")
        return
    if fix:
        await drover.store.tasks.recount([id for id, _, _ in wrong])
    names = ", ".join(id for id, _, _ in wrong[:5])
    yield Check(
        name="backlog", level="warning" if fix else "problem",
        message=f"{len(wrong)} blocker counters were wrong: {names}" + ("; counted again" if fix else ""),
        fix="" if fix else "drover doctor --fix",
    )  # fmt: skip


async def _doors(drover: Drover, fix: bool) -> AsyncIterator[Check]:
    for found in gate.find_standstills(drover.places, SystemClock().now()):
        level = "problem" if found.stopped else "warning"
        yield Check.model_validate({"name": "processes", "level": level, "message": found.says, "fix": found.advice})


async def _leftovers(drover: Drover, fix: bool) -> AsyncIterator[Check]:
    tools = await drover.tools()
    workers = await drover.store.workers.list_workers()
    alive = [w for w in workers if w.host == tools.host and is_alive(w.process)]
    if alive:
        yield Check(name="processes", level="ok", message=f"a run is at work ({len(alive)} workers)")
        return
    place = tools.places.marker_of_all
    strays = find_marked(place)
    if strays and fix:
        await end_marked(place, 3.0)
    if strays:
        yield Check(
            name="processes", level="warning" if fix else "problem",
            message=f"{len(strays)} processes of earlier executions " + ("were ended" if fix else "are still alive"),
            fix="" if fix else "drover doctor --fix, or drover resume",
        )  # fmt: skip
    else:
        yield Check(name="processes", level="ok", message="no process of an earlier execution is alive")
    for line in await reaper.recover(tools) if fix else []:
        yield Check(name="recovery", level="warning", message=line)
    removable = [r for r in await drover.worktrees() if r.removable]
    if fix and removable:
        await drover.prune_worktrees()
    yield Check.model_validate(
        {
            "name": "worktrees",
            "level": "ok" if fix or not removable else "warning",
            "message": f"{len(removable)} worktrees whose work has landed" + (" were removed" if fix else ""),
            "fix": "" if fix or not removable else "drover worktree prune",
        }
    )


async def _hooks(drover: Drover, fix: bool) -> AsyncIterator[Check]:
    commands = await drover.unapproved_hooks()
    if commands:
        yield Check(
            name="hooks", level="problem",
            message=f"nobody has approved what .drover.toml wants to run: {', '.join(commands)}",
            fix="look at [hooks] there, then drover run --yes",
        )  # fmt: skip


async def _containment(drover: Drover, fix: bool) -> AsyncIterator[Check]:
    if not drover.settings.worker.contain:
        return
    if await to_thread.run_sync(find_containment) is None:
        yield Check(
            name="containment", level="problem", message="[worker] contain is set, but no PID namespace can be had",
            fix="permit user namespaces, install util-linux, or take the setting away",
        )  # fmt: skip
    else:
        yield Check(name="containment", level="ok", message="every agent runs in a PID namespace of its own")


async def _settings(drover: Drover, fix: bool) -> AsyncIterator[Check]:
    for warning in drover.settings.warnings:
        yield Check(name="settings", level="warning", message=warning)
    if not drover.settings.verify.command:
        yield Check(
            name="verification", level="warning", message="no test command: what agents write lands untested",
            fix="set [verify] command in .drover.toml",
        )  # fmt: skip

"""An agent's own record of a session, kept with the work in progress and brought back where it is gone."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from anyio.to_thread import run_sync

from drover.agents.base import Agent, KeepsSessions, SessionPlace
from drover.agents.endings import is_secret
from drover.domain.models import Claim
from drover.engine.past import Past
from drover.engine.tools import Tools
from drover.git.commit import task_message
from drover.git.sessions import keep_files, read_files, session_ref

log = logging.getLogger(__name__)

SIZE_LIMIT = 32 * 1024 * 1024  # of a session's files together; larger ones are not kept
SECRET_LENGTH = 6


async def keep(tools: Tools, claim: Claim) -> tuple[str, str] | None:
    """Save the session of this execution; the ref it is on and the commit, or None when there is nothing to save.

    Without the keys that its agent was given, should it have seen them.
    """
    mine = [a for a in await tools.store.claims.attempts(claim.task_id) if a.fence == claim.fence]
    if not mine or mine[0].session_id is None or mine[0].agent_started_at is None:
        return None
    agent = tools.find_agent(mine[0].agent)
    if not isinstance(agent, KeepsSessions):
        return None
    place = _place(tools, agent, claim.task_id)
    files = await run_sync(_read, agent.session_files(place, mine[0].session_id), _secrets(place.env))
    if not files:
        return None
    ref = session_ref(claim.task_id, claim.fence)
    oid = await keep_files(
        tools.repo,
        ref,
        files,
        message=task_message(f"session {mine[0].session_id} of {agent.name}", claim.task_id, claim.task.attempt),
        identity=tools.identity,
        at_ms=tools.clock.now(),
    )
    return ref, oid


async def bring_back(tools: Tools, agent: Agent, past: Past, session_id: str, *, elsewhere: bool) -> bool:
    """Whether the session's files were gone here, and have been put back as they were last saved.

    ``elsewhere``: the session went on on another host since, so files that are here are older than those saved.
    """
    if not isinstance(agent, KeepsSessions):
        return False
    place = _place(tools, agent, past.task.id)
    there = agent.session_files(place, session_id)
    if not elsewhere and any([await run_sync(_size, path) for path in there.values()]):
        return False
    for execution in reversed(past.executions):
        if execution.session_id == session_id and execution.agent == agent.name:
            kept = await read_files(tools.repo, session_ref(past.task.id, execution.fence))
            paths = {name: agent.session_path(place, name) for name in kept}
            wanted = {path: kept[name] for name, path in paths.items() if path is not None}
            if wanted:
                await run_sync(_write, wanted)
                log.info("%s: session %s was brought back", past.task.id, session_id)
                return True
    return False


def _place(tools: Tools, agent: Agent, task_id: str) -> SessionPlace:
    settings = tools.agent_settings(agent.name)
    env = {**tools.passed_on((*agent.env_names, *settings.env)), **settings.set}
    worktree = tools.places.worktree(task_id)
    return SessionPlace(env=env, worktree=worktree, logs=tools.places.logs(task_id, 0).parent)


def _secrets(env: Mapping[str, str]) -> list[bytes]:
    return [value.encode() for name, value in env.items() if is_secret(name) and len(value) >= SECRET_LENGTH]


def _read(files: Mapping[str, Path], secrets: list[bytes]) -> dict[str, bytes]:
    """What is in them, as far as they are files of our own; nothing when that is too much."""
    found, room = {}, SIZE_LIMIT
    for name, path in files.items():
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:  # gone meanwhile, or a link to somewhere else
            continue
        with os.fdopen(handle, "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode) or about.st_uid != os.getuid():
                continue
            content = file.read(room + 1)
        room -= len(content)
        if room < 0:
            return {}
        for secret in secrets:
            content = content.replace(secret, b"[secret]")
        found[name] = content
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _write(files: Mapping[Path, bytes]) -> None:
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_name(f".{path.name}.drover")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)

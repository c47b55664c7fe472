"""Whose a schema on a server is: the repository that used it first is recorded in it, and any other is refused."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from drover.domain.errors import StoreError
from drover.git.origin import Origin, find_remotes, find_roots
from drover.git.repo import Repo
from drover.settings import Project, Settings
from drover.settings.urls import redact
from drover.store import Store

FACT = "repository"


class AnotherRepository(StoreError):
    """The project's id is in use by another repository on this server."""

    code = "another_repository"


async def insist(store: Store, project: Project, settings: Settings, recorded: str | None) -> None:
    """Raise :class:`AnotherRepository` unless the store is this repository's; the first one makes it its own.

    ``recorded`` is what the store says. Git is asked only when this clone does not remember its own first commit.
    """
    if store.database.dialect == "sqlite":
        return  # a file lies in its project
    memory = project.state_dir / "roots.json"
    if recorded is not None and set(_remembered(memory)) & set(Origin.model_validate_json(recorded).roots):
        return
    mine = await _origin_of(project, settings)
    if recorded is None:
        recorded = await store.workers.settle_meta(FACT, mine.model_dump_json())
    owner = Origin.model_validate_json(recorded)
    if not mine.is_same(owner):
        raise AnotherRepository(
            f"{settings.project.id} at {_shown(settings, project)} is the backlog of another repository ({owner}),"
            f" not of this one ({mine})",
            hint="set another [project] id in .drover.toml; if it is this one, its history rewritten: drover db adopt",
        )
    if mine.roots:
        with suppress(OSError):
            memory.write_text(json.dumps(mine.roots))


async def adopt(store: Store, project: Project, settings: Settings) -> Origin:
    """Record this repository as the one whose backlog it is."""
    mine = await _origin_of(project, settings)
    await store.workers.set_meta(FACT, mine.model_dump_json())
    return mine


async def _origin_of(project: Project, settings: Settings) -> Origin:
    repo = await Repo.find(project.root)
    target = settings.project.target
    roots = await find_roots(repo, *([f"refs/heads/{target}"] if target else []))
    return Origin(roots=roots, remotes=await find_remotes(repo))


def _remembered(memory: Path) -> list[str]:
    try:
        return list(json.loads(memory.read_text()))
    except (OSError, ValueError):
        return []


def _shown(settings: Settings, project: Project) -> str:
    return redact(settings.store_url(project.root)).split("?", 1)[0]

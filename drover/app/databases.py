"""The store as a thing of its own: looked at, brought up to date, moved, saved, looked over."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from drover.app import elsewhere, ownership
from drover.app.audit import audit
from drover.app.drover import Drover
from drover.app.drover import open as open_project
from drover.domain.errors import StoreError, UsageError
from drover.domain.models import Frozen
from drover.engine import reaper
from drover.settings import Project, Settings
from drover.settings.urls import anchor_url, check_url, redact
from drover.store import moving, open_store
from drover.store.audit import Fault
from drover.store.backup import backup as save
from drover.store.facts import Facts, examine
from drover.store.moving import Progress, Tally


class Copied(Frozen):
    """A backlog that was moved: between which stores (without their secrets), and what."""

    source: str
    target: str
    tables: Mapping[str, Tally]

    @property
    def rows(self) -> int:
        return sum(tally.rows for tally in self.tables.values())


async def look(project: Project, settings: Settings) -> Facts:
    """The project's store, looked at without changing it."""
    return await examine(settings.store_url(project.root), settings.project.id)


def other_than(facts: Facts, project: Project, settings: Settings) -> str | None:
    """Where else this project keeps a backlog, when the store that was looked at has none; in one line."""
    return elsewhere.find(project, settings.store_url(project.root), empty=True) if not facts.tasks else None


async def migrate(project: Project, settings: Settings) -> tuple[Facts, tuple[str, ...]]:
    """Bring the store's schema up to this program's, making it where there is none; what was applied."""
    before = await look(project, settings)
    async with open_store(settings.store_url(project.root), project_id=settings.project.id):
        pass
    after = await look(project, settings)
    return after, tuple(name for name in after.applied or () if name not in (before.applied or ()))


async def copy(
    project: Project, settings: Settings, *, source: str | None, target: str | None, progress: Progress
) -> Copied:
    """Move the backlog with its whole history from one store to another; either is the project's own when None.

    What dead workers of this host held is taken back first, as at the start of a run.
    """
    if source is None and target is None:
        raise UsageError("a copy needs to know where to", hint="drover db copy --to postgresql://USER@HOST/NAME")
    own = settings.store_url(project.root)
    from_url, to_url = _url(source, own, "--from"), _url(target, own, "--to")
    if from_url == to_url:
        raise UsageError(f"{redact(to_url)} is where the backlog is", hint="name another store")
    facts = await examine(from_url, settings.project.id)
    if facts.applied is None:
        raise StoreError(f"there is no backlog at {redact(from_url)}", hint="drover db status")
    at_source = settings.model_copy(update={"database_url": from_url})
    async with open_project(project=project, settings=at_source) as drover:
        await reaper.rescue_from_dead(await drover.tools(), (await drover.tools()).host)
        async with open_store(to_url, project_id=settings.project.id) as there:
            moved = await moving.move(drover.store.database, there.database, progress)
    return Copied(source=redact(from_url), target=redact(to_url), tables=moved)


async def backup(project: Project, settings: Settings, file: Path, progress: Progress) -> int:
    """Copy the store as it is now to a file; its size in bytes."""
    return await save(settings.store_url(project.root), settings.project.id, file, os.environ, progress)


async def adopt(project: Project, settings: Settings) -> str:
    """Record this repository as the one whose backlog the store is; what was recorded, in words."""
    async with open_store(settings.store_url(project.root), project_id=settings.project.id) as store:
        return str(await ownership.adopt(store, project, settings))


async def check(drover: Drover, progress: Progress) -> list[Fault]:
    """Every fault of the store, and every disagreement of rows, commits and events."""
    repo = (await drover.tools()).repo
    return await audit(drover.store, repo, drover.settings.project.target, progress)


def _url(given: str | None, own: str, name: str) -> str:
    if given is None:
        return own
    try:
        return anchor_url(check_url(given), Path.cwd())
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None

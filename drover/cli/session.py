"""From the options of a command to the project's backlog, open."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from drover.cli.output import Printer

# Everything below is imported when a command runs: `drover COMMAND --help` needs none of it.
if TYPE_CHECKING:
    from drover.app import Drover, StatusReport
    from drover.cli.options import Common
    from drover.settings import Project, Settings


def printer_of(common: Common) -> Printer:
    return Printer(as_json=common.json, plain=common.plain)


def environment() -> Mapping[str, str]:
    """The variables that settings are read from."""
    return os.environ


def project_of(common: Common | None = None) -> Project:
    """The project of this command; raises NoProject."""
    from drover.settings import get_project

    return get_project(Path.cwd(), home=Path.home(), named=_named(common))


def project_around(common: Common) -> Project | None:
    """As :func:`project_of`, but None outside of any project when none is named."""
    from drover.settings import find_project

    return project_of(common) if _named(common) else find_project(Path.cwd(), home=Path.home(), named=None)


def settings_of(project: Project | None, **flags: object) -> Settings:
    """Every setting as this command sees it; in the keys of ``flags`` two underscores stand for the dot."""
    from drover.settings import load

    named = {key.replace("__", "."): value for key, value in flags.items()}
    return load(project.root if project else None, environ=environment(), flags=named)


@asynccontextmanager
async def opened(common: Common, **flags: object) -> AsyncIterator[Drover]:
    """The project's backlog with the verbs on it."""
    from drover import app

    project = project_of(common)
    async with app.open(project=project, settings=settings_of(project, **flags)) as drover:
        if drover.elsewhere is not None:
            printer_of(common).warning(drover.elsewhere)
        yield drover


async def standing(project: Project) -> StatusReport:
    """The status of the project's backlog, read without what only its other verbs need."""
    from drover.app import look
    from drover.engine.places import Places
    from drover.store import open_store

    settings = settings_of(project)
    url = settings.store_url(project.root)
    async with open_store(url, project_id=settings.project.id, lease_ms=settings.claim_timeout_ms) as store:
        return await look.status(store, settings, Places(project.state_dir), None)


def _named(common: Common | None) -> str | None:
    return (common and common.project) or environment().get("DROVER_PROJECT") or None

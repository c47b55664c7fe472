"""Where else this project keeps a backlog, for whoever looks into a store that is empty."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from drover.settings import Project
from drover.settings.urls import redact
from drover.store.facts import SQLITE, tasks_in

MEMORY = "postgres"  # in .drover: the server that held this project's backlog last, without its secrets


def may_be_elsewhere(project: Project, url: str) -> bool:
    """Whether it is worth asking if the store is empty. Costs no connection."""
    return _other_file(project, url) is not None or bool(url.startswith(SQLITE) and _remembered(project))


def find(project: Project, url: str, *, empty: bool) -> str | None:
    """What to say to whoever opened the store at ``url``, in one line; None when there is nothing to say.

    A server that holds a backlog is remembered for the day on which its URL is not set.
    """
    shown = redact(url).split("?", 1)[0]
    if not empty:
        if not url.startswith(SQLITE) and _remembered(project) != shown:
            with suppress(OSError):
                (project.state_dir / MEMORY).write_text(shown + "\n")
        return None
    file = _other_file(project, url)
    if file is not None and (tasks := tasks_in(file)):
        many = "1 task" if tasks == 1 else f"{tasks} tasks"
        return f"{shown} is empty, but {file} holds {many}; to bring them here: drover db copy --from {SQLITE}{file}"
    server = _remembered(project)
    if server and url.startswith(SQLITE):
        return f"{shown} is empty; this project's backlog was last at {server}: set DROVER_DATABASE_URL to that"
    return None


def _other_file(project: Project, url: str) -> Path | None:
    """The project's own file, if it is there and not the store that was chosen."""
    file = project.state_dir / "drover.db"
    return None if url == f"{SQLITE}{file}" or not file.is_file() else file


def _remembered(project: Project) -> str:
    try:
        return (project.state_dir / MEMORY).read_text().strip()
    except OSError:
        return ""

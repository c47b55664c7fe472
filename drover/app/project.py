"""Making a repository a drover project."""

from __future__ import annotations

import os
import re
from pathlib import Path

from drover.app import ownership
from drover.domain.errors import GitError
from drover.domain.ids import new_token
from drover.domain.models import Frozen
from drover.git.limits import find_limits
from drover.git.repo import Repo
from drover.settings import Project, load, write_project_file
from drover.store import open_store


class Initialised(Frozen):
    """What ``init`` made or found."""

    project: Project
    created: bool
    target: str
    notes: tuple[str, ...] = ()


async def init(path: Path) -> Initialised:
    """Make the repository around ``path`` a project; safe to repeat. The branch checked out becomes the target.

    Refuses what cannot work: no repository, no commit yet, a detached HEAD.
    """
    repo = await Repo.find(path)
    if await repo.resolve("HEAD") is None:
        raise GitError(
            f"{repo.root} has no commit yet", hint='make one first: git commit --allow-empty -m "first commit"'
        )
    branch = await repo.head_branch()
    if branch is None:
        raise GitError(
            f"{repo.root} has a detached HEAD; drover lands work on a branch",
            hint="git switch BRANCH, then drover init",
        )
    limits = await find_limits(repo)
    for limit in limits:
        if limit.refused:
            raise GitError(f"drover cannot work in {repo.root}: {limit.what}", hint=limit.why)
    project = Project(root=repo.root)
    created = not project.state_dir.is_dir()
    for directory in (project.state_dir, project.state_dir / "worktrees", project.state_dir / "logs"):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = repo.root.name
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "project"
    write_project_file(repo.root, name=name, project_id=f"{slug}-{new_token(6)}", target=branch)
    _exclude(repo.git_dir / "info" / "exclude", "/.drover/")
    settings = load(repo.root, environ=os.environ, flags={})
    target = settings.project.target or branch
    async with open_store(settings.store_url(repo.root), project_id=settings.project.id) as store:
        await ownership.insist(store, project, settings, (await store.workers.greeting())[0])
    notes = [f"{limit.what}: {limit.why}" for limit in limits]
    if target != branch:
        notes = [*notes, f"work lands on {target}, as .drover.toml says; {branch} is checked out"]
    return Initialised(project=project, created=created, target=target, notes=tuple(notes))


def _exclude(file: Path, pattern: str) -> None:
    """Let git look away from drover's own directory in this clone alone; the repository's files stay as they are."""
    text = file.read_text() if file.exists() else ""
    if pattern not in text.splitlines():
        file.parent.mkdir(exist_ok=True)
        file.write_text(text + ("" if text.endswith("\n") or not text else "\n") + pattern + "\n")

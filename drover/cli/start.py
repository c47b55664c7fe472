"""How a project begins: init."""

from __future__ import annotations

from pathlib import Path

from drover.cli.options import NOTHING_SAID, Common
from drover.cli.session import printer_of


async def init(*, common: Common = NOTHING_SAID) -> None:
    """Make the repository around a drover project. Safe to run again.

    Makes .drover/ (the database, the agents' worktrees, their logs), which git is told to look away from in this
    clone, and .drover.toml, which is meant to be committed. The branch that is checked out becomes the target that
    finished work lands on. Refused outside of a repository, before its first commit, and on a detached HEAD.
    """
    from drover import app

    made = await app.init(Path(common.project).expanduser() if common.project else Path.cwd())
    project = made.project
    out = printer_of(common)
    if common.json:
        out.document(
            {
                "root": str(project.root),
                "created": made.created,
                "target": made.target,
                "settings": str(project.config_file),
                "notes": list(made.notes),
            }
        )
        return
    what = "is now a drover project" if made.created else "is a drover project already"
    out.line(f"{project.root} {what}; work lands on {made.target}")
    for note in made.notes:
        out.warning(note)
    if made.created:
        out.note(f"its settings are in {project.config_file.name}: commit that file")
        out.note('next: drover add "What is to be done", then: drover run')

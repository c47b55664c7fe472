"""Epics: add, list, show, close."""

from __future__ import annotations

from cyclopts import App

from drover.cli.options import NOTHING_SAID, Common, Description, EpicId, Quiet, Title, checked_title
from drover.cli.output import status_word
from drover.cli.session import opened, printer_of
from drover.cli.shapes import epic_json, task_json

epic = App(name="epic", help="Containers of tasks: add, list, show, close.", help_format="plaintext")


@epic.command
async def add(
    title: Title, /, *, description: Description = None, quiet: Quiet = False, common: Common = NOTHING_SAID
) -> None:
    """Add an epic and print its id."""
    from drover.cli.task import described

    out = printer_of(common)
    async with opened(common) as drover:
        made = await drover.add_epic(checked_title(title), described(description) or "")
    if common.json:
        out.document(epic_json(made))
    else:
        out.line(made.id if quiet else f"{made.id}  {made.title}")


@epic.command(name="list")
async def list_epics(*, common: Common = NOTHING_SAID) -> None:
    """One line an epic, with its progress."""
    out = printer_of(common)
    async with opened(common) as drover:
        epics = await drover.epics()
    if common.json:
        out.document([epic_json(one) for one in epics])
        return
    out.table([(one.id, one.state, f"{one.completed}/{one.total}", one.title) for one in epics])


@epic.command
async def show(epic_id: EpicId, /, *, common: Common = NOTHING_SAID) -> None:
    """An epic with its tasks."""
    out = printer_of(common)
    async with opened(common) as drover:
        found = await drover.epic(epic_id)
        tasks = await drover.tasks(epic=found.id)
        most = drover.settings.max_attempts
    if common.json:
        out.document({**epic_json(found), "tasks": [task_json(task, max_attempts=most) for task in tasks]})
        return
    out.line(f"{found.id}  {found.title}  ({found.state}, {found.completed}/{found.total} completed)")
    if found.description:
        out.block(found.description, indent="  ")
    out.table([(task.id, status_word(task.status), task.title) for task in tasks], indent="  ")


@epic.command
async def close(epic_id: EpicId, /, *, common: Common = NOTHING_SAID) -> None:
    """Close an epic all of whose tasks are finished."""
    out = printer_of(common)
    async with opened(common) as drover:
        closed = await drover.close_epic(epic_id)
    if common.json:
        out.document(epic_json(closed))
    else:
        out.line(f"{closed.id} is closed")

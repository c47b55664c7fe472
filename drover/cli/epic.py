"""Containers of tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cyclopts import App

from drover.cli.listing import print_tasks
from drover.cli.options import NOTHING_SAID, Common, Description, EpicId, Quiet, Title, checked_title, read_text
from drover.cli.output import Styled
from drover.cli.session import opened, printer_of
from drover.cli.shapes import epic_json, task_json
from drover.cli.text import moment

if TYPE_CHECKING:
    from drover.domain.models import Epic

epic = App(name="epic", help="Containers of tasks: add, list, show, close.")


@epic.command
async def add(
    title: Title, /, *, description: Description = None, quiet: Quiet = False, common: Common = NOTHING_SAID
) -> None:
    """Add an epic and print its id."""
    async with opened(common) as drover:
        added = await drover.add_epic(checked_title(title), read_text(description) or "")
    out = printer_of(common)
    if common.json:
        out.document(epic_json(added))
    elif quiet:
        out.line(added.id)
    else:
        out.line("added ", added.id, "  ", added.title)


@epic.command(name="list")
async def list_epics(*, common: Common = NOTHING_SAID) -> None:
    """One line an epic: how many of its tasks are completed."""
    async with opened(common) as drover:
        epics = await drover.epics()
    out = printer_of(common)
    if common.json:
        out.document([epic_json(one) for one in epics])
    elif epics:
        out.table([(one.id, _progress(one), Styled(one.state, "dim"), one.title) for one in epics])
    else:
        out.note('no epics; drover epic add "…" makes one')


@epic.command
async def show(epic_id: EpicId, /, *, common: Common = NOTHING_SAID) -> None:
    """An epic, its progress and its tasks."""
    async with opened(common) as drover:
        found = await drover.epic(epic_id)
        tasks = await drover.tasks(epic=found.id)
    out = printer_of(common)
    if common.json:
        out.document({**epic_json(found), "tasks": [task_json(task, drover) for task in tasks]})
        return
    out.line(Styled(f"{found.id}  {found.title}", "bold"))
    if found.description:
        out.block(found.description, indent="  ")
    closed = f", closed {moment(found.closed_at)}" if found.closed_at else ""
    out.line(f"{found.state}, {_progress(found)} completed, added {moment(found.created_at)}{closed}")
    print_tasks(out, tasks)


@epic.command
async def close(epic_id: EpicId, /, *, common: Common = NOTHING_SAID) -> None:
    """Close an epic: nothing more is added to it."""
    async with opened(common) as drover:
        closed = await drover.close_epic(epic_id)
    out = printer_of(common)
    if common.json:
        out.document(epic_json(closed))
    else:
        out.line("closed ", closed.id, "  ", closed.title, f"  ({_progress(closed)} completed)")


def _progress(epic: Epic) -> str:
    return f"{epic.completed}/{epic.total}"

"""What a person looks at in the morning: what needs them, and what happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from drover.cli.options import NOTHING_SAID, Common, EpicOption, option
from drover.cli.output import Part, Printer, Styled
from drover.cli.session import opened, printer_of
from drover.cli.shapes import inbox_json, recap_json
from drover.cli.stream import time_of
from drover.cli.text import counted, moment, spoken
from drover.domain.errors import UsageError

if TYPE_CHECKING:
    from drover.app import Recap, RecapTask

_NIGHT = "12h"
_SHOWN = 8  # of each kind, so that all of it is a screen

_KIND_STYLES = {"failed": "red", "question": "cyan"}


async def inbox(*, epic: EpicOption = None, common: Common = NOTHING_SAID) -> None:
    """What needs you, oldest first, each with the command that settles it."""
    out = printer_of(common)
    async with opened(common) as drover:
        items = await drover.inbox(epic)
        now = drover.clock.now()
    if common.json:
        out.document(inbox_json(items))
        return
    for item in items:
        age: Part = Styled(f"for {spoken(now - item.since)}", "dim")
        out.line(
            item.task_id, "  ", Styled(item.kind, _KIND_STYLES.get(item.kind, "yellow")), "  ", item.title, "  ", age
        )
        if item.says.strip():
            out.block(item.says.strip(), indent="    ")
        out.line("    → ", Styled(item.command, "bold"))
    if not items:
        out.note("nothing needs you")


async def recap(
    *,
    since: Annotated[
        str,
        option("--since", metavar="TIME", help="From then on: 2026-01-31T20:00:00Z, or 8h for eight hours ago."),
    ] = _NIGHT,
    common: Common = NOTHING_SAID,
) -> None:
    """What happened in the last twelve hours, or since TIME, in a screen: what landed, what failed, what needs you.

    --json has all of it.
    """
    out = printer_of(common)
    async with opened(common) as drover:
        began = time_of(since, "--since", drover.clock.now())
        if began is None or began > drover.clock.now():
            raise UsageError(f"--since: {since!r} has not come yet", hint="for example: drover recap --since 8h")
        found = await drover.recap(began)
    if common.json:
        out.document(recap_json(found))
        return
    out.line(Styled(_sentence(found), "bold"))
    _print_tasks(out, "Landed", found.landed, "drover list --status completed")
    _print_tasks(out, "Failed", found.failed, "drover list --status failed")
    if found.needs:
        _heading(out, "Needs you")
        rows: list[tuple[Part, ...]] = [(one.task_id, one.kind, one.title, one.command) for one in found.needs]
        out.table(rows[:_SHOWN], indent="  ", cut=False)
        _and_more(out, len(rows), "drover inbox")
    if found.orders:
        _heading(out, "What people ordered")
        told: list[tuple[Part, ...]] = [(moment(o.at), o.by, o.what, o.task_id, o.why) for o in found.orders]
        out.table(told[-_SHOWN:], indent="  ")
        _and_more(out, len(told), "drover stream --since " + since)


def _sentence(found: Recap) -> str:
    """``12h: 14 landed, 1 failed, 2 need you, 3 taken over · now 14 completed, 3 blocked · 1,203,000 tokens``."""
    parts = [f"{len(found.landed)} landed"]
    parts += [f"{len(found.failed)} failed"] if found.failed else []
    parts += [f"{len(found.needs)} {'needs' if len(found.needs) == 1 else 'need'} you"] if found.needs else []
    parts += [f"{count} {what}" for what, count in found.happened.items() if what != "runs"]
    parts += [counted(found.happened["runs"], "run")] if found.happened.get("runs") else []
    now = ", ".join(f"{count} {status}" for status, count in found.by_status.items())
    used = [f"{found.tokens:,} tokens"] if found.tokens else []
    used += [f"${found.cost_usd:.2f}"] if found.cost_usd else []
    whole = [f"{spoken(found.until - found.since)}: {', '.join(parts)}", f"now {now or 'no tasks'}", ", ".join(used)]
    return " · ".join(part for part in whole if part)


def _print_tasks(out: Printer, heading: str, tasks: Sequence[RecapTask], command: str) -> None:
    if not tasks:
        return
    _heading(out, heading)
    rows: list[tuple[Part, ...]] = []
    for task in tasks[-_SHOWN:]:
        said = task.says.strip().partition("\n")[0]
        paths = counted(task.paths, "path") if task.paths else ""
        rows.append((task.task_id, Styled(moment(task.at), "dim"), task.title, paths, said))
    out.table(rows, indent="  ")
    for task in tasks[-_SHOWN:]:
        for decision in task.decisions:
            out.line("  ", task.task_id, Styled("  decided: ", "dim"), decision)
    _and_more(out, len(tasks), command)


def _and_more(out: Printer, count: int, command: str) -> None:
    if count > _SHOWN:
        out.line(Styled(f"  and {count - _SHOWN} more: {command}", "dim"))


def _heading(out: Printer, text: str) -> None:
    out.line()
    out.line(Styled(text, "bold"))

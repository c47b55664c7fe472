"""What a person looks at in the morning: what needs them, and what happened."""

from __future__ import annotations

from drover.cli.options import NOTHING_SAID, Common, EpicOption
from drover.cli.output import Part, Styled
from drover.cli.session import opened, printer_of
from drover.cli.shapes import inbox_json
from drover.cli.text import spoken

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

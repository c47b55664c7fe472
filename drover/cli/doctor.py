"""What an unattended night needs, line by line."""

from __future__ import annotations

from typing import Annotated

from drover.cli.options import NOTHING_SAID, Common, option
from drover.cli.output import Part, Styled
from drover.cli.session import opened, printer_of
from drover.cli.shapes import check_json
from drover.cli.text import counted

_STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


async def doctor(
    *,
    fix: Annotated[bool, option("--fix", help="Repair what is safe to repair.")] = False,
    common: Common = NOTHING_SAID,
) -> int:
    """Check what an unattended night needs; exit 1 if there is a problem.

    Looks at git and who commits, the agents in use, the room on the disk, the database and how durable it is, what
    earlier runs have left behind, and the settings. Each line is ok, a warning or a problem, with what to do.
    """
    async with opened(common) as drover:
        checks = await drover.doctor(fix=fix)
    out = printer_of(common)
    problems = sum(check.level == "problem" for check in checks)
    if common.json:
        out.document({"ok": not problems, "checks": [check_json(check) for check in checks]})
        return 1 if problems else 0
    rows: list[tuple[Part, ...]] = []
    for check in checks:
        rows.append((Styled(check.level, _STYLES[check.level]), check.name, check.message))
        if check.fix and check.level != "ok":
            rows.append(("", "", Styled(f"→ {check.fix}", "dim")))
    out.table(rows, cut=False)
    warnings = sum(check.level == "warning" for check in checks)
    out.line()
    out.line(f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}")
    return 1 if problems else 0

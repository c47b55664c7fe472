"""What is on disk: worktree list, prune, cleanup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import App

from drover.cli.options import NOTHING_SAID, Common, option
from drover.cli.output import Printer
from drover.cli.session import opened, printer_of
from drover.cli.shapes import worktree_json
from drover.domain.quantities import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drover.app import WorktreeRow

worktree = App(name="worktree", help="What is on disk: list, prune, cleanup.", help_format="plaintext")

DryRun = Annotated[bool, option("--dry-run", help="Only say what would go.")]


@worktree.command(name="list")
async def list_worktrees(*, common: Common = NOTHING_SAID) -> None:
    """Every worktree: whose, how large, why it is there, and whether it may go."""
    out = printer_of(common)
    async with opened(common) as drover:
        rows = await drover.worktrees()
    _shown(out, rows, common, "there are no worktrees")


@worktree.command
async def prune(*, dry_run: DryRun = False, common: Common = NOTHING_SAID) -> None:
    """Remove worktrees whose work has provably landed."""
    await _prune(dry_run, everything=False, common=common)


@worktree.command
async def cleanup(*, dry_run: DryRun = False, common: Common = NOTHING_SAID) -> None:
    """Remove those too whose tasks failed or were cancelled and whose work is saved on a ref."""
    await _prune(dry_run, everything=True, common=common)


async def _prune(dry_run: bool, *, everything: bool, common: Common) -> None:
    out = printer_of(common)
    async with opened(common) as drover:
        rows = await drover.prune_worktrees(dry_run=dry_run, everything=everything)
    _shown(out, rows, common, "nothing may go")
    if rows and not common.json:
        total = format_size(sum(row.bytes for row in rows))
        out.note(f"{len(rows)} {'would go' if dry_run else 'removed'}, {total}")


def _shown(out: Printer, rows: Sequence[WorktreeRow], common: Common, nothing: str) -> None:
    if common.json:
        out.document([worktree_json(row) for row in rows])
        return
    if not rows:
        out.note(nothing)
        return
    out.table(
        [(r.task_id, r.status, format_size(r.bytes), r.why + (f"; {r.proof}" if r.proof else ""), str(r.path)) for r in rows]
    )

"""What is on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import App

from drover.cli.options import NOTHING_SAID, Common, TaskId, option
from drover.cli.output import Part, Printer, status_word
from drover.cli.session import opened, printer_of
from drover.cli.shapes import worktree_json
from drover.cli.text import counted
from drover.domain.quantities import format_size

if TYPE_CHECKING:
    from drover.app import WorktreeRow

worktree = App(name="worktree", help="What is on disk: list, prune, cleanup, restore.")

DryRunOption = Annotated[bool, option("--dry-run", help="Say what would go, and remove nothing.")]


@worktree.command(name="list")
async def list_worktrees(
    *,
    verbose: Annotated[bool, option("--verbose", "-v", help="With the whole paths.")] = False,
    common: Common = NOTHING_SAID,
) -> None:
    """Every worktree: whose it is, why it is there, how large it is, and whether it may go."""
    async with opened(common) as drover:
        rows = await drover.worktrees()
    out = printer_of(common)
    if common.json:
        out.document([worktree_json(row) for row in rows])
    elif rows:
        _print_rows(out, rows, verbose=verbose)
    else:
        out.note("no worktrees")


@worktree.command
async def prune(*, dry_run: DryRunOption = False, common: Common = NOTHING_SAID) -> None:
    """Remove the worktrees whose work is provably landed; never one of a running or paused task."""
    async with opened(common) as drover:
        gone = await drover.prune_worktrees(dry_run=dry_run)
    _print_gone(printer_of(common), gone, dry_run=dry_run)


@worktree.command
async def cleanup(
    *,
    dry_run: DryRunOption = False,
    yes: Annotated[bool, option("--yes", "-y", "--force", "-f", help="Do not ask.")] = False,
    common: Common = NOTHING_SAID,
) -> None:
    """As prune, and also those of failed and cancelled tasks whose work is saved on a ref."""
    out = printer_of(common)
    async with opened(common) as drover:
        if not dry_run and not yes:
            would_go = await drover.prune_worktrees(dry_run=True, everything=True)
            if would_go:
                out.confirm(f"remove {counted(len(would_go), 'worktree')}")
        gone = await drover.prune_worktrees(dry_run=dry_run, everything=True)
    _print_gone(out, gone, dry_run=dry_run)


@worktree.command
async def restore(task_id: TaskId, /, *, common: Common = NOTHING_SAID) -> None:
    """Bring a removed worktree back as it was last saved, until 14 days after its task was finished."""
    out = printer_of(common)
    async with opened(common) as drover:
        row = await drover.restore_worktree(task_id)
    if common.json:
        out.document(worktree_json(row))
    else:
        out.line(str(row.path))


def _print_gone(out: Printer, gone: Sequence[WorktreeRow], *, dry_run: bool) -> None:
    if out.as_json:
        out.document([worktree_json(row) for row in gone])
        return
    freed = format_size(sum(row.bytes for row in gone))
    word = "would go" if dry_run else "removed"
    out.note(f"{counted(len(gone), 'worktree')} {word}, {freed}" if gone else "nothing to remove")
    _print_rows(out, gone, verbose=False)


def _print_rows(out: Printer, rows: Sequence[WorktreeRow], *, verbose: bool) -> None:
    lines: list[tuple[Part, ...]] = []
    for row in rows:
        why = f"{row.why}; {row.proof}" if row.proof else row.why
        about = f"{why}  {row.path}" if verbose else why
        lines.append((row.task_id, status_word(row.status), f"{format_size(row.bytes):>6}", about))
    if lines:
        out.table(lines, cut=False)

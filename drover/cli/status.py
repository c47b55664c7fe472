"""Where things stand: status, in all its forms, and watch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from drover.cli.listing import why_not
from drover.cli.options import NOTHING_SAID, Common, EpicOption, option
from drover.cli.output import Printer, Styled, status_word
from drover.cli.overview import oneline, overview
from drover.cli.session import opened, printer_of
from drover.cli.shapes import status_json, tree_json
from drover.domain.errors import UsageError

if TYPE_CHECKING:
    from drover.app import TreeNode

OnelineOption = Annotated[bool, option("--oneline", help="One line, for prompts and CI.")]


async def status(
    *,
    epic: EpicOption = None,
    tree: Annotated[
        bool, option("--tree", "-t", help="Epics, their tasks and sub-tasks, and what each waits for.")
    ] = False,
    watch: Annotated[bool, option("--watch", "-w", help="Live, redrawn in place until Ctrl+C.")] = False,
    oneline: OnelineOption = False,
    common: Common = NOTHING_SAID,
) -> None:
    """Counts by status, what is running and shows signs of life, and what needs a person."""
    if tree + watch + oneline > 1:
        raise UsageError("--tree, --watch and --oneline exclude each other", hint="choose one of them")
    if watch:
        await _watch(epic, common)
    elif tree:
        await _print_tree(epic, common)
    else:
        await _print_status(epic, common, short=oneline)


async def watch(*, epic: EpicOption = None, oneline: OnelineOption = False, common: Common = NOTHING_SAID) -> None:
    """The status, live: redrawn in place until Ctrl+C."""
    if oneline:
        await _print_status(epic, common, short=True)
    else:
        await _watch(epic, common)


async def _print_status(epic: str | None, common: Common, *, short: bool) -> None:
    out = printer_of(common)
    async with opened(common) as drover:
        report, now = await drover.status(epic), drover.clock.now()
    if common.json:
        out.document(status_json(report))
    elif short:
        out.line(oneline(report))
    else:
        for line in overview(report, now):
            out.line(*line)


async def _print_tree(epic: str | None, common: Common) -> None:
    out = printer_of(common)
    async with opened(common) as drover:
        nodes = await drover.tree(epic)
    if common.json:
        out.document(tree_json(nodes, drover))
    elif not nodes:
        out.note('no tasks; drover add "…" makes one')
    for node in () if common.json else nodes:
        _print_node(out, node)


async def _watch(epic: str | None, common: Common) -> None:
    out = printer_of(common)
    if not out.live:
        raise UsageError(
            "a live status needs a terminal that may be redrawn", hint="drover stream --follow tells what happens"
        )
    from drover.cli.live import watch_status

    async with opened(common) as drover:
        await watch_status(out, drover, epic)


def _print_node(out: Printer, node: TreeNode) -> None:
    if node.epic:
        epic = node.epic
        closed = " closed" if epic.state == "closed" else ""
        out.line(Styled(f"{epic.id}  {epic.title}", "bold"), f"  {epic.completed}/{epic.total}{closed}")
    else:
        out.line(Styled("tasks without an epic", "bold"))
    rows = list(_branches(node.children, ""))
    labels = max((len(label) for label, _ in rows), default=0)
    for label, one in rows:
        if one.task:
            waits = f"waits for {', '.join(one.waits_for)}" if one.waits_for and not one.task.stranded else ""
            why = waits or why_not(one.task)
            status = str(one.task.status)
            gap = " " * (11 - len(status))
            out.line(
                label.ljust(labels), "  ", status_word(status), gap, "  ", one.task.title, f"  ({why})" if why else ""
            )


def _branches(nodes: Sequence[TreeNode], indent: str) -> Iterator[tuple[str, TreeNode]]:
    """Each task with the lines that lead to it, and its id."""
    for place, node in enumerate(nodes, 1):
        last = place == len(nodes)
        yield f"{indent}{'└─' if last else '├─'} {node.task.id if node.task else ''}", node
        yield from _branches(node.children, indent + ("   " if last else "│  "))

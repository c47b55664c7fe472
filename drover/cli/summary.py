"""What a run came to, in the operator's words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from drover.cli.listing import why_not
from drover.cli.output import Part, Printer, Styled
from drover.cli.text import counted, spoken, usage_words

if TYPE_CHECKING:
    from drover.app import Drover
    from drover.domain.models import RunReport, Task

_SHOWN = 20


async def print_summary(out: Printer, drover: Drover, report: RunReport, *, left: int) -> None:
    """One sentence, then a line for each task that is not done and why, then what it took.

    ``left`` is how many tasks a run that was stopped would have gone on with.
    """
    undone = [
        ("failed", "red", report.failed),
        ("cancelled", "yellow", report.cancelled),
        ("stranded", "yellow", report.stranded),
        ("waits for you", "yellow", report.needs_person),
    ]
    out.line(Styled(sentence(report, left), "red" if report.failed else "bold"))
    rows: list[tuple[Part, ...]] = []
    for word, style, ids in undone:
        rows += [(Styled(word, style), task.id, task.title, _why(task)) for task in await _tasks(drover, ids[:_SHOWN])]
        if len(ids) > _SHOWN:
            rows.append((Styled(word, style), f"and {len(ids) - _SHOWN} more", "", ""))
    if rows:
        out.table(rows, indent="  ", cut=False)
    if report.over_budget:
        out.line(Styled(f"{report.over_budget}; ready tasks were left: raise it, then type: drover resume", "yellow"))
    out.line(_took(report))
    if report.interrupted:
        out.line("go on with: drover resume")
    elif report.failed:
        out.line("look: drover info ID, drover logs ID · another chance: drover retry ID")


def sentence(report: RunReport, left: int = 0) -> str:
    """``52 tasks: 50 landed, 1 waits for you, 1 failed, nothing lost``."""
    landed = len(report.completed)
    parts = [f"{landed} landed"] if landed else []
    parts += [f"{report.kept} had landed before"] if report.kept else []
    parts += [f"{len(report.needs_person)} {'waits' if len(report.needs_person) == 1 else 'wait'} for you"] * bool(
        report.needs_person
    )
    parts += [f"{len(report.failed)} failed"] if report.failed else []
    parts += [f"{len(report.cancelled)} cancelled"] if report.cancelled else []
    parts += [f"{len(report.stranded)} stranded behind them"] if report.stranded else []
    parts += [f"{left} still to do"] if left else []
    total = len({*report.completed, *report.needs_person, *report.failed, *report.cancelled, *report.stranded}) + left
    head = f"{counted(total + report.kept, 'task')}: " if parts else ""
    stopped = "stopped; " if report.interrupted else ""
    return stopped + head + ", ".join([*(parts or ["nothing was to be done"]), "nothing lost"])


def _took(report: RunReport) -> str:
    parts = [spoken(report.seconds * 1000)]
    parts += [usage_words(report.tokens, report.cost_usd)] if report.tokens or report.cost_usd else []
    taken = [f"{report.continued} continued"] if report.continued else []
    taken += [f"{report.redone} begun again"] if report.redone else []
    return "took " + ", ".join(parts) + (f" · taken up after an interruption: {', '.join(taken)}" if taken else "")


async def _tasks(drover: Drover, ids: Iterable[str]) -> list[Task]:
    return [await drover.task(one) for one in ids]


def _why(task: Task) -> str:
    if task.stranded:
        return f"behind {', '.join(task.blocked_by)}"
    return why_not(task)

"""The state of a backlog in lines: counts, a bar, what is running, what needs a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drover.cli.output import Part, Styled, status_word
from drover.cli.text import clean, pad, spoken, usage_words, width

if TYPE_CHECKING:
    from drover.app import RunningTask, StatusReport

_BAR = 40
STEP_WORDS = {
    "prepare_worktree": "preparing",
    "let_agent_work": "agent at work",
    "commit_changes": "committing",
    "verify": "testing",
    "land": "landing",
    "remove_worktree": "tidying up",
}
_ORDER = ("completed", "in_progress", "claimed", "ready", "blocked", "waiting", "paused", "failed", "cancelled")
_TITLE = 40


def percentage(report: StatusReport) -> int:
    """Completed of all in whole percent; 100 only when nothing is missing."""
    done = report.by_status.get("completed", 0)
    return 100 if done >= report.total > 0 else min(99, round(100 * report.progress))


def oneline(report: StatusReport) -> str:
    """For prompts and CI; its form is fixed."""
    counts = report.by_status
    running = counts.get("in_progress", 0) + counts.get("claimed", 0)
    done = counts.get("completed", 0)
    return (
        f"completed {done}/{report.total} {percentage(report)}% · running {running} · ready {counts.get('ready', 0)}"
        f" · blocked {counts.get('blocked', 0)} · failed {counts.get('failed', 0)}"
    )


def progress_lines(report: StatusReport) -> list[list[Part]]:
    """``████░░░░ 3/6 50%``, and below it the counts, without the statuses that no task has."""
    filled = _BAR * percentage(report) // 100
    done = report.by_status.get("completed", 0)
    bar: list[Part] = [Styled("█" * filled, "green"), Styled("░" * (_BAR - filled), "dim")]
    counts: list[Part] = []
    for status in _ORDER:
        if report.by_status.get(status):
            counts += [" · " if counts else "", status_word(status), f" {report.by_status[status]}"]
    return [[*bar, f"  {done}/{report.total} {percentage(report)}%"], *([counts] if counts else [])]


def running_rows(report: StatusReport, now: int) -> list[list[str]]:
    """A row a worker at work, its columns aligned: task, title, step, since when, last sign of life, worker."""
    rows = [_running(one, now) for one in report.running]
    widths = [max((width(row[at]) for row in rows), default=0) for at in range(6)]
    return [[pad(text, columns) for text, columns in zip(row, widths, strict=True)] for row in rows]


def _running(one: RunningTask, now: int) -> list[str]:
    title = clean(one.title)
    short = title if len(title) <= _TITLE else f"{title[: _TITLE - 1]}…"
    alive = f"alive {spoken(now - one.last_alive)} ago" if one.last_alive else ""
    step = STEP_WORDS.get(one.step, one.step)
    return [one.task_id, short, step, f"for {spoken(now - one.since)}", alive, f"{one.worker}@{one.host}"]


def overview(report: StatusReport, now: int) -> list[list[Part]]:
    """Everything that ``drover status`` says, as lines of parts."""
    lines: list[list[Part]] = progress_lines(report)
    if report.running:
        lines += [[], [Styled("Running", "bold")]]
        lines += [["  ", "  ".join(row)] for row in running_rows(report, now)]
    if report.needs_attention:
        lines += [[], [Styled("Needs you", "bold")]]
        lines += [["  ", item.task_id, "  ", item.reason] for item in report.needs_attention]
    if len(report.epics) > 1 or any(epic.total < report.total for epic in report.epics):
        lines += [[], [Styled("Epics", "bold")]]
        lines += [["  ", epic.id, f"  {epic.completed}/{epic.total}  ", epic.title] for epic in report.epics]
    if report.tokens or report.cost_usd:
        lines += [[], [f"used {usage_words(report.tokens, report.cost_usd)}"]]
    if report.notes:
        lines.append([])
        lines += [[note] for note in report.notes]
    return lines

"""Everything about one task, and what it changed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated

from drover.cli.listing import why_not
from drover.cli.options import NOTHING_SAID, Common, TaskId, option
from drover.cli.output import Part, Printer, Styled, status_word
from drover.cli.session import opened, printer_of
from drover.cli.shapes import attempts_used, details_json
from drover.cli.text import clock, counted, moment, spoken
from drover.domain.errors import UsageError

if TYPE_CHECKING:
    from drover.app import TaskDetails
    from drover.domain.models import Attempt, StepRecord, Task, Word

_LAST_EVENTS = 10
_COMMIT = re.compile(r"\b[0-9a-f]{40}\b")


async def info(task_id: TaskId, /, *, common: Common = NOTHING_SAID) -> None:
    """Everything about a task.

    Its text, what it waits for and what waits for it, every execution (when, who, where, which session of the
    agent, what came of it, tokens, cost), the steps of the current attempt with their results, where its work is,
    and its last events. --json has all of it.
    """
    async with opened(common) as drover:
        details = await drover.details(task_id)
        limit = drover.settings.max_attempts
    out = printer_of(common)
    if common.json:
        out.document(details_json(details, drover))
        return
    _print_head(out, details, limit)
    if details.task.description:
        _heading(out, "Description")
        out.block(details.task.description, indent="  ")
    _print_words(out, details.words)
    _print_attempts(out, details.attempts)
    _print_steps(out, details.steps)
    _print_rest(out, details)


async def context(task_id: TaskId, /, *, common: Common = NOTHING_SAID) -> None:
    """Print what a task's agent will be given as its next execution begins, word for word.

    Guidelines, the task, what its blockers and sub-tasks have left, what a person has said, what went wrong before;
    or, where the agent's session goes on, what it is told then. A run uses the same function.
    """
    async with opened(common) as drover:
        found = await drover.context(task_id)
    out = printer_of(common)
    if common.json:
        out.document(found.model_dump(mode="json"))
        return
    out.block(found.text)
    how = f"goes on with session {found.session_id}" if found.session_id else "begins a new session"
    out.note(f"({len(found.text):,} characters; {found.agent} {how})")
    if found.missing:
        out.note(f"({', '.join(found.missing)} will have left something by then)")


async def diff(
    task_id: TaskId,
    /,
    *,
    raw: Annotated[bool, option("--raw", help="Every byte as it is, for git apply; not onto a terminal.")] = False,
    common: Common = NOTHING_SAID,
) -> None:
    """What a task changed, or has changed so far, as a patch."""
    out = printer_of(common)
    if raw and (common.json or out.out.isatty()):
        raise UsageError("--raw is for a pipe or a file", hint=f"drover diff {task_id} --raw > change.patch")
    async with opened(common) as drover:
        task = await drover.task(task_id)
        patch = await drover.diff(task.id)
    if common.json:
        out.document({"task_id": task.id, "diff": patch})
    elif raw:
        out.raw(patch.encode("utf-8", "surrogateescape"))
    elif patch:
        for line in patch.split("\n"):
            out.line(Styled(line, _diff_style(line)))


def _print_head(out: Printer, details: TaskDetails, limit: int) -> None:
    task = details.task
    out.line(Styled(f"{task.id}  {task.title}", "bold"))
    why = why_not(task)
    out.line("  status      ", status_word(str(task.status)), f"  {why}" if why else "")
    attempts = f"{attempts_used(task)} of {task.max_attempts or limit}"
    more = f", {counted(task.executions, 'execution')}, {counted(task.interruptions, 'interruption')}"
    rows: list[tuple[Part, str]] = [("attempts", attempts + more)]
    rows += [("waits for" if task.open_blockers else "came after", _named(one)) for one in details.blockers]
    rows += [("waited for by", _named(one)) for one in details.dependents]
    for name, value in (
        ("epic", task.epic_id),
        ("parent", task.parent_id),
        ("priority", str(task.priority) if task.priority else None),
        ("type", task.type if task.type != "other" else None),
        ("labels", ", ".join(task.labels)),
        ("agent", task.agent),
        ("tests", " ".join(word for word in (task.test_mode, task.test_scope, task.test_command) if word)),
        ("added", f"{moment(task.created_at)} by {task.created_by or 'somebody'}"),
        ("completed", moment(task.completed_at) if task.completed_at else None),
        ("landed", task.landed_commit),
        ("worktree", str(details.worktree) if details.worktree else None),
        ("work on", details.branch),
    ):
        if value:
            rows.append((name, value))
    if task.error:
        rows.append(("last error", f"{task.error.error_class}: {task.error.message}"))
        if task.error.what_to_do:
            rows.append(("", f"→ {task.error.what_to_do}"))
    out.table([(Styled(str(name), "dim"), value) for name, value in rows], indent="  ", cut=False)


def _print_words(out: Printer, words: tuple[Word, ...]) -> None:
    if not words:
        return
    _heading(out, "What its agent was told")
    hows = {"session": "as it worked", "turn": "with its turn"}
    rows: list[tuple[Part, ...]] = []
    for word in words:
        told = (
            f"told {moment(word.told_at)} {hows[word.told_how]}" if word.told_at and word.told_how else "not told yet"
        )
        said = f"{word.question} → {word.text}" if word.question else word.text
        rows.append((moment(word.said_at), word.said_by or "somebody", word.kind, told, said))
    out.table(rows, indent="  ", cut=False)


def _print_attempts(out: Printer, attempts: tuple[Attempt, ...]) -> None:
    if not attempts:
        return
    _heading(out, "Executions")
    rows: list[tuple[Part, ...]] = []
    for one in attempts:
        lasted = spoken(one.ended_at - one.started_at) if one.ended_at else "…"
        outcome = one.outcome or ("" if one.ended_at else "running")
        facts = ["planned" if one.purpose == "plan" else "", one.resumed or "", one.usage.model]
        facts += [counted(one.usage.turns, "turn") if one.usage.turns else ""]
        facts += [f"{one.usage.tokens:,} tokens" if one.usage.tokens else ""]
        facts += [f"${one.usage.cost_usd:.2f}" if one.usage.cost_usd else "", f"session {one.session_id or '-'}"]
        facts += [one.origin or "", one.error or ""]
        who = f"{one.worker_id}@{one.host}" + (f" pid {one.pid}" if one.pid else "")
        about = ", ".join(fact for fact in facts if fact)
        rows.append((f"attempt {one.attempt}", moment(one.started_at), lasted, who, one.agent, outcome, about))
    out.table(rows, indent="  ", cut=False)


def _print_steps(out: Printer, steps: tuple[StepRecord, ...]) -> None:
    if not steps:
        return
    _heading(out, f"Steps of attempt {steps[-1].attempt}")
    rows: list[tuple[Part, ...]] = [
        (step.name, clock(step.finished_at), spoken(step.finished_at - step.started_at), _facts(step.result))
        for step in steps
    ]
    out.table(rows, indent="  ")


def _print_rest(out: Printer, details: TaskDetails) -> None:
    if details.log_paths:
        _heading(out, "Logs")
        for path in details.log_paths:
            out.line("  ", str(path))
    if details.events:
        _heading(out, "Last events")
        rows: list[tuple[Part, ...]] = []
        for event in details.events[-_LAST_EVENTS:]:
            data = {key: value for key, value in event.data.items() if key != "title"}
            rows.append((moment(event.at), event.type, _facts(json.dumps(data, ensure_ascii=False))))
        out.table(rows, indent="  ")


def _facts(result: str) -> str:
    """The telling values of a step's result or an event's data: short, without what is empty or has parts."""
    value = json.loads(result)
    if not isinstance(value, dict):
        return str(value)
    told = {key: one for key, one in value.items() if isinstance(one, str | int | float) and one not in ("", False)}
    return ", ".join(f"{key} {_COMMIT.sub(_short, str(one))}" for key, one in told.items())


def _short(match: re.Match[str]) -> str:
    return match[0][:12]


def _named(task: Task) -> str:
    return f"{task.id} ({task.status}) {task.title}"


def _heading(out: Printer, text: str) -> None:
    out.line()
    out.line(Styled(text, "bold"))


def _diff_style(line: str) -> str:
    if line.startswith(("+++", "---", "diff ")):
        return "bold"
    return {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")

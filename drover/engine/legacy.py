"""What finished tasks leave for those that come after: their last words, the paths they changed, what was decided."""

from __future__ import annotations

import re

from drover.domain.models import AgentReport, Commit, Frozen, Task
from drover.store import Store

DECISIONS_KEPT = 10
DECISION_LIMIT = 400
_DECISION = re.compile(r"^[\s>*_`#-]*DECISION:[*_`]*[ \t]*(\S.*)$", re.MULTILINE)


class Legacy(Frozen):
    """Of one task that has landed."""

    task: Task
    summary: str = ""  # its agent's last words
    paths: tuple[str, ...] = ()
    more_paths: int = 0
    decisions: tuple[str, ...] = ()  # what its agent said it had decided, and what a person had


async def left_by(store: Store, task: Task) -> Legacy:
    """What the attempt that landed has left."""
    steps = {step.name: step.result for step in await store.claims.steps(task.id, task.attempt)}
    report, commit = steps.get("let_agent_work"), steps.get("commit_changes")
    summary = AgentReport.model_validate_json(report).summary if report else ""
    changed = Commit.model_validate_json(commit) if commit else None
    answers = [
        f"{_line(word.question or '')} → {_line(word.text)}"
        for word in await store.orders.words(task.id)
        if word.kind == "answer"
    ]
    return Legacy(
        task=task,
        summary=summary,
        paths=changed.paths if changed else (),
        more_paths=changed.more_paths if changed else 0,
        decisions=(*answers[-DECISIONS_KEPT:], *decisions_in(summary)),
    )


async def of_blockers(store: Store, task: Task) -> list[Legacy]:
    """What the task's blockers, its sub-tasks among them, have left: those that landed first come first.

    What was decided in a blocker's own sub-tasks is told with it.
    """
    blockers = [await store.tasks.get(id) for id in task.blocked_by]
    landed = sorted((b for b in blockers if b.landed_at is not None), key=lambda b: (b.landed_at or 0, b.id))
    return [await _with_its_parts(store, blocker) for blocker in landed]


async def _with_its_parts(store: Store, blocker: Task) -> Legacy:
    left = await left_by(store, blocker)
    parts = [await left_by(store, await store.tasks.get(id)) for id in blocker.subtasks]
    decisions = (*(decision for part in parts for decision in part.decisions), *left.decisions)
    return left.model_copy(update={"decisions": decisions[-3 * DECISIONS_KEPT :]})


def decisions_in(words: str) -> list[str]:
    """The lines of an agent's last words that say ``DECISION: …``."""
    return [_line(match[1]) for match in _DECISION.finditer(words)][:DECISIONS_KEPT]


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= DECISION_LIMIT else f"{line[: DECISION_LIMIT - 1]}…"

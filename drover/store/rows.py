"""Rows of the tables as the values of the domain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from pydantic import JsonValue

from drover.domain.models import Attempt, Epic, Landing, LastError, Run, StepRecord, Task, Usage
from drover.domain.states import State
from drover.store.database import Row, Value

_TASK_COLUMNS = frozenset(Task.model_fields) - {
    "labels", "blocked_by", "blocks", "stranded", "executing", "due", "error", "allow_no_change", "fresh", "state",
    "input", "result",
}  # fmt: skip


def task_of(
    row: Row,
    *,
    now: int,
    labels: Sequence[str] = (),
    blocked_by: Sequence[str] = (),
    blocks: Sequence[str] = (),
    stranded: bool = False,
) -> Task:
    """A row of ``tasks`` with its edges."""
    columns = cast(dict[str, Any], {name: row[name] for name in _TASK_COLUMNS})
    due_at = cast(int | None, row["due_at"])
    # The row was checked by the table's own constraints; validating 100,000 of them again costs seconds.
    return Task.model_construct(
        **columns,
        state=State(str(row["state"])),
        allow_no_change=bool(row["allow_no_change"]),
        fresh=bool(row["fresh"]),
        executing=bool(row["executing"]),
        due=due_at is not None and due_at <= now,
        error=_error_of(row),
        input=_document(row["input"]),
        result=_document(row["result"]),
        labels=tuple(labels),
        blocked_by=tuple(blocked_by),
        blocks=tuple(blocks),
        stranded=stranded,
    )


def _document(text: Value) -> JsonValue:
    found: JsonValue = json.loads(str(text)) if text is not None else None
    return found


def _error_of(row: Row) -> LastError | None:
    if row["error_class"] is None:
        return None
    return LastError(
        error_class=str(row["error_class"]),
        message=str(row["error_message"] or ""),
        what_to_do=str(row["error_advice"] or ""),
    )


def epic_of(row: Row, *, total: int = 0, completed: int = 0) -> Epic:
    """A row of ``epics`` with its progress."""
    columns = {name: value for name, value in row.items() if name in Epic.model_fields}
    return Epic.model_validate({**columns, "total": total, "completed": completed})


_USAGE = ("input_tokens", "output_tokens", "turns", "model")


def attempt_of(row: Row) -> Attempt:
    """A row of ``attempts``."""
    values = {name: value for name, value in row.items() if name in Attempt.model_fields}
    usage = Usage.model_validate(
        {name: row[name] for name in _USAGE} | {"cost_usd": int(row["cost_microusd"] or 0) / 1e6}
    )
    return Attempt.model_validate({**values, "usage": usage})


def step_of(row: Row) -> StepRecord:
    """A row of ``steps``."""
    return StepRecord.model_validate(dict(row))


def landing_of(row: Row) -> Landing:
    """A row of ``landings``."""
    names = {"old_oid": "old", "commit_oid": "commit", "tree_oid": "tree"}
    return Landing.model_validate({names.get(name, name): value for name, value in row.items()})


def run_of(row: Row) -> Run:
    """A row of ``runs``."""
    return Run.model_validate({**row, "task_ids": tuple(json.loads(str(row["task_ids"])))})

"""Rows of the tables as the values of the domain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, TypeVar, cast

from pydantic import JsonValue

from drover.domain.models import Attempt, Claim, Epic, Frozen, Landing, LastError, Run, StepRecord, Task, Usage
from drover.domain.states import State
from drover.store.database import Row, Value

_MADE = {
    "labels", "blocked_by", "blocks", "stranded", "executing", "due", "error", "allow_no_change", "fresh", "state",
    "input", "result",
}  # fmt: skip
_TASK_FIELDS = tuple(Task.model_fields)
# One of the columns stands in for what is made of several: so the fields are in their order after one pass.
_values_of = itemgetter(*(name if name not in _MADE else "id" for name in _TASK_FIELDS))
_STATES = {state.value: state for state in State}
V = TypeVar("V", bound=Frozen)


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
    due_at = cast(int | None, row["due_at"])
    values: dict[str, Any] = dict(zip(_TASK_FIELDS, _values_of(row), strict=True))
    values.update(
        state=_STATES[str(row["state"])],
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
    return _made(Task, values)


def claim_of(row: Row, *, now: int) -> Claim:
    """The claim that a running task's row tells of, without edges and ports."""
    task = task_of(row, now=now)
    return _made(
        Claim,
        {
            "task": task,
            "fence": task.fence,
            "worker_id": task.claimed_by,
            "lease_until": row["lease_until"],
            "first_port": None,
            "agent": None,
        },
    )


def _made(model: type[V], values: dict[str, Any]) -> V:
    """What pydantic's model_construct comes to when every field is given, at a tenth of its cost.

    The row was checked by the table's own constraints; to check it again was a fifth of the time of a claim.
    """
    made = model.__new__(model)
    object.__setattr__(made, "__dict__", values)
    object.__setattr__(made, "__pydantic_fields_set__", _FIELDS[model])
    object.__setattr__(made, "__pydantic_extra__", None)
    object.__setattr__(made, "__pydantic_private__", None)
    return made


# Of every value of a model, for none is ever changed.
_FIELDS: dict[type[Frozen], set[str]] = {model: set(model.model_fields) for model in (Task, Claim)}


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

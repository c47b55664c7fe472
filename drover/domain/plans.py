"""Plans: what an agent means to do, written down so that a person can judge it and another agent can do it."""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from drover.domain.models import Frozen

PlanState = Literal["pending", "approved", "rejected"]
Complexity = Literal["low", "medium", "high"]

_FENCED = re.compile(r"^```(?:json)?[ \t]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


class PlanError(ValueError):
    """What an agent wrote is no plan; the text says why, in words an agent can act on."""


def _inside(path: str) -> str:
    pure = PurePosixPath(path)
    if not path.strip() or pure.is_absolute() or ".." in pure.parts:
        raise ValueError(f"{path!r} is not a path inside the repository")
    return path


class _Written(BaseModel):
    """What an agent writes: checked in what drover reads, open for more."""

    model_config = ConfigDict(frozen=True, extra="ignore", str_strip_whitespace=True)


Line = Annotated[str, Field(min_length=1, max_length=300)]
Words = Annotated[str, Field(max_length=10_000)]
RepoPath = Annotated[str, AfterValidator(_inside)]


class PlanStep(_Written):
    """One step: what is done, where, and how one sees that it is done."""

    title: Line
    description: Words = ""
    files: tuple[RepoPath, ...] = ()
    verification: Words = ""


class PlannedFile(_Written):
    """A file that the plan touches, and what for."""

    path: RepoPath
    reason: Words = ""


class PlanDraft(_Written):
    """The plan as the agent wrote it."""

    summary: Annotated[str, Field(min_length=1, max_length=10_000)]
    steps: Annotated[tuple[PlanStep, ...], Field(min_length=1)]
    files_to_create: tuple[PlannedFile, ...] = ()
    files_to_modify: tuple[PlannedFile, ...] = ()
    complexity: Complexity = "medium"
    risk_factors: tuple[Line, ...] = ()

    def as_text(self) -> str:
        """The plan as an agent, or a person without colours, reads it."""
        lines = [self.summary, ""]
        for number, step in enumerate(self.steps, 1):
            lines.append(f"{number}. {step.title}" + (f" ({', '.join(step.files)})" if step.files else ""))
            lines += [f"   {line}" for line in step.description.splitlines()]
            lines += [f"   Done when: {line}" for line in step.verification.splitlines()[:1]]
        for verb, files in (("Create", self.files_to_create), ("Change", self.files_to_modify)):
            lines += [f"{verb} {file.path}" + (f": {file.reason}" if file.reason else "") for file in files]
        lines += [f"Risk: {risk}" for risk in self.risk_factors]
        return "\n".join(lines)


class Plan(Frozen):
    """A plan as it is kept. Times are unix milliseconds."""

    id: str
    task_id: str
    revision: int  # 1 for the first; one more for each that a rejection led to
    parent_id: str | None = None  # the plan whose rejection led to this one
    state: PlanState
    draft: PlanDraft
    feedback: str = ""  # why it was rejected
    created_at: int
    decided_at: int | None = None
    decided_by: str | None = None
    task_title: str = ""
    task_state: str = ""

    @property
    def status(self) -> str:
        """What a person sees: an approved plan goes the way of its task."""
        if self.state == "approved":
            return {"running": "executing", "completed": "completed", "failed": "failed"}.get(
                self.task_state, "approved"
            )
        return self.state


def read_plan(text: str, *, max_steps: int) -> PlanDraft:
    """The plan in an agent's answer: its last fenced JSON block, or the whole answer. Raises PlanError."""
    document = _document(text)
    try:
        draft = PlanDraft.model_validate(document)
    except ValidationError as invalid:
        raise PlanError("; ".join(_explain(error) for error in invalid.errors()[:5])) from None
    if len(draft.steps) > max_steps:
        raise PlanError(f"it has {len(draft.steps)} steps; at most {max_steps} are allowed")
    return draft


def _document(text: str) -> dict[str, object]:
    fenced = _FENCED.findall(text if text.endswith("\n") else text + "\n")
    begin, end = text.find("{"), text.rfind("}")
    candidates = [*reversed(fenced), text[begin : end + 1] if 0 <= begin < end else ""]
    why = "there is no JSON object in the answer"
    for candidate in filter(str.strip, candidates):
        try:
            document = json.loads(candidate)
        except ValueError as error:
            why = f"its JSON cannot be read: {error}"
            continue
        if isinstance(document, dict):
            return document
        why = "its JSON is not an object"
    raise PlanError(why)


def _explain(error: ErrorDetails) -> str:
    place = ".".join(str(part) for part in error["loc"])
    return f"{place}: {error['msg'].removeprefix('Value error, ')}"

"""What a function that does a task's work is given: the task's documents, and steps that are done once."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from drover.domain.errors import AttemptFailed, UsageError
from drover.domain.models import Claim
from drover.domain.verdicts import Outcome
from drover.store import Store


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at a task. ``blockers`` holds the result of each blocker by its id."""

    task_id: str
    title: str
    input: JsonValue
    blockers: Mapping[str, JsonValue]
    attempt: int
    _steps: Steps = field(repr=False)

    async def step(self, name: str, work: Callable[[], Awaitable[object]]) -> JsonValue:
        """What ``work()`` returned, as JSON: committed under ``name`` before this returns, and recalled ever after.

        A task that is taken up again after a crash does not call ``work`` of a step that has a result. Within one
        task each name may be used once; a new attempt after a failure begins without steps.
        """
        return await self._steps.do(name, work)


class Steps:
    """The checkpoints of one claim, read when the first is asked for."""

    def __init__(self, store: Store, claim: Claim, now: Callable[[], int]) -> None:
        self._store = store
        self._claim = claim
        self._now = now
        self._known: dict[str, str] | None = None
        self._used: set[str] = set()

    async def do(self, name: str, work: Callable[[], Awaitable[object]]) -> JsonValue:
        if name in self._used:
            raise UsageError(f"{self._claim.task_id}: the step {name!r} was asked for twice")
        self._used.add(name)
        if self._known is None:
            recalled = await self._store.claims.recall(self._claim)
            self._known = {step: record.result for step, record in recalled.items()}
        if name not in self._known:
            started_at = self._now()
            result = as_json(await work(), f"step {name!r} of {self._claim.task_id}")
            await self._store.claims.complete_step(self._claim, name, result, started_at=started_at)
            self._known[name] = result
        found: JsonValue = json.loads(self._known[name])
        return found


def as_json(value: object, whose: str) -> str:
    """The value as JSON text; an attempt whose result is none has failed for good."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AttemptFailed(
            Outcome.REFUSED, f"the result of {whose} is not JSON: {error}", advice="return what json.dumps can write"
        ) from error

"""What a step is, and the run of one life: do it, or recall it.

A step's result is committed with the claim's fence, the lease's renewal and an event in one
transaction. A life that is taken up again recalls the steps that have a result and begins at the first
that has none, so the value a step's caller sees is the same the first time and every time after.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Concatenate, Generic, ParamSpec, TypeVar, get_type_hints

from drover.domain.errors import LeaseLost
from drover.domain.models import AgentReport, Claim, Frozen, StepRecord
from drover.domain.verdicts import WAITS
from drover.engine.tools import Tools
from drover.git.commit import TakenTree

P = ParamSpec("P")
R = TypeVar("R", bound=Frozen)


@dataclass(frozen=True)
class Step(Generic[P, R]):
    """A named coroutine with a frozen result. The name is part of the database."""

    name: str
    work: Callable[Concatenate[Run, P], Awaitable[R]]
    result: type[R]


def step(work: Callable[Concatenate[Run, P], Awaitable[R]]) -> Step[P, R]:
    """Make a step of a coroutine function whose return annotation is a frozen model."""
    name = getattr(work, "__name__", "")
    return Step(name=name, work=work, result=get_type_hints(work)["return"])


@dataclass(frozen=True)
class Moved:
    """What a claim found that goes on with work begun on another host, or in another clone.

    ``work`` is the commit that holds it; empty when nothing was saved.
    """

    host: str  # where it was begun
    origin: str  # what it goes on from, in words
    work: str = ""


@dataclass
class Run:
    """One claim being lived: call it with a step, and the step is done or recalled."""

    claim: Claim
    tools: Tools
    recalled: dict[str, StepRecord]
    first_port: int | None = None  # of the ten that what is started for it may listen on
    lease_until: int = 0
    doing: str = ""  # the name of the step under way
    alive_at: int | None = None  # the agent's last sign of life, unix ms
    moved: Moved | None = None
    results: dict[str, Frozen] = field(default_factory=dict)  # of the steps done or recalled so far
    taken: TakenTree | None = None  # what the clone holds since its agent ended

    @property
    def agent(self) -> str:
        """Who works on it."""
        return self.claim.agent or self.tools.agent_of(self.claim.task)

    def __post_init__(self) -> None:
        self.lease_until = self.claim.lease_until

    async def __call__(self, step: Step[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if (record := self.recalled.get(step.name)) is not None:
            return self._remember(step, record.result)
        self.hold()
        started_at = self.tools.clock.now()
        self.doing = step.name
        value = await step.work(self, *args, **kwargs)
        report = value if isinstance(value, AgentReport) else None
        if report is not None and report.outcome in WAITS:
            await self.tools.store.claims.report(self.claim, report)
            return value  # not an end: the same step goes on when what it waits for has come
        recorded, asked = value.model_dump_json(), self.tools.clock.boottime()
        await self.tools.store.claims.complete_step(
            self.claim, step.name, recorded, started_at=started_at, report=report
        )
        self.renewed(asked + self.tools.store.claims.lease_ms)
        return self._remember(step, recorded)

    def _remember(self, step: Step[P, R], recorded: str) -> R:
        value = step.result.model_validate_json(recorded)
        self.results[step.name] = value
        return value

    def hold(self) -> None:
        """Raise :class:`LeaseLost` when the lease has ended by this machine's own clock.

        The clock counts suspended time, so a machine that slept through its lease does not act on it.
        """
        if self.tools.clock.boottime() >= self.lease_until:
            raise LeaseLost(f"the lease on {self.claim.task_id} ended while nobody looked")

    def renewed(self, lease_until: int) -> None:
        """The lease was extended to ``lease_until``."""
        self.lease_until = max(self.lease_until, lease_until)

"""What can be set: every key with its type, range and default."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from drover.domain.budget import Budget, dollars
from drover.domain.models import Frozen, Mode, TestMode, TestScope
from drover.domain.quantities import format_duration, format_size, parse_duration, parse_size, parse_switch
from drover.settings.hooks import HooksTable
from drover.settings.urls import anchor_url, check_url

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def _count(value: object) -> object:
    # pydantic by itself reads True as 1 and 3.0 as 3.
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _written(parse: Callable[[str], int], example: str) -> Callable[[object], int]:
    """A quantity as people write it: text with its unit, or the number 0."""

    def read(value: object) -> int:
        if isinstance(value, str):
            return parse(value)
        if value == 0 and not isinstance(value, bool):
            return 0
        raise ValueError(f"{value!r} has no unit; write it as text, like {example!r}")

    return read


def _between(low: int, high: int, show: Callable[[int], str], *, or_zero: bool = False) -> Callable[[int], int]:
    def check(value: int) -> int:
        if low <= value <= high or (or_zero and value == 0):
            return value
        off = ", or 0 for off" if or_zero else ""
        raise ValueError(f"{show(value)} is out of range; it may be from {show(low)} to {show(high)}{off}")

    return check


def _filled(value: str) -> str:
    if not value.strip():
        raise ValueError(f"{value!r} is empty")
    return value


def _shaped(pattern: str, what: str) -> AfterValidator:
    def check(value: str) -> str:
        if re.fullmatch(pattern, value, re.ASCII):
            return value
        raise ValueError(f"{value!r} is not {what}")

    return AfterValidator(check)


def _template(text: str) -> str:
    if text.strip() and not re.search(r"\{\{ *description *\}\}", text):
        raise ValueError("it has no place for the task's own text: {{description}}")
    return text


def _count_between(low: int, high: int) -> tuple[BeforeValidator, AfterValidator]:
    return BeforeValidator(_count), AfterValidator(_between(low, high, str))


def _switch(value: object) -> object:
    if isinstance(value, str):
        return parse_switch(value)
    if isinstance(value, bool):
        return value
    raise ValueError(f"{value!r} is neither true nor false")


def _money(value: object) -> int:
    """An amount in US dollars → millionths of one. Text is exact, and so is a number as it is written."""
    text = str(value).strip().removeprefix("$") if isinstance(value, int | float | str) else ""
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,12}(\.\d+)?", text, re.ASCII):
        raise ValueError(f"{value!r} is not an amount of dollars; write it like 5 or 2.50")
    return int(Decimal(text) * 1_000_000)


_duration = BeforeValidator(_written(parse_duration, "90s"))
_workers, _few, _attempts = _count_between(1, 256), _count_between(0, 20), _count_between(1, 100)
_lanes, _steps = _count_between(1, 64), _count_between(1, 200)
_tokens, _percent = _count_between(1, 10**15), _count_between(1, 100)
_pool = _count_between(1, 64)
_megabytes = _count_between(0, 1 << 24)

Text = Annotated[str, AfterValidator(_filled)]
Workers = Annotated[int, _workers[0], _workers[1]]
Attempts = Annotated[int, _attempts[0], _attempts[1]]
Few = Annotated[int, _few[0], _few[1]]
Lanes = Annotated[int, _lanes[0], _lanes[1]]
Steps = Annotated[int, _steps[0], _steps[1]]
SessionTime = Annotated[int, _duration, AfterValidator(_between(100, 7 * DAY, format_duration))]
LeaseTime = Annotated[int, _duration, AfterValidator(_between(500, DAY, format_duration))]
StallTime = Annotated[int, _duration, AfterValidator(_between(100, 7 * DAY, format_duration, or_zero=True))]
SnapshotTime = Annotated[int, _duration, AfterValidator(_between(100, DAY, format_duration))]
LogSize = Annotated[
    int, BeforeValidator(_written(parse_size, "64M")), AfterValidator(_between(64 * KIB, 100 * GIB, format_size))
]
WaitTime = Annotated[int, _duration, AfterValidator(_between(10, DAY, format_duration))]
Switch = Annotated[bool, BeforeValidator(_switch)]
PoolSize = Annotated[int, _pool[0], _pool[1]]
Tokens = Annotated[int, _tokens[0], _tokens[1]]
Percent = Annotated[int, _percent[0], _percent[1]]
Money = Annotated[int, BeforeValidator(_money), AfterValidator(_between(100, 10**15, dollars))]
Megabytes = Annotated[int, _megabytes[0], _megabytes[1]]
MemorySize = Annotated[
    int, BeforeValidator(_written(parse_size, "512M")), AfterValidator(_between(16 * MIB, 1 << 50, format_size))
]
FloorSize = Annotated[
    int, BeforeValidator(_written(parse_size, "1G")), AfterValidator(_between(0, 1 << 56, format_size))
]
AgentType = Annotated[str, _shaped(r"[a-z0-9][a-z0-9_-]{0,62}", "a name of small letters, digits, - and _")]
Identifier = Annotated[str, _shaped(r"[a-z0-9][a-z0-9_-]{0,62}", "an id of small letters, digits, - and _")]
VariableName = Annotated[str, _shaped(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")]


class ProjectTable(Frozen):
    """``[project]``: what this repository is called, its stable id, and the branch that work lands on."""

    name: Text | None = None
    id: Identifier | None = None
    target: Text | None = None


class VerifyTable(Frozen):
    """``[verify]``: the tests that run on the tree that will land. Without a command nothing is tested."""

    command: Text | None = None
    mode: TestMode = "strict"
    scope: TestScope = "all"
    timeout_ms: SessionTime = Field(30 * MINUTE, alias="timeout")
    retries: Few = 0


class LandingTable(Frozen):
    """``[landing]``: how finished work reaches the target. ``push`` names a remote to push to, or nothing."""

    style: Literal["squash", "merge"] = "squash"
    conflict_attempts: Few = 2
    parallel: Lanes = 2
    push: Text | None = None


class PlanningTable(Frozen):
    """``[planning]``: what becomes of a plan that an agent made (``--mode planning``)."""

    require_approval: Switch = True
    auto_approve_low: Switch = True
    max_steps: Steps = 20


class BuildingTable(Frozen):
    """``[building]``: how approved plans are carried out (``--mode building``)."""

    approved_only: Switch = True
    verify_steps: Switch = False


class RefinementTable(Frozen):
    """``[refinement]``: how often a rejected plan goes back to an agent with what was wrong."""

    enabled: Switch = True
    max_refinements: Few = 3


class LogsTable(Frozen):
    """``[logs]``: bytes kept of each stream of each attempt."""

    limit: LogSize = 64 * MIB


class DiskTable(Frozen):
    """``[disk]``: with less than ``floor`` bytes free no new task is started; 0 turns that off.

    ``reuse`` directories of landed tasks at most are kept for later ones.
    """

    floor: FloorSize = GIB
    reuse: Few = 8


class BackpressureTable(Frozen):
    """``[backpressure]``: fewer tasks at the same time when a provider refuses or memory is short.

    A refusal for too many requests halves the number, down to ``min_concurrency``; each agent that ends well
    raises it by one, up to ``max_concurrency`` and never above the number of workers.
    """

    enabled: Switch = True
    initial_concurrency: Workers | None = None
    min_concurrency: Workers = 1
    max_concurrency: Workers | None = None
    rate_limit_backoff_ms: WaitTime = Field(30 * SECOND, alias="rate_limit_backoff")
    max_backoff_ms: WaitTime = Field(5 * MINUTE, alias="max_backoff")
    memory_aware_enabled: Switch = True
    memory_threshold_mb: Megabytes = 1024
    memory_critical_mb: Megabytes = 512
    worker_rss_limit_mb: Megabytes = 2048


class WorkerTable(Frozen):
    """``[worker]``: what one agent, with everything it starts, may use of this machine."""

    memory_limit: MemorySize | None = None
    contain: Switch = False


class BudgetTable(Frozen):
    """``[budget]``: what may be spent, in US dollars as agents tell it. Without a limit nothing is held back.

    ``tokens`` is of one run, for agents that tell no price. At ``warn_percent`` of a limit a warning is told.
    """

    task_microusd: Money | None = Field(None, alias="task_usd")
    epic_microusd: Money | None = Field(None, alias="epic_usd")
    run_microusd: Money | None = Field(None, alias="run_usd")
    day_microusd: Money | None = Field(None, alias="day_usd")
    tokens: Tokens | None = None
    estimate_microusd: Money | None = Field(None, alias="estimate_usd")
    warn_percent: Percent = 80

    @property
    def limits(self) -> Budget:
        """As the store asks for it."""
        return Budget(
            task=self.task_microusd, epic=self.epic_microusd, run=self.run_microusd, day=self.day_microusd,
            tokens=self.tokens, estimate=self.estimate_microusd, warn_percent=self.warn_percent,
        )  # fmt: skip


class PoolTable(Frozen):
    """``[pool]``: clones made ahead, with the commands of ``after_create`` already run in them."""

    enabled: Switch = False
    min_size: PoolSize = 2
    max_size: PoolSize = 10
    warmup_ms: SessionTime = Field(5 * MINUTE, alias="warmup")
    cleanup_on_exit: Switch = True
    lock_files: tuple[Text, ...] = (
        "package-lock.json", "pnpm-lock.yaml", "yarn.lock", "bun.lock", "go.sum", "Cargo.lock", "Gemfile.lock",
        "composer.lock", "poetry.lock", "uv.lock", "Pipfile.lock", "requirements.txt",
    )  # fmt: skip


class AgentTable(Frozen):
    """``[agents.TYPE]``: how one type of agent is started.

    ``env`` lists variables passed through from drover's own environment; ``set`` gives values.
    """

    path: Text | None = None
    args: tuple[str, ...] = ()
    model: Text | None = None
    permissions: Text | None = None
    env: tuple[VariableName, ...] = ()
    set: Mapping[VariableName, str] = Field(default_factory=dict)


class Settings(Frozen):
    """Every value that can be set. Attributes ending in ``_ms`` are milliseconds.

    Made by :func:`drover.settings.load`. A value given by the type's own path (``agent_path``) has already
    found its way into ``agents``, so readers ask :meth:`agent_table` alone. ``sources`` maps the dotted key
    as it is written in a file (``verify.timeout``) to where its value came from: ``default``,
    ``environment DROVER_X``, a file's path or ``flag --x``.
    """

    agent: AgentType = "claude"
    agent_path: Text | None = None
    workers: Workers = 3
    task_timeout_ms: SessionTime = Field(60 * MINUTE, alias="task_timeout")
    claim_timeout_ms: LeaseTime = Field(5 * MINUTE, alias="claim_timeout")
    stall_timeout_ms: StallTime = Field(15 * MINUTE, alias="stall_timeout")
    snapshot_every_ms: SnapshotTime = Field(MINUTE, alias="snapshot_every")
    max_attempts: Attempts = 3
    host: Text | None = None
    database_url: Annotated[str, AfterValidator(check_url)] | None = None
    operator: Text | None = None
    guidelines: str = ""
    task_template: Annotated[str, AfterValidator(_template)] = ""
    mode: Mode = "combined"

    project: ProjectTable = ProjectTable()
    verify: VerifyTable = VerifyTable()
    landing: LandingTable = LandingTable()
    planning: PlanningTable = PlanningTable()
    building: BuildingTable = BuildingTable()
    refinement: RefinementTable = RefinementTable()
    logs: LogsTable = LogsTable()
    disk: DiskTable = DiskTable()
    backpressure: BackpressureTable = BackpressureTable()
    worker: WorkerTable = WorkerTable()
    budget: BudgetTable = BudgetTable()
    pool: PoolTable = PoolTable()
    hooks: HooksTable = HooksTable()
    agents: Mapping[AgentType, AgentTable] = Field(default_factory=dict)
    fallback: tuple[AgentType, ...] = Field((), alias="agents.fallback")  # in [agents], beside the types' own tables

    sources: Mapping[str, str] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _lift_fallback(cls, values: object) -> object:
        """``[agents] fallback`` stands among the tables of the types, and is none."""
        agents = values.get("agents") if isinstance(values, dict) else None
        if not isinstance(values, dict) or not isinstance(agents, dict) or "fallback" not in agents:
            return values
        tables = {name: table for name, table in agents.items() if name != "fallback"}
        return {**values, "agents": tables, "agents.fallback": agents["fallback"]}

    def agent_table(self, agent_type: str) -> AgentTable:
        """How that type of agent is started; all defaults when nothing was set for it."""
        return self.agents.get(agent_type) or AgentTable()

    def store_url(self, root: Path) -> str:
        """The URL of the one store of the project at ``root``; a relative SQLite path is relative to ``root``."""
        return anchor_url(self.database_url or "sqlite:///.drover/drover.db", root)

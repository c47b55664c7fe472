"""The values that cross boundaries: frozen, validated, the same in every floor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from drover.domain.states import State, Status, status_of

TestMode = Literal["strict", "lenient", "disabled"]
TestScope = Literal["all", "diff", "skip"]
Mode = Literal["combined", "planning", "building"]
Resumed = Literal["fresh", "continued", "restored", "soft"]

# The steps of a life in their order; a step's name is part of the database.
STEPS = ("prepare_worktree", "let_agent_work", "commit_changes", "verify", "land", "remove_worktree", "publish")


class Frozen(BaseModel):
    """A value: never changed after it was made."""

    # What validates is built when first needed: a command uses few of these, and building all takes 50 ms.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class LastError(Frozen):
    """Why the last attempt failed, and what a person can do."""

    error_class: str
    message: str
    what_to_do: str = ""


class NewTask(Frozen):
    """A task as it is asked for. ``key`` makes adding idempotent: the same key gives the same task."""

    title: str
    description: str = ""
    epic_id: str | None = None
    parent_id: str | None = None
    sequence: int | None = None
    type: str = "other"
    priority: int = 0
    key: str | None = None
    agent: str | None = None
    test_mode: TestMode | None = None
    test_scope: TestScope | None = None
    test_command: str | None = None
    timeout_ms: int | None = None
    max_attempts: int | None = None
    allow_no_change: bool = False
    input: JsonValue = None  # for work that is a function: what it is given
    labels: tuple[str, ...] = ()
    blocked_by: tuple[str, ...] = ()


class Task(Frozen):
    """A task as it is stored, with its edges. Times are unix milliseconds."""

    id: str
    title: str
    description: str = ""
    epic_id: str | None = None
    parent_id: str | None = None
    sequence: int | None = None
    type: str = "other"
    priority: int = 0
    key: str | None = None
    agent: str | None = None
    test_mode: TestMode | None = None
    test_scope: TestScope | None = None
    test_command: str | None = None
    timeout_ms: int | None = None
    max_attempts: int | None = None  # None: the setting decides
    allow_no_change: bool = False

    state: State = State.QUEUED
    reason: str | None = None  # of waiting: backoff, rate_limit, publish, question, …
    detail: str | None = None  # what exactly it waits for, in words
    due_at: int | None = None
    open_blockers: int = 0
    attempt: int = 1  # number of the current attempt; rises after a failed one, never falls
    first_attempt: int = 1  # the number this generation began with; rises when the operator starts it over
    failures: int = 0  # attempts used up in this generation
    conflicts: int = 0
    troubles: int = 0  # internal errors in a row
    executions: int = 0  # how often its agent was started, ever
    interruptions: int = 0
    fence: int = 0  # how often it was claimed, ever
    claimed_by: str | None = None
    error: LastError | None = None
    fresh: bool = False  # its first attempt starts without what an earlier generation left
    landed_commit: str | None = None
    landed_at: int | None = None
    created_at: int = 0
    updated_at: int = 0
    started_at: int | None = None
    completed_at: int | None = None
    created_by: str | None = None
    input: JsonValue = None  # of work that is a function: what it is given, and what it returned
    result: JsonValue = None

    labels: tuple[str, ...] = ()
    blocked_by: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    stranded: bool = False
    executing: bool = False  # its current claim has started the agent
    due: bool = False  # it waited for a time, and the time has come
    plan: Literal["pending", "approved", "rejected"] | None = None  # the state of its newest plan

    @property
    def subtasks(self) -> tuple[str, ...]:
        """Ids of the sub-tasks that come before it."""
        return tuple(id for id in self.blocked_by if id.startswith(f"{self.id}."))

    @property
    def may_change_nothing(self) -> bool:
        """Whether it is done when its agent changes nothing: it was said so, or its sub-tasks may have done it all."""
        return self.allow_no_change or bool(self.subtasks)

    @property
    def needs_person(self) -> bool:
        """Whether it goes on only when a person does something."""
        return self.state is State.PAUSED or (self.state is State.WAITING and self.due_at is None)

    @property
    def status(self) -> Status:
        return status_of(self.state, open_blockers=self.open_blockers, executing=self.executing, due=self.due)


class Epic(Frozen):
    """A container of tasks, with its progress."""

    id: str
    title: str
    description: str = ""
    state: Literal["open", "closed"] = "open"
    created_at: int = 0
    closed_at: int | None = None
    total: int = 0
    completed: int = 0


class Claim(Frozen):
    """One worker's right to write a task: task, fence, worker. Every later write names it."""

    task: Task
    fence: int
    worker_id: str
    lease_until: int  # when this process must have stopped by its own boot clock, ms; never later than by the store's
    first_port: int | None = None  # of the ten ports leased with it
    agent: str | None = None  # who is to work: the task's agent, or one that stands in for it

    @property
    def task_id(self) -> str:
        return self.task.id


class ProcessIdentity(Frozen):
    """A process that cannot be mistaken for another one that got its pid later."""

    boot_id: str
    pid: int
    started: int  # the kernel's start time of the process, in its own ticks

    def __str__(self) -> str:
        return f"{self.boot_id}:{self.pid}:{self.started}"


class Worker(Frozen):
    """One worker coroutine of one drover process."""

    id: str
    host: str
    process: ProcessIdentity
    run_id: str | None = None
    started_at: int = 0
    stopped_at: int | None = None


class Usage(Frozen):
    """What one execution of an agent used; never includes an earlier execution of the session."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    turns: int = 0
    model: str = ""

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        """What both used; the model is the later one's, if it named any."""
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cost_usd=round(self.cost_usd + other.cost_usd, 6),
            turns=self.turns + other.turns,
            model=other.model or self.model,
        )


class Attempt(Frozen):
    """One execution: what one claim of a task came to."""

    task_id: str
    fence: int
    attempt: int
    worker_id: str
    host: str = ""
    agent: str = ""
    process: str | None = None  # ProcessIdentity of the agent's supervisor, as text
    marker: str | None = None  # DROVER_MARKER in the environment of everything it started
    purpose: Literal["build", "plan"] = "build"
    started_at: int
    agent_started_at: int | None = None
    alive_at: int | None = None  # the agent's last sign of life
    ended_at: int | None = None
    outcome: str | None = None
    resumed: Resumed | None = None
    session_id: str | None = None
    usage: Usage = Usage()
    counted: bool = False  # what it used is on record: told at its end, or read back from its log
    asked: bool = False  # in it the agent was asked why it changed nothing
    words: str = ""  # the agent's last
    error: str | None = None
    log: str | None = None
    base: str | None = None  # the commit the attempt started from
    pid: int | None = None
    origin: str | None = None  # how it came by the work that another host had begun, in words


class Word(Frozen):
    """What a person said to a task's agent. Times are unix milliseconds."""

    number: int  # rises in the order in which words were said
    task_id: str
    kind: Literal["hint", "answer"]
    text: str
    question: str | None = None  # what an answer is the answer to
    said_by: str | None = None
    said_at: int = 0
    told_at: int | None = None  # when the agent had it; told again if the execution that was told was cut off
    told_fence: int | None = None
    told_how: Literal["session", "turn"] | None = None  # into the running session, or at the beginning of a turn


class Cost(Frozen):
    """What executions have used, summed by epic, task, agent or day: ``id`` says which."""

    id: str
    title: str = ""
    executions: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_microusd: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class AgentLimit(Frozen):
    """Until when an agent's provider refuses its account. Times are unix milliseconds."""

    agent: str
    until: int
    reason: str  # rate_limited or usage_limit
    detail: str = ""
    noted_at: int = 0


class StepRecord(Frozen):
    """A completed step of an attempt; ``result`` is the JSON of its frozen model."""

    task_id: str
    attempt: int
    name: str
    fence: int
    started_at: int
    finished_at: int
    result: str


class Event(Frozen):
    """One line of the event log, written in the transaction of the change it tells."""

    seq: int
    type: str
    at: int
    task_id: str | None = None
    epic_id: str | None = None
    attempt: int | None = None
    worker: str | None = None
    host: str | None = None
    data: Mapping[str, Any] = Field(default_factory=dict)


class Run(Frozen):
    """One `drover run`: what it was asked for, so that `drover resume` can ask for the same."""

    id: str
    epic_id: str | None = None
    task_ids: tuple[str, ...] = ()
    target: str | None = None
    mode: Mode = "combined"
    workers: int = 1
    host: str = ""
    process: str = ""
    push: str | None = None  # the remote it lands on
    started_at: int = 0
    finished_at: int | None = None
    concurrency: int | None = None  # how many of its workers may be at work, while that is not all
    throttle: str | None = None  # why
    throttled_at: int | None = None
    budget_microusd: int | None = None  # what it may spend


# ---------------------------------------------------------------- results of the steps of a life


class Worktree(Frozen):
    """A private clone, checked out at ``base``, for one attempt."""

    path: str
    base: str  # commit the work starts from; contains every blocker's landed commit
    target: str  # the branch it will land on
    found: bool = False  # it was there already, with work in progress in it
    conflicts: tuple[str, ...] = ()  # paths that hold conflict markers for the agent to resolve


class AgentReport(Frozen):
    """What the agent's execution came to. ``outcome`` is one of :class:`drover.domain.verdicts.Outcome`."""

    outcome: str
    summary: str = ""  # the agent's last words
    reason: str = ""  # why, when it did not end well
    advice: str = ""
    session_id: str | None = None
    resumed: Resumed = "fresh"
    usage: Usage = Usage()
    until: int | None = None  # unix ms: when to try again, for outcomes that wait
    question: str = ""


class Commit(Frozen):
    """The attempt's result as one commit on its base."""

    oid: str
    tree: str
    base: str
    paths: tuple[str, ...] = ()
    more_paths: int = 0  # how many paths beyond those listed

    @property
    def empty(self) -> bool:
        return not self.paths


class Proof(Frozen):
    """The verdict of the tests on one tree."""

    tree: str
    passed: bool
    mode: TestMode
    command: str = ""
    exit_code: int | None = None
    seconds: float = 0.0
    log: str | None = None
    known: bool = False  # the same tree had been tested before
    retries: int = 0


class Landed(Frozen):
    """The task's work as it stands in the target's lane."""

    commit: str
    tree: str
    parent: str
    target: str
    found: bool = False  # it had landed already; nothing was moved
    empty: bool = False  # nothing to land: the task was allowed to change nothing


class Hooked(Frozen):
    """What became of one of the operator's hooks. ``found``: commands that had succeeded before."""

    hook: str
    ran: int = 0
    found: int = 0
    failed: tuple[str, ...] = ()  # "name: why", of hooks that only warn


class Removed(Frozen):
    """The worktree is gone; its work is in the target's lane."""

    path: str


class Published(Frozen):
    """Whether the landed work has reached the target branch, and if not, what is in the way."""

    done: bool
    detail: str = ""


class Landing(Frozen):
    """A row of the landing ledger."""

    task_id: str
    attempt: int
    fence: int
    target: str
    old: str
    commit: str
    tree: str
    state: Literal["intent", "landed", "published", "abandoned"]
    created_at: int = 0
    landed_at: int | None = None
    published_at: int | None = None


# ---------------------------------------------------------------- what a run says at its end


class RunReport(Frozen):
    """What a run came to. ``exit_code`` follows the contract of the command line."""

    completed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()
    stranded: tuple[str, ...] = ()
    needs_person: tuple[str, ...] = ()
    kept: int = 0
    continued: int = 0
    redone: int = 0
    seconds: float = 0.0
    cost_usd: float = 0.0
    tokens: int = 0
    interrupted: bool = False
    over_budget: str = ""  # why tasks that are ready were not begun

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return 130
        undone = self.failed or self.cancelled or self.stranded or self.needs_person or self.over_budget
        return 3 if undone else 0

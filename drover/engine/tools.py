"""What a life is lived with: the store, the repository, the agents."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import anyio

from drover.agents.base import Agent, AgentSettings
from drover.domain.clock import Clock
from drover.domain.models import Task, TestMode, TestScope
from drover.engine.places import Places
from drover.engine.reservations import Reservations
from drover.engine.train import Train
from drover.engine.upstream import Upstream
from drover.git.repo import Identity, Repo
from drover.process import available_memory
from drover.settings import Settings
from drover.store import Store

PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TERM", "TMPDIR", "SHELL")


@dataclass(frozen=True)
class Tools:
    """Everything a life may use. Made once by the app."""

    store: Store
    repo: Repo
    identity: Identity
    settings: Settings
    places: Places
    clock: Clock
    rng: random.Random
    find_agent: Callable[[str], Agent]
    agent_settings: Callable[[str], AgentSettings]
    environ: Mapping[str, str]  # drover's own environment; children get an allow-list of it
    run_id: str
    host: str
    hurry: anyio.Event = field(default_factory=anyio.Event)  # set by the second Ctrl+C
    turn: anyio.Lock = field(default_factory=anyio.Lock)  # one landing at a time in this process
    reservations: Reservations = field(default_factory=Reservations)
    train: Train = field(default_factory=Train)
    publishing: anyio.Lock = field(default_factory=anyio.Lock)  # one publishing at a time in this process
    upstream: Upstream = field(default_factory=Upstream)
    missed: set[str] = field(default_factory=set)  # tasks that found no warm clone since the pool was looked after
    available_memory: Callable[[], int] = available_memory  # bytes
    local_lease_clock: bool = True  # whether leases are measured by this machine's own clock

    @property
    def shared(self) -> bool:
        """Whether other hosts may land on the target: then the remote's branch is the lane of all."""
        return self.settings.landing.push is not None and not self.local_lease_clock

    @property
    def remote(self) -> str:
        """Where landings are pushed to. Only where there is such a place."""
        return str(self.settings.landing.push)

    def passed_on(self, names: Collection[str]) -> dict[str, str]:
        """What of drover's own environment a child process sees that may see these variables, too."""
        return {n: v for n, v in self.environ.items() if n in PASSED_ON or n in names or n.startswith("LC_")}

    def agent_of(self, task: Task) -> str:
        return task.agent or self.settings.agent

    def max_attempts(self, task: Task) -> int:
        return task.max_attempts or self.settings.max_attempts

    def timeout_s(self, task: Task) -> float:
        return (task.timeout_ms or self.settings.task_timeout_ms) / 1000

    def test_mode(self, task: Task) -> TestMode:
        return task.test_mode or self.settings.verify.mode

    def test_scope(self, task: Task) -> TestScope:
        return task.test_scope or self.settings.verify.scope

    def test_command(self, task: Task) -> str | None:
        return task.test_command or self.settings.verify.command

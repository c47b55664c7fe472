"""The laws of the backlog, held after every operation of random histories, on both databases at once.

The same history is played to a SQLite and to a Postgres: both must answer alike, and both must keep the laws.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from drover.domain.errors import DroverError, StoreError
from drover.domain.models import Claim, NewTask, ProcessIdentity, Run, Task, Worker
from drover.domain.states import DEAD, MOVES, TERMINAL, State, Status
from drover.domain.verdicts import Completed, Failed, Outcome, Parked, Released, Retry, Stopped
from drover.store import Store, open_store
from drover.store.postgres import PostgresDatabase
from drover.testing import FakeClock
from tests.postgres_server import Server
from tests.proof.plugin import Tally
from tests.store.conftest import LEASE_MS, alone, say
from tests.store.scenes import landing_of

OPERATOR = {State.QUEUED, State.CANCELLED}  # where an operator's order can bring any task
WORKERS = [
    Worker(id=f"w{n}", host="h", process=ProcessIdentity(boot_id="b", pid=n, started=1)) for n in range(3)
]  # fmt: skip
VERDICTS: dict[str, Callable[[int], Any]] = {
    "parked": lambda now: Parked(reason="rate_limit", until=now + 2_000),
    "question": lambda now: Parked(reason="question"),
    "retry": lambda now: Retry(error_class=Outcome.FAILED, message="no", until=now + 1_000),
    "conflict": lambda now: Retry(error_class=Outcome.CONFLICT, message="no", until=now, charge="conflict"),
    "failed": lambda now: Failed(error_class=Outcome.VERIFY, message="no"),
    "released": lambda now: Released(),
    "pause": lambda now: Stopped(order="pause"),
    "cancel": lambda now: Stopped(order="cancel"),
}


class Backlog(RuleBasedStateMachine):
    """Operators, workers and reapers doing whatever they may, in any order."""

    server: Server | None = None  # None: SQLite alone

    tasks = Bundle("tasks")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(tempfile.mkdtemp(prefix="drover-laws-"))
        self.clock = FakeClock()
        self.portal = self.stack.enter_context(start_blocking_portal("asyncio"))
        urls = [f"sqlite:///{self.folder}/drover.db"]
        if self.server is not None:
            self.database = f"laws{os.getpid()}_{id(self)}"
            alone(say(self.server, f"CREATE DATABASE {self.database} TEMPLATE drover_template STRATEGY file_copy"))
            urls.append(self.server.url(self.database))
        self.stores = [self.open(url) for url in urls]
        self.states: dict[str, State] = {}
        self.fences: dict[str, int] = {}
        self.holders: dict[str, Claim] = {}
        self.ordered = False
        self.seen: dict[str, Task] = {}

    def any(self, *statuses: Status) -> bool:
        return any(t.status in statuses for t in self.seen.values())

    def open(self, url: str) -> Store:
        opening = open_store(url, project_id="test", clock=self.clock, lease_ms=LEASE_MS, rng=random.Random(1))
        store: Store = self.stack.enter_context(self.portal.wrap_async_context_manager(opening))
        if isinstance(store.database, PostgresDatabase):
            store.database.lease_clock = self.clock.boottime
        return store

    def teardown(self) -> None:
        self.stack.close()
        shutil.rmtree(self.folder)
        if self.server is not None:
            alone(say(self.server, f"DROP DATABASE {self.database} WITH (FORCE)"))

    def do(self, act: Callable[[Store], Any]) -> Any:
        """Do it to every store; the answer they agree on, or the error they agree on."""

        async def one(store: Store) -> Any:
            try:
                return await act(store)
            except DroverError as error:
                return error

        answers = [self.portal.call(one, store) for store in self.stores]
        assert len({_shown(answer) for answer in answers}) == 1, answers
        return answers[0]

    # ------------------------------------------------------------ the rules

    @initialize(target=tasks, edges=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8))
    def begin(self, edges: list[tuple[int, int]]) -> Any:
        self.do(lambda s: s.workers.start_run(Run(id="run-1"), WORKERS))
        ids: list[str] = []
        for n in range(6):
            blockers = tuple(ids[a] for a, b in edges if b == n and a < n)
            new = NewTask(title="t", blocked_by=blockers)
            ids.append(self.do(lambda s, new=new: s.tasks.add(new)).id)
        return multiple(*ids)

    @rule(
        target=tasks, priority=st.integers(-1, 1), blockers=st.lists(tasks, max_size=3), parent=st.none() | tasks,
        sequence=st.none() | st.integers(1, 5), key=st.none() | st.sampled_from("ab"),
    )  # fmt: skip
    def add(self, priority: int, blockers: list[str], parent: str | None, sequence: int | None, key: str | None) -> Any:
        new = NewTask(
            title="t", priority=priority, blocked_by=tuple(blockers), parent_id=parent, sequence=sequence, key=key
        )
        task = self.do(lambda s: s.tasks.add(new))
        return task.id if isinstance(task, Task) else multiple()

    @rule(task=tasks, blockers=st.lists(tasks, min_size=1, max_size=2))
    def block(self, task: str, blockers: list[str]) -> None:
        self.do(lambda s: s.tasks.block(task, blockers))

    @rule(task=tasks, blocker=tasks)
    def unblock(self, task: str, blocker: str) -> None:
        self.do(lambda s: s.tasks.unblock(task, [blocker]))

    @precondition(lambda self: self.any(Status.BLOCKED))
    @rule(task=tasks)
    def resolve(self, task: str) -> None:
        self.do(lambda s: s.tasks.resolve(task))

    @rule(task=tasks, order=st.sampled_from(["cancel", "retry", "force", "reset"]))
    def order(self, task: str, order: str) -> None:
        self.ordered = True
        match order:
            case "cancel":
                self.do(lambda s: s.tasks.cancel(task))
            case "reset":
                self.do(lambda s: s.tasks.reset(task))
            case _:
                self.do(lambda s: s.tasks.retry(task, max_attempts=2, force=order == "force"))

    @precondition(lambda self: self.any(Status.READY))
    @rule(target=claims, worker=st.sampled_from(WORKERS), among=st.lists(tasks, max_size=3))
    def claim(self, worker: Worker, among: list[str]) -> Any:
        claim = self.do(lambda s: s.claims.claim(worker, task_ids=among))
        if claim is None:
            return multiple()
        assert claim.fence > self.fences.get(claim.task_id, 0)
        self.fences[claim.task_id] = claim.fence
        self.holders[claim.task_id] = claim
        return claim

    @precondition(lambda self: self.any(Status.READY))
    @rule(worker=st.sampled_from(WORKERS), verdict=st.sampled_from([*VERDICTS, "completed", "published"]))
    def live(self, worker: Worker, verdict: str) -> None:
        """A claim from its beginning to its end."""
        claim = self.claim(worker, [])
        self.the_laws_hold()
        if verdict in VERDICTS:
            self.settle(claim, verdict)
        else:
            self.finish(claim, verdict == "completed")

    @rule(claim=claims)
    def renew(self, claim: Claim) -> None:
        lasting = self.do(lambda s: s.claims.holds(claim))
        renewed = self.do(lambda s: s.claims.renew(claim))
        assert isinstance(renewed, int) is lasting
        assert not lasting or self.holders[claim.task_id] == claim

    @rule(claim=claims, name=st.sampled_from(["prepare_worktree", "verify"]))
    def step(self, claim: Claim, name: str) -> None:
        self.do(lambda s: s.claims.complete_step(claim, name, "{}", started_at=1))

    @rule(claim=claims)
    def land(self, claim: Claim) -> None:
        landed = landing_of(claim)
        self.do(lambda s: s.landings.intend(claim, target="main", old="o", commit=landed.commit, tree="t"))
        self.do(lambda s: s.landings.landed(claim, landed))

    @rule(claim=consumes(claims), verdict=st.sampled_from([*VERDICTS]))
    def settle(self, claim: Claim, verdict: str) -> None:
        mine = self.holders.get(claim.task_id) == claim
        settled = self.do(lambda s: s.claims.settle(claim, VERDICTS[verdict](self.clock.now())))
        assert mine or isinstance(settled, DroverError)

    @rule(claim=consumes(claims), published=st.booleans())
    def finish(self, claim: Claim, published: bool) -> None:
        landed = landing_of(claim)
        self.do(lambda s: s.landings.landed(claim, landed))
        if published:
            self.do(lambda s: s.claims.settle(claim, Completed(landed=landed)))
        else:
            self.do(lambda s: s.claims.settle(claim, Parked(reason="publish", landed=landed)))

    @precondition(lambda self: any(t.reason == "publish" for t in self.seen.values()))
    @rule()
    def publish(self) -> None:
        async def all_of_them(store: Store) -> None:
            await store.landings.published(await store.landings.unpublished(), "main")

        self.do(all_of_them)

    @precondition(lambda self: self.holders)
    @rule(dead=st.booleans())
    def rescue(self, dead: bool) -> None:
        async def rescue(store: Store) -> list[bool]:
            return [await store.claims.rescue(held, dead=dead) for held in await store.claims.running()]

        self.do(rescue)

    @precondition(lambda self: self.any(Status.WAITING, Status.CLAIMED))
    @rule(seconds=st.sampled_from([1.0, 2.0, LEASE_MS / 1000]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # ------------------------------------------------------------ the laws

    @invariant()
    def counters_are_what_they_count(self) -> None:
        assert self.do(lambda s: s.tasks.miscounted()) == []

    @invariant()
    def the_laws_hold(self) -> None:
        tasks: dict[str, Task] = {t.id: t for t in self.do(lambda s: s.tasks.list_tasks())}
        self.seen = tasks
        running = {h.task_id: h.fence for h in self.do(lambda s: s.claims.running())}
        assert running == {id: t.fence for id, t in tasks.items() if t.state is State.RUNNING}
        for id, task in tasks.items():
            assert task.fence == self.fences.get(id, 0)
            assert (task.status is Status.READY) <= all(tasks[b].landed_at is not None for b in task.blocked_by)
            assert task.stranded == _is_stranded(tasks, task)
            self._moved(id, task)
        self.holders = {id: claim for id, claim in self.holders.items() if running.get(id) == claim.fence}
        self.ordered = False
        counts = self.do(lambda s: s.tasks.counts())
        assert {s: n for s, n in counts.items() if n} == _tally([t.status for t in tasks.values()])

    def _moved(self, id: str, task: Task) -> None:
        before = self.states.get(id)
        self.states[id] = task.state
        if before in (None, task.state):
            return
        legal = {to for (start, _), to in MOVES.items() if start is before}
        # A claim wakes what is due on its way, and a retry may queue at once.
        legal |= {State.RUNNING} if before is State.WAITING else set()
        legal |= {State.QUEUED} if before is State.RUNNING else set()
        legal |= OPERATOR if self.ordered else set()
        assert task.state in legal, f"{before} → {task.state}"
        if before in TERMINAL:
            assert self.ordered, f"{before} was not final"


def _is_stranded(tasks: dict[str, Task], task: Task) -> bool:
    """By its definition: unfinished, and one that it waits for is dead or stranded."""
    if task.state not in (State.QUEUED, State.WAITING, State.PAUSED) or task.landed_at is not None:
        waits = bool(task.open_blockers) and task.state in (State.QUEUED, State.WAITING, State.PAUSED)
    else:
        waits = bool(task.open_blockers)
    return waits and any(_holds_up(tasks, tasks[b]) for b in task.blocked_by)


def _holds_up(tasks: dict[str, Task], blocker: Task) -> bool:
    if blocker.landed_at is not None:
        return False
    return blocker.state in DEAD or any(_holds_up(tasks, tasks[b]) for b in blocker.blocked_by)


def _tally(statuses: list[Status]) -> dict[Status, int]:
    return {status: statuses.count(status) for status in set(statuses)}


def _shown(answer: object) -> str:
    if isinstance(answer, StoreError):
        return type(answer).__name__  # what a database says is its own
    if isinstance(answer, DroverError):
        return f"{type(answer).__name__}: {answer}"
    return repr(answer)


def play(server: Server | None, tally: Tally, *, examples: int, steps: int, part: int = 0) -> None:
    """So many histories, drawn anew each time; ``part`` makes them the same each time, and others for each part."""
    played = 0

    class Play(Backlog):
        def teardown(self) -> None:
            nonlocal played
            played += 1
            super().teardown()

    Play.server = server
    run_state_machine_as_test(
        seed(part)(Play) if part else Play,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    tally(points=played, seed=part or None)


@pytest.mark.suite("T9")
@pytest.mark.timeout(300)  # a history that breaks a law takes long to be made short
def test_the_laws_hold_through_any_history(tally: Tally) -> None:
    play(None, tally, examples=50, steps=30)


@pytest.mark.suite("T9", "T10")
@pytest.mark.timeout(300)
def test_both_databases_tell_the_same_story(postgres: Server, tally: Tally) -> None:
    play(postgres, tally, examples=12, steps=30)


@pytest.mark.suite("T9", "T10")
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(1, 9))
def test_both_databases_tell_the_same_long_stories(postgres: Server, part: int, tally: Tally) -> None:
    play(postgres, tally, examples=250, steps=50, part=part)

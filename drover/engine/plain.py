"""The life without git: a task's work is one function of this process, and its result is a document.

The same claims, leases, fences, steps, retries and events as with git. A worker closes one claim and takes
its next in one transaction, and is told how many tasks that set free, so it wakes as many others and no herd.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import anyio

from drover.domain.clock import Clock
from drover.domain.errors import AttemptFailed, DiskFull, DroverError, LeaseLost, StoreUnavailable
from drover.domain.models import Claim, Task, Worker
from drover.domain.policy import heartbeat_ms
from drover.domain.verdicts import Outcome, Released, Verdict, judge
from drover.engine.job import Job, Steps, as_json
from drover.process import boot_id, is_alive
from drover.store import Store
from drover.store.plain import Taken

log = logging.getLogger(__name__)

Work = Callable[[Job], Awaitable[object]]

LOOK_S = 5.0  # the safety net behind the bell
PATROL_S = 2.0  # how soon the death of another process on this host is noticed
FAREWELL_S = 5.0  # to give the leases back when stopped
GATHER_S = 0.05  # rings come in swarms; one look at the leases answers them all


@dataclass(frozen=True)
class PlainTools:
    """What a life without git is lived with."""

    store: Store
    clock: Clock
    rng: random.Random
    work: Work
    host: str
    max_attempts: int


@dataclass(slots=True)
class _Held:
    """A claim under way, and the scope its work runs in."""

    claim: Claim
    scope: anyio.CancelScope
    lost: bool = False


class PlainCrew:
    """The workers of one run in one task group."""

    def __init__(self, tools: PlainTools, workers: Sequence[Worker], stop: anyio.Event, *, forever: bool) -> None:
        self._tools = tools
        self._workers = workers
        self._stop = stop
        self._forever = forever
        self._held: dict[str, _Held] = {}
        self._idle = Waiting()
        self._over = False
        self._renewed_at = tools.clock.boottime()
        self.resumed: set[str] = set()  # tasks taken up again

    async def work(self) -> None:
        """Until nothing is ready, running or waiting for a time; or until stopped, or for ever."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._end_when_stopped, group.cancel_scope, name="stop")
            group.start_soon(self._keep_leases, name="leases")
            group.start_soon(self._patrol, name="reaper")
            for worker in self._workers:
                group.start_soon(self._serve, worker, name=f"worker {worker.id}")
            group.start_soon(self._look_out, group.cancel_scope, name="lookout")

    async def _end_when_stopped(self, scope: anyio.CancelScope) -> None:
        await self._stop.wait()
        self._over = True
        scope.cancel()

    # ------------------------------------------------------------ one worker

    async def _serve(self, worker: Worker) -> None:
        ticket = self._idle.ticket()
        taken = await self._claim(worker)
        while not self._over:
            if taken is None:
                if not self._held:
                    self._tools.store.bell.ring()  # that may have been the last: let the lookout see
                await self._idle.wait(ticket)
                ticket = self._idle.ticket()
                taken = await self._claim(worker)
            else:
                ticket = self._idle.ticket()
                taken = await self._attend(worker, taken)
        if taken is not None:
            await self._give_back(taken.claim)

    async def _claim(self, worker: Worker) -> Taken | None:
        # Shielded: a claim made for somebody who no longer listens would be held until its lease ends.
        taken: Taken | None = None
        with anyio.CancelScope(shield=True):
            try:
                taken = await self._tools.store.plain.claim(worker)
            except (StoreUnavailable, DiskFull) as trouble:
                log.warning("no claim can be made now: %s", trouble.message)
        return taken

    async def _attend(self, worker: Worker, taken: Taken) -> Taken | None:
        """Do the work and settle the claim, whatever it comes to; what the worker took next."""
        claim, follows = taken.claim, None
        if claim.task.interruptions:
            self.resumed.add(claim.task_id)
        try:
            follows = await self._settle(worker, claim, await self._do(taken))
        except LeaseLost as lost:
            log.info("%s", lost.message)
        except (StoreUnavailable, DiskFull) as trouble:
            # The claim stays ours until its lease ends; then somebody takes it up from its last step.
            log.warning("%s could not be settled: %s", claim.task_id, trouble.message)
        except anyio.get_cancelled_exc_class():
            await self._give_back(claim)
            raise
        return follows

    async def _do(self, taken: Taken) -> str | Verdict | None:
        """The result as JSON, or the verdict on an attempt that came to none. Raises :class:`LeaseLost`."""
        claim, task = taken.claim, taken.claim.task
        job = Job(
            task.id, task.title, task.input, taken.results, task.attempt,
            Steps(self._tools.store, claim, self._tools.clock.now),
        )  # fmt: skip
        with anyio.CancelScope() as scope:
            held = self._held[task.id] = _Held(claim, scope)
            try:
                await anyio.lowlevel.checkpoint_if_cancelled()
                value = await self._within_time(job, task)
                return None if value is None else as_json(value, task.id)
            except (LeaseLost, StoreUnavailable, DiskFull):
                raise
            except Exception as error:  # noqa: BLE001 - the work may raise what it likes; that is judged
                return self._judged(task, error)
            finally:
                del self._held[task.id]
        raise LeaseLost(f"{task.id} was taken from {claim.worker_id}" if held.lost else f"{task.id} was given up")

    async def _within_time(self, job: Job, task: Task) -> object:
        if task.timeout_ms is None:
            return await self._tools.work(job)
        with anyio.move_on_after(task.timeout_ms / 1000):
            return await self._tools.work(job)
        raise AttemptFailed(Outcome.TIMEOUT, f"no result within {task.timeout_ms / 1000:g} s")

    def _judged(self, task: Task, error: Exception) -> Verdict:
        tools = self._tools
        if not isinstance(error, DroverError):
            log.info("%s failed", task.id, exc_info=error)
            error = AttemptFailed(Outcome.FAILED, f"{type(error).__name__}: {error}")
        return judge(
            error,
            failures=task.failures,
            conflicts=task.conflicts,
            troubles=task.troubles,
            max_attempts=task.max_attempts or tools.max_attempts,
            conflict_attempts=0,
            now=tools.clock.now(),
            rng=tools.rng,
        )

    async def _settle(self, worker: Worker, claim: Claim, outcome: str | Verdict | None) -> Taken | None:
        """Whatever becomes of the caller: both verbs are lived to their end."""
        store = self._tools.store
        if not (outcome is None or isinstance(outcome, str)):
            with anyio.CancelScope(shield=True):
                await store.claims.settle(claim, outcome)
            return None
        finished = await store.plain.finish(claim, outcome, then=None if self._over else worker, idle=len(self._idle))
        self._idle.wake(finished.spare)
        return finished.next

    async def _give_back(self, claim: Claim) -> None:
        """Stopped in the middle: the attempt is not used up."""
        with anyio.move_on_after(FAREWELL_S, shield=True):
            try:
                await self._tools.store.claims.settle(claim, Released())
            except (LeaseLost, StoreUnavailable, DiskFull) as trouble:
                log.info("%s", trouble.message)

    # ------------------------------------------------------------ beside the workers

    async def _look_out(self, scope: anyio.CancelScope) -> None:
        """Wake workers for what others made ready or time made due; end the run when nothing is left to wait for."""
        store = self._tools.store
        while True:
            ticket, wait_s = store.bell.ticket(), LOOK_S
            try:
                ahead = await store.plain.prospect(len(self._workers))
                if ahead.due:
                    await store.plain.wake_due()
                    continue
            except (StoreUnavailable, DiskFull):
                await store.bell.wait(ticket, LOOK_S)
                continue
            self._idle.wake(ahead.ready)
            if not (self._forever or self._held or ahead.ready or ahead.running or ahead.due_at is not None):
                self._over = True
                scope.cancel()
                return
            if ahead.due_at is not None:
                wait_s = min(LOOK_S, max(0.0, (ahead.due_at - self._tools.clock.now()) / 1000))
            with anyio.move_on_after(wait_s):
                await store.bell.wait(ticket, wait_s)
                await self._idle.somebody()  # what became ready meanwhile can be begun by nobody before

    async def _keep_leases(self) -> None:
        """Renew what is held; stop the work of a claim that was taken away."""
        store = self._tools.store
        beat_s = heartbeat_ms(store.plain.lease_ms) / 1000
        ticket, next_beat = store.bell.ticket(), anyio.current_time() + beat_s
        while True:
            rang = await store.bell.wait(ticket, max(0.0, next_beat - anyio.current_time()))
            if rang and self._held:
                await anyio.sleep(GATHER_S)
            ticket, held = store.bell.ticket(), dict(self._held)
            beating = anyio.current_time() >= next_beat
            if beating:
                next_beat = anyio.current_time() + beat_s
            if not held:
                self._renewed_at = self._tools.clock.boottime()
                continue
            try:
                if beating:
                    asked_at = self._tools.clock.boottime()
                    standing = await store.plain.renew([h.claim for h in held.values()])
                    self._renewed_at = asked_at
                else:
                    standing = await store.plain.standing()
            except (StoreUnavailable, DiskFull):
                standing = self._as_far_as_known(held)
                next_beat = min(next_beat, anyio.current_time() + min(beat_s, 1.0))
            for id, mine in held.items():
                if (id, mine.claim.fence) not in standing and self._held.get(id) is mine:
                    mine.lost = True
                    mine.scope.cancel()

    def _as_far_as_known(self, held: dict[str, _Held]) -> set[tuple[str, int]]:
        """While the store is away a claim is believed in until shortly before its lease could have ended."""
        lease_ms = self._tools.store.plain.lease_ms
        if self._tools.clock.boottime() > self._renewed_at + lease_ms - 2 * heartbeat_ms(lease_ms):
            return set()
        return {(id, h.claim.fence) for id, h in held.items()}

    async def _patrol(self) -> None:
        while True:
            await anyio.sleep(PATROL_S)
            try:
                await take_back(self._tools.store, self._tools.host)
            except (StoreUnavailable, DiskFull) as trouble:
                log.warning("%s", trouble.message)


async def take_back(store: Store, host: str) -> list[str]:
    """Claims of this host's dead workers, and claims whose lease has ended, are queued again; their tasks.

    The work died with its process, so nothing has to be ended before.
    """
    workers = await store.workers.list_workers()
    dead = {
        w.id for w in workers
        if w.host == host and not (w.process.boot_id == boot_id() and is_alive(w.process))
    }  # fmt: skip
    expired = set(await store.claims.expired())
    done = []
    if dead or expired:
        for held in await store.claims.running():
            gone = held.worker.id in dead
            if (gone or held.task_id in expired) and await store.claims.rescue(held, dead=gone):
                done.append(held.task_id)
    for id in dead:
        await store.workers.stop(id)
    return done


@dataclass
class Waiting:
    """Idle workers. As many are woken as there are tasks for them: waking all would be a herd of empty claims."""

    _sleepers: deque[anyio.Event] = field(default_factory=deque)
    _calls: int = 0
    _came: anyio.Event = field(default_factory=anyio.Event)

    def ticket(self) -> int:
        """Taken before looking; :meth:`wait` with it returns at once if somebody was called since."""
        return self._calls

    def wake(self, count: int) -> None:
        if count <= 0:
            return
        self._calls += 1
        for _ in range(min(count, len(self._sleepers))):
            self._sleepers.popleft().set()

    def __len__(self) -> int:
        return len(self._sleepers)

    async def somebody(self) -> None:
        """Returns when there is one of them."""
        if not self._sleepers:
            await self._came.wait()

    async def wait(self, ticket: int) -> None:
        if ticket != self._calls:
            return
        event = anyio.Event()
        self._sleepers.append(event)
        self._came.set()
        self._came = anyio.Event()
        try:
            await event.wait()
        finally:
            if event in self._sleepers:
                self._sleepers.remove(event)

"""The workers of one run: each claims what is ready, lives it, settles it, until nothing is left to do."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import anyio

from drover.domain.errors import (
    AttemptFailed,
    DiskFull,
    DroverError,
    GitError,
    LeaseLost,
    OutcomeUnknown,
    StoreUnavailable,
    says_disk_full,
)
from drover.domain.models import Claim, Mode, Worker
from drover.domain.policy import heartbeat_ms
from drover.domain.verdicts import Completed, Parked, Planned, Released, Retry, Verdict, judge
from drover.engine import (
    carrying,
    hosts,
    planning,
    pool,
    ports,
    publishing,
    reaper,
    session_files,
    space,
    usage,
    workplace,
)
from drover.engine.life import live
from drover.engine.past import CUT_OFF
from drover.engine.purse import LOOK_S, Purse
from drover.engine.steps import Run
from drover.engine.throttle import Throttle
from drover.engine.tools import Tools
from drover.git import reuse
from drover.process import end_marked
from drover.settings import HookName, Settings
from drover.store.tasks import Choice

log = logging.getLogger(__name__)

IDLE_LOOK_S = 5.0  # the safety net behind the bell
FAREWELL_S = 8.0  # to save the work and give the lease back when stopped
PUBLISH_EVERY_S = 2.0  # how often an operator's checkout that is in the way is looked at
LIFE_GRACE_S = 3.0
GATHER_S = 0.2  # rings come in swarms; one look at a lease answers them all
WRITERS_IDLE_S = 10.0  # a git that moves refs is kept for as long as that without work
FINISH_S = 3.0  # of the farewell, for what has landed
AFTER_LANDING: tuple[HookName, ...] = ("post_land", "before_remove")
TIDY_EVERY_S = 60.0  # how soon the remote is rid of what was kept there of finished tasks


class Scope(NamedTuple):
    """Which tasks a run drives; all of them when both are empty."""

    epic_id: str | None = None
    task_ids: tuple[str, ...] = ()
    choice: Choice = "ready"


def choice_of(mode: Mode, settings: Settings) -> Choice:
    """Which tasks a run of that mode takes."""
    if mode == "planning":
        return "to_plan"
    return "to_build" if mode == "building" and settings.building.approved_only else "ready"


@dataclass
class Stop:
    """How a run is told to end. Safe to call from a signal handler of the event loop."""

    soft_asked: anyio.Event = field(default_factory=anyio.Event)
    hurry: anyio.Event = field(default_factory=anyio.Event)

    def soft(self) -> None:
        """Claim nothing more, end the agents gently, give the leases back."""
        self.soft_asked.set()

    def hard(self) -> None:
        """As :meth:`soft`, and kill the agents at once."""
        self.soft_asked.set()
        self.hurry.set()


class Crew:
    """The workers of one run in one task group."""

    def __init__(
        self, tools: Tools, workers: Sequence[Worker], scope: Scope, stop: Stop, *, forever: bool, patient: bool = False
    ) -> None:
        self._tools = tools
        self._workers = workers
        self._scope = scope
        self._stop = stop
        self._forever = forever
        self._patient = patient  # stays for what waits for a person
        self._short = ""  # of disk space or memory; told once each time
        self._throttle = Throttle(tools, len(workers))
        self._purse = Purse(tools)
        self._keeper = pool.Keeper(tools)
        # A life under its lease waits for a server that is away; whoever guards the lease must not.
        self._waiting = replace(tools, store=tools.store.patient())
        self._away = False  # the server; told once each time
        self._in_doubt: set[str] = set()  # workers who may have got a claim and were not told
        self._asking: set[anyio.CancelScope] = set()  # claims that are asked for just now
        self._over = anyio.Event()  # nothing is left to do, or the run was told to end
        self.resumed: dict[str, str] = {}  # task → continue or redo, of those taken up again

    async def work(self) -> None:
        """Until nothing is ready, running or waiting for a time in the scope; or until stopped, or for ever."""
        repo = self._tools.repo
        async with repo.keeping_writers(), anyio.create_task_group() as group:
            group.start_soon(
                reaper.every, WRITERS_IDLE_S, partial(repo.end_idle_writers, WRITERS_IDLE_S), name="writers"
            )
            group.start_soon(self._end_when_stopped, group.cancel_scope, name="stop")
            group.start_soon(reaper.patrol, self._tools, name="reaper")
            group.start_soon(self._keep_publishing, name="publisher")
            if self._tools.settings.pool.enabled:
                group.start_soon(self._keep_pool, name="pool")
            if self._purse.budget is not None:
                group.start_soon(reaper.every, LOOK_S, self._purse.look, name="purse")
            group.start_soon(hosts.keep_seen, self._tools, name="presence")
            if self._tools.shared:
                group.start_soon(reaper.every, TIDY_EVERY_S, partial(carrying.tidy, self._tools), name="tidier")
            async with anyio.create_task_group() as crew:
                for worker in self._workers:
                    crew.start_soon(self._serve, worker, name=f"worker {worker.id}")
            if self._tools.shared:
                await carrying.tidy(self._tools)
            group.cancel_scope.cancel()
        if self._tools.settings.pool.enabled and not self._stop.soft_asked.is_set():
            await self._keeper.leave()

    async def _keep_pool(self) -> None:
        """Warm clones while the run lasts; those that are left go with it, but for a run that was stopped."""
        await self._keeper.look()
        await reaper.every(pool.LOOK_S, self._keeper.look)

    @property
    def over_budget(self) -> str:
        """Why tasks that were ready at the end had not been begun; empty when that was not for want of money."""
        return self._purse.over

    async def _end_when_stopped(self, scope: anyio.CancelScope) -> None:
        await self._stop.soft_asked.wait()
        self._over.set()
        for asking in self._asking:
            asking.deadline = anyio.current_time() + FAREWELL_S
        scope.cancel()

    async def _serve(self, worker: Worker) -> None:
        bell = self._tools.store.bell
        while not self._over.is_set():
            if not self._throttle.enter():
                await self._throttle.wait()
                continue
            ticket = bell.ticket()
            try:
                claim = await self._claim(worker)
                with anyio.CancelScope(shield=claim is not None):  # one that was got is attended to, if only to end
                    await self._throttle.tell()
                if claim is not None:
                    await self._attend_to_the_end(worker, claim)
                    continue
            finally:
                self._throttle.leave()
            wait_s = await self._look_ahead()
            if wait_s is None:
                self._over.set()
                bell.ring()  # the others look too, and leave
                self._throttle.ring()
                return
            await bell.wait(ticket, wait_s)

    async def _claim(self, worker: Worker) -> Claim | None:
        shortage = space.find_shortage(self._tools.places, self._tools.settings)
        if shortage is not None and await reuse.drop(self._tools.places.reuse.parent):
            shortage = space.find_shortage(self._tools.places, self._tools.settings)
        shortage = shortage or self._throttle.find_memory_shortage()
        if shortage is not None:
            if not self._short:
                log.warning("%s", shortage)
            self._short = shortage
            return None
        self._short = ""
        return await self._ask_for_claim(worker, self._scope)

    async def _ask_for_claim(self, worker: Worker, scope: Scope) -> Claim | None:
        """None, too, when the store is away. A claim whose answer was lost is found by asking again."""
        claims, claim = self._tools.store.claims, None
        try:
            if worker.id in self._in_doubt:
                claim = await claims.find_held(worker)
                self._in_doubt.discard(worker.id)
            if claim is None:
                with self._answered():
                    claim = await claims.claim(
                        worker,
                        epic_id=scope.epic_id,
                        task_ids=scope.task_ids,
                        agent=self._tools.settings.agent,
                        fallback=self._tools.settings.fallback,
                        choice=scope.choice,
                        budget=self._purse.budget,
                    )
        except (StoreUnavailable, DiskFull) as trouble:
            if isinstance(trouble, OutcomeUnknown):
                self._in_doubt.add(worker.id)
            if not self._away:
                log.warning("no claim can be made now: %s", trouble.message)
            self._away = True
            return None
        self._away = False
        return claim

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """Shielded: a claim made for somebody who no longer listens would be held until its lease ends."""
        with anyio.CancelScope(shield=True) as asking:
            self._asking.add(asking)
            try:
                yield
            finally:
                self._asking.discard(asking)

    async def _look_ahead(self) -> float | None:
        """Seconds until it is worth looking again at the latest; None when there is nothing left to wait for."""
        try:
            outlook = await self._tools.store.tasks.outlook(**self._scope._asdict())
            refusal = await self._purse.refusal() if outlook.ready else None
        except (StoreUnavailable, DiskFull):
            return IDLE_LOOK_S
        if outlook.done and not self._forever and not (self._patient and outlook.person):
            return None
        if refusal is not None and refusal.line.used_up and refusal.until is None and not outlook.running:
            # What waits for a time would find nothing to be paid with either.
            return IDLE_LOOK_S if self._forever or self._patient else None
        if outlook.due_at is not None:
            return min(IDLE_LOOK_S, max(0.02, (outlook.due_at - self._tools.clock.now()) / 1000))
        return IDLE_LOOK_S

    # ------------------------------------------------------------ one claim

    async def _attend_to_the_end(self, worker: Worker, first: Claim) -> None:
        """The claim, and the turns that follow a conflict: the same worker resolves while the place is reserved."""
        claim: Claim | None = first
        try:
            while claim is not None:
                verdict = await self._attend(claim)
                again = isinstance(verdict, Retry) and verdict.charge != "attempt" and not self._over.is_set()
                claim = await self._ask_for_claim(worker, Scope(task_ids=(claim.task_id,))) if again else None
        finally:
            self._tools.reservations.release(first.task_id)

    async def _attend(self, claim: Claim) -> Verdict | None:
        """Live the claim to its verdict and settle it; None when the claim was lost.

        Whatever happens inside stays inside, but for cancellation.
        """
        run, begun_at = Run(claim, self._waiting, {}), self._tools.clock.now()
        try:
            with self._as_long_as_leased(run):
                run.recalled = await run.tools.store.claims.recall(claim)
                if (taken_up := await self._taken_up(run)) is not None:
                    self.resumed[claim.task_id] = taken_up
            async with ports.ten(run.tools, claim) as run.first_port:
                verdict = await self._live_under_lease(run)
            worked = "let_agent_work" in run.results and "let_agent_work" not in run.recalled
            self._throttle.heard(verdict, begun_at=begun_at, worked=worked)
            await self._farewell(run, verdict)
            return verdict
        except LeaseLost as lost:
            log.info("%s", lost.message)
            await self._leave(claim)
        except (StoreUnavailable, DiskFull) as trouble:
            # The claim stays ours until its lease ends; then somebody takes it up from its last step.
            log.warning("%s could not be settled: %s", claim.task_id, trouble.message)
            await self._leave(claim)
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(FAREWELL_S, shield=True):
                await self._give_back(claim, run)
            raise
        return None

    @contextmanager
    def _as_long_as_leased(self, run: Run) -> Iterator[None]:
        """For what waits for a server that is away while no heartbeat watches: :class:`LeaseLost` in time."""
        with anyio.move_on_after(max(0.0, (run.lease_until - self._tools.clock.boottime()) / 1000)) as patience:
            yield
        if patience.cancelled_caught:
            raise LeaseLost(f"the lease on {run.claim.task_id} ended while the database was away")

    async def _taken_up(self, run: Run) -> str | None:
        """Whether the last execution was cut off, and if so whether this one goes on with it or does it again."""
        claim, claims = run.claim, run.tools.store.claims
        if not claim.task.interruptions:
            return None
        earlier = [a for a in await claims.attempts(claim.task_id) if a.fence < claim.fence]
        if not earlier or earlier[-1].outcome not in CUT_OFF:
            return None
        finished = await claims.steps(claim.task_id, claim.task.attempt)
        return "continue" if earlier[-1].session_id or len(finished) > 1 else "redo"

    async def _live_under_lease(self, run: Run) -> Verdict:
        """The verdict of the life; an ordinary exception is judged. Cancelled when the lease is lost."""
        tools, task = self._tools, run.claim.task
        outcome: list[Verdict | LeaseLost] = []

        async def life(scope: anyio.CancelScope) -> None:
            try:
                planned = self._scope.choice == "to_plan" or task.plan == "rejected"
                if tools.shared and not planned:
                    await carrying.arrive(run)
                outcome.append(await (planning.live(run) if planned else live(run)))
            except LeaseLost as lost:
                outcome.append(lost)
            except Exception as error:
                if not (isinstance(error, AttemptFailed | DroverError) or says_disk_full(error)):
                    log.exception("%s: unexpected trouble", task.id)
                outcome.append(
                    judge(
                        error,
                        failures=task.failures,
                        conflicts=task.conflicts,
                        troubles=task.troubles,
                        max_attempts=tools.max_attempts(task),
                        conflict_attempts=tools.settings.landing.conflict_attempts,
                        now=tools.clock.now(),
                        rng=tools.rng,
                    )
                )
            scope.cancel()

        async def beat(scope: anyio.CancelScope) -> None:
            try:
                await self._keep_lease(run)
            except DroverError as trouble:
                # A store that fails for good is as good as a lost lease: nothing can be recorded any more.
                lost = trouble if isinstance(trouble, LeaseLost) else LeaseLost(f"{task.id}: {trouble.message}")
                outcome.insert(0, lost)
                scope.cancel()

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(beat, group.cancel_scope, name=f"heartbeat {task.id}")
                group.start_soon(self._keep_saving, run, name=f"snapshots {task.id}")
                group.start_soon(life, group.cancel_scope, name=f"life {task.id}")
        finally:
            tools.train.leave(task.id)  # before its farewell: those behind it need not wait for that
        first = outcome[0]
        if isinstance(first, LeaseLost):
            raise first
        return first

    async def _keep_lease(self, run: Run) -> None:
        """Renew while it lasts; notice at once when the claim is taken away. Ends only by :class:`LeaseLost`."""
        tools, claims = self._tools, self._tools.store.claims
        beat_s = heartbeat_ms(claims.lease_ms) / 1000
        ticket, next_beat = tools.store.bell.ticket(), anyio.current_time() + beat_s
        while True:
            rang = await tools.store.bell.wait(ticket, max(0.0, next_beat - anyio.current_time()))
            if rang:
                await anyio.sleep(GATHER_S)
            ticket = tools.store.bell.ticket()  # before the look: what changes during it is looked at, too
            try:
                if rang and anyio.current_time() < next_beat:
                    with anyio.fail_after(max(1.0, self._left_s(run, beat_s))):
                        held = await claims.holds(run.claim)
                    if not held:
                        raise LeaseLost(f"{run.claim.task_id} was taken from {run.claim.worker_id}")
                    continue
                with anyio.fail_after(max(1.0, self._left_s(run, beat_s))):  # a server may take longer to say nothing
                    run.renewed(await claims.renew(run.claim, alive_at=run.alive_at))
                next_beat = anyio.current_time() + beat_s
            except (StoreUnavailable, DiskFull, TimeoutError):
                if self._left_s(run, beat_s) <= 0:
                    raise LeaseLost(f"the lease on {run.claim.task_id} could not be renewed") from None
                next_beat = anyio.current_time() + min(beat_s, 1.0)

    def _left_s(self, run: Run, beat_s: float) -> float:
        """How long the agent may go on unless the lease is renewed.

        Two beats before the end it has to be stopped: nobody could record what it does after that.
        """
        return (run.lease_until - self._tools.clock.boottime()) / 1000 - 2 * beat_s

    async def _keep_saving(self, run: Run) -> None:
        """While the agent works, save what it has written now and then."""
        while True:
            await anyio.sleep(self._tools.settings.snapshot_every_ms / 1000)
            if run.doing == "let_agent_work":
                await self._save(run.claim, carrying.push_snapshot)

    async def _farewell(self, run: Run, verdict: Verdict) -> None:
        """Save the work where it has not landed, then settle; while the store is away, as long as the lease lasts."""
        claim = run.claim
        with anyio.CancelScope(shield=True):
            if not isinstance(verdict, Completed | Planned) and not (isinstance(verdict, Parked) and verdict.landed):
                await self._save(claim)
            try:
                await self._tools.store.claims.settle(claim, verdict)
                return
            except (StoreUnavailable, DiskFull) as trouble:
                log.info("%s waits to be settled: %s", claim.task_id, trouble.message)
        with self._as_long_as_leased(run):
            await self._waiting.store.claims.settle(claim, verdict)

    async def _give_back(self, claim: Claim, run: Run) -> None:
        """Stopped in the middle: the processes are gone, the work is saved, the attempt is not used up."""
        await end_marked(self._tools.places.marker(claim.task_id, claim.fence), LIFE_GRACE_S)
        try:
            if await self._finished(run):
                return
            await self._save(claim)
            await self._tools.store.claims.settle(claim, Released())
            await usage.count(self._tools, claim.task_id, claim.fence)
        except LeaseLost as lost:
            log.info("%s", lost.message)
        except (StoreUnavailable, DiskFull) as trouble:
            log.warning("%s could not be given back, it is taken up again later: %s", claim.task_id, trouble.message)

    async def _finished(self, run: Run) -> bool:
        """Whether what has landed could be lived to its end, of which only moments are left.

        So a person who stops a run finds completed whatever its dependents already stand on. Where commands
        of theirs are still to run, it waits for the next run instead.
        """
        claims, hooks = self._tools.store.claims, self._tools.settings.hooks
        run.recalled = await claims.recall(run.claim)
        left = [hook for hook in AFTER_LANDING if hooks.stages(hook) and hook not in run.recalled]
        if "land" not in run.recalled or left:
            return False
        try:
            with anyio.move_on_after(FINISH_S):
                await claims.settle(run.claim, await live(run))
                return True
        except (StoreUnavailable, GitError, OSError) as trouble:
            log.warning("%s has landed; the rest of it is left to the next run: %s", run.claim.task_id, trouble)
        return False

    async def _leave(self, claim: Claim) -> None:
        """The claim is somebody else's: end our own processes, keep what they wrote, write nothing of record."""
        with anyio.move_on_after(FAREWELL_S, shield=True):
            await end_marked(self._tools.places.marker(claim.task_id, claim.fence), LIFE_GRACE_S)
            try:
                task = await self._tools.store.tasks.get(claim.task_id)
                if task.fence == claim.fence:  # cancelled, paused or reset; nobody has begun in its place
                    await self._save(claim)
                    await self._tools.store.orders.stopped(claim)
                elif self._tools.shared:
                    await self._keep_left(claim)
                await self._tools.store.ports.free(claim)
                await usage.count(self._tools, claim.task_id, claim.fence)
            except (StoreUnavailable, DiskFull) as trouble:
                log.info("%s was left without a word: %s", claim.task_id, trouble.message)

    async def _keep_left(self, claim: Claim) -> None:
        """Another host goes on with the task; what is in the clone here stays on a ref."""
        tools = self._tools
        if (carrying.read_fence(tools, claim.task_id) or 0) > claim.fence:
            return  # it came back, and who took it here has kept it already
        bases = [a.base for a in await tools.store.claims.attempts(claim.task_id) if a.fence == claim.fence]
        try:
            await carrying.keep_left(tools, claim.task, claim.fence, bases[0] if bases else None)
        except (DroverError, OSError) as trouble:
            log.warning("%s: what was done here is only in the clone: %s", claim.task_id, trouble)

    async def _save(
        self, claim: Claim, push: Callable[[Tools, Claim, str], Awaitable[None]] = carrying.push_last_snapshot
    ) -> None:
        """Save the work in the clone on a ref; where other hosts may go on with it, on the remote as well."""
        try:
            saved = await workplace.save(self._tools, claim.task)
            kept = await session_files.keep(self._tools, claim)
            if saved is not None and self._tools.shared:
                await push(self._tools, claim, saved)
            if kept is not None and self._tools.shared:
                await carrying.push_session(self._tools, *kept)
        except (DroverError, OSError) as trouble:
            # The clone itself stays where it is, so nothing is lost by this.
            log.warning("%s: no snapshot: %s", claim.task_id, trouble)

    # ------------------------------------------------------------ publishing

    async def _keep_publishing(self) -> None:
        """While something has landed that the operator's checkout keeps out, look whether it still does."""
        await reaper.every(PUBLISH_EVERY_S, self._publish_what_waits)

    async def _publish_what_waits(self) -> None:
        if await self._tools.store.landings.unpublished():
            await publishing.publish(self._tools)

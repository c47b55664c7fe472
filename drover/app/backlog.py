"""A backlog without a repository: what a program that embeds drover as a durable runner of functions uses."""

from __future__ import annotations

import json
import random
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskStatus
from pydantic import JsonValue

from drover.app import feed
from drover.app.host import host_name, workers_of
from drover.domain.clock import Clock
from drover.domain.errors import UsageError
from drover.domain.ids import new_id
from drover.domain.models import Event, NewTask, Run, RunReport, Task
from drover.domain.states import Status
from drover.engine.plain import PlainCrew, PlainTools, Work, take_back
from drover.engine.workers import Stop
from drover.process import current_identity
from drover.store import Store, open_store

LIFE = "life"  # the fact about a store that tells which life its tasks lead
PLAIN = "plain"


@asynccontextmanager
async def open_backlog(
    url: str,
    work: Work,
    *,
    workers: int = 8,
    max_attempts: int = 3,
    lease_ms: int = 60_000,
    name: str = "backlog",
    clock: Clock | None = None,
) -> AsyncGenerator[Backlog]:
    """The backlog at ``url``, made if there is none. Raises :class:`UsageError` for the store of a repository.

    On a Postgres server each ``name`` is a backlog of its own; an SQLite file holds one.
    """
    async with open_store(url, project_id=name, clock=clock, lease_ms=lease_ms, watch=True) as store:
        await _claim_store(store)
        yield Backlog(store, work, store.clock, workers=workers, max_attempts=max_attempts)


async def _claim_store(store: Store) -> None:
    if await store.workers.meta(LIFE) == PLAIN:
        return
    if any((await store.tasks.counts()).values()):
        raise UsageError("this store holds tasks of a repository", hint="open it with repo=, or name another store")
    await store.workers.set_meta(LIFE, PLAIN)


class Backlog:
    """Tasks whose work is one async function. Made by :func:`drover.open`. Ids may be shortened to a unique prefix."""

    def __init__(self, store: Store, work: Work, clock: Clock, *, workers: int, max_attempts: int) -> None:
        self.store = store
        self.clock = clock
        self._work = work
        self._workers = workers
        self._max_attempts = max_attempts

    # ------------------------------------------------------------ the backlog

    async def add(
        self,
        title: str,
        *,
        input: object = None,
        blocked_by: Iterable[Task | str] = (),
        priority: int = 0,
        key: str | None = None,
        max_attempts: int | None = None,
        timeout_ms: int | None = None,
        labels: Iterable[str] = (),
    ) -> Task:
        """Add a task. ``input`` is what ``json.dumps`` can write. The same ``key`` gives the same task."""
        new = new_task(
            title, input=input, blocked_by=blocked_by, priority=priority, key=key, max_attempts=max_attempts,
            timeout_ms=timeout_ms, labels=labels,
        )  # fmt: skip
        return await self.store.tasks.add(new)

    async def add_many(self, news: Sequence[NewTask]) -> list[Task]:
        """Add all or none, in one transaction. ``blocked_by`` may name keys of tasks earlier in the list."""
        return await self.store.tasks.add_many(news)

    async def task(self, id: str) -> Task:
        return await self.store.tasks.get(id)

    async def tasks(self, *, statuses: Collection[Status | str] = (), limit: int | None = None) -> list[Task]:
        """Tasks in the order they were added."""
        return await self.store.tasks.list_tasks(statuses=[Status(s) for s in statuses], limit=limit)

    async def counts(self) -> dict[Status, int]:
        """How many tasks read as each status."""
        return await self.store.tasks.counts()

    async def cancel(self, ids: Iterable[str], reason: str = "") -> list[Task]:
        """Cancel unfinished tasks; the work of one that runs is cancelled by whoever runs it."""
        return [task for id in ids for task in await self.store.tasks.cancel(id, reason=reason)]

    async def retry(self, ids: Iterable[str], *, force: bool = False) -> list[Task]:
        """Failed or cancelled → eligible again."""
        limit = self._max_attempts
        return [task for id in ids for task in await self.store.tasks.retry(id, max_attempts=limit, force=force)]

    async def reset(self, ids: Iterable[str]) -> list[Task]:
        """Back to the start from any state; results are dropped, and dependents that have not begun wait again."""
        return [await self.store.tasks.reset(id) for id in ids]

    # ------------------------------------------------------------ running

    async def run(self, *, workers: int | None = None, forever: bool = False, stop: Stop | None = None) -> RunReport:
        """Drive every eligible task to its end and return when nothing is ready, running or due.

        ``forever`` serves a growing backlog. Cancelled from outside, it cancels the functions at work and
        gives its claims back first. Several programs may run one backlog at the same time.
        """
        stop, began = stop or Stop(), time.monotonic()
        after = await self.store.events.last_seq()
        kept = await self.store.plain.completed()
        run = Run(
            id=new_id("run", 8),
            workers=workers or self._workers,
            host=host_name(),
            process=str(current_identity()),
        )
        tools = PlainTools(
            store=self.store,
            clock=self.clock,
            rng=random.Random(secrets.randbits(64)),  # noqa: S311 - spreads retries, keeps no secret
            work=self._work,
            host=run.host,
            max_attempts=self._max_attempts,
        )
        await take_back(self.store, run.host)
        crew_workers = workers_of(run, run.host)
        await self.store.workers.start_run(run, crew_workers)
        crew = PlainCrew(tools, crew_workers, stop.soft_asked, forever=forever)
        report = RunReport()
        try:
            await crew.work()
        finally:
            with anyio.CancelScope(shield=True):
                report = await self._report(after, kept, len(crew.resumed), began, stop.soft_asked.is_set())
                await self.store.workers.finish_run(run, crew_workers, {"completed": len(report.completed)})
        return report

    async def serve(
        self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED, workers: int | None = None
    ) -> None:
        """Work on a growing backlog until cancelled; ``await group.start(d.serve)`` returns once it does."""
        task_status.started()
        await self.run(workers=workers, forever=True)

    async def _report(self, after: int, kept: int, redone: int, began: float, interrupted: bool) -> RunReport:
        plain = self.store.plain
        return RunReport(
            completed=tuple(await plain.told_since(after, "task.completed")),
            failed=await plain.ids_of("failed"),
            cancelled=tuple(await plain.told_since(after, "task.cancelled")),
            stranded=tuple(await self.store.tasks.stranded()),
            needs_person=await plain.ids_of("paused"),
            kept=kept,
            redone=redone,
            seconds=round(time.monotonic() - began, 3),
            interrupted=interrupted,
        )

    # ------------------------------------------------------------ seeing

    def events(
        self, *, types: Collection[str] = (), task: str | None = None, follow: bool = False, after: int = 0
    ) -> AsyncIterator[Event]:
        """The event log, oldest first; with ``follow`` also what is yet to come, of any process, within a second."""
        return feed.events(self.store, types=types, task_id=task, follow=follow, after=after)


def new_task(
    title: str,
    *,
    input: object = None,
    blocked_by: Iterable[Task | str] = (),
    priority: int = 0,
    key: str | None = None,
    max_attempts: int | None = None,
    timeout_ms: int | None = None,
    labels: Iterable[str] = (),
) -> NewTask:
    """A task for :meth:`Backlog.add_many`, with the same words as :meth:`Backlog.add`."""
    return NewTask(
        title=title,
        input=_document(input, title),
        blocked_by=tuple(b.id if isinstance(b, Task) else b for b in blocked_by),
        priority=priority,
        key=key,
        max_attempts=max_attempts,
        timeout_ms=timeout_ms,
        labels=tuple(labels),
    )


def _document(value: object, title: str) -> JsonValue:
    if value is None:
        return None
    try:
        found: JsonValue = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(f"the input of {title!r} is not JSON: {error}") from error
    return found

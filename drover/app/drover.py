"""Drover: the verbs on one project's backlog, for programs and for the command line alike."""

from __future__ import annotations

import os
import random
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import anyio
from anyio.abc import TaskStatus

from drover.agents import registry
from drover.agents.base import AgentSettings
from drover.app import approvals, doctor, elsewhere, feed, look, ownership, recap, steering, worktrees
from drover.app import project as projects
from drover.app.backlog import LIFE, PLAIN, Backlog, open_backlog
from drover.app.host import host_name, workers_of
from drover.app.readings import (
    AgentRow,
    Check,
    Context,
    InboxItem,
    Recap,
    ResumeItem,
    StatusReport,
    TaskDetails,
    TreeNode,
    WorktreeRow,
)
from drover.domain.budget import Line
from drover.domain.clock import Clock
from drover.domain.errors import AgentError, UsageError
from drover.domain.ids import new_id, split_subtask
from drover.domain.models import (
    Attempt,
    Cost,
    Epic,
    Event,
    Mode,
    NewTask,
    Run,
    RunReport,
    Task,
    TestMode,
    TestScope,
    Word,
    Worker,
)
from drover.domain.plans import Plan, PlanDraft
from drover.domain.states import Status
from drover.engine import hosts, reaper
from drover.engine.gate import only_one_at_a_time
from drover.engine.places import Places
from drover.engine.plain import Work
from drover.engine.tools import Tools
from drover.engine.workers import Crew, Scope, Stop, choice_of
from drover.git.repo import Repo
from drover.process import current_identity, sole_error
from drover.settings import HOOKS, Project, Settings, find_project, load
from drover.store import Store, open_store
from drover.store.spending import By

HURRY_S = 2.5  # for the summary of a run that was stopped or failed


@overload
def open(
    url: str | None = None,
    *,
    repo: str | Path = ".",
    agent: str | None = None,
    project: Project | None = None,
    settings: Settings | None = None,
    clock: Clock | None = None,
    **flags: object,
) -> AbstractAsyncContextManager[Drover]: ...


@overload
def open(
    url: str,
    *,
    repo: None,
    agent: Work,
    workers: int = 8,
    max_attempts: int = 3,
    lease_ms: int = 60_000,
    name: str = "backlog",
    clock: Clock | None = None,
) -> AbstractAsyncContextManager[Backlog]: ...


def open(
    url: str | None = None,
    *,
    repo: str | Path | None = ".",
    agent: str | Work | None = None,
    project: Project | None = None,
    settings: Settings | None = None,
    clock: Clock | None = None,
    **flags: Any,
) -> AbstractAsyncContextManager[Drover] | AbstractAsyncContextManager[Backlog]:
    """The backlog of the project at ``repo``, made one if it is none yet.

    ``url`` names another store than the project's own; ``agent`` and ``flags`` override settings by their names
    in the project file (``workers=8``, ``task_timeout="30m"``). Enter and leave it in the same task.

    With ``repo=None`` a backlog at ``url`` without git: ``agent`` is an async function that is given a
    :class:`drover.Job` and returns the task's result as something ``json.dumps`` can write. ``workers``,
    ``max_attempts``, ``lease_ms`` and ``name`` (of this backlog on a Postgres server) are the only flags then.
    """
    if repo is not None:
        if callable(agent):
            raise UsageError("an agent that is a function needs repo=None", hint="or name a type of agent")
        return _open_project(url, repo=repo, agent=agent, project=project, settings=settings, clock=clock, **flags)
    if url is None or not callable(agent):
        raise UsageError("repo=None needs the URL of a store and an async function as the agent")
    return open_backlog(url, agent, clock=clock, **flags)


@asynccontextmanager
async def _open_project(
    url: str | None,
    *,
    repo: str | Path,
    agent: str | None,
    project: Project | None,
    settings: Settings | None,
    clock: Clock | None,
    **flags: object,
) -> AsyncGenerator[Drover]:
    if project is None:
        where = Path(repo).absolute()
        project = find_project(where, home=Path.home(), named=str(where)) or (await projects.init(where)).project
    if settings is None:
        given = {**flags, "agent": agent, **({"database_url": url} if url is not None else {})}
        named = {key: value for key, value in given.items() if value is not None}
        settings = load(project.root, environ=os.environ, flags=named)
    url = settings.store_url(project.root)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(
            open_store(
                url,
                project_id=settings.project.id,
                clock=clock,
                lease_ms=settings.claim_timeout_ms,
                watch=True,
            )
        )
        drover = Drover(project, settings, store, store.clock)
        if store.database.dialect != "sqlite" or elsewhere.may_be_elsewhere(project, url):
            recorded, empty = await store.workers.greeting()
            await ownership.insist(store, project, settings, recorded)
            drover.elsewhere = elsewhere.find(project, url, empty=empty)
        yield drover


class Drover:
    """One project's backlog. Made by :func:`open`. Ids may be shortened to a unique prefix everywhere."""

    def __init__(self, project: Project, settings: Settings, store: Store, clock: Clock) -> None:
        self.project = project
        self.settings = settings
        self.store = store
        self.clock = clock
        self.places = Places(project.state_dir)
        self.elsewhere: str | None = None  # of an empty backlog: where this project has another, in one line
        self._repo: Repo | None = None

    @property
    def store_vanishes(self) -> bool:
        """Whether the backlog goes with the machine: a file in the checkout of a CI runner."""
        path = Path(self.settings.store_url(self.project.root).removeprefix("sqlite:///"))
        on_runner = os.environ.get("CI", "").lower() in ("true", "1")
        return on_runner and self.store.database.dialect == "sqlite" and path.is_relative_to(self.project.root)

    # ------------------------------------------------------------ the backlog

    async def add(
        self,
        title: str,
        *,
        description: str = "",
        epic: Epic | str | None = None,
        parent: Task | str | None = None,
        priority: int = 0,
        blocked_by: Iterable[Task | str] = (),
        test_mode: TestMode | None = None,
        test_scope: TestScope | None = None,
        test_command: str | None = None,
        agent: str | None = None,
        max_attempts: int | None = None,
        timeout_ms: int | None = None,
        type: str = "other",
        labels: Iterable[str] = (),
        key: str | None = None,
        allow_no_change: bool = False,
    ) -> Task:
        """Add a task. A title like ``task-x.4 Title`` makes that sub-task. The same ``key`` gives the same task."""
        parent_id, sequence, title = _placed(title, _id(parent))
        if agent is not None:
            registry.find(agent)
        new = NewTask(
            title=title,
            description=description,
            epic_id=_id(epic),
            parent_id=parent_id,
            sequence=sequence,
            priority=priority,
            blocked_by=tuple(str(_id(b)) for b in blocked_by),
            test_mode=test_mode,
            test_scope=test_scope,
            test_command=test_command,
            agent=agent,
            max_attempts=max_attempts,
            timeout_ms=timeout_ms,
            type=type,
            labels=tuple(labels),
            key=key,
            allow_no_change=allow_no_change,
        )
        return await self.store.tasks.add(new, by=await self._operator())

    async def task(self, id: str) -> Task:
        return await self.store.tasks.get(id)

    async def tasks(
        self,
        *,
        statuses: Collection[Status | str] = (),
        epic: str | None = None,
        label: str | None = None,
        limit: int | None = None,
    ) -> list[Task]:
        """Tasks in the order they were added."""
        wanted = [Status(s) for s in statuses]
        return await self.store.tasks.list_tasks(statuses=wanted, epic_id=epic, label=label, limit=limit)

    def pages(
        self, *, statuses: Collection[Status | str] = (), epic: str | None = None, label: str | None = None
    ) -> AsyncIterator[list[Task]]:
        """What :meth:`tasks` returns, a page at a time: of a large backlog the first is there at once."""
        return self.store.tasks.pages(statuses=[Status(s) for s in statuses], epic_id=epic, label=label)

    async def add_epic(self, title: str, description: str = "") -> Epic:
        return await self.store.epics.add(title, description, by=await self._operator())

    async def epics(self) -> list[Epic]:
        return await self.store.epics.list_epics()

    async def epic(self, id: str) -> Epic:
        return await self.store.epics.get(id)

    async def close_epic(self, id: str) -> Epic:
        return await self.store.epics.close(id, by=await self._operator())

    async def block(self, id: str, by: Iterable[str]) -> Task:
        return await self.store.tasks.block(id, by, operator=await self._operator())

    async def unblock(self, id: str, by: Iterable[str]) -> Task:
        return await self.store.tasks.unblock(id, by, operator=await self._operator())

    async def edit_task(
        self,
        id: str,
        *,
        title: str | None = None,
        description: str | None = None,
        priority: int | None = None,
        epic: str | None = None,
        test_mode: TestMode | None = None,
        test_scope: TestScope | None = None,
        test_command: str | None = None,
        agent: str | None = None,
        max_attempts: int | None = None,
        timeout_ms: int | None = None,
        type: str | None = None,
        labels: Sequence[str] | None = None,
    ) -> Task:
        """Change what is given of a task that is not running."""
        if agent is not None:
            registry.find(agent)
        changes: dict[str, str | int | float | tuple[str, ...] | None] = {
            "title": title,
            "description": description,
            "priority": priority,
            "epic_id": epic,
            "test_mode": test_mode,
            "test_scope": test_scope,
            "test_command": test_command,
            "agent": agent,
            "max_attempts": max_attempts,
            "timeout_ms": timeout_ms,
            "type": type,
            "labels": tuple(labels) if labels is not None else None,
        }
        given: dict[str, str | int | float | tuple[str, ...] | None]
        given = {name: value for name, value in changes.items() if value is not None}
        return await self.store.tasks.edit(id, given, operator=await self._operator())

    # ------------------------------------------------------------ the operator's hand

    async def cancel(self, ids: Iterable[str], reason: str = "") -> list[Task]:
        """Cancel unfinished tasks with their sub-tasks; an agent at work on one is stopped by whoever runs it.

        All that were cancelled, each parent before its sub-tasks.
        """
        by = await self._operator()
        return await self._each_once(ids, lambda id: self.store.tasks.cancel(id, reason=reason, operator=by))

    async def retry(self, ids: Iterable[str], *, force: bool = False, fresh: bool = False) -> list[Task]:
        """Failed or cancelled → eligible again; with a parent that was cancelled its sub-tasks that were, too."""
        by = await self._operator()
        limit = self.settings.max_attempts
        return await self._each_once(
            ids, lambda id: self.store.tasks.retry(id, max_attempts=limit, force=force, fresh=fresh, operator=by)
        )

    async def _each_once(self, ids: Iterable[str], order: Callable[[str], Awaitable[list[Task]]]) -> list[Task]:
        """What the order changed, for each of the tasks that it has not reached with one before."""
        changed: dict[str, Task] = {}
        for id in ids:
            if (await self.task(id)).id not in changed:
                changed |= {task.id: task for task in await order(id)}
        return list(changed.values())

    async def reset(
        self, ids: Iterable[str] = (), *, statuses: Collection[Status | str] = (), fresh: bool = False
    ) -> list[Task]:
        """Back to the start: the tasks named, and those of these statuses."""
        by = await self._operator()
        chosen = [(await self.task(id)).id for id in ids]
        if statuses:
            chosen += [t.id for t in await self.tasks(statuses=statuses)]
        return [await self.store.tasks.reset(id, fresh=fresh, operator=by) for id in dict.fromkeys(chosen)]

    async def pause(self, ids: Iterable[str], reason: str = "") -> list[Task]:
        """Stop tasks until :meth:`resume_task`; an agent at work on one is stopped by whoever runs it."""
        by = await self._operator()
        return [await self.store.orders.pause(id, reason=reason, by=by) for id in ids]

    async def resume_task(self, id: str, hint: str = "") -> Task:
        """Let a paused task go on, in the same session of its agent where that is possible."""
        return await self.store.orders.resume(id, hint=hint, by=await self._operator())

    async def hint(self, id: str, text: str) -> Word:
        """Tell a task's agent something: now if it can hear while it works, else with its next turn."""
        return await self.store.orders.hint(id, text, by=await self._operator())

    async def answer(self, id: str, text: str) -> Task:
        """Answer what a task's agent asks; it goes on with that."""
        return await self.store.orders.answer(id, text, by=await self._operator())

    async def inbox(self, epic: str | None = None) -> list[InboxItem]:
        """What needs a person, oldest first."""
        return await steering.inbox(self.store, self.settings, epic)

    async def context(self, id: str) -> Context:
        """What the next execution of a task's agent begins with, as things stand. Nothing is changed by it."""
        return await steering.context(await self.tools(), await self.task(id))

    async def recap(self, since: int) -> Recap:
        """What happened since then (unix ms), and how things stand."""
        return await recap.recap(self.store, self.settings, since, self.clock.now())

    @asynccontextmanager
    async def stopping(
        self, ids: Iterable[str], *, subtasks: bool = False, seconds: float = 10.0
    ) -> AsyncGenerator[set[str]]:
        """Orders given inside are waited for when it is left: until those at work on the tasks say it is over.

        What it gives is filled then: the tasks of which nobody said so within ``seconds``. ``subtasks``: theirs, too.
        """
        named = {(await self.task(id)).id for id in ids}
        after = await self.store.events.last_seq()
        stopping = await steering.at_work(self.store, named, subtasks=subtasks)
        left: set[str] = set()
        yield left
        left |= await steering.until_stopped(self.store, stopping, after=after, seconds=seconds)

    async def resolve(self, id: str, note: str = "") -> Task:
        return await self.store.tasks.resolve(id, note=note, operator=await self._operator())

    # ------------------------------------------------------------ plans

    async def plans(
        self, *, statuses: Collection[str] = (), task: str | None = None, epic: str | None = None
    ) -> list[Plan]:
        """Plans in the order they were made."""
        found = await self.store.plans.list_plans(task=task, epic=epic)
        return [plan for plan in found if not statuses or plan.status in statuses]

    async def plan(self, id: str) -> Plan:
        return await self.store.plans.get(id)

    async def approve_plan(self, id: str) -> Plan:
        """Free the plan's task to be built."""
        return await self.store.plans.approve(id, by=await self._operator())

    async def reject_plan(self, id: str, feedback: str) -> Plan:
        """Send the plan back to an agent with what was wrong, as often as ``[refinement]`` says."""
        refinement = self.settings.refinement
        most = refinement.max_refinements if refinement.enabled else 0
        return await self.store.plans.reject(id, feedback, max_refinements=most, by=await self._operator())

    async def edit_plan(self, id: str, draft: PlanDraft) -> Plan:
        """Put another text in the place of a plan's that is not judged yet."""
        return await self.store.plans.edit(id, draft, by=await self._operator())

    async def delete_plan(self, id: str) -> Plan:
        """Forget the plan; its task is as one that was never planned."""
        return await self.store.plans.delete(id, by=await self._operator())

    # ------------------------------------------------------------ running

    async def run(
        self,
        *,
        workers: int | None = None,
        epic: str | None = None,
        tasks: Sequence[str] = (),
        target: str | None = None,
        mode: Mode | None = None,
        wait: bool = False,
        forever: bool = False,
        on_event: Callable[[Event], None] | None = None,
        stop: Stop | None = None,
    ) -> RunReport:
        """Drive every eligible task to completion and return when nothing is ready, running or due.

        ``mode`` is ``planning`` (agents write plans, nothing is built), ``building`` (tasks with an approved plan
        alone) or ``combined``. ``wait`` stays for tasks that need a person, ``forever`` serves a growing backlog.
        Cancelled from outside, it ends the agents gently and gives its claims back first.
        """
        stop = stop or Stop()
        began = time.monotonic()
        before = await self.store.events.last_seq()
        if await self.store.workers.meta(LIFE) == PLAIN:
            raise UsageError(
                "the tasks of this store are functions of a program", hint="drover.open(url, repo=None, …)"
            )
        run = await self._asked(workers, epic, tasks, target, mode)
        await self._check_agents(run)
        tools = await self.tools(run_id=run.id, stop=stop, target=run.target)
        await approvals.insist(tools, self.project, *HOOKS)
        await hosts.insist(tools)
        crew_workers = workers_of(run, tools.host)
        kept = (await self.store.tasks.counts(run.epic_id))[Status.COMPLETED]
        async with only_one_at_a_time(self.places.state / "start.lock"):
            store = self.store.patient()
            await reaper.recover(replace(tools, store=store))
            await store.workers.start_run(run, crew_workers)
            await store.spending.wake()
        scope = Scope(run.epic_id, run.task_ids, choice_of(run.mode, self.settings))
        crew = Crew(tools, crew_workers, scope, stop, forever=forever, patient=wait)
        ended = False
        try:
            async with anyio.create_task_group() as group:
                if on_event is not None:
                    group.start_soon(self._tell, on_event, before, name="event feed")
                await crew.work()
                group.cancel_scope.cancel()
            ended = not stop.soft_asked.is_set()
        except BaseExceptionGroup as several:
            raise sole_error(several) from several
        finally:
            in_hurry = None if ended else HURRY_S
            report = await self._sum_up(
                run, crew_workers, crew, stop, before=before, kept=kept, began=began, in_hurry=in_hurry
            )
            if on_event is not None:
                with anyio.move_on_after(in_hurry, shield=not ended):
                    await self._tell_rest(on_event)
        return report

    async def serve(
        self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED, workers: int | None = None
    ) -> None:
        """Work on a growing backlog until cancelled; ``await group.start(d.serve)`` returns once it does."""
        task_status.started()
        await self.run(workers=workers, forever=True)

    async def last_run(self) -> Run | None:
        """What the run started last was asked for."""
        return await self.store.workers.last_run()

    async def plan_run(self, *, epic: str | None = None, tasks: Sequence[str] = ()) -> list[Task]:
        """What a run would drive, in the order it could start them."""
        return await look.order_of(self.store, epic, [(await self.task(t)).id for t in tasks])

    async def plan_resume(self, *, epic: str | None = None) -> list[ResumeItem]:
        """What a resume would do with each task, and why."""
        return await look.resume_items(self.store, epic)

    # ------------------------------------------------------------ seeing

    async def status(self, epic: str | None = None) -> StatusReport:
        return await look.status(self.store, self.settings, self.places, epic)

    async def agents(self) -> list[AgentRow]:
        """The agents in use, and the limits of their accounts."""
        return await look.agents(self.store, self.settings)

    async def lift_limit(self, type: str) -> int | None:
        """End the limit of an agent's account before its time: how many tasks go on. None when there was none."""
        registry.find(type)
        by = await self._operator()
        return await self.store.limits.lift(type, default=self.settings.agent, operator=by)

    async def tree(self, epic: str | None = None) -> list[TreeNode]:
        """Epics, their tasks and sub-tasks, and what each waits for."""
        return await look.tree(self.store, epic)

    async def details(self, id: str) -> TaskDetails:
        return await look.details(self.store, self.places, id)

    @property
    def host(self) -> str:
        """This machine, as executions name it."""
        return host_name()

    async def execution(self, id: str, fence: int | None = None) -> Attempt | None:
        """One execution of a task; the last one, if none is named."""
        found = await self.store.claims.attempts((await self.task(id)).id)
        return next((a for a in reversed(found) if fence in (None, a.fence)), None)

    async def costs(self, by: By = "task", *, epic: str | None = None) -> list[Cost]:
        """What agents have used, by epic, task, agent or local day."""
        return await self.store.spending.costs(by, epic=epic)

    async def budget(self) -> list[Line]:
        """The limits that the settings give for today and for open epics, and how each stands."""
        epics = [epic.id for epic in await self.epics() if epic.state == "open"]
        return await self.store.spending.lines(self.settings.budget.limits, epic_ids=epics)

    async def log_files(self, id: str, attempt: int | None = None) -> list[Path]:
        """Where the agent's words and the tests' output are, oldest first; of one execution if ``attempt`` is given."""
        return await look.log_files(self.store, self.places, id, attempt)

    async def diff(self, id: str) -> str:
        """What the task changed, or has changed so far, as a patch."""
        return await look.diff(self.store, await self._repository(), self.places, await self.task(id))

    async def worktrees(self) -> list[WorktreeRow]:
        """Every task's worktree on disk: whose, how large, why it is there, and where else its work is."""
        return await worktrees.list_rows(await self.tools())

    async def prune_worktrees(self, *, dry_run: bool = False, everything: bool = False) -> list[WorktreeRow]:
        """Remove worktrees whose work has provably landed or is saved; the rows that went, or would go.

        ``everything``: also those of failed and cancelled tasks, whose work is saved on a ref first. Runs
        the ``before_remove`` hook where there is one.
        """
        tools = await self.tools()
        if not dry_run:
            await approvals.insist(tools, self.project, "before_remove")
        return await worktrees.prune(tools, dry_run=dry_run, everything=everything)

    async def restore_worktree(self, id: str) -> WorktreeRow:
        """Bring a removed worktree back as it was last saved, until 14 days after its task was finished."""
        return await worktrees.restore(await self.tools(), await self.task(id))

    async def unapproved_hooks(self) -> dict[str, list[str]]:
        """Commands, by hook, that the repository's own file supplies and that nobody here has approved yet."""
        return await approvals.find_unapproved(await self.tools(), self.project)

    async def approve_hooks(self) -> None:
        """Approve the commands that the repository supplies now; changed ones will have to be approved anew."""
        await approvals.approve(await self.tools(), self.project)

    async def doctor(self, *, fix: bool = False) -> list[Check]:
        """What an unattended night needs, checked; ``fix`` repairs what is safe to."""
        return await doctor.examine(self, fix=fix)

    async def events(
        self,
        *,
        types: Collection[str] = (),
        epic: str | None = None,
        task: str | None = None,
        since: int | None = None,
        until: int | None = None,
        follow: bool = False,
        limit: int | None = None,
        after: int = 0,
    ) -> AsyncIterator[Event]:
        """The event log, oldest first; with ``follow`` also what is yet to come, of any process, within a second.

        ``types`` may leave out the noun (``landed`` for ``task.landed``); times are unix ms.
        """
        task_id = (await self.task(task)).id if task else None
        epic_id = (await self.epic(epic)).id if epic else None
        found = feed.events(
            self.store, types=types, epic_id=epic_id, task_id=task_id, since=since, until=until, follow=follow,
            limit=limit, after=after,
        )  # fmt: skip
        async for event in found:
            yield event

    # ------------------------------------------------------------ putting the parts together

    async def tools(self, *, run_id: str = "", stop: Stop | None = None, target: str | None = None) -> Tools:
        """What the engine works with; for those who build on it."""
        repo = await self._repository()
        settings = self.settings
        if target is not None:
            if await repo.resolve(f"refs/heads/{target}") is None:
                raise UsageError(f"there is no branch {target!r}", hint="git branch")
            settings = settings.model_copy(update={"project": settings.project.model_copy(update={"target": target})})
        return Tools(
            store=self.store,
            repo=repo,
            identity=await repo.identity(),
            settings=settings,
            places=self.places,
            clock=self.clock,
            rng=random.Random(secrets.randbits(64)),  # noqa: S311 - spreads retries, keeps no secret
            find_agent=registry.find,
            agent_settings=self.agent_settings,
            environ=os.environ,
            run_id=run_id,
            host=host_name(self.settings.host),
            hurry=stop.hurry if stop else anyio.Event(),
            local_lease_clock=self.store.database.dialect == "sqlite",
        )

    def agent_settings(self, type: str) -> AgentSettings:
        """How the settings say that type of agent is started."""
        table = self.settings.agent_table(type)
        return AgentSettings.of(
            type, path=table.path, args=table.args, model=table.model, permissions=table.permissions,
            env=table.env, set=dict(table.set),
        )  # fmt: skip

    async def _asked(
        self, workers: int | None, epic: str | None, tasks: Sequence[str], target: str | None, mode: Mode | None = None
    ) -> Run:
        identity = current_identity()
        return Run(
            id=new_id("run", 8),
            epic_id=(await self.epic(epic)).id if epic else None,
            task_ids=tuple([(await self.task(t)).id for t in tasks]),
            target=target or self.settings.project.target,
            mode=mode or self.settings.mode,
            workers=workers or self.settings.workers,
            host=host_name(self.settings.host),
            process=str(identity),
            push=self.settings.landing.push,
            budget_microusd=self.settings.budget.run_microusd,
        )

    async def _sum_up(
        self, run: Run, workers: Sequence[Worker], crew: Crew, stop: Stop, *, before: int, kept: int, began: float,
        in_hurry: float | None,
    ) -> RunReport:  # fmt: skip
        """Record and report what the run came to. A server that is away is waited for, unless somebody is ``in_hurry``.

        The report of a run whose end could not be read says nothing but how long it took and who ended it.
        """
        store = self.store.patient()
        report = RunReport(seconds=round(time.monotonic() - began, 3), interrupted=stop.soft_asked.is_set())
        with anyio.move_on_after(in_hurry, shield=in_hurry is not None) as scope:
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(_hurry_when_stopped, stop, scope, name="hurry")
                    report = await look.report(
                        store, run, after=before, kept=kept, resumed=crew.resumed,
                        seconds=time.monotonic() - began, interrupted=stop.soft_asked.is_set(),
                        over_budget=crew.over_budget,
                    )  # fmt: skip
                    await store.workers.finish_run(run, workers, look.summary(report))
                    group.cancel_scope.cancel()
            except BaseExceptionGroup as several:
                raise sole_error(several) from several
        return report

    async def _check_agents(self, run: Run) -> None:
        """Every agent that the run's tasks name can be started, or nothing is begun."""
        tasks = await look.order_of(self.store, run.epic_id, run.task_ids)
        named = {task.agent or self.settings.agent for task in tasks} | ({*self.settings.fallback} if tasks else set())
        for type in sorted(named):
            found = await registry.find(type).check(self.agent_settings(type))
            if found.problem is not None:
                raise AgentError(f"agent {type}: {found.problem}", hint=found.hint)

    async def _repository(self) -> Repo:
        if self._repo is None:
            self._repo = await Repo.find(self.project.root)
        return self._repo

    async def _operator(self) -> str | None:
        """Who is recorded as having done a thing: the setting, else git's user.name."""
        if self.settings.operator:
            return self.settings.operator
        return await look.git_user(self.project.root)

    async def _tell(self, on_event: Callable[[Event], None], after: int) -> None:
        self._told = after
        async for event in self.events(after=after, follow=True):
            on_event(event)
            self._told = event.seq

    async def _tell_rest(self, on_event: Callable[[Event], None]) -> None:
        async for event in feed.events(self.store.patient(), after=self._told):
            on_event(event)


async def _hurry_when_stopped(stop: Stop, scope: anyio.CancelScope) -> None:
    await stop.soft_asked.wait()
    scope.deadline = min(scope.deadline, anyio.current_time() + HURRY_S)


def _id(named: Task | Epic | str | None) -> str | None:
    return named.id if isinstance(named, Task | Epic) else named


def _placed(title: str, parent_id: str | None) -> tuple[str | None, int | None, str]:
    """Parent, number and title of ``task-x.4 Title``; a plain title stays as it is."""
    first, _, rest = title.strip().partition(" ")
    place = split_subtask(first)
    if place is None:
        return parent_id, None, title
    if not rest.strip():
        raise UsageError(f"{first} needs a title", hint=f'drover add "{first} What to do"')
    return place[0], place[1], rest.strip()

"""Readings of a backlog: what a person is shown, put together from the store, the repository and the disk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import TYPE_CHECKING

from drover.app.readings import (
    AgentRow,
    Attention,
    ResumeItem,
    RunningTask,
    StatusReport,
    TaskDetails,
    TreeNode,
)
from drover.domain.budget import Budget
from drover.domain.clock import SystemClock
from drover.domain.errors import NotFound
from drover.domain.models import STEPS, AgentLimit, Attempt, Landing, Run, RunReport, Task, Worktree
from drover.domain.states import State, Status
from drover.engine import space
from drover.engine.places import Places
from drover.settings import Settings
from drover.store import Store

# Importing what asks git takes longer than a status takes altogether; only the readings that ask it import it.
if TYPE_CHECKING:
    from drover.git.repo import Repo

EVENTS_SHOWN = 500
LIMITED = ("rate_limited", "usage_limit")  # reasons of tasks that wait for their agent's limit to end


# ---------------------------------------------------------------- status


async def status(store: Store, settings: Settings, places: Places, epic: str | None) -> StatusReport:
    """The counts, what is running, what needs a person."""
    epics = await store.epics.list_epics()
    epic_id = (await store.epics.get(epic)).id if epic else None
    counts = await store.tasks.counts(epic_id)
    total = sum(counts.values())
    used = await store.usage.total(epic_id)
    stopped = [status for status in (Status.WAITING, Status.PAUSED, Status.FAILED) if counts[status]]
    waiting = await _in(store, epic_id, stopped) if stopped else []
    return StatusReport(
        total=total,
        by_status={status.value: counts[status] for status in Status},
        progress=counts[Status.COMPLETED] / total if total else 0.0,
        running=tuple(await _running(store, epic_id)),
        needs_attention=tuple(Attention(task_id=t.id, reason=_attention(t)) for t in waiting if _needs_attention(t)),
        epics=tuple(e for e in epics if epic_id in (None, e.id)),
        tokens=used.tokens,
        cost_usd=used.cost_usd,
        notes=(
            *_notes(waiting, settings.project.target or "the target branch"),
            *_limit_notes(await store.limits.standing(), waiting, settings.agent),
            *await _run_notes(store, settings),
            *filter(None, [space.find_shortage(places, settings)]),
            *_standstills(places),
        ),
    )


def _standstills(places: Places) -> list[str]:
    from drover.engine import gate

    return [f"{found.says}; {found.advice}" for found in gate.find_standstills(places, SystemClock().now())]


async def _in(store: Store, epic_id: str | None, statuses: Collection[Status]) -> list[Task]:
    return await store.tasks.list_tasks(statuses=statuses, epic_id=epic_id)


async def _running(store: Store, epic_id: str | None) -> list[RunningTask]:
    found = []
    for held in await store.claims.running():
        if epic_id not in (None, held.epic_id):
            continue
        done = {s.name for s in await store.claims.steps(held.task_id, held.attempt)}
        found.append(
            RunningTask(
                task_id=held.task_id,
                title=held.title,
                step=next((s for s in STEPS if s not in done), STEPS[-1]),
                worker=held.worker.id,
                host=held.worker.host,
                since=held.claimed_at,
                last_alive=held.alive_at,
            )
        )
    return found


def _needs_attention(task: Task) -> bool:
    return task.state is State.FAILED or task.needs_person


def _attention(task: Task) -> str:
    if task.state is State.FAILED and task.error is not None:
        return f"failed ({task.error.error_class}): {_first_line(task.error.message)}"
    if task.reason == "publish":
        return f"landed, not yet published: {task.detail}"
    if task.reason == "question":
        return f"asks: {task.detail}"
    if task.reason == "budget":
        return f"{task.detail}; raise it, then type: drover resume"
    return " ".join(w for w in (task.status.value, task.reason, task.detail) if w)


def _notes(waiting: Sequence[Task], target: str) -> list[str]:
    held_back = [t for t in waiting if t.reason == "publish"]
    if not held_back:
        return []
    return [f"{len(held_back)} landed, not yet in {target}: {held_back[0].detail}"]


async def agents(store: Store, settings: Settings) -> list[AgentRow]:
    """The agents that the settings name, and those that are limited."""
    limits = {limit.agent: limit for limit in await store.limits.standing()}
    waiting = await _in(store, None, (Status.WAITING,))
    rows = []
    for type in dict.fromkeys((settings.agent, *settings.fallback, *settings.agents, *limits)):
        limit, stands_in = limits.get(type), type in settings.fallback
        if limit is None:
            rows.append(AgentRow(type=type, fallback=stands_in))
            continue
        rows.append(
            AgentRow(
                type=type,
                fallback=stands_in,
                until=limit.until,
                reason=limit.reason,
                detail=limit.detail,
                waiting=_held_up(waiting, type, settings.agent),
            )
        )
    return rows


def _held_up(waiting: Sequence[Task], agent: str, default_agent: str) -> int:
    """How many tasks wait for the end of an agent's limit."""
    return sum(t.reason in LIMITED and (t.agent or default_agent) == agent for t in waiting)


def _limit_notes(limits: Sequence[AgentLimit], waiting: Sequence[Task], default_agent: str) -> list[str]:
    """``claude: limited until 15:00 (3 tasks waiting)``, local time; with the day when that is another one."""
    notes = []
    for limit in limits:
        until, noted = (datetime.fromtimestamp(at / 1000).astimezone() for at in (limit.until, limit.noted_at))
        when = f"{until:%H:%M}" if until.date() == noted.date() else f"{until:%b %d %H:%M}"
        held_up = _held_up(waiting, limit.agent, default_agent)
        notes.append(f"{limit.agent}: limited until {when} ({held_up} task{'' if held_up == 1 else 's'} waiting)")
    return notes


async def _run_notes(store: Store, settings: Settings) -> list[str]:
    """What holds the runs at work back, and the budgets that are near their end or past it.

    ``throttled: 4 of 8 workers since 03:12: rate limited``. A run of this host whose process is gone is over.
    """
    notes, limits = [], settings.budget.limits
    lines = [] if limits.day is None else await store.spending.lines(limits)
    for run in await store.workers.open_runs():
        from drover.app.host import host_name
        from drover.process import is_alive, parse_identity

        process = parse_identity(run.process)
        if run.host == host_name(settings.host) and (process is None or not is_alive(process)):
            continue
        if run.concurrency is not None:
            since = datetime.fromtimestamp((run.throttled_at or 0) / 1000).astimezone()
            notes.append(f"throttled: {run.concurrency} of {run.workers} workers since {since:%H:%M}: {run.throttle}")
        if run.budget_microusd is not None:
            lines += await store.spending.lines(Budget(run=run.budget_microusd), run_id=run.id)
    near = [line for line in lines if line.spent * 100 >= line.limit * limits.warn_percent]
    return notes + [f"budget: {line.words}" + ("; no new task starts" if line.used_up else "") for line in near]


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""


# ---------------------------------------------------------------- tree and details


async def tree(store: Store, epic: str | None) -> list[TreeNode]:
    """Epics with their tasks, then tasks without an epic."""
    epic_id = (await store.epics.get(epic)).id if epic else None
    tasks = await store.tasks.list_tasks(epic_id=epic_id)
    open_ids = {t.id for t in tasks if t.landed_at is None}
    children: defaultdict[str | None, list[Task]] = defaultdict(list)
    for task in tasks:
        children[task.parent_id].append(task)

    def node(task: Task) -> TreeNode:
        below = sorted(children[task.id], key=lambda t: t.sequence or 0)
        waits = tuple(b for b in task.blocked_by if b in open_ids or epic_id is not None)
        return TreeNode(task=task, waits_for=waits if task.open_blockers else (), children=tuple(map(node, below)))

    roots = children[None]
    found = [
        TreeNode(epic=e, children=tuple(node(t) for t in roots if t.epic_id == e.id))
        for e in await store.epics.list_epics()
        if epic_id in (None, e.id)
    ]
    loose = tuple(node(t) for t in roots if t.epic_id is None)
    return [*found, TreeNode(children=loose)] if loose and epic_id is None else found


async def details(store: Store, places: Places, id: str) -> TaskDetails:
    """Everything about one task."""
    task = await store.tasks.get(id)
    attempts = await store.claims.attempts(task.id)
    landings = await store.landings.of_task(task.id)
    worktree = places.worktree(task.id)
    return TaskDetails(
        task=task,
        attempts=tuple(attempts),
        steps=tuple(await store.claims.steps(task.id, task.attempt)),
        events=tuple(await store.events.page(task_id=task.id, limit=EVENTS_SHOWN)),
        blockers=tuple([await store.tasks.get(b) for b in task.blocked_by]),
        dependents=tuple([await store.tasks.get(b) for b in task.blocks]),
        landings=tuple(landings),
        worktree=worktree if worktree.is_dir() else None,
        branch=_branch(task, landings, attempts),
        log_paths=tuple(await log_files(store, places, task.id, None)),
        words=tuple(await store.orders.words(task.id)),
    )


def _branch(task: Task, landings: Sequence[Landing], attempts: Sequence[Attempt]) -> str | None:
    from drover.git.landing import attempt_ref, wip_ref

    if landings:
        return attempt_ref(task.id, landings[-1].fence)
    return wip_ref(task.id, task.attempt) if attempts else None


async def log_files(store: Store, places: Places, id: str, attempt: int | None) -> list[Path]:
    """The output files of a task's executions, tests and hooks, oldest first."""
    task = await store.tasks.get(id)
    attempts = [a for a in await store.claims.attempts(task.id) if attempt is None or a.attempt == attempt]
    folders = dict.fromkeys(Path(a.log) for a in attempts if a.log)
    if attempt is None:
        folders[places.test_logs(task.id)] = None
    found = [
        f for folder in folders if folder.is_dir() for f in folder.iterdir() if f.suffix in (".log", ".jsonl", ".txt")
    ]
    fences = {str(a.fence) for a in attempts}
    found += [f for f in places.hook_logs(task.id).glob("*.log") if f.name.split("-")[0] in fences]
    return sorted((f for f in found if f.stat().st_size), key=lambda f: f.stat().st_mtime_ns)


async def diff(store: Store, repo: Repo, places: Places, task: Task) -> str:
    """The task's change as a patch: as it landed, as it was committed, or as it stands in the clone now."""
    from drover.git.landing import wip_ref
    from drover.git.patch import patch_between, patch_of_worktree

    for row in reversed(await store.landings.of_task(task.id)):
        if row.state in ("landed", "published") and task.landed_commit == row.commit:
            if await repo.resolve(row.commit) is None:
                raise NotFound(
                    f"{row.commit[:12]} was landed on another host and is not in this clone", hint="git fetch"
                )
            return await patch_between(repo, row.old, row.commit)
    path = places.worktree(task.id)
    base = await _base(store, task)
    if path.is_dir() and base is not None:
        return await patch_of_worktree(repo, path, base=base, scratch=places.scratch(f"{task.id}.diff"))
    saved = await repo.resolve(wip_ref(task.id, task.attempt))
    if saved is not None:
        return await patch_between(repo, f"{saved}^1", saved)
    raise NotFound(f"{task.id} has changed nothing yet", hint=f"drover info {task.id}")


async def _base(store: Store, task: Task) -> str | None:
    for attempt in range(task.attempt, 0, -1):
        for record in await store.claims.steps(task.id, attempt):
            if record.name == "prepare_worktree":
                return Worktree.model_validate_json(record.result).base
    return None


# ---------------------------------------------------------------- runs


async def order_of(store: Store, epic: str | None, ids: Sequence[str]) -> list[Task]:
    """Unfinished tasks in an order in which one worker could do them: blockers first, then priority, then age."""
    epic_id = (await store.epics.get(epic)).id if epic else None
    tasks = {
        t.id: t
        for t in await store.tasks.list_tasks(epic_id=epic_id)
        if t.state not in (State.COMPLETED, State.FAILED, State.CANCELLED)
        and not t.stranded
        and (not ids or t.id in ids)
    }
    left = {id: {b for b in t.blocked_by if b in tasks} for id, t in tasks.items()}
    outside = {id for id, t in tasks.items() if t.open_blockers > len(left[id])}
    queue = [(-t.priority, t.created_at, t.id) for id, t in tasks.items() if not left[id] and id not in outside]
    heapify(queue)
    ordered = []
    while queue:
        task = tasks[heappop(queue)[2]]
        ordered.append(task)
        for dependent in task.blocks:
            if dependent in left and task.id in left[dependent]:
                left[dependent].discard(task.id)
                if not left[dependent] and dependent not in outside:
                    after = tasks[dependent]
                    heappush(queue, (-after.priority, after.created_at, after.id))
    return ordered


async def resume_items(store: Store, epic: str | None) -> list[ResumeItem]:
    """What a resume keeps, continues, does again, and what it needs a person for."""
    epic_id = (await store.epics.get(epic)).id if epic else None
    found = []
    for task in await store.tasks.list_tasks(epic_id=epic_id):
        item = await _resume_item(store, task)
        if item is not None:
            found.append(item)
    return found


async def _resume_item(store: Store, task: Task) -> ResumeItem | None:
    def item(decision: str, reason: str) -> ResumeItem:
        return ResumeItem.model_validate(
            {"task_id": task.id, "title": task.title, "decision": decision, "reason": reason}
        )

    if task.landed_at is not None and not task.needs_person:
        return item("keep", f"landed as {(task.landed_commit or '')[:12]}")
    if task.state in (State.FAILED, State.CANCELLED) or task.needs_person:
        return item("ask", _attention(task))
    if task.fence == 0:
        return None
    steps = [step for step in await store.claims.steps(task.id, task.attempt) if step.name in STEPS]
    attempts = await store.claims.attempts(task.id)
    mine = [a for a in attempts if a.attempt == task.attempt]
    if len(steps) > 1:
        return item("continue", f"{steps[-1].name} is done; goes on from there")
    if any(a.session_id for a in mine):
        return item("continue", f"the {mine[-1].agent} session goes on where it was cut off")
    if task.error is not None:
        return item("redo", f"the last attempt failed: {_first_line(task.error.message)}")
    if any(a.agent_started_at for a in mine):
        return item("redo", "the agent was interrupted; its work in progress is kept")
    return item("redo", "nothing had been done yet")


async def report(
    store: Store,
    run: Run,
    *,
    after: int,
    kept: int,
    resumed: Mapping[str, str],
    seconds: float,
    interrupted: bool,
    over_budget: str = "",
) -> RunReport:
    """What the run came to, read from the log and the backlog as they are now."""
    completed: list[str] = []
    cancelled: list[str] = []
    seen = after
    while page := await store.events.page(after=seen):
        seen = page[-1].seq
        completed += [str(e.task_id) for e in page if e.type == "task.completed"]
        cancelled += [str(e.task_id) for e in page if e.type == "task.cancelled"]
    tasks = await store.tasks.list_tasks(epic_id=run.epic_id)
    scope = {t.id: t for t in tasks if not run.task_ids or t.id in run.task_ids}
    used = await store.usage.of_run(run.id)
    return RunReport(
        completed=tuple(dict.fromkeys(i for i in completed if i in scope)),
        failed=tuple(i for i, t in scope.items() if t.state is State.FAILED),
        cancelled=tuple(i for i in dict.fromkeys(cancelled) if i in scope and scope[i].state is State.CANCELLED),
        stranded=tuple(i for i, t in scope.items() if t.stranded),
        needs_person=tuple(i for i, t in scope.items() if t.needs_person),
        kept=kept,
        continued=sum(how == "continue" for how in resumed.values()),
        redone=sum(how == "redo" for how in resumed.values()),
        seconds=round(seconds, 3),
        cost_usd=used.cost_usd,
        tokens=used.tokens,
        interrupted=interrupted,
        over_budget=over_budget if any(t.status is Status.READY for t in scope.values()) else "",
    )


def summary(report: RunReport) -> dict[str, int | float | str]:
    """A report as the data of the event that ends a run."""
    return {
        "completed": len(report.completed),
        "failed": len(report.failed),
        "cancelled": len(report.cancelled),
        "stranded": len(report.stranded),
        "needs_person": len(report.needs_person),
        "kept": report.kept,
        "continued": report.continued,
        "redone": report.redone,
        "seconds": report.seconds,
        "cost_usd": report.cost_usd,
        "tokens": report.tokens,
        "over_budget": report.over_budget,
        "exit_code": report.exit_code,
    }


async def git_user(root: Path) -> str | None:
    """git's user.name for the repository, if it has one."""
    from drover.git.patch import operator_name

    return await operator_name(root)

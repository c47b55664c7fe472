"""What the operator's orders come to: whether who was at work has stopped, and what waits for a person."""

from __future__ import annotations

from collections.abc import Collection

import anyio

from drover.agents.base import Opens
from drover.app import feed
from drover.app.host import host_name
from drover.app.readings import Context, InboxItem
from drover.domain.errors import WrongState
from drover.domain.ids import split_subtask
from drover.domain.models import Task
from drover.domain.states import State, Status
from drover.engine import building, session
from drover.engine.tools import Tools
from drover.process import is_alive
from drover.settings import Settings
from drover.store import Store
from drover.store.plans import PLAN_WAIT


async def at_work(store: Store, ids: Collection[str], *, subtasks: bool = False) -> set[str]:
    """Those of these tasks, or of their ``subtasks`` too, that somebody who may be alive works on now."""
    here = host_name()
    running = await store.claims.running()
    held = [h for h in running if h.task_id in ids or (subtasks and (split_subtask(h.task_id) or ("",))[0] in ids)]
    return {h.task_id for h in held if h.worker.host != here or is_alive(h.worker.process)}


async def until_stopped(store: Store, ids: Collection[str], *, after: int, seconds: float) -> set[str]:
    """Wait for the word of those who were at work that nothing of theirs is alive; the tasks it did not come for.

    ``after``: the number of the last event before the order.
    """
    left = set(ids)
    if not left:
        return left
    with anyio.move_on_after(seconds):
        async for event in feed.events(store, types=("task.stopped",), follow=True, after=after):
            left.discard(str(event.task_id))
            if not left:
                break
    return left


async def context(tools: Tools, task: Task) -> Context:
    """What the task's agent will be given, by the function that gives it."""
    if task.landed_at is not None:
        raise WrongState(f"{task.id} has landed: no agent will work on it", hint=f"drover info {task.id}")
    agent = tools.find_agent(tools.agent_of(task))
    job = await session.preview(tools, task, building.part_now)
    text = agent.opening(job) if isinstance(agent, Opens) else job.follow_up if job.session_id else job.prompt
    blockers = [await tools.store.tasks.get(id) for id in task.blocked_by]
    missing = tuple(blocker.id for blocker in blockers if blocker.landed_at is None)
    return Context(task_id=task.id, agent=agent.name, session_id=job.session_id, text=text, missing=missing)


async def inbox(store: Store, settings: Settings, epic: str | None) -> list[InboxItem]:
    """What needs a person, oldest first, each with the command that settles it."""
    epic_id = (await store.epics.get(epic)).id if epic else None
    waiting = await store.tasks.list_tasks(statuses=(Status.WAITING, Status.PAUSED, Status.FAILED), epic_id=epic_id)
    found = [_item(task, settings) for task in waiting if task.needs_person or task.state is State.FAILED]
    return sorted(found, key=lambda item: item.since)


def _item(task: Task, settings: Settings) -> InboxItem:
    kind, says, command = _matter(task, settings)
    return InboxItem(
        task_id=task.id, title=task.title, kind=kind, says=says, since=task.updated_at, command=command.format(task.id)
    )


def _matter(task: Task, settings: Settings) -> tuple[str, str, str]:
    """What is the matter: its kind, what it says, and what settles it, with a place for the id."""
    if task.state is State.FAILED:
        error = task.error
        says = f"{error.error_class}: {error.message}" if error else "failed"
        used_up = task.failures >= (task.max_attempts or settings.max_attempts)
        return "failed", says, "drover retry --force {}" if used_up else "drover retry {}"
    if task.reason == "question" and task.state is State.WAITING:
        return "question", task.detail or "", 'drover answer {} "…"'
    if task.state is State.PAUSED:
        asks = f"asks: {task.detail}" if task.reason == "question" else ""
        return "paused", asks, 'drover resume-task {} --hint "…"' if asks else "drover resume-task {}"
    if task.reason == PLAN_WAIT:
        return "plan", task.detail or "", "drover plan review"
    if task.reason == "budget":
        return "budget", task.detail or "", "drover resume"  # once [budget] allows more
    if task.reason == "publish":
        return "publish", task.detail or "", "git stash"
    if task.reason == "budget":
        return "budget", task.detail or "", "drover run --budget …"
    return task.reason or "waiting", task.detail or "", "drover info {}"

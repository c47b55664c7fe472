"""What happens in a store, in the few words that tests need for it."""

from __future__ import annotations

from itertools import count
from typing import Any

from drover.domain.models import Claim, Landed, NewTask, ProcessIdentity, Run, Task, Worker
from drover.domain.verdicts import Completed
from drover.store import Store

_numbers = count(1)


async def hire(store: Store, host: str = "here") -> Worker:
    """A worker at work."""
    return (await hire_many(store, 1, host))[0]


async def hire_many(store: Store, how_many: int, host: str = "here") -> list[Worker]:
    numbers = [next(_numbers) for _ in range(how_many)]
    process = ProcessIdentity(boot_id="boot", pid=numbers[0], started=1)
    workers = [Worker(id=f"w{n}", host=host, process=process) for n in numbers]
    await store.workers.start_run(Run(id=f"run-{numbers[0]}", host=host), workers)
    return workers


async def add(store: Store, title: str = "a task", **columns: Any) -> Task:
    """A task; ``blocked_by`` may name tasks."""
    columns["blocked_by"] = tuple(getattr(b, "id", b) for b in columns.get("blocked_by", ()))
    return await store.tasks.add(NewTask(title=title, **columns))


async def take(store: Store, task: Task | None = None, worker: Worker | None = None) -> Claim:
    """A claim of that task, or of the best."""
    claim = await store.claims.claim(worker or await hire(store), task_ids=[task.id] if task else ())
    assert claim is not None
    return claim


def landing_of(claim: Claim, commit: str | None = None) -> Landed:
    commit = commit or f"{claim.task_id}@{claim.task.attempt}"
    return Landed(commit=commit, tree="tree", parent="old", target="main")


async def land(store: Store, claim: Claim) -> Landed:
    """The claim's work, in the lane."""
    landed = landing_of(claim)
    await store.landings.intend(claim, target="main", old="old", commit=landed.commit, tree=landed.tree)
    await store.landings.landed(claim, landed)
    return landed


async def complete(store: Store, task: Task) -> Task:
    """The task claimed, landed and settled."""
    claim = await take(store, task)
    return await store.claims.settle(claim, Completed(landed=await land(store, claim)))


async def start(store: Store, claim: Claim, **changes: Any) -> None:
    """The agent's execution, recorded."""
    process = ProcessIdentity(boot_id="boot", pid=7, started=7)
    values: dict[str, Any] = {"agent": "claude", "process": process, "marker": "m", "log": "l", "base": "b"}
    values |= {"session_id": None, "resumed": "fresh"}
    await store.claims.start_agent(claim, **values | changes)


def plain(task: Task) -> dict[str, Any]:
    """What can be compared between two stores or two moments."""
    return task.model_dump(mode="json", exclude={"updated_at"})

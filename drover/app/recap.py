"""What happened since a time: read from the event log and from the backlog as it is now."""

from __future__ import annotations

from collections import Counter

from drover.app import steering
from drover.app.readings import Recap, RecapOrder, RecapTask
from drover.domain.models import Event
from drover.domain.states import State
from drover.engine import legacy
from drover.settings import Settings
from drover.store import Store

ORDERS = {
    "task.paused": "paused", "task.resumed": "resumed", "task.cancelled": "cancelled", "task.retried": "retried",
    "task.reset": "reset", "task.resolved": "resolved", "task.hinted": "hinted", "task.answered": "answered",
}  # fmt: skip
COUNTED = {"task.rescued": "taken over", "task.released": "given back", "task.retrying": "tried again"}


async def recap(store: Store, settings: Settings, since: int, until: int) -> Recap:
    """From ``since`` to ``until``, unix milliseconds."""
    landed: dict[str, int] = {}
    failed: dict[str, int] = {}
    happened: Counter[str] = Counter()
    orders: list[RecapOrder] = []
    seen = 0
    while page := await store.events.page(after=seen, since=since, until=until):
        seen = page[-1].seq
        for event in page:
            match event.type:
                case "task.completed" if event.task_id:
                    landed[event.task_id] = event.at
                case "task.failed" if event.task_id:
                    failed[event.task_id] = event.at
                case "run.started":
                    happened["runs"] += 1
                case kind if kind in COUNTED:
                    happened[COUNTED[kind]] += 1
                case kind if kind in ORDERS:
                    orders.append(_order(event))
    used = await store.usage.total(since=since)
    return Recap(
        since=since,
        until=until,
        landed=tuple([await _landed(store, id, at) for id, at in landed.items()]),
        failed=tuple([one for id, at in failed.items() if (one := await _failed(store, id, at)) is not None]),
        needs=tuple(await steering.inbox(store, settings, None)),
        orders=tuple(orders),
        happened=dict(happened),
        by_status={str(status): count for status, count in (await store.tasks.counts()).items() if count},
        tokens=used.tokens,
        cost_usd=used.cost_usd,
    )


def _order(event: Event) -> RecapOrder:
    why = next((str(event.data[key]) for key in ("reason", "note", "text", "hint") if event.data.get(key)), "")
    by = str(event.data.get("by") or "somebody")
    return RecapOrder(at=event.at, task_id=event.task_id or "", what=ORDERS[event.type], by=by, why=why)


async def _landed(store: Store, id: str, at: int) -> RecapTask:
    left = await legacy.left_by(store, await store.tasks.get(id))
    return RecapTask(
        task_id=id, title=left.task.title, at=at, says=left.summary, paths=len(left.paths) + left.more_paths,
        decisions=left.decisions,
    )  # fmt: skip


async def _failed(store: Store, id: str, at: int) -> RecapTask | None:
    """None for what has gone on since."""
    task = await store.tasks.get(id)
    if task.state is not State.FAILED:
        return None
    says = f"{task.error.error_class}: {task.error.message}" if task.error else ""
    return RecapTask(task_id=id, title=task.title, at=at, says=says)

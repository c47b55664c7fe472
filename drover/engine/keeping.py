"""How long the work of finished tasks is kept on refs of drover's own."""

from __future__ import annotations

from drover.domain.states import Status
from drover.engine.tools import Tools
from drover.git.repo import RefChange, RefMoved
from drover.git.snapshot import list_kept

KEPT_MS = 14 * 24 * 3600 * 1000


async def forget_old_work(tools: Tools) -> list[str]:
    """Refs of tasks that were completed or cancelled, and that were saved, more than 14 days ago go.

    Those of any other task stay: it may go on. So do those of tasks that this backlog does not know.
    Objects that only such a ref held are git's to collect, in its own time.
    """
    before = tools.clock.now() - KEPT_MS
    old = [kept for kept in await list_kept(tools.repo, sessions=True) if kept.saved_at < before]
    if not old:
        return []
    finished = await tools.store.tasks.list_tasks(statuses=(Status.COMPLETED, Status.CANCELLED))
    over = {task.id for task in finished if (task.completed_at or task.updated_at) < before}
    gone = 0
    for kept in old:
        if kept.task_id in over:
            try:
                await tools.repo.update_refs([RefChange(ref=kept.ref, new=None, old=kept.oid)])
            except RefMoved:  # saved anew just now
                continue
            gone += 1
    return [f"{gone} refs of work finished more than 14 days ago were removed"] if gone else []

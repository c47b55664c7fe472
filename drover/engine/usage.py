"""What an execution used whose end nobody reported: read back from its log, once, when nothing of it is alive."""

from __future__ import annotations

import logging
from pathlib import Path

from anyio.to_thread import run_sync

from drover.agents.base import AgentJob, ReadsBack
from drover.domain.errors import DroverError
from drover.domain.models import AgentReport, Attempt
from drover.engine.past import Past
from drover.engine.tools import Tools

log = logging.getLogger(__name__)


async def count(tools: Tools, task_id: str, fence: int) -> None:
    """Put on record what the execution used, unless it is there already. Trouble is told, and stops nobody."""
    attempts = await tools.store.claims.attempts(task_id)
    mine = next((a for a in attempts if a.fence == fence), None)
    if mine is None or mine.counted or mine.agent_started_at is None or mine.log is None:
        return
    try:
        report = await _read_back(tools, mine, attempts)
        if report is not None:
            await tools.store.usage.count(task_id, fence, report)
    except (DroverError, OSError, ValueError) as trouble:
        log.warning("%s: what execution %s used is not known: %s", task_id, fence, trouble)


async def count_all(tools: Tools) -> None:
    """Every execution of this host that is over and was not counted: a drover died before it could."""
    for task_id, fence in await tools.store.usage.uncounted(tools.host):
        await count(tools, task_id, fence)


async def _read_back(tools: Tools, mine: Attempt, attempts: list[Attempt]) -> AgentReport | None:
    """None when its log is not on this machine, or tells nothing."""
    log_dir = Path(mine.log or "")
    agent = tools.find_agent(mine.agent)
    if not isinstance(agent, ReadsBack) or not await run_sync(log_dir.is_dir):
        return None
    task = await tools.store.tasks.get(mine.task_id)
    settings = tools.agent_settings(agent.name)
    before = Past(task, tuple(a for a in attempts if a.fence < mine.fence))
    spent = before.spent(agent.name, mine.session_id)
    return await agent.read_back(
        AgentJob(
            task_id=task.id,
            attempt=mine.attempt,
            fence=mine.fence,
            prompt="",
            follow_up="",
            session_id=mine.session_id,
            prior_cost_usd=spent.cost_usd,
            prior_usage=spent,
            worktree=tools.places.worktree(task.id),
            log_dir=log_dir,
            env={**tools.passed_on((*agent.env_names, *settings.env)), **settings.set},
            marker=mine.marker or "",
            settings=settings,
        )
    )

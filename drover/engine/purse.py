"""The budget of a run: who may begin, who has to stop, and what is told of it."""

from __future__ import annotations

import logging

from drover.domain.budget import Budget
from drover.engine.tools import Tools
from drover.store.spending import Refusal

log = logging.getLogger(__name__)

LOOK_S = 1.0  # how soon tasks at work stop once their budget is used up


class Purse:
    """What a run may spend. Costs nothing where no limit is set."""

    def __init__(self, tools: Tools) -> None:
        limits = tools.settings.budget.limits
        self.budget: Budget | None = limits if limits.any else None
        self.over = ""  # why nothing more was begun, as it stood when last looked at
        self._tools = tools
        self._told: set[tuple[str, str, int, bool]] = set()

    async def refusal(self) -> Refusal | None:
        """Why no task may begin now; None when one may."""
        if self.budget is None:
            return None
        tools = self._tools
        found = await tools.store.spending.refusal(self.budget, tools.run_id, tools.settings.agent)
        self.over = found.line.words if found is not None and found.line.used_up else ""
        return found

    async def look(self) -> None:
        """Warn where a limit is near, and stop what is at work where one is used up."""
        if self.budget is None:
            return
        tools, budget = self._tools, self.budget
        spending = tools.store.spending
        epics: list[str] = []
        if budget.epic is not None:
            epics = sorted({h.epic_id for h in await tools.store.claims.running() if h.epic_id is not None})
        for line in await spending.lines(budget, run_id=tools.run_id, epic_ids=epics):
            told = (line.scope, line.id, line.limit, line.used_up)
            if told not in self._told and line.spent * 100 >= line.limit * budget.warn_percent:
                self._told.add(told)
                await spending.tell(line, run_id=tools.run_id)
                log.warning("%s", line.words)
        for task_id in await spending.stop_over(budget, tools.run_id):
            log.warning("%s: stopped, its work is kept until there is budget again", task_id)

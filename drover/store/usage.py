"""What executions used: tokens and money, each counted once."""

from __future__ import annotations

from drover.domain.models import AgentReport, Usage
from drover.store.database import Database, Row, Transaction, Value
from drover.store.spending import note_spent

UNCOUNTED_AT_ONCE = 1000
WORDS_LIMIT = 4_000


class Usages:
    """Verbs of usage. An execution that ended in sight is counted with its report, by the verbs of its claim."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, task_id: str, fence: int, report: AgentReport) -> bool:
        """Put on record what an execution used whose end was not reported; False when that had been done."""

        async def verb(tx: Transaction) -> bool:
            before = await tx.one("find_execution", task_id=task_id, fence=fence)
            if not await tx.run("count_usage", task_id=task_id, fence=fence, **columns_of(report)):
                return False
            if before is not None:
                cost_microusd = round(report.usage.cost_usd * 1e6)
                await note_spent(tx, before, cost_microusd=cost_microusd, tokens=report.usage.tokens)
            return True

        return await self._database.write(verb)

    async def uncounted(self, host: str) -> list[tuple[str, int]]:
        """Task and fence of executions of the host that are over and not counted."""

        async def verb(tx: Transaction) -> list[Row]:
            return await tx.all("list_uncounted", host=host, limit=UNCOUNTED_AT_ONCE)

        return [(str(row["task_id"]), int(row["fence"] or 0)) for row in await self._database.read(verb)]

    async def of_run(self, run_id: str) -> Usage:
        """What the executions of a run's own workers used."""

        async def verb(tx: Transaction) -> Row | None:
            return await tx.one("sum_usage_of_run", run_id=run_id)

        return _sum_of(await self._database.read(verb))

    async def total(self, epic_id: str | None = None, *, since: int = 0) -> Usage:
        """What all executions started since (unix ms) used, or those of an epic's tasks."""

        async def verb(tx: Transaction) -> Row | None:
            return await tx.one("sum_usage", epic_id=epic_id, since=since)

        return _sum_of(await self._database.read(verb))


def columns_of(report: AgentReport) -> dict[str, Value]:
    """A report's facts as columns of its execution."""
    return {
        "resumed": report.resumed,
        "session_id": report.session_id,
        "input_tokens": report.usage.input_tokens,
        "output_tokens": report.usage.output_tokens,
        "cost_microusd": round(report.usage.cost_usd * 1e6),
        "turns": report.usage.turns,
        "model": report.usage.model,
        "words": report.summary[-WORDS_LIMIT:],
    }


def _sum_of(row: Row | None) -> Usage:
    if row is None:
        return Usage()
    return Usage(
        input_tokens=int(row["input_tokens"] or 0),
        output_tokens=int(row["output_tokens"] or 0),
        cost_usd=int(row["cost_microusd"] or 0) / 1e6,
    )

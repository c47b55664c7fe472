"""What agents have used."""

from __future__ import annotations

from typing import Annotated, Literal

from drover.cli.options import NOTHING_SAID, Common, EpicOption, option
from drover.cli.output import Part, Styled
from drover.cli.session import opened, printer_of
from drover.cli.shapes import cost_json
from drover.cli.text import counted


async def cost(
    *,
    by: Annotated[
        Literal["epic", "task", "agent", "day"],
        option("--by", help="What to sum by. Days are local, by an execution's start."),
    ] = "task",
    epic: EpicOption = None,
    common: Common = NOTHING_SAID,
) -> None:
    """What agents have used: tokens, and US dollars where they tell them.

    Every execution counts, whatever became of it; of a session that went on, each execution only what it used itself.
    Below the sum stand the limits of [budget] that hold for today and for open epics.
    """
    from drover.domain.budget import dollars

    out = printer_of(common)
    async with opened(common) as drover:
        costs = await drover.costs(by, epic=epic)
        lines = await drover.budget()
    if common.json:
        out.document(cost_json(by, costs, lines))
        return
    if not costs:
        out.note("no agent has worked yet")
    rows: list[tuple[Part, ...]] = [
        (one.id or "no epic", f"{one.tokens:,} tokens", Styled(dollars(one.cost_microusd), "bold"), one.title)
        for one in costs
    ]
    if rows:
        out.table(rows)
        total = dollars(sum(one.cost_microusd for one in costs))
        executions = counted(sum(one.executions for one in costs), "execution")
        out.line(f"{total} and {sum(one.tokens for one in costs):,} tokens in {executions}")
    for line in lines:
        out.line(f"budget: {line.words}")

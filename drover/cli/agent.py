"""The agents in use, and the limits of their accounts."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from drover.cli.options import NOTHING_SAID, Common
from drover.cli.output import Part
from drover.cli.session import opened, printer_of
from drover.cli.shapes import agent_json
from drover.cli.text import counted, moment
from drover.domain.errors import WrongState

agent = App(name="agent", help="The agents in use and the limits of their accounts: list, lift.")

Type = Annotated[str, Parameter(help="The agent's type, like claude.")]


@agent.command(name="list")
async def list_agents(*, common: Common = NOTHING_SAID) -> None:
    """Every agent in use: whether its account is limited, until when, and how many tasks wait for that."""
    async with opened(common) as drover:
        rows = await drover.agents()
    out = printer_of(common)
    if common.json:
        out.document([agent_json(row) for row in rows])
        return
    table: list[tuple[Part, ...]] = []
    for row in rows:
        how = "fallback" if row.fallback else ""
        limited = f"limited until {moment(row.until)} ({counted(row.waiting, 'task')} waiting)" if row.until else ""
        table.append((row.type, limited or "not limited", how, row.detail))
    out.table(table, cut=False)


@agent.command
async def lift(type: Type, /, *, common: Common = NOTHING_SAID) -> None:
    """Lift the limit of an agent's account before its time; the tasks that wait for it go on.

    For when you know better: the plan was raised, the limit was reset. If the provider still refuses, they wait anew.
    """
    async with opened(common) as drover:
        woken = await drover.lift_limit(type)
    if woken is None:
        raise WrongState(f"{type} is not limited", hint="drover agent list")
    out = printer_of(common)
    if common.json:
        out.document({"agent": type, "tasks": woken})
    else:
        out.line(f"the limit of {type} is lifted; {counted(woken, 'task')} can go on")

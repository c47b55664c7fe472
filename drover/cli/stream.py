"""The event log, past and to come."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from drover.cli.options import NOTHING_SAID, Common, EpicOption, option, positive, split
from drover.cli.output import Printer, Styled
from drover.cli.session import opened, printer_of
from drover.cli.shapes import event_json
from drover.cli.text import moment
from drover.domain.errors import UsageError
from drover.domain.quantities import parse_duration

if TYPE_CHECKING:
    from drover.domain.models import Event


async def stream(
    *,
    type: Annotated[
        tuple[str, ...],
        option("--type", metavar="T", help="Only these, like completed or run.started; a,b or repeated."),
    ] = (),
    epic: EpicOption = None,
    task: Annotated[str | None, option("--task", metavar="ID", help="Only of this task.")] = None,
    since: Annotated[
        str | None,
        option("--since", metavar="TIME", help="From then on: 2026-01-31T08:00:00Z, or 2h for two hours ago."),
    ] = None,
    until: Annotated[
        str | None, option("--until", metavar="TIME", help="Up to then, written in the same ways.")
    ] = None,
    follow: Annotated[bool, option("--follow", "-f", help="Go on with what happens, until Ctrl+C.")] = False,
    limit: Annotated[int | None, option("--limit", metavar="N", help="End after so many.")] = None,
    jsonl: Annotated[bool, option("--jsonl", help="JSON Lines; the same as --json.")] = False,
    common: Common = NOTHING_SAID,
) -> None:
    """The event log, oldest first: what happened to which task, when, and by whom.

    With --follow, events of every process on this backlog are told within a second.
    """
    positive(limit, "--limit", most=10**9)
    out = printer_of(common)
    async with opened(common) as drover:
        events = drover.events(
            types=split(type),
            epic=epic,
            task=task,
            since=time_of(since, "--since", drover.clock.now()),
            until=time_of(until, "--until", drover.clock.now()),
            follow=follow,
            limit=limit,
        )
        async for event in events:
            if jsonl or common.json:
                out.record(event_json(event))
            else:
                _print_event(out, event)
                if follow:
                    out.out.flush()


def _print_event(out: Printer, event: Event) -> None:
    of = event.task_id or event.epic_id or ""
    who = f"{event.worker}@{event.host}" if event.worker and event.host else event.worker or ""
    facts = ", ".join(f"{key} {value}" for key, value in event.data.items() if value not in (None, "", [], {}))
    told = "  ".join(word for word in (of, facts, who) if word)
    out.line(Styled(moment(event.at), "dim"), "  ", Styled(f"{event.type:<16}", "bold"), "  ", told)


def time_of(text: str | None, name: str, now: int) -> int | None:
    """A moment in unix milliseconds, written as RFC 3339 or as a duration back from now; raises UsageError."""
    if text is None:
        return None
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        hint = f"for example: {name} 2026-01-31T08:00:00Z, or {name} 2h"
        raise UsageError(f"{name}: {text!r} is neither a time nor a duration", hint=hint) from None
    return int((at if at.tzinfo else at.astimezone()).timestamp() * 1000)

"""The event log: stream."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from drover.cli.options import NOTHING_SAID, Common, EpicOption, option, split
from drover.cli.session import opened, printer_of
from drover.cli.shapes import event_json
from drover.cli.text import moment
from drover.domain.errors import UsageError

if TYPE_CHECKING:
    from drover.domain.models import Event

_TOLD_ELSEWHERE = frozenset({"title"})


async def stream(
    *,
    type: Annotated[
        tuple[str, ...], option("--type", metavar="T", help="Only these: task.landed, or landed; a,b or repeated.")
    ] = (),
    epic: EpicOption = None,
    task: Annotated[str | None, option("--task", metavar="ID", help="Only of this task.")] = None,
    since: Annotated[str | None, option("--since", metavar="TIME", help="Not before this time (RFC 3339).")] = None,
    until: Annotated[str | None, option("--until", metavar="TIME", help="Not after this time (RFC 3339).")] = None,
    follow: Annotated[bool, option("--follow", "-f", help="Go on with what is yet to happen, in any process.")] = False,
    limit: Annotated[int | None, option("--limit", metavar="N", help="At most so many.")] = None,
    jsonl: Annotated[bool, option("--jsonl", help="JSON Lines, as --json.")] = False,
    common: Common = NOTHING_SAID,
) -> None:
    """The event log, oldest first."""
    out = printer_of(common)
    async with opened(common) as drover:
        events = drover.events(
            types=split(type),
            epic=epic,
            task=task,
            since=_time(since, "--since"),
            until=_time(until, "--until"),
            follow=follow,
            limit=limit,
        )
        async for event in events:
            if common.json or jsonl:
                out.record(event_json(event))
            else:
                out.line(f"{moment(event.at)}  {told(event)}")
                out.out.flush()


def told(event: Event) -> str:
    """An event in a line."""
    data = {key: value for key, value in event.data.items() if key not in _TOLD_ELSEWHERE and value not in (None, "")}
    facts = " ".join(f"{key}={value}" for key, value in data.items())
    title = f"  {event.data['title']}" if event.data.get("title") else ""
    return f"{event.type:16} {event.task_id or event.epic_id or ''}{title}" + (f"  {facts}" if facts else "")


def _time(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    try:
        return int(datetime.fromisoformat(text).astimezone().timestamp() * 1000)
    except ValueError:
        raise UsageError(f"{name}: {text!r} is no time", hint="for example: 2026-11-22T21:30:00Z") from None

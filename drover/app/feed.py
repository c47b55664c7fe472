"""The event log as a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection

from drover.domain.errors import StoreUnavailable
from drover.domain.models import Event
from drover.store import Store

LOOK_S = 0.5  # the safety net behind the bell


async def events(
    store: Store,
    *,
    types: Collection[str] = (),
    epic_id: str | None = None,
    task_id: str | None = None,
    since: int | None = None,
    until: int | None = None,
    follow: bool = False,
    limit: int | None = None,
    after: int = 0,
) -> AsyncIterator[Event]:
    """Oldest first; with ``follow`` also what is yet to come, of any process, while a server is away, too.

    ``types`` may leave out the noun (``landed`` for ``task.landed``); times are unix ms.
    """
    seen, told = after, 0
    while limit is None or told < limit:
        ticket = store.news.ticket()
        try:
            page = await store.events.page(after=seen, task_id=task_id, epic_id=epic_id, since=since, until=until)
        except StoreUnavailable:
            if not follow:
                raise
            await store.news.wait(ticket, LOOK_S)
            continue
        for event in page:
            seen = event.seq
            if not types or event.type in types or event.type in {f"task.{word}" for word in types}:
                yield event
                told += 1
                if told == limit:
                    return
        if not page:
            if not follow:
                return
            await store.news.wait(ticket, LOOK_S)

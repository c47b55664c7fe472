"""What a run tells of how many it has at work, for whoever looks from elsewhere."""

from __future__ import annotations

import pytest

from drover.domain.models import Run
from drover.store import Store
from drover.testing import FakeClock

pytestmark = pytest.mark.anyio


async def test_a_throttle_is_told_when_it_falls_and_when_it_is_over(store: Store, clock: FakeClock) -> None:
    run = Run(id="run-1", workers=8, host="here")
    await store.workers.start_run(run, [])
    began = clock.now()
    for limit in (4, 5, 2):
        await store.workers.note_throttle("run-1", limit, "refused")
        clock.advance(60)
    (found,) = await store.workers.open_runs()
    assert (found.concurrency, found.throttle, found.throttled_at) == (2, "refused", began)
    await store.workers.note_throttle("run-1", None, "")
    (found,) = await store.workers.open_runs()
    assert (found.concurrency, found.throttle, found.throttled_at) == (None, None, None)
    told = [e for e in await store.events.page() if e.type.startswith("run.") and e.type != "run.started"]
    assert [(e.type, e.data["concurrency"]) for e in told] == [
        ("run.throttled", 4),
        ("run.throttled", 2),
        ("run.recovered", None),
    ]


async def test_a_run_that_is_over_is_not_throttled(store: Store) -> None:
    run = Run(id="run-1", workers=8, host="here")
    await store.workers.start_run(run, [])
    await store.workers.note_throttle("run-1", 4, "refused")
    await store.workers.finish_run(run, [], {})
    await store.workers.note_throttle("run-1", 3, "too late")
    await store.workers.note_throttle("run-2", 3, "no such run")
    assert await store.workers.open_runs() == []

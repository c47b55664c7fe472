"""Large backlogs: listed in pages, added in bulk, looked over at the heads of indexes."""

from __future__ import annotations

import pytest

from drover.domain.models import NewTask
from drover.domain.states import Status
from drover.store import Store, tasks

pytestmark = pytest.mark.anyio


async def test_a_list_is_the_same_whatever_the_size_of_its_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    news = [NewTask(title=f"t{n}", key=f"k{n}", labels=("odd",) if n % 2 else ()) for n in range(23)]
    added = await store.tasks.add_many(news)
    whole = await store.tasks.list_tasks()
    monkeypatch.setattr(tasks, "FIRST_PAGE", 3)
    monkeypatch.setattr(tasks, "PAGE", 4)
    assert [page[0].title async for page in store.tasks.pages()] == ["t0", "t3", "t7", "t11", "t15", "t19"]
    assert await store.tasks.list_tasks() == whole
    assert [t.id for t in whole] == [t.id for t in added]
    assert [t.title for t in await store.tasks.list_tasks(label="odd", limit=4)] == ["t1", "t3", "t5", "t7"]


async def test_a_page_shows_the_edges_and_statuses_of_its_tasks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "FIRST_PAGE", 1)
    monkeypatch.setattr(tasks, "PAGE", 1)
    first, second, third = await store.tasks.add_many(
        [NewTask(title=t, key=t, labels=("l",), blocked_by=b) for t, b in (("a", ()), ("b", ("a",)), ("c", ("a", "b")))]
    )
    assert await store.tasks.list_tasks() == [first, second, third]
    assert (third.blocked_by, third.open_blockers, third.labels) == (tuple(sorted((first.id, second.id))), 2, ("l",))
    assert set(first.blocks) == {second.id, third.id}
    assert [t.title for t in await store.tasks.list_tasks(statuses=[Status.BLOCKED])] == ["b", "c"]
    await store.tasks.cancel(first.id)
    assert [t.title for t in await store.tasks.list_tasks() if t.stranded] == ["b", "c"]
    assert await store.tasks.miscounted() == []


async def test_what_is_left_to_do_is_seen_within_every_scope(store: Store) -> None:
    assert (await store.tasks.outlook()).done
    epic = await store.epics.add("An epic")
    ready, blocked = await store.tasks.add_many(
        [NewTask(title="a", key="a", epic_id=epic.id), NewTask(title="b", key="b", blocked_by=("a",))]
    )
    assert (await store.tasks.outlook()).ready
    assert (await store.tasks.outlook(epic_id=epic.id)).ready == 1
    assert (await store.tasks.outlook(task_ids=[blocked.id])).done, "a blocked task is nothing that can be done now"
    await store.tasks.cancel(ready.id)
    assert (await store.tasks.outlook()).done
    assert (await store.tasks.outlook(epic_id=epic.id)).done

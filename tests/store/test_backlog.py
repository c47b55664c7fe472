"""Adding tasks and finding them again."""

from __future__ import annotations

import random

import pytest

from drover.domain.errors import NotFound, UsageError, WrongState
from drover.domain.models import NewTask
from drover.domain.states import State, Status
from drover.store import Store
from drover.testing import FakeClock
from tests.store.conftest import Place
from tests.store.scenes import add, complete, hire, plain, take

pytestmark = pytest.mark.anyio


async def test_a_task_comes_back_as_it_was_asked_for(store: Store, clock: FakeClock) -> None:
    new = NewTask(
        title="Design the schema", description="All of it.\n\tTabs and “quotes” too.", type="feature", priority=7,
        key="design", agent="claude", test_mode="lenient", test_scope="diff", test_command="make test",
        timeout_ms=90_000, max_attempts=5, allow_no_change=True, labels=("b", "a", "b"),
    )  # fmt: skip
    task = await store.tasks.add(new, by="olive")
    asked = new.model_dump(exclude={"labels"})
    assert {name: getattr(task, name) for name in asked} == asked
    assert task.labels == ("a", "b")
    assert (task.status, task.created_by, task.created_at, task.attempt) == (Status.READY, "olive", clock.now(), 1)
    assert plain(await store.tasks.get(task.id)) == plain(task)


async def test_tasks_added_at_the_same_moment_keep_the_order_they_were_given_in(store: Store) -> None:
    added = await store.tasks.add_many([NewTask(title=f"{n}") for n in range(30)])
    assert [t.title for t in await store.tasks.list_tasks()] == [f"{n}" for n in range(30)]
    claims = [await take(store) for _ in range(3)]
    assert [c.task_id for c in claims] == [t.id for t in added[:3]]


async def test_epics_added_at_the_same_moment_keep_their_order(store: Store) -> None:
    for n in range(10):
        await store.epics.add(f"{n}")
    assert [e.title for e in await store.epics.list_epics()] == [f"{n}" for n in range(10)]


async def test_the_same_key_gives_the_same_task(store: Store) -> None:
    first = await add(store, "one", key="k")
    again = await add(store, "two", key="k", labels=("new",))
    assert plain(again) == plain(first)
    assert len(await store.tasks.list_tasks()) == 1


async def test_many_at_once_are_what_they_are_one_by_one(store: Store) -> None:
    first = await add(store, "there before", key="k3")
    news = [
        NewTask(title=f"{n}", key=f"k{n}", labels=("b", "a"), input={"n": n}, priority=n, timeout_ms=n + 1,
                allow_no_change=n % 2 == 0, blocked_by=(f"k{n - 1}", first.id) if n else ())
        for n in range(12)
    ]  # fmt: skip
    added = await store.tasks.add_many([*news, news[5]], by="olive")
    assert added[3].id == first.id and added[12].id == added[5].id
    assert len({task.id for task in added}) == 12
    for n, task in enumerate(added[:12]):
        if n != 3:
            assert (task.title, task.key, task.priority, task.timeout_ms) == (f"{n}", f"k{n}", n, n + 1)
            assert (task.labels, task.input, task.created_by) == (("a", "b"), {"n": n}, "olive")
            assert task.allow_no_change == (n % 2 == 0)
            assert set(task.blocked_by) == ({added[n - 1].id, first.id} if n else set())
            assert task.open_blockers == len(task.blocked_by)
            assert plain(await store.tasks.get(task.id)) == plain(task)
    assert await store.tasks.miscounted() == []
    assert len(await store.events.page(limit=100)) == 12


async def test_the_same_key_twice_in_one_call_gives_one_task(store: Store) -> None:
    one, two, three = await store.tasks.add_many(
        [NewTask(title="a", key="k"), NewTask(title="b", key="k"), NewTask(title="c")]
    )
    assert one.id == two.id != three.id


async def test_tasks_of_one_call_are_added_all_or_none(store: Store) -> None:
    with pytest.raises(NotFound, match="no task 'nobody'"):
        await store.tasks.add_many([NewTask(title="a"), NewTask(title="b", blocked_by=("nobody",))])
    assert await store.tasks.list_tasks() == []
    assert await store.events.page() == []


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (NewTask(title="x", epic_id="epic-none"), "no epic 'epic-none'"),
        (NewTask(title="x", parent_id="task-none"), "no task 'task-none'"),
        (NewTask(title="x", blocked_by=("task-none",)), "no task 'task-none'"),
    ],
    ids=["epic", "parent", "blocker"],
)
async def test_what_a_new_task_names_must_exist(store: Store, new: NewTask, message: str) -> None:
    with pytest.raises(NotFound, match=message):
        await store.tasks.add(new)


async def test_an_id_that_is_taken_is_not_given_twice(place: Place) -> None:
    # A generator that starts over gives the ids that it gave before.
    async with place.open() as store:
        store.tasks._adding._rng = random.Random(1)
        first = await store.tasks.add_many([NewTask(title="a") for _ in range(12)])
        store.tasks._adding._rng = random.Random(1)
        second = await store.tasks.add_many([NewTask(title="b") for _ in range(12)])
    ids = [t.id for t in (*first, *second)]
    assert len(set(ids)) == 24
    assert [t.title for t in second] == ["b"] * 12


async def test_an_id_that_another_takes_meanwhile_is_exchanged(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    old = await store.tasks.add(NewTask(title="old"))

    async def taken(*_: object) -> list[str]:
        return [f"task-new{n}" for n in range(7)] + [old.id]

    monkeypatch.setattr(store.tasks._adding, "_free_ids", taken)
    new = await store.tasks.add_many([NewTask(title="new") for _ in range(8)])
    assert old.id not in [task.id for task in new]
    assert [task.title for task in await store.tasks.list_tasks()] == ["old"] + ["new"] * 8


async def test_an_id_is_as_short_as_can_be(store: Store) -> None:
    assert len((await store.tasks.add(NewTask(title="one"))).id) == len("task-abcd")
    many = await store.tasks.add_many([NewTask(title="many") for _ in range(8)])
    assert {len(task.id) for task in many} == {len("task-abcd")}


async def test_a_letter_that_no_database_holds_is_exchanged_in_plain_text_too(store: Store) -> None:
    task = await add(store, "plain\0text")
    assert (await store.tasks.get(task.id)).title == "plain\ufffdtext"


async def test_text_that_is_no_text_is_kept_as_far_as_it_can_be(store: Store) -> None:
    task = await add(store, "nul\0 half \udc80 emoji 🐑", description="'; DROP TABLE tasks; --")
    assert task.title == "nul\N{REPLACEMENT CHARACTER} half ? emoji 🐑"
    assert (await store.tasks.get(task.id)).description == "'; DROP TABLE tasks; --"


# ------------------------------------------------------------ short ids


async def seed(store: Store, *ids: str) -> None:
    """Tasks with these very ids."""
    for id in ids:

        async def verb(tx, id=id):
            columns = dict.fromkeys(
                ("epic_id", "parent_id", "sequence", "key", "agent", "test_mode", "test_scope", "test_command",
                 "timeout_ms", "max_attempts", "created_by")
            ) | {"title": id, "description": "", "type": "other", "priority": 0, "allow_no_change": 0,
                 "open_blockers": 0, "now": 1}  # fmt: skip
            assert await tx.run("add_task", id=id, **columns) == 1

        await store.database.write(verb)


async def test_a_unique_prefix_names_a_task(store: Store) -> None:
    await seed(store, "task-abcd", "task-abef", "task-xyz2")
    for name in ("task-abcd", "task-abc", "abc", "abcd"):
        assert (await store.tasks.get(name)).id == "task-abcd"
    assert (await store.tasks.get("x")).id == "task-xyz2"


async def test_a_prefix_that_several_tasks_share_names_none(store: Store) -> None:
    await seed(store, "task-abcd", "task-abef")
    with pytest.raises(NotFound, match="'ab' could be task-abcd, task-abef"):
        await store.tasks.get("ab")
    with pytest.raises(NotFound, match="could be"):
        await store.tasks.get("")


async def test_a_task_is_found_among_its_sub_tasks_and_not_mistaken_for_a_neighbour(store: Store) -> None:
    await seed(store, "task-abcd", "task-abcf")
    for _ in range(4):
        await add(store, "part", parent_id="task-abcd")
    assert (await store.tasks.get("abcd")).id == "task-abcd"
    assert (await store.tasks.get("abcd.3")).id == "task-abcd.3"
    with pytest.raises(NotFound, match="could be task-abcd, task-abcf"):
        await store.tasks.get("abc")  # the first three ids that begin so all belong to task-abcd


async def test_the_whole_id_wins_over_longer_ones(store: Store) -> None:
    await seed(store, "task-ab", "task-abcd")
    assert (await store.tasks.get("task-ab")).id == "task-ab"


@pytest.mark.parametrize("name", ["nope", "task-", "ab%", "ab_d", "~", "ABCD", "task-abcd'--"])
async def test_a_name_of_nobody_is_not_found(store: Store, name: str) -> None:
    await seed(store, "task-abcd", "task-abce")
    with pytest.raises(NotFound):
        await store.tasks.get(name)


async def test_epics_have_short_ids_too(store: Store) -> None:
    epic = await store.epics.add("Release 2")
    assert (await store.epics.get(epic.id[:-1])).id == epic.id
    assert (await store.epics.get(epic.id.removeprefix("epic-"))).title == "Release 2"
    with pytest.raises(NotFound, match="no epic"):
        await store.epics.get("zzzzzzzz")


# ------------------------------------------------------------ lists and counts


async def test_a_list_can_be_narrowed(store: Store) -> None:
    epic = await store.epics.add("E")
    a = await add(store, "a", epic_id=epic.id, labels=("ui",))
    b = await add(store, "b", labels=("ui", "db"))
    c = await add(store, "c", epic_id=epic.id, blocked_by=[a])
    listed = store.tasks.list_tasks
    assert [t.id for t in await listed(epic_id=epic.id)] == [a.id, c.id]
    assert [t.id for t in await listed(label="ui")] == [a.id, b.id]
    assert [t.id for t in await listed(statuses=[Status.BLOCKED])] == [c.id]
    assert [t.id for t in await listed(statuses=[Status.READY], limit=1)] == [a.id]
    assert [plain(t) for t in await listed()] == [plain(await store.tasks.get(t.id)) for t in (a, b, c)]


async def test_counts_say_what_the_list_says(store: Store, clock: FakeClock) -> None:
    from drover.domain.verdicts import Outcome, Retry, Stopped

    tasks = [await add(store, f"{n}") for n in range(8)]
    await add(store, "behind", blocked_by=[tasks[0]])
    await complete(store, tasks[1])
    await store.tasks.cancel(tasks[2].id)
    retry = Retry(error_class=Outcome.FAILED, message="no", until=clock.now() + 5_000)
    await store.claims.settle(await take(store, tasks[3]), retry)
    await store.claims.settle(await take(store, tasks[4]), Stopped(order="pause"))
    await take(store, tasks[5])
    for _ in range(2):
        counted = {status: n for status, n in (await store.tasks.counts()).items() if n}
        listed = [t.status for t in await store.tasks.list_tasks()]
        assert counted == {status: listed.count(status) for status in set(listed)}
        clock.advance(6)  # what waited is due now
    assert (await store.tasks.get(tasks[3].id)).status is Status.READY


# ------------------------------------------------------------ editing


async def test_a_task_can_be_edited_until_it_runs(store: Store) -> None:
    task = await add(store, "old", labels=("x",))
    epic = await store.epics.add("E")
    edited = await store.tasks.edit(
        task.id, {"title": "new", "priority": 3, "epic_id": epic.id[:-1], "labels": ("y", "z")}
    )
    assert (edited.title, edited.priority, edited.epic_id, edited.labels) == ("new", 3, epic.id, ("y", "z"))
    await take(store, task)
    with pytest.raises(WrongState, match="is claimed"):
        await store.tasks.edit(task.id, {"title": "too late"})
    assert (await store.tasks.get(task.id)).title == "new"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("description", "d"), ("type", "bug"), ("agent", "codex"), ("test_mode", "lenient"), ("test_scope", "skip"),
        ("test_command", "make"), ("timeout_ms", 5), ("max_attempts", 9),
    ],
)  # fmt: skip
async def test_every_editable_column_is_written_and_no_other(store: Store, column: str, value: str | int) -> None:
    task = await add(store)
    edited = await store.tasks.edit(task.id, {column: value})
    assert plain(edited) == plain(task) | {column: value}


async def test_a_column_that_is_not_to_be_edited_is_refused(store: Store) -> None:
    task = await add(store)
    with pytest.raises(UsageError, match="state cannot be edited"):
        await store.tasks.edit(task.id, {"state": "completed"})
    assert (await store.tasks.get(task.id)).state is State.QUEUED


async def test_an_epic_counts_its_tasks_and_closes_when_they_are_done(store: Store) -> None:
    epic = await store.epics.add("E", "why")
    task = await add(store, "in it", epic_id=epic.id)
    await add(store, "not in it")
    with pytest.raises(WrongState, match="1 unfinished task"):
        await store.epics.close(epic.id)
    await complete(store, task)
    assert (await store.epics.get(epic.id)).model_dump() | {"created_at": 0} == {
        "id": epic.id, "title": "E", "description": "why", "state": "open", "created_at": 0, "closed_at": None,
        "total": 1, "completed": 1,
    }  # fmt: skip
    closed = await store.epics.close(epic.id)
    assert closed.state == "closed"
    with pytest.raises(WrongState, match="closed already"):
        await store.epics.close(epic.id)


async def test_a_run_and_its_workers_are_remembered(store: Store, clock: FakeClock) -> None:
    worker = await hire(store)
    assert [w.id for w in await store.workers.list_workers()] == [worker.id]
    run = await store.workers.last_run()
    assert run is not None and run.finished_at is None
    await store.workers.finish_run(run, [worker], {"seconds": 1.5})
    assert await store.workers.list_workers() == []
    again = await store.workers.last_run()
    assert again is not None and again.finished_at == clock.now()
    clock.advance(5)
    await store.workers.finish_run(run, [worker], {})
    assert await store.workers.last_run() == again  # what has ended does not end later


async def test_a_fact_about_the_store_is_kept_until_it_is_set_anew(store: Store) -> None:
    assert await store.workers.meta("k") is None
    await store.workers.set_meta("k", "1")
    await store.workers.set_meta("k", "2")
    assert await store.workers.meta("k") == "2"


async def test_a_single_statement_can_be_sent_by_itself_on_either_database(store: Store) -> None:
    assert await store.database.call(lambda tx: tx.run("set_meta", key="k", value="v")) == 1
    assert await store.workers.meta("k") == "v"


async def test_what_adding_many_says_of_them_is_what_is_there(store: Store) -> None:
    """Their edges are told without being read again."""
    old = await add(store, "old")
    news = [
        NewTask(title=f"{n}", key=f"k{n}", labels=("b", "a\0", "ä") if n % 3 else (), blocked_by=blockers)
        for n, blockers in enumerate([(), (old.id,), *((f"k{n}", f"k{n + 1}", old.id) for n in range(10))])
    ]
    for added in (await store.tasks.add_many(news), await store.tasks.add_many([*news, NewTask(title="one more")])):
        assert added == [await store.tasks.get(task.id) for task in added]
    assert added[2].blocks and added[2].blocked_by and added[2].labels


async def test_each_of_many_waits_for_what_has_not_landed_of_the_old_and_for_all_of_the_new(store: Store) -> None:
    open_, landed = await add(store, "open"), await complete(store, await add(store, "landed"))
    named = [(), ("0",), (landed.id,), (open_.id, landed.id), ("0", landed.id), ("0", open_.id, "1", "0"), (), ()]
    added = await store.tasks.add_many(
        [NewTask(title=f"{n}", key=f"{n}", blocked_by=blockers) for n, blockers in enumerate(named)]
    )
    assert [task.open_blockers for task in added] == [0, 1, 0, 1, 1, 3, 0, 0]
    assert await store.tasks.miscounted() == []

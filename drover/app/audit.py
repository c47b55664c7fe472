"""The three ledgers against each other: rows say what was promised, commits and refs what became of the code, and
events what was told of both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from drover.git.landing import branch_ref, lane_ref, list_landed, list_leases
from drover.git.repo import Repo
from drover.store import Store
from drover.store.audit import Books, Fault, Standing, look_over, open_books
from drover.store.moving import Progress

LANDED = ("landed", "published")
SHOWN = 12


class Held(NamedTuple):
    """What git holds of tasks' work, in the lanes and branches that work was to land in."""

    everywhere: frozenset[tuple[str, str]]  # task and commit, in all of the history
    first_parents: tuple[tuple[str, str, int], ...]  # commit, task and attempt on the first-parent chains
    targets: frozenset[str]  # every commit a lane or a target branch is at
    fences: dict[str, int]  # of the lease refs


async def audit(store: Store, repo: Repo, target: str | None, progress: Progress) -> list[Fault]:
    """Every fault of the database, and every disagreement between it, git and the event log. Changes nothing."""
    faults = await look_over(store.database, progress)
    held_before = await _held(repo, target)
    books = await open_books(store.database)
    # Read after git, the rows may know of a landing that git's reading had missed: git is asked once more.
    held = await _held(repo, target)
    faults += _events(books)
    faults += await _rows(repo, books, held)
    faults += _commits(books, held_before)
    return faults


async def _held(repo: Repo, target: str | None) -> Held:
    lanes = await repo.list_refs("refs/drover/target/")
    branches = [branch_ref(ref.removeprefix(lane_ref("x").removesuffix("x"))) for ref in lanes]
    refs = {**lanes, **await repo.list_refs(*branches, *([branch_ref(target)] if target else []))}
    tips = frozenset(refs.values())
    everywhere = await list_landed(repo, tips)
    chains = [found for tip in sorted(tips) for found in await list_landed(repo, [tip], first_parent=True)]
    return Held(
        frozenset((task, oid) for oid, task, _ in everywhere), tuple(dict.fromkeys(chains)), tips,
        await list_leases(repo),
    )  # fmt: skip


def _under_way(task: Standing) -> bool:
    """Whether somebody may be writing its ledgers this very moment."""
    return task.state == "running"


def _events(books: Books) -> Iterator[Fault]:
    """Events against rows."""
    created = Counter(told.task_id for told in books.told if told.type == "task.created")
    known = {task.id for task in books.tasks}
    last: dict[str, str] = {}
    landed: set[tuple[str, str | None]] = set()
    completed: set[str] = set()
    for told in books.told:
        if told.task_id not in known:
            yield Fault("events", f"{told.type} is told of {told.task_id}, which there is not")
        if told.type in ("task.landed", "task.reset"):
            last[told.task_id] = told.type
        if told.type == "task.landed":
            landed.add((told.task_id, told.commit))
        if told.type == "task.completed":
            completed.add(told.task_id)
    for task in books.tasks:
        if created[task.id] != 1:
            yield Fault("events", f"{task.id} was told to be created {created[task.id]} times")
        if _under_way(task):
            continue
        if task.landed and (task.id, task.landed_commit) not in landed:
            yield Fault("events", f"{task.id} has landed as {_short(task.landed_commit)}, and no event tells it")
        if task.state == "completed" and task.id not in completed:
            yield Fault("events", f"{task.id} is completed, and no event tells it")
        if not task.landed and last.get(task.id) == "task.landed":
            yield Fault("events", f"{task.id} was told to have landed, and its row does not know")


async def _rows(repo: Repo, books: Books, held: Held) -> list[Fault]:
    """Rows against the landing ledger, and against what git holds."""
    ledger = {(row.task_id, row.commit) for row in books.landings if row.state in LANDED}
    tasks = {task.id: task for task in books.tasks}
    faults = []
    for task in (t for t in books.tasks if t.landed and not _under_way(t)):
        commit = task.landed_commit or ""
        if (task.id, commit) in books.empty:
            if not await _contained(repo, commit, held.targets):
                faults.append(_gone(task.id, commit))
            continue
        if (task.id, commit) not in ledger:
            faults.append(
                Fault("landings", f"{task.id} has landed as {_short(commit)}, and the ledger has no such row")
            )
        if (task.id, commit) not in held.everywhere:
            faults.append(_gone(task.id, commit))
    for row in books.landings:
        of = tasks.get(row.task_id)
        current = of is not None and row.attempt >= of.first_attempt and not _under_way(of)
        if row.state in LANDED and current and of is not None and of.landed_commit != row.commit:
            what = f"the ledger has {row.task_id} landed as {_short(row.commit)}, its row {_short(of.landed_commit)}"
            faults.append(Fault("landings", what))
    for id, fence in held.fences.items():
        if id in tasks and tasks[id].fence < fence:
            what = f"{id} is at fence {tasks[id].fence}, and git at {fence}: the database is older than the repository"
            faults.append(Fault("git", what, "a restored backup? the next claim goes on behind what git knows"))
    return faults


def _commits(books: Books, held: Held) -> Iterator[Fault]:
    """What git holds against rows."""
    tasks = {task.id: task for task in books.tasks}
    times: Counter[str] = Counter()
    strangers: set[str] = set()
    for commit, id, attempt in held.first_parents:
        task = tasks.get(id)
        if task is None:
            strangers.add(id)
        elif attempt >= task.first_attempt:
            times[id] += 1
            if not _under_way(task) and not task.landed:
                what = f"git holds the work of {id} as {_short(commit)}, and its row does not know that it has landed"
                yield Fault("git", what, f"a restored backup? drover cancel {id}, or it is begun anew on top of that")
    for id, many in times.items():
        if many > 1:
            yield Fault("git", f"{id} stands {many} times in the history of its target")
    if strangers:
        some = ", ".join(sorted(strangers)[:SHOWN])
        yield Fault("strangers", f"git holds work of {len(strangers)} task(s) that this database does not know: {some}")


async def _contained(repo: Repo, commit: str, tips: Iterable[str]) -> bool:
    if await repo.resolve(commit) is None:
        return False
    return any([await repo.is_ancestor(commit, tip) for tip in tips])


def _gone(id: str, commit: str) -> Fault:
    what = f"{id} is called landed as {_short(commit)}, and neither a lane nor a target branch holds that"
    return Fault("git", what, f"drover reset {id} lands it anew, or bring the branch back: git reflog")


def _short(commit: str | None) -> str:
    return (commit or "nothing")[:12]

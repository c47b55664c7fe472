"""The train: results that wait are tested side by side, a red one leaves it, and the rest land as tested."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest

from drover import app
from drover.app import Drover
from drover.domain.models import Task
from drover.engine.train import OVERTAKEN_ENOUGH, Train
from tests.conftest import Git

pytestmark = pytest.mark.anyio

AGENT = """#!/bin/sh
said=$(cat)
mkdir -p work
echo "$DROVER_TASK_ID" > "work/$DROVER_TASK_ID.txt"
case "$said" in *BROKEN*) echo broken > "work/$DROVER_TASK_ID.bad" ;; esac
"""
# Keeps books of its own; fails when somebody who tests holds the lane's turn, or when anything in the tree is broken.
TESTS = """#!/bin/sh
echo "start $DROVER_TASK_ID $(git write-tree 2>/dev/null)" >> {books}
sleep {seconds}
flock -w 10 "$DROVER_ROOT/.drover/lane.lock" true || {{ echo "the turn is held"; exit 9; }}
for bad in work/*.bad; do [ -e "$bad" ] && {{ echo "found $bad"; echo "end red" >> {books}; exit 1; }}; done
echo "end green" >> {books}
"""


class Books:
    """What the tests themselves wrote down."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.path.read_text().splitlines()] if self.path.exists() else []

    @property
    def tests(self) -> int:
        return sum(line[0] == "start" for line in self.lines)

    @property
    def most_at_once(self) -> int:
        now = most = 0
        for line in self.lines:
            now += 1 if line[0] == "start" else -1
            most = max(most, now)
        return most


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return Books(tmp_path / "books")


@pytest.fixture
def tests_take(tmp_path: Path, books: Books) -> Callable[[float], str]:
    """The test command, made to take so many seconds."""

    def make(seconds: float) -> str:
        script = tmp_path / "tests.sh"
        script.write_text(TESTS.format(books=books.path, seconds=seconds))
        script.chmod(0o755)
        return str(script)

    return make


@pytest.fixture
async def drover(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Drover]:
    script = tmp_path / "agent.sh"
    script.write_text(AGENT)
    script.chmod(0o755)
    monkeypatch.setenv("DROVER_AGENT_PATH", str(script))
    async with app.open(repo=repository, agent="command") as opened:
        yield opened


def chain(git: Git, repository: Path, branch: str = "main") -> list[tuple[str, str]]:
    """Commit and task of every landing on the branch, oldest first."""
    form = "--format=%H %(trailers:key=Drover-Task,valueonly,separator=%x2c)"
    lines = git(repository, "log", "--first-parent", "--reverse", form, branch).splitlines()
    return [(line.split()[0], line.split()[1]) for line in lines if len(line.split()) == 2]


def files_of(git: Git, repository: Path, commit: str) -> list[str]:
    return git(repository, "ls-tree", "-r", "--name-only", commit).splitlines()


async def statuses(drover: Drover) -> dict[str, str]:
    return {task.id: str(task.status) for task in await drover.tasks()}


# ---------------------------------------------------------------- the line itself


def couple(train: Train, *names: str, on: str = "lane") -> None:
    train.follow(on)
    for name in names:
        car = train.board(name)
        assert train.stand(car, on=train.under(car) or "", tip=f"{name}'", tree=name)
        train.prove(car)


async def test_a_car_stands_on_the_one_before_it() -> None:
    train = Train()
    couple(train, "a", "b", "c")
    assert [train.board(name).on for name in "abc"] == ["lane", "a'", "b'"]


async def test_a_landing_as_tested_leaves_those_behind_standing() -> None:
    train = Train()
    couple(train, "a", "b", "c")
    train.landed("a", "a'")
    assert [train.board(name).tip for name in "bc"] == ["b'", "c'"]
    assert await train.reach_head("b")


async def test_a_car_that_leaves_derails_only_those_behind_it() -> None:
    train = Train()
    couple(train, "a", "b", "c", "d")
    train.leave("b")
    assert train.find("b") is None
    assert [train.board(name).tip for name in "acd"] == ["a'", None, None]
    assert not await train.reach_head("c")
    assert train.stand(train.board("c"), on="a'", tip="c''", tree="c"), "they close up"


async def test_a_lane_that_moved_in_another_way_derails_everybody() -> None:
    train = Train()
    couple(train, "a", "b")
    train.follow("elsewhere")
    assert [train.board(name).tip for name in "ab"] == [None, None]
    car = train.board("a")
    assert not train.stand(car, on="lane", tip="a''", tree="a"), "what it was coupled to is not before it any more"
    assert train.stand(car, on="elsewhere", tip="a''", tree="a")


async def test_a_derailed_cars_tests_are_ended() -> None:
    train = Train()
    couple(train, "a", "b")
    with anyio.fail_after(60), anyio.CancelScope() as tests:
        train.board("b").tests = tests
        train.leave("a")
        await anyio.sleep_forever()
    assert tests.cancelled_caught


async def test_the_window_opens_when_those_before_are_proven() -> None:
    train = Train()
    couple(train, "a", "b")
    train.board("b").proven = False
    behind = train.board("c")
    with anyio.move_on_after(0.05) as scope:
        await train.reach_window(behind, 1)
    assert scope.cancelled_caught, "one unproven car is before it"
    async with anyio.create_task_group() as group:
        with anyio.fail_after(60):
            group.start_soon(train.reach_window, behind, 1)
            await anyio.wait_all_tasks_blocked()
            train.prove(train.board("b"))


async def test_who_waits_for_something_to_stand_on_is_told_when_it_is_there() -> None:
    train = Train()
    train.follow("lane")
    before, behind = train.board("a"), train.board("b")
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(train.reach_window, behind, 2)
            await anyio.wait_all_tasks_blocked()
            assert train.stand(before, on="lane", tip="a'", tree="a")
    assert train.stand(behind, on="a'", tip="b'", tree="b")
    assert train.stand(before, on="lane", tip="a''", tree="a")
    assert behind.tip is None, "what it stood on is not there any more"


async def test_a_red_car_knows_whether_what_it_stood_on_has_landed() -> None:
    train = Train()
    couple(train, "a", "b")
    before = train.board("a")
    train.landed("a", "a'")
    with anyio.fail_after(60):
        assert await train.fate(before, "a'"), "it is its own doing"
    other = Train()
    couple(other, "a", "b")
    before = other.board("a")
    other.landed("a", "another commit")
    with anyio.fail_after(60):
        assert not await other.fate(before, "a'"), "what it was tested on never was"


async def test_a_train_overtaken_often_enough_is_pinned_until_its_first_car_has_landed() -> None:
    train = Train()
    train.board("a")
    for number in range(OVERTAKEN_ENOUGH):
        assert not train.pinned
        couple(train, "a", on=f"lane {number}")
        train.follow(f"lane {number} moved")
    assert train.pinned
    train.board("b")
    couple(train, "a", on="lane 9")
    train.landed("a", "a'")
    assert not train.pinned, "what waited is taken in between two landings"


async def test_who_stands_nowhere_is_not_overtaken() -> None:
    train = Train()
    train.board("a")
    for number in range(2 * OVERTAKEN_ENOUGH):
        train.follow(f"lane {number}")
    assert not train.pinned


# ---------------------------------------------------------------- whole runs


async def test_waiting_results_are_tested_side_by_side_and_each_tree_once(
    drover: Drover, books: Books, tests_take: Callable[[float], str], repository: Path, git: Git
) -> None:
    tasks = [await drover.add(f"Task {n}", test_command=tests_take(0.5)) for n in range(6)]
    await drover.run(workers=6)
    landed = chain(git, repository)
    assert sorted(task for _, task in landed) == sorted(t.id for t in tasks)
    assert books.most_at_once == 2, "[landing] parallel"
    assert books.tests == len(tasks), "nobody was tested twice, though every landing moved the lane"
    for place, (commit, _) in enumerate(landed):
        assert len(files_of(git, repository, commit)) == place + 2, "one task a commit"


async def test_a_red_one_leaves_the_train_and_the_rest_land(
    drover: Drover, books: Books, tests_take: Callable[[float], str], repository: Path, git: Git
) -> None:
    command = tests_take(0.2)
    titles = ["Good", "BROKEN", "Good", "Good", "BROKEN", "Good"]
    tasks = [await drover.add(t, test_command=command, max_attempts=1) for t in titles]
    await drover.run(workers=6)
    for commit, _ in chain(git, repository):
        assert not [name for name in files_of(git, repository, commit) if name.endswith(".bad")], (
            "green at every commit"
        )
    found = await statuses(drover)
    assert [found[t.id] for t in tasks] == ["failed" if t.title == "BROKEN" else "completed" for t in tasks]
    for task in [await drover.task(t.id) for t in tasks if t.title == "BROKEN"]:
        assert task.error is not None
        assert f"found work/{task.id}.bad" in task.error.message, "each is blamed for its own, with the tests' words"
        assert git(repository, "show", f"refs/drover/wip/{task.id}/1:work/{task.id}.bad") == "broken"


async def test_a_cancelled_one_leaves_the_train_and_nobody_waits_for_it(
    drover: Drover, books: Books, tests_take: Callable[[float], str], repository: Path, git: Git, tmp_path: Path
) -> None:
    slow = tmp_path / "slow.sh"
    slow.write_text(f"#!/bin/sh\necho start >> {books.path}\nsleep 60\n")
    slow.chmod(0o755)
    first = await drover.add("Never ends", test_command=str(slow), priority=10)
    async with anyio.create_task_group() as group:
        with anyio.fail_after(60):
            group.start_soon(lambda: drover.run(workers=3))
            while not books.tests:
                await anyio.sleep(0.02)
            later = [await drover.add(f"Later {n}", test_command=tests_take(0.1)) for n in range(2)]
            while books.tests < 2:
                await anyio.sleep(0.02)
            await drover.cancel([first.id])
    assert {task for _, task in chain(git, repository)} == {t.id for t in later}
    assert (await statuses(drover))[first.id] == "cancelled"


async def test_a_flaky_test_is_tried_again_and_that_is_recorded(
    repository: Path, tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = tmp_path / "agent.sh"
    agent.write_text(AGENT)
    agent.chmod(0o755)
    monkeypatch.setenv("DROVER_AGENT_PATH", str(agent))
    flag = tmp_path / "flag"
    (repository / ".drover.toml").write_text("[verify]\nretries = 1\n")
    async with app.open(repo=repository, agent="command") as drover:
        task = await drover.add("Flaky", test_command=f"[ -e {flag} ] || {{ touch {flag}; exit 1; }}")
        await drover.run()
        landed = await drover.task(task.id)
        assert landed.landed_commit is not None
        proof = await drover.store.landings.find_proof(
            git(repository, "rev-parse", f"{landed.landed_commit}^{{tree}}"), str(task.test_command)
        )
    assert proof is not None
    assert (proof.passed, proof.retries) == (True, 1)


async def test_an_untested_task_keeps_its_place_behind_tested_ones(
    drover: Drover, books: Books, tests_take: Callable[[float], str], repository: Path, git: Git
) -> None:
    async def seen() -> None:
        while not books.tests:
            await anyio.sleep(0.02)

    tested = await drover.add("Tested", test_command=tests_take(1.0))
    plain: list[Task] = []
    async with anyio.create_task_group() as group:
        with anyio.fail_after(60):
            group.start_soon(lambda: drover.run(workers=2))
            await seen()
            plain.append(await drover.add("Plain"))
    assert [task for _, task in chain(git, repository)] == [tested.id, plain[0].id]
    assert books.tests == 1, "the plain one did not send the tested one back"


async def test_the_operators_commit_during_a_test_is_tested_with_the_work(
    drover: Drover, books: Books, tests_take: Callable[[float], str], repository: Path, git: Git
) -> None:
    task = await drover.add("Task", test_command=tests_take(1.0))
    async with anyio.create_task_group() as group:
        with anyio.fail_after(60):
            group.start_soon(lambda: drover.run(workers=1))
            while not books.tests:
                await anyio.sleep(0.02)
            (repository / "own.txt").write_text("mine\n")
            git(repository, "add", "-A")
            git(repository, "commit", "-q", "-m", "the operator's own")
    ((commit, landed),) = chain(git, repository)
    assert landed == task.id
    assert "own.txt" in files_of(git, repository, commit), "it lands on top of it"
    assert books.tests == 2, "and was tested with it"
    assert git(repository, "status", "--porcelain") == ""

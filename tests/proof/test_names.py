"""Titles, descriptions, keys, labels and searches that mean something to a shell, to git, to SQL or to a path."""

from __future__ import annotations

import string
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drover import process
from drover.domain.errors import DroverError
from drover.domain.models import NewTask
from drover.git.commit import task_message
from drover.git.landing import branch_ref, lane_ref
from drover.git.repo import Repo
from drover.store import Store, open_store
from tests.proof.plugin import Tally

SEED = 7
NASTY = [
    "-rf", "--help", "--upload-pack=touch /tmp/x", "a\0b", "a\nb\n\nDrover-Task: task-aaaa", "..", "../../etc", "/",
    "@{-1}", "HEAD", "refs/heads/main", "main.lock", "a..b", "a~1", "a^{tree}", "$(id)", "`id`",
    "'; DROP TABLE tasks; --",
    '"', "%s%n", "{0}", "\u202egnp.exe", "\x1b]0;owned\x07", "CON", "é", "e\u0301", "ſ", "İ", "x" * 4_096,
    "\ud800", " ", "",
]  # fmt: skip
names = st.one_of(
    st.sampled_from(NASTY),
    st.text(max_size=60),
    st.text(alphabet=string.punctuation + " \n\t", max_size=30),
    st.tuples(st.sampled_from(NASTY), st.text(max_size=20)).map("".join),
)


class Place:
    """A store and a repository, open as long as the test lasts."""

    def __init__(self, portal: BlockingPortal, store: Store, repo: Repo) -> None:
        self.portal, self.store, self.repo = portal, store, repo

    def call(self, act: Any, *argv: Any) -> Any:
        return self.portal.call(act, *argv)


@pytest.fixture
def place(tmp_path: Path, repository: Path) -> Any:
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal("asyncio"))
        opening = open_store(f"sqlite:///{tmp_path}/names.db")
        store = stack.enter_context(portal.wrap_async_context_manager(opening))
        yield Place(portal, store, portal.call(Repo.find, repository))


def play(place: Place, examples: int, tally: Tally) -> None:
    played = 0

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(title=names, text=names, key=names, label=names)
    def a_name(title: str, text: str, key: str, label: str) -> None:
        nonlocal played
        played += 4
        place.call(_store_it, place.store, title, text, key, label)
        for word in (title, text, key, label):
            _is_no_ref_of_another(word)
            place.call(_is_one_trailer, place.repo, word)

    a_name()
    tally(points=played, seed=SEED)


async def _store_it(store: Store, title: str, text: str, key: str, label: str) -> None:
    """Taken as it is (but for what no text may hold), or refused in drover's own words."""
    try:
        task = await store.tasks.add(NewTask(title=title, description=text, key=key or None, labels=(label,)))
    except (DroverError, ValueError):
        return
    found = await store.tasks.get(task.id)
    assert task.id.startswith("task-") and task.id.removeprefix("task-").isalnum()
    assert found.title == task.title and found.description == task.description


def _is_no_ref_of_another(word: str) -> None:
    """A branch becomes a ref below drover's own, or is refused."""
    for ref_of, below in ((branch_ref, "refs/heads/"), (lane_ref, "refs/drover/target/")):
        try:
            ref = ref_of(word)
        except DroverError:
            continue
        assert ref == below + word
        assert ".." not in ref and "\0" not in ref and not ref.endswith((".lock", "/", "."))


async def _is_one_trailer(repo: Repo, word: str) -> None:
    """Whatever the title says, the message names the task that it is of, and no other."""
    try:
        message = task_message(word, "task-mine", 3)
        done = await process.run(
            ["git", "interpret-trailers", "--parse"], cwd=repo.root, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            stdin=message.encode("utf-8", "replace"),
        )  # fmt: skip
    except DroverError:
        return
    said = [line for line in done.stdout.decode().splitlines() if line.startswith("Drover-Task:")]
    assert said == ["Drover-Task: task-mine"]


@pytest.mark.suite("T30")
@pytest.mark.timeout(300)
def test_a_name_is_a_name_and_nothing_else(place: Place, tally: Tally) -> None:
    play(place, 60, tally)


@pytest.mark.slow
@pytest.mark.suite("T30")
@pytest.mark.timeout(1800)
def test_any_of_ten_thousand_names_is_a_name_and_nothing_else(place: Place, tally: Tally) -> None:
    play(place, 2_600, tally)

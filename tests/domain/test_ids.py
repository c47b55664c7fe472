"""Identifiers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drover.domain.ids import ALPHABET, is_id, new_id, new_token, split_subtask


@given(st.sampled_from(["task", "epic", "plan", "run"]), st.integers(1, 12), st.integers())
def test_a_new_id_is_an_id(kind: str, length: int, seed: int) -> None:
    id = new_id(kind, length, random.Random(seed))
    assert is_id(id) and id.startswith(f"{kind}-") and len(id) == len(kind) + 1 + length


def test_ids_have_no_letters_that_are_mistaken_for_one_another() -> None:
    assert not set(ALPHABET) & set("01ilo")
    assert ALPHABET.lower() == ALPHABET and len(set(ALPHABET)) == len(ALPHABET)


def test_the_same_seed_gives_the_same_ids_and_no_seed_others() -> None:
    assert new_id("task", 8, random.Random(1)) == new_id("task", 8, random.Random(1))
    assert len({new_id("task", 8) for _ in range(100)} | {new_token() for _ in range(100)}) == 200


@pytest.mark.parametrize(
    "text", ["", "task", "task-", "Task-ab", "task-ab.", "task-ab.x", "task-a b", "../task-ab", "task-ab\n"]
)
def test_what_is_no_id_is_told_apart(text: str) -> None:
    assert not is_id(text)


@pytest.mark.parametrize(
    ("id", "parts"),
    [
        ("task-k3f9.2", ("task-k3f9", 2)),
        ("task-k3f9.2.10", ("task-k3f9.2", 10)),
        ("task-k3f9", None),
        ("epic-ab.1", None),
    ],
)
def test_a_sub_task_names_its_parent(id: str, parts: tuple[str, int] | None) -> None:
    assert split_subtask(id) == parts

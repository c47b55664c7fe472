"""Half after a refusal, one more with each success."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drover.domain.concurrency import Concurrency


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, (8, 1, 8)),
        ({"start": 2, "floor": 2, "ceiling": 4}, (2, 2, 4)),
        ({"start": 20, "ceiling": 30}, (8, 1, 8)),
        ({"start": 1, "floor": 50, "ceiling": 6}, (6, 6, 6)),
    ],
)
def test_what_is_asked_for_stays_within_the_workers(asked: dict[str, int], expected: tuple[int, int, int]) -> None:
    one = Concurrency.of(8, **asked)
    assert (one.limit, one.floor, one.ceiling) == expected


def test_a_refusal_halves_once_for_all_that_were_at_work() -> None:
    one = Concurrency.of(8).refused(begun_at=10, now=20)
    assert one.limit == 4
    assert one.refused(begun_at=15, now=21).limit == 4
    assert one.throttled


def test_a_provider_that_goes_on_refusing_is_not_halved_away() -> None:
    one = Concurrency.of(8).refused(begun_at=10, now=20)
    assert one.refused(begun_at=30, now=40).limit == 4
    assert one.succeeded().refused(begun_at=50, now=60).limit == 2  # 5 // 2


def test_successes_bring_it_back_one_by_one() -> None:
    one = Concurrency.of(8).refused(begun_at=10, now=20)
    limits = []
    while one.throttled:
        one = one.succeeded()
        limits.append(one.limit)
    assert limits == [5, 6, 7, 8]
    assert one.succeeded().limit == 8


def test_an_overloaded_provider_takes_one_away() -> None:
    assert Concurrency.of(8).overloaded().limit == 7


@given(st.integers(1, 50), st.integers(1, 60), st.integers(1, 60), st.lists(st.sampled_from("rso")))
def test_it_never_leaves_its_bounds(workers: int, floor: int, ceiling: int, heard: list[str]) -> None:
    one = Concurrency.of(workers, floor=floor, ceiling=ceiling)
    for at, word in enumerate(heard):
        moved = {"r": one.refused(begun_at=at, now=at), "s": one.succeeded(), "o": one.overloaded()}
        one = moved[word]
        assert 1 <= one.floor <= one.limit <= one.ceiling <= workers

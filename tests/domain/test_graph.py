"""Laws of the blocker graph."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from drover.domain.graph import find_cycle

EDGES = st.dictionaries(st.integers(0, 7), st.lists(st.integers(0, 7), max_size=4), max_size=8)


def reachable(edges: dict[str, list[str]], start: str) -> set[str]:
    """By its definition: everything that a step away from something reachable is reachable."""
    found: set[str] = set()
    while new := {b for a in {start, *found} for b in edges.get(a, ())} - found:
        found |= new
    return found


@given(EDGES, st.integers(0, 7))
def test_a_circle_is_found_exactly_when_a_task_waits_for_itself(raw: dict[int, list[int]], begin: int) -> None:
    edges, start = {str(a): [str(b) for b in bs] for a, bs in raw.items()}, str(begin)
    path = find_cycle(edges, start)
    assert (path is not None) == (start in reachable(edges, start))
    if path is not None:
        assert path[0] == path[-1] == start
        assert len(set(path)) == len(path) - 1
        assert all(b in edges[a] for a, b in pairwise(path))


def test_a_circle_elsewhere_is_somebody_elses() -> None:
    assert find_cycle({"a": ["b"], "b": ["c"], "c": ["b"]}, "a") is None


def test_a_long_chain_is_walked_without_recursion() -> None:
    edges = {str(n): [str(n + 1)] for n in range(50_000)}
    assert find_cycle(edges, "0") is None
    edges["50000"] = ["0"]
    path = find_cycle(edges, "0")
    assert path is not None and len(path) == 50_002


def test_a_wide_graph_is_walked_once() -> None:
    layers = {f"{n}.{i}": [f"{n + 1}.{j}" for j in range(30)] for n in range(30) for i in range(30)}
    assert find_cycle(layers, "0.0") is None

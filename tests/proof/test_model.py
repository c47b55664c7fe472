"""Every state of the protocol keeps the promises, and without any one of its guards some state does not."""

from __future__ import annotations

import pytest

from tests.proof.model import GUARDS, explore
from tests.proof.plugin import Tally


@pytest.mark.suite("T1")
def test_no_order_of_claims_crashes_and_landings_breaks_a_promise(tally: Tally) -> None:
    states, broken, path = explore()
    assert not broken, " > ".join(path)
    tally(points=states)


@pytest.mark.suite("T1")
@pytest.mark.parametrize("guard", GUARDS)
def test_each_guard_is_needed(guard: str) -> None:
    _, broken, _ = explore(without=guard)
    assert broken

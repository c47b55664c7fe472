"""What several suites of the proof need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import postgres_server
from tests.engine.places import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def empty_database() -> str:
    """Its schemas are made by whoever comes."""
    try:
        return postgres_server.shared().url()
    except postgres_server.NoServer as reason:
        pytest.skip(f"no Postgres: {reason}")

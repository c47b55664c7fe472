"""What several suites of the proof need."""

from __future__ import annotations

import pytest

from tests import postgres_server


@pytest.fixture
def empty_database() -> str:
    """Its schemas are made by whoever comes."""
    try:
        return postgres_server.shared().url()
    except postgres_server.NoServer as reason:
        pytest.skip(f"no Postgres: {reason}")

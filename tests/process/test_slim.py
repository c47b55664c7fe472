"""What the supervisor has of its own instead of the standard library's does the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drover import process
from drover.supervisor.slim import suppress, to_json

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
documents = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(documents)
def test_what_is_written_is_read_back_by_everybody(document: object) -> None:
    text = to_json(document)
    assert json.loads(text) == document
    assert text.isascii()
    assert "\n" not in text, "a report is a line"


def test_only_what_is_named_is_suppressed() -> None:
    with suppress(FileNotFoundError, ValueError):
        Path("/nowhere/at/all").stat()
    with pytest.raises(KeyError), suppress(ValueError):
        raise KeyError


@pytest.mark.anyio
async def test_a_supervisor_imports_no_more_than_it_needs() -> None:
    """Each module more is waited for by every agent, and paid by every life."""
    root = Path(process.__file__).parents[2]
    code = f"import sys; sys.path.append({str(root)!r}); import drover.supervisor.life; print(*sys.modules)"
    done = await process.run([sys.executable, "-I", "-S", "-c", code], env={})
    assert not {"json", "typing", "enum", "re", "contextlib", "ctypes", "pathlib"} & {*done.stdout.decode().split()}

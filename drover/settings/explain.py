"""Turns what pydantic found into one line for a person."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from drover.settings.urls import redact

_SHOWN = 60
_WANTED = {
    "string_type": "text in quotes",
    "tuple_type": "a list",
    "model_type": "a table",
    "mapping_type": "a table",
    "dict_type": "a table",
}


def explain(error: ValidationError, *, known: Sequence[str]) -> tuple[str, str, str | None]:
    """The first problem as (dotted key, what is wrong with which value, what to type or None)."""
    first = error.errors(include_url=False)[0]
    words = [str(word) for word in first["loc"] if word != "[key]"]
    key = ".".join(words)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.6) or [
            other for other in known if other.split(".")[-1] == words[-1]
        ]
        hint = f"did you mean {near[0]}?" if near else "remove it; `drover config show` lists every key"
        return key, "unknown key", hint
    return key, _problem(first), None


def _problem(first: ErrorDetails) -> str:
    kind = first["type"]
    if kind == "value_error":
        return str(first.get("ctx", {}).get("error", first["msg"]))
    shown = repr(first["input"])
    shown = redact(shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…")
    if kind == "literal_error":
        return f"{shown} is not one of {first.get('ctx', {}).get('expected')}"
    wanted = {
        "string_type": "text in quotes",
        "tuple_type": "a list",
        "model_type": "a table",
        "mapping_type": "a table",
        "dict_type": "a table",
    }
    return f"{shown} is not {wanted[kind]}" if kind in wanted else f"{shown}: {first['msg']}"

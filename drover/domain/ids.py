"""Identifiers: short, lower case, without letters that are mistaken for one another."""

from __future__ import annotations

import random
import re
import secrets

ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
_HIERARCHICAL = re.compile(r"(task-[a-z0-9]+(?:\.[0-9]+)*)\.([0-9]+)")
_ID = re.compile(r"(task|epic|plan|run)-[a-z0-9]+(\.[0-9]+)*")


def new_id(kind: str, length: int = 4, rng: random.Random | None = None) -> str:
    """``task-k3f9``: a fresh id; callers insert it and ask again, one longer, if it is taken."""
    return new_ids(kind, 1, length, rng)[0]


def new_ids(kind: str, count: int, length: int = 4, rng: random.Random | None = None) -> list[str]:
    """As many ids; some may be the same."""
    drawn = (rng.randbytes if rng is not None else secrets.token_bytes)(8 * count)  # at once: it may call the system
    return [f"{kind}-{_letters(int.from_bytes(drawn[at : at + 8]), length)}" for at in range(0, 8 * count, 8)]


def _letters(number: int, length: int) -> str:
    letters = ""
    for _ in range(length):
        number, place = divmod(number, len(ALPHABET))
        letters += ALPHABET[place]
    return letters


def new_token(length: int = 10) -> str:
    """A name for something nobody types: a worker, a run's marker."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def is_id(text: str) -> bool:
    """Whether ``text`` has the form of an id (not whether it exists)."""
    return _ID.fullmatch(text) is not None


def split_subtask(task_id: str) -> tuple[str, int] | None:
    """``task-k3f9.2`` → (``task-k3f9``, 2); None for a task without a parent."""
    match = _HIERARCHICAL.fullmatch(task_id)
    return (match[1], int(match[2])) if match else None

"""The graphs that every runner is given: tasks are numbers in an order in which they could be done."""

from __future__ import annotations

import random


def blockers_of(shape: str, seed: int = 1) -> list[list[int]]:
    """The blockers of each task. ``indep:N``, ``chain:N``, ``diamond:N``, ``layered:N[:WIDTH[:BLOCKERS]]``."""
    kind, *numbers = shape.split(":")
    size, width, each = [*map(int, numbers), *(1, 50, 3)[len(numbers) :]]
    if kind == "indep":
        return [[] for _ in range(size)]
    if kind == "chain":
        return [[n - 1] if n else [] for n in range(size)]
    if kind == "diamond":
        return [[], *([0] for _ in range(size - 2)), list(range(1, size - 1))]
    if kind == "layered":
        choose = random.Random(seed)
        return [
            sorted(choose.sample(range((n // width - 1) * width, n // width * width), each)) if n >= width else []
            for n in range(size)
        ]
    raise ValueError(f"no such shape: {shape}")


def dependents_of(blockers: list[list[int]]) -> list[list[int]]:
    """The edges the other way round."""
    found: list[list[int]] = [[] for _ in blockers]
    for task, mine in enumerate(blockers):
        for blocker in mine:
            found[blocker].append(task)
    return found

"""Looks for cyclic garbage, put off while much is made that is none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_looks() -> Iterator[None]:
    """Cyclic garbage is not looked for inside.

    Importing drover makes fifty thousand objects, and adding a thousand tasks thirty thousand. Python would look
    through the new ones a hundred times, and through all of them now and then, for garbage that neither makes. Other
    threads go without for that moment, too; where looks were off before, they stay off.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()

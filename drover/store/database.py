"""The seam between the verbs of the store and a database: two Protocols.

A verb is an ``async def verb(tx)`` that awaits nothing but its own ``tx``. It is run inside one
transaction; either all of it is kept or nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

import anyio

if TYPE_CHECKING:
    from drover.store.tables import Tables

Value = str | int | float | None
Row = Mapping[str, Value]
T = TypeVar("T")


def clean(value: Value) -> Value:
    """What every database can hold: in text, what is no character (NUL, half a surrogate pair) becomes U+FFFD or ?."""
    if isinstance(value, str):
        if "\0" in value:
            value = value.replace("\0", "\ufffd")
        if not value.isascii():
            value = value.encode("utf-8", "replace").decode("utf-8")
    return value


class Transaction(Protocol):
    """What a verb may ask for. Queries are named; their text lives in ``sql/``."""

    lease_now: int  # milliseconds of the clock that all holders of leases on this database share

    async def all(self, query: str, **values: Value) -> list[Row]: ...

    async def one(self, query: str, **values: Value) -> Row | None:
        """The first row, or None."""
        ...

    async def run(self, query: str, **values: Value) -> int:
        """How many rows were changed."""
        ...

    def tables(self) -> Tables:
        """Whole tables, for those who move or look over a backlog."""
        ...

    def ring(self) -> None:
        """Ring the bell once this is committed: a ring heard before it would send the waiter to look too early."""
        ...


Verb = Callable[[Transaction], Awaitable[T]]


class Database(Protocol):
    """One open database."""

    dialect: str
    bell: Bell  # the backlog may have changed: look for work, and whether a claim still stands
    news: Bell  # something was committed, so the event log may have grown

    @property
    def calls(self) -> bool:
        """Whether the server has functions of ours that are whole verbs."""
        ...

    async def write(self, verb: Verb[T]) -> T:
        """Run ``verb`` in a transaction that is durable when this returns.

        A caller that is cancelled stops waiting; the transaction goes on to its end, so a cancelled
        write may or may not have happened and is settled by reading.
        """
        ...

    async def call(self, verb: Verb[T]) -> T:
        """As :meth:`write`, for a verb that is a single statement; only where ``calls``.

        Raises OutcomeUnknown also where :meth:`write` would have tried again: nothing precedes the statement.
        """
        ...

    async def read(self, verb: Verb[T]) -> T:
        """Run ``verb`` against one consistent snapshot; it may not write."""
        ...


class Bell:
    """Wakes whoever waits for the backlog to change. Rings are hints: after one, look again."""

    def __init__(self) -> None:
        self._event: anyio.Event | None = None  # while somebody waits
        self.rings = 0

    def ring(self) -> None:
        self.rings += 1
        if self._event is not None:
            self._event.set()
            self._event = None

    def ticket(self) -> int:
        """Taken before looking; :meth:`wait` with it returns at once if the bell rang since."""
        return self.rings

    async def wait(self, ticket: int, timeout_s: float) -> bool:
        """True when it rang since ``ticket``, False after ``timeout_s``."""
        if self.rings != ticket:
            return True
        self._event = self._event or anyio.Event()
        with anyio.move_on_after(timeout_s):
            await self._event.wait()
        return self.rings != ticket

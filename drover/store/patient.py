"""A database for those who would rather wait than hear that it is away."""

from __future__ import annotations

import logging
from typing import TypeVar

import anyio

from drover.domain.errors import DroverError, OutcomeUnknown
from drover.store.database import Database, Verb

T = TypeVar("T")
log = logging.getLogger(__name__)

PAUSES_S = (0.2, 0.5, 1.0)  # the connection has pauses of its own, and rings when the server is back


class Patient:
    """Asks again for as long as the database behind it is away, or its disk is full; for ever, unless cancelled.

    ``waits_for``: the errors that are waited out; others are the caller's.

    After a COMMIT that was not answered it asks again, too. So it is for verbs that come to the same when they are
    asked twice: those of a claim, which say under their fence whether they have been kept already.
    """

    def __init__(self, database: Database, waits_for: tuple[type[DroverError], ...]) -> None:
        self._database = database
        self._waits_for = waits_for
        self.dialect = database.dialect
        self.bell = database.bell
        self.news = database.news
        self._told = False  # that it is away; once each time

    async def write(self, verb: Verb[T]) -> T:
        tries = 0
        while True:
            ticket = self.bell.ticket()
            try:
                return self._back(await self._database.write(verb))
            except self._waits_for as trouble:
                await self._wait(ticket, tries, trouble.message)
            tries += 1

    @property
    def calls(self) -> bool:
        return self._database.calls

    async def call(self, verb: Verb[T]) -> T:
        """An outcome that is not known is its caller's: a call alone does not say what was kept."""
        tries = 0
        while True:
            ticket = self.bell.ticket()
            try:
                return self._back(await self._database.call(verb))
            except OutcomeUnknown:
                raise
            except self._waits_for as trouble:
                await self._wait(ticket, tries, trouble.message)
            tries += 1

    async def read(self, verb: Verb[T]) -> T:
        tries = 0
        while True:
            ticket = self.bell.ticket()
            try:
                return self._back(await self._database.read(verb))
            except self._waits_for as trouble:
                await self._wait(ticket, tries, trouble.message)
            tries += 1

    def _back(self, value: T) -> T:
        if self._told:
            log.warning("the database is back")
        self._told = False
        return value

    async def _wait(self, ticket: int, tries: int, trouble: str) -> None:
        if not self._told:
            log.warning("waiting for the database: %s", trouble)
        self._told = True
        await anyio.sleep(0.05)
        await self.bell.wait(ticket, PAUSES_S[min(tries, len(PAUSES_S) - 1)])

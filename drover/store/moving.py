"""A backlog with its whole history moved from one database to another: all of it, or nothing.

The source is read in one snapshot into a file between the two; the target is filled, and read back, in one
transaction. What was read and what was read back have to have the same number of rows and the same digest, table by
table, before that transaction is committed.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import IO, NamedTuple

from drover.domain.errors import OutcomeUnknown, StoreError, StoreUnavailable, WrongState
from drover.store.database import Database, Transaction, Value
from drover.store.tables import Batch, Table, count, list_tables

# What runs on an empty backlog leave behind: no reason to refuse a target, and dropped from it.
TRACES = frozenset({"events", "lanes", "limits", "meta", "runs", "workers"})
OF_THE_STORE = frozenset({"repository"})  # facts about a store, not about its backlog: see drover.app.ownership

Progress = Callable[[str, int, int], None]  # what is done, rows so far, rows in all


class Tally(NamedTuple):
    """How many rows a table has, and the SHA-256 of all of them."""

    rows: int
    digest: str


class NotEmpty(WrongState):
    """The database that was to be filled holds something."""

    code = "not_empty"
    exit_code = 1


async def move(source: Database, target: Database, progress: Progress) -> dict[str, Tally]:
    """Fill the empty ``target`` with everything that ``source`` holds; what was moved, by table.

    Raises :class:`NotEmpty` for a target with a backlog in it, :class:`WrongState` while a task is claimed.
    ``progress`` may be called from another thread.
    """
    with tempfile.TemporaryFile(prefix="drover-copy-") as between:
        tables, tallies = await _unload(source, between, progress)
        try:
            await _load(target, between, tables, tallies, progress)
        except OutcomeUnknown:
            await _settle_doubt(target, tables, tallies)
    return tallies


async def tally(database: Database) -> dict[str, Tally]:
    """Rows and digest of every table, in one snapshot."""

    async def verb(tx: Transaction) -> dict[str, Tally]:
        return {table.name: await _tally(tx, table) for table in await list_tables(tx)}

    return await database.read(verb)


async def _unload(source: Database, between: IO[bytes], progress: Progress) -> tuple[list[Table], dict[str, Tally]]:
    async def verb(tx: Transaction) -> tuple[list[Table], dict[str, Tally]]:
        held = await tx.all("list_running")
        if held:
            raise WrongState(
                f"a run is at work on {len(held)} task(s), {held[0]['id']} first",
                hint="let it end, or stop it with Ctrl+C, and copy then",
            )
        between.seek(0)
        between.truncate()
        tables, whole = await list_tables(tx), _Count(progress, "read")
        whole.total = sum([await count(tx, table) for table in tables])
        return tables, {table.name: await _tally(tx, table, whole, between) for table in tables}

    return await source.read(verb)


async def _load(
    target: Database, between: IO[bytes], tables: Sequence[Table], tallies: Mapping[str, Tally], progress: Progress
) -> None:
    async def verb(tx: Transaction) -> None:
        found = tx.tables()
        await _check_same_shape(tx, tables)
        await found.reserve(tables)
        await _make_room(tx, tables)
        whole = _Count(progress, "written", 2 * sum(tally.rows for tally in tallies.values()))
        between.seek(0)
        for table in tables:
            left = tallies[table.name].rows
            while left:
                rows: list[list[Value]] = json.loads(between.readline())
                await found.fill(table, rows)
                left -= len(rows)
                whole.add(len(rows))
        for row in await tx.all("list_numbered"):
            await found.go_on(str(row["name"]), str(row["column_name"]))
        for table in tables:
            got = await _tally(tx, table, whole)
            if got != tallies[table.name]:
                raise StoreError(f"{table.name} came out otherwise than it went in; nothing was kept")
        tx.ring()

    await target.write(verb)


async def _check_same_shape(tx: Transaction, tables: Sequence[Table]) -> None:
    there = {table.name: table for table in await list_tables(tx)}
    for table in tables:
        other = there.pop(table.name, None)
        if other is None or (set(other.columns), other.key) != (set(table.columns), table.key):
            raise StoreError(f"the two databases do not agree on what {table.name} is", hint="drover db check")
    if there:
        raise StoreError(f"the two databases do not agree on what there is: {', '.join(there)}", hint="drover db check")


async def _make_room(tx: Transaction, tables: Sequence[Table]) -> None:
    """Nothing but traces may be there; they go."""
    counts = {table.name: await count(tx, table) for table in tables}
    if filled := [f"{name} ({rows})" for name, rows in counts.items() if rows and name not in TRACES]:
        raise NotEmpty(
            f"the target is not empty: it has rows in {', '.join(filled)}",
            hint="name another one, or remove what is there",
        )
    for table in reversed(tables):
        if counts[table.name]:
            await tx.tables().clear(table)


async def _settle_doubt(target: Database, tables: Sequence[Table], tallies: Mapping[str, Tally]) -> None:
    """The connection broke during COMMIT: look which of the two it was."""
    if await tally(target) == tallies:
        return
    raise StoreUnavailable("the connection to the target broke, and nothing was kept there", hint="copy once more")


async def _tally(tx: Transaction, table: Table, whole: _Count | None = None, copy: IO[bytes] | None = None) -> Tally:
    """Count and digest a table's rows; also write them to ``copy``, a batch a line."""
    rows, digest = 0, hashlib.sha256()
    async for batch in tx.tables().read(table):
        moved = [row for row in batch if row[0] not in OF_THE_STORE] if table.name == "meta" else batch
        digest.update(b"".join(_as_line([row]) for row in moved))
        rows += len(moved)
        if copy is not None and moved:
            copy.write(_as_line(moved))
        if whole is not None:
            whole.add(len(batch))
    return Tally(rows, digest.hexdigest())


def _as_line(batch: Batch) -> bytes:
    return json.dumps([list(row) for row in batch], ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


class _Count:
    """Tells how far something is."""

    def __init__(self, progress: Progress, what: str, total: int = 0) -> None:
        self.total = total
        self._progress = progress
        self._what = what
        self._done = 0

    def add(self, rows: int) -> None:
        self._done += rows
        self._progress(self._what, self._done, self.total)

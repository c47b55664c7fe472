"""A runner that is nothing but the database: what a durable graph costs on SQLite at the very least.

One thread owns the connection (synchronous=FULL) and commits whatever waits together. Finishing a task is fenced,
counts its dependents down, writes an event and takes the worker's next task. Arguments: SHAPE MS - new|resume.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from scripts.bench.floors import Sleepers, serve
from scripts.bench.journal import Journal
from scripts.bench.shapes import blockers_of

SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS job (
    id INTEGER PRIMARY KEY, state TEXT NOT NULL, missing INTEGER NOT NULL, fence INTEGER NOT NULL DEFAULT 0,
    owner TEXT, lease REAL);
CREATE INDEX IF NOT EXISTS job_ready ON job (id) WHERE state = 'ready';
CREATE TABLE IF NOT EXISTS needs (blocker INTEGER, job INTEGER, PRIMARY KEY (blocker, job)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS happened (n INTEGER PRIMARY KEY, job INTEGER, what TEXT, at REAL);
"""
TAKE = """UPDATE job SET state = 'running', fence = fence + 1, owner = ?, lease = ?
 WHERE id = (SELECT id FROM job WHERE state = 'ready' ORDER BY id LIMIT 1) RETURNING id, fence"""
FINISH = "UPDATE job SET state = 'done', lease = NULL WHERE id = ? AND fence = ? AND state = 'running'"
RELEASE = """UPDATE job SET missing = missing - 1, state = CASE WHEN missing = 1 THEN 'ready' ELSE state END
 WHERE id IN (SELECT job FROM needs WHERE blocker = ?) RETURNING state"""
TELL = "INSERT INTO happened (job, what, at) VALUES (?, 'done', ?)"


def take(db: sqlite3.Connection, worker: str) -> Any:
    return db.execute(TAKE, (worker, time.time() + 30)).fetchone()


def finish(db: sqlite3.Connection, job: int, fence: int, worker: str) -> tuple[int, Any]:
    ready = 0
    if db.execute(FINISH, (job, fence)).rowcount == 1:
        ready = sum(row[0] == "ready" for row in db.execute(RELEASE, (job,)).fetchall())
        db.execute(TELL, (job, time.time()))
    return ready, take(db, worker)


class Owner:
    """The thread that owns the connection."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...], asyncio.Future[Any]]]
        self._asked = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, daemon=True).start()

    def ask(self, call: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        answer = self._loop.create_future()
        self._asked.put((call, args, answer))
        return answer

    def _work(self) -> None:
        db = connect()
        while True:
            batch = [self._asked.get()]
            while not self._asked.empty():
                batch.append(self._asked.get())
            db.execute("BEGIN IMMEDIATE")
            done = [(answer, call(db, *args)) for call, args, answer in batch]
            db.execute("COMMIT")
            self._loop.call_soon_threadsafe(lambda done=done: [answer.set_result(value) for answer, value in done])


def connect() -> sqlite3.Connection:
    db = sqlite3.connect("floor.db", isolation_level=None)
    db.execute("PRAGMA synchronous = FULL")
    return db


async def main() -> None:
    shape, ms = sys.argv[1], float(sys.argv[2])
    journal, blockers, db = Journal("journal"), blockers_of(shape), connect()
    db.executescript(SCHEMA)
    journal.mark("handed-in")
    db.execute("BEGIN IMMEDIATE")
    if sys.argv[4] == "new":
        rows = [(n, "ready" if not mine else "waiting", len(mine)) for n, mine in enumerate(blockers)]
        db.executemany("INSERT INTO job (id, state, missing) VALUES (?, ?, ?)", rows)
        db.executemany("INSERT INTO needs VALUES (?, ?)", [(b, n) for n, mine in enumerate(blockers) for b in mine])
    else:
        db.execute("UPDATE job SET state = 'ready' WHERE state = 'running'")
    db.execute("COMMIT")
    left = db.execute("SELECT count(*) FROM job WHERE state <> 'done'").fetchone()[0]
    owner = Owner()
    await serve(
        Sleepers(), journal, ms, left,
        lambda worker: owner.ask(take, worker),
        lambda worker, job, fence: owner.ask(finish, job, fence, worker),
    )  # fmt: skip


if __name__ == "__main__":
    asyncio.run(main())

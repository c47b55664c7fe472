"""drover with its backlog on a Postgres, as its users run it: the command, in processes of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine
from typing import Any

import asyncpg
import pytest

from tests.e2e.conftest import Project
from tests.proof.plugin import Tally

LEAD = 7_200_000  # ms that the clock of one process is ahead, and behind
WITH_ITS_CLOCK_OFF = """
import sys
from drover.domain.clock import SystemClock
real, off = SystemClock.now, int(sys.argv[1])
SystemClock.now = lambda self: real(self) + off
from drover.cli import main
sys.exit(main(sys.argv[2:]))
"""


def ask(url: str, sql: str, *, schema: bool = True) -> list[Any]:
    """Rows, as somebody else reads or writes them beside drover."""

    async def query() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            if schema:
                name = await connection.fetchval("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'drover%'")
                await connection.execute(f'SET search_path TO "{name}"')
            return list(await connection.fetch(sql))
        finally:
            await connection.close()

    work: Coroutine[Any, Any, list[Any]] = query()
    return asyncio.run(work)


@pytest.fixture
def shared(project: Project, database_url: str) -> Project:
    """A project whose environment names a server, and nothing else is changed."""
    project.env["DBOS_SYSTEM_DATABASE_URL"] = database_url
    return project


def test_the_lesson_of_the_crash_holds_with_its_variable_set_and_nothing_else_changed(
    shared: Project, database_url: str
) -> None:
    project = shared
    epic = project.drover("epic", "add", "Crash recovery demo", "-q").stdout.strip()
    a = project.add("Task A — base change", "--epic", epic)
    b = project.add("Task B — depends on A", "--epic", epic, "--blocked-by", a)
    c = project.add("Task C — depends on A", "--epic", epic, "--blocked-by", a)
    project.env["WORK_SECONDS"] = "5,8"
    run = project.start("run", "--workers", "2", "--epic", epic, "--verbose")
    project.eventually(lambda: project.json("info", a)["status"] == "completed", "A to be completed", 90)
    started = {b, c}
    project.eventually(lambda: any(x["task"] in started for x in project.books()), "B or C to be at work", 90)
    os.kill(run.pid, signal.SIGINT)
    assert run.wait(90) == 130
    assert a in project.drover("status", "--tree").stdout
    project.env["WORK_SECONDS"] = "0,0"
    again = project.drover("run", "--workers", "2", "--epic", epic, timeout=120)
    assert "nothing lost" in again.stdout
    assert project.statuses() == {"completed": 3}
    assert project.landed() == {a: 1, b: 1, c: 1}
    assert sum(x["event"] == "start" and x["task"] == a for x in project.books()) == 1
    assert [row["n"] for row in ask(database_url, "SELECT count(*) AS n FROM tasks")] == [3]
    del project.env["DBOS_SYSTEM_DATABASE_URL"]
    assert project.json("list") == [], "nothing of it went into the file"
    project.env["DBOS_SYSTEM_DATABASE_URL"] = database_url
    assert project.drover("db", "check").returncode == 0


def test_what_is_wrong_with_a_server_is_said_in_a_line_and_a_hint(project: Project, database_url: str) -> None:
    role = f"outsider_{os.getpid()}"
    ask(database_url, f"CREATE ROLE {role} LOGIN", schema=False)
    try:
        for url, message, hint in (
            (database_url.replace("postgres@", "secured:wrong-secret@"), "refused to let us in", "password"),
            (database_url.replace("127.0.0.1", "nowhere.invalid"), "cannot be reached", "host"),
            (database_url.replace("postgres@", f"{role}@"), "permission denied", "CREATE SCHEMA"),
            (database_url.replace("/e", "/no_such_e"), "does not exist", "createdb"),
        ):
            project.env["DROVER_DATABASE_URL"] = url
            for command in ("list", "run"):
                done = project.drover(command, code=None)
                assert done.returncode in (1, 2), done
                lines = done.stderr.splitlines()
                assert lines[-2].startswith("error: ") and lines[-1].startswith("hint: "), done.stderr
                assert message in lines[-2] and hint in lines[-1], done.stderr
                assert "wrong-secret" not in done.stdout + done.stderr and "Traceback" not in done.stderr
    finally:
        ask(database_url, f"DROP ROLE {role}", schema=False)


def test_a_copy_killed_in_the_middle_leaves_an_empty_target(project: Project, database_url: str) -> None:
    """kill -9 while rows are being written: the next one finds nothing there, and brings everything."""
    first = project.add("first")
    project.add("second", "--blocked-by", first)
    project.env["DROVER_DATABASE_URL"] = database_url
    project.drover("db", "migrate")
    del project.env["DROVER_DATABASE_URL"]
    body = "BEGIN PERFORM pg_sleep(4); RETURN NULL; END"
    ask(database_url, f"CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
    ask(database_url, "CREATE TRIGGER slow AFTER INSERT ON blockers EXECUTE FUNCTION slow()")
    copy = project.start("db", "copy", "--to", database_url)
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
    project.eventually(lambda: bool(ask(database_url, waiting)), "the copy to be in the middle", 60)
    copy.kill()
    copy.wait()
    assert ask(database_url, "SELECT count(*) AS n FROM tasks")[0]["n"] == 0
    project.eventually(lambda: not ask(database_url, waiting), "the server to notice", 60)
    ask(database_url, "DROP TRIGGER slow ON blockers")
    assert project.json("db", "copy", "--to", database_url)["tables"]["tasks"]["rows"] == 2


@pytest.mark.slow  # the gate tries clocks that are off in tests/store
@pytest.mark.suite("T13")
def test_a_clock_that_is_hours_off_takes_nothing_too_early_and_leaves_nothing_behind(
    shared: Project, database_url: str, tally: Tally
) -> None:
    """Three runs on one backlog: one whose clock is right, one two hours ahead, one two hours behind."""
    project, count = shared, int(os.environ.get("DROVER_PROOF_COUNT", "9"))
    ids = [project.add(f"Task {n}") for n in range(count)]
    project.env |= {"WORK_SECONDS": "0.3,0", "DROVER_CLAIM_TIMEOUT": "5s"}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", WITH_ITS_CLOCK_OFF, str(off), "run", "--workers", "2"],
            cwd=project.root, env=project.env, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )
        for off in (0, LEAD, -LEAD)
    ]  # fmt: skip
    project.started += runs
    said = [run.communicate(timeout=180)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], said
    assert project.statuses() == {"completed": count}
    assert project.landed() == dict.fromkeys(ids, 1)
    starts = [x["task"] for x in project.books() if x["event"] == "start"]
    assert sorted(starts) == sorted(ids)
    events = [json.loads(line)["type"] for line in project.drover("stream", "--jsonl").stdout.splitlines()]
    assert "task.rescued" not in events
    assert ["the clock of this machine" in text for text in said] == [False, True, True]
    tally(points=count)

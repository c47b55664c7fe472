"""drover db: what it says of a database, and what it does with one."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests import postgres_server
from tests.cli.conftest import Cli, Start
from tests.conftest import Git


def file_of(cli: Cli) -> Path:
    return cli.root / ".drover" / "drover.db"


def damage(cli: Cli, *sql: str) -> None:
    with closing(sqlite3.connect(file_of(cli))) as db:
        for statement in sql:
            db.execute(statement)
        db.commit()


@pytest.fixture
def lived(cli: Cli) -> Cli:
    """A backlog of which two tasks have landed, and one waits."""
    cli.add("one", "--key", "k")
    cli.add("two")
    cli("run")
    cli.add("three")
    return cli


def faults(cli: Cli) -> list[tuple[str, str]]:
    answer = cli("db", "check", "--json", code=None)
    assert answer.code == (0 if answer.json["ok"] else 1)
    return [(fault["about"], fault["what"]) for fault in answer.json["faults"]]


# ------------------------------------------------------------ status and migrate


def test_status_says_where_and_how_the_backlog_is_kept(cli: Cli) -> None:
    said = cli.json("db", "status")
    assert (said["kind"], said["where"], said["ok"]) == ("sqlite", str(file_of(cli)), True)
    assert said["bytes"] > 50_000 and said["version"].startswith("SQLite 3.") and said["pending"] == []
    assert {s["name"]: s["value"] for s in said["settings"]} == {"journal_mode": "wal", "synchronous": "full"}
    assert str(file_of(cli)) in cli("db", "status").out


def test_status_makes_nothing_where_there_is_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = cli.root / "other.db"
    monkeypatch.setenv("DROVER_DATABASE_URL", f"sqlite:///{elsewhere}")
    assert cli.json("db", "status")["schema"] is None
    assert not elsewhere.exists()
    migrated = cli.json("db", "migrate")
    assert migrated["migrated"] == migrated["applied"] and elsewhere.exists()
    assert cli.json("db", "migrate")["migrated"] == []


def test_a_database_of_a_newer_drover_is_said_to_be_one(cli: Cli) -> None:
    damage(cli, "INSERT INTO drover_migrations VALUES (9999, '9999_from_the_future', 'x', 1)")
    told = cli("db", "status", code=1)
    assert "made by a newer drover (it has 9999_from_the_future)" in told.out
    for command in (("db", "migrate"), ("list",), ("db", "check"), ("run",)):
        error = cli.error(*command, code=1)
        assert error["code"] == "schema" and "newer drover" in error["message"] and "as new" in error["hint"]


@pytest.mark.suite("T35")
def test_status_on_postgres_shows_no_password(cli: Cli, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROVER_DATABASE_URL", database_url.replace("postgres@", "postgres:sesame@"))
    cli("init")
    answer = cli("db", "status")
    assert "sesame" not in answer.out and "postgres:***@127.0.0.1" in answer.out
    said = cli.json("db", "status")
    assert (said["kind"], said["ok"], said["pending"]) == ("postgres", True, [])
    assert said["where"].startswith("drover_repo-")
    assert {s["name"] for s in said["settings"]} >= {"fsync", "synchronous_commit", "read_only"}


# ------------------------------------------------------------ copy


def test_a_backlog_moves_to_postgres_and_goes_on_there(
    lived: Cli, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = lived.json("list")
    moved = lived.json("db", "copy", "--to", database_url)
    assert moved["tables"]["tasks"]["rows"] == 3 and moved["rows"] > 40
    monkeypatch.setenv("DROVER_DATABASE_URL", database_url)
    assert lived.json("list") == before
    assert faults(lived) == []
    lived("run")
    assert {task["status"] for task in lived.json("list")} == {"completed"}
    assert faults(lived) == []
    assert lived.add("one more time", "--key", "k") == before[0]["id"]
    back = tmp_path / "back.db"
    lived("db", "copy", "--to", f"sqlite:///{back}")
    after = lived.json("list")
    monkeypatch.setenv("DROVER_DATABASE_URL", f"sqlite:///{back}")
    assert lived.json("list") == after
    assert faults(lived) == []


def test_a_copy_goes_only_where_nothing_is(lived: Cli, database_url: str) -> None:
    lived("db", "copy", "--to", database_url)
    error = lived.error("db", "copy", "--to", database_url, code=1)
    assert error["code"] == "not_empty" and "tasks (3)" in error["message"]


def test_what_a_copy_cannot_do_is_said(cli: Cli) -> None:
    nowhere = "postgresql://u:sesame@nowhere.invalid/x"
    for argv, code, match in (
        ((), 2, "needs to know where to"),
        (("--to", "mysql://host/x"), 2, "--to: 'mysql://host/x' is not a database URL"),
        (("--to", "sqlite:///.drover/drover.db"), 2, "is where the backlog is"),
        (("--from", "sqlite:///nowhere.db"), 1, "there is no backlog at"),
        (("--to", "sqlite:///README.md/x.db"), 1, "cannot make"),
        (("--to", nowhere), 1, "postgresql://u:***@nowhere.invalid/x cannot be reached"),
    ):
        error = cli.error("db", "copy", *argv, code=code)
        assert match in error["message"] and "sesame" not in str(error)


def test_a_backlog_that_is_being_worked_on_is_not_copied(cli: Cli, start: Start, tmp_path: Path) -> None:
    cli.add("long", "-d", "wait 60s")
    start("run")
    until(lambda: cli.json("status")["by_status"]["in_progress"] == 1)
    error = cli.error("db", "copy", "--to", f"sqlite:///{tmp_path}/x.db", code=4)
    assert "at work on 1 task" in error["message"] and "Ctrl+C" in error["hint"]


def test_what_a_killed_run_held_is_taken_back_before_the_copy(cli: Cli, start: Start, tmp_path: Path) -> None:
    id = cli.add("long", "-d", "wait 60s")
    run = start("run")
    until(lambda: cli.json("status")["by_status"]["in_progress"] == 1)
    run.kill()
    run.wait()
    cli("db", "copy", "--to", f"sqlite:///{tmp_path}/x.db")
    assert cli.json("info", id)["status"] == "ready"


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


# ------------------------------------------------------------ backup


def test_a_backup_is_a_database_like_the_other(lived: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = tmp_path / "saved.db"
    answer = lived.json("db", "backup", str(saved))
    assert answer == {"file": str(saved), "bytes": saved.stat().st_size}
    assert saved.stat().st_mode & 0o777 == 0o600
    before = lived.json("list")
    lived.add("four")
    monkeypatch.setenv("DROVER_DATABASE_URL", f"sqlite:///{saved}")
    assert lived.json("list") == before and faults(lived) == []


def test_a_backup_and_its_name_are_on_the_disk_when_it_is_said_to_be_there(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut would leave is what was synced by then: the whole file, and afterwards the name it has."""
    saved, real = tmp_path / "saved.db", os.fsync
    synced: list[tuple[str, int]] = []

    def note(handle: int) -> None:
        found = os.fstat(handle)
        is_name = found.st_ino == tmp_path.stat().st_ino
        synced.append(("name", saved.stat().st_size) if is_name else ("file", found.st_size))
        real(handle)

    monkeypatch.setattr(os, "fsync", note)
    cli("db", "backup", str(saved))
    assert synced == [("file", saved.stat().st_size), ("name", saved.stat().st_size)]


def test_a_backup_overwrites_nothing(cli: Cli, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("precious")
    assert "is there already" in cli.error("db", "backup", str(there), code=2)["message"]
    assert there.read_text() == "precious"
    assert "no directory" in cli.error("db", "backup", str(tmp_path / "no" / "x"), code=2)["message"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".there")] == []


def test_a_damaged_database_is_not_backed_up(lived: Cli, tmp_path: Path) -> None:
    spoil_a_page(lived)
    error = lived.error("db", "backup", str(tmp_path / "x.db"), code=1)
    assert "damaged" in error["message"] and not (tmp_path / "x.db").exists()


def test_a_dump_of_postgres_can_be_restored(
    lived: Cli, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lived("db", "copy", "--to", database_url)
    monkeypatch.setenv("DROVER_DATABASE_URL", database_url)
    before, dump = lived.json("list"), tmp_path / "dump"
    server = postgres_server.shared()
    monkeypatch.setenv("PATH", server.bin, prepend=":")
    lived("db", "backup", str(dump))
    with postgres_server.empty_database(server) as other:
        subprocess.run([f"{server.bin}/pg_restore", "--dbname", other, str(dump)], check=True, capture_output=True)
        monkeypatch.setenv("DROVER_DATABASE_URL", other)
        assert lived.json("list") == before
        lived.add("four")
        assert faults(lived) == []


def test_without_pg_dump_another_way_is_shown(
    cli: Cli, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").symlink_to(git)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("DROVER_DATABASE_URL", database_url)
    error = cli.error("db", "backup", str(tmp_path / "x"), code=1)
    assert error["message"] == "pg_dump is not installed" and "drover db copy --to sqlite" in error["hint"]


# ------------------------------------------------------------ check


def test_a_sound_backlog_has_no_faults(lived: Cli) -> None:
    assert lived("db", "check").out == "the database is whole, and agrees with git and the event log\n"


PLANTED = (
    ("UPDATE tasks SET open_blockers = 3 WHERE title = 'three'", "counters", "counts 3 open blockers, and has 0"),
    ("UPDATE tasks SET fence = 0 WHERE title = 'one'", "counters", "is at fence 0, and an attempt of it at 1"),
    ("UPDATE tasks SET executions = 0 WHERE title = 'one'", "counters", "counts 0 executions, and 1 were started"),
    ("UPDATE attempts SET ended_at = NULL", "counters", "do not agree whether it is running"),
    ("UPDATE attempts SET worker_id = 'nobody'", "references", "2 row(s) of attempts refer by worker_id"),
    ("DROP INDEX tasks_ready_of_epic", "schema", "the index tasks_ready_of_epic is missing"),
    ("ALTER TABLE tasks DROP COLUMN result", "schema", "the column result of tasks is missing"),
    ("DROP TABLE proofs", "schema", "the table proofs is missing"),
    ("DELETE FROM landings WHERE rowid = 1", "landings", "and the ledger has no such row"),
    ("UPDATE landings SET commit_oid = '0000' WHERE rowid = 1", "landings", "landed as 0000, its row"),
    ("DELETE FROM events WHERE type = 'task.landed'", "events", "and no event tells it"),
    ("DELETE FROM events WHERE type = 'task.completed'", "events", "is completed, and no event tells it"),
    ("DELETE FROM events WHERE type = 'task.created'", "events", "was told to be created 0 times"),
    ("UPDATE events SET task_id = 'task-zzzz' WHERE type = 'task.created'", "events", "which there is not"),
    ("UPDATE tasks SET landed_commit = '123' WHERE title = 'one'", "git", "neither a lane nor a target branch"),
    ("UPDATE tasks SET state = 'queued', landed_at = NULL, landed_commit = NULL, completed_at = NULL", "git",
     "its row does not know that it has landed"),
)  # fmt: skip


def test_planted_damage_is_found(lived: Cli) -> None:
    damage(lived, "PRAGMA wal_checkpoint(TRUNCATE)")
    sound = file_of(lived).read_bytes()
    for sql, about, match in PLANTED:
        damage(lived, sql)
        found = faults(lived)
        assert any(kind == about and match in what for kind, what in found), (sql, found)
        damage(lived, "PRAGMA wal_checkpoint(TRUNCATE)")
        file_of(lived).write_bytes(sound)
    assert faults(lived) == []


def test_damage_in_git_is_found(lived: Cli, git: Git) -> None:
    lane = "refs/drover/target/main"
    tip = git(lived.root, "rev-parse", lane)
    git(lived.root, "update-ref", lane, f"{tip}~1")
    git(lived.root, "update-ref", "refs/heads/main", f"{tip}~1")
    assert [kind for kind, what in faults(lived) if "neither a lane nor a target branch holds that" in what] == ["git"]
    # Once more in the same history: a revert, and the same work on top of it.
    message = git(lived.root, "log", "-1", "--format=%B", tip)
    again = git(lived.root, "commit-tree", "-p", tip, "-m", message, f"{tip}^{{tree}}")
    git(lived.root, "update-ref", lane, again)
    assert any(kind == "git" and "stands 2 times" in what for kind, what in faults(lived))


def test_a_database_that_is_older_than_git_is_found_and_catches_up(lived: Cli, tmp_path: Path, git: Git) -> None:
    lived("db", "backup", str(tmp_path / "old.db"))
    lived("run")
    lived("db", "backup", str(tmp_path / "new.db"))
    for name in ("drover.db", "drover.db-wal", "drover.db-shm"):
        (lived.root / ".drover" / name).unlink(missing_ok=True)
    (tmp_path / "old.db").rename(file_of(lived))
    found = faults(lived)
    assert any("is at fence 0, and git at 1: the database is older" in what for _, what in found), found
    assert any("its row does not know that it has landed" in what for _, what in found), found
    lived("run", code=3)  # nobody waits for a lease to end; the agent finds its work done, and nothing lands twice
    assert lived.json("list")[2]["last_error"]["class"] == "no_change"
    tasks = git(lived.root, "log", "--first-parent", "--format=%(trailers:key=Drover-Task,valueonly)", "main").split()
    assert len(tasks) == len(set(tasks)) == 3
    assert not any("older than the repository" in what for _, what in faults(lived))


def test_commits_of_a_backlog_that_is_gone_are_a_warning(lived: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROVER_DATABASE_URL", "sqlite:///.drover/new.db")
    answer = lived("db", "check", "--json")
    assert answer.json["ok"] and "2 task(s) that this database does not know" in answer.json["faults"][0]["what"]


def test_a_damaged_file_is_found(lived: Cli) -> None:
    spoil_a_page(lived)
    answer = lived("db", "check", "--json", code=1)
    assert "damaged" in answer.err or [f for f in answer.json["faults"] if f["about"] == "integrity"]


def spoil_a_page(cli: Cli) -> None:
    """Overwrite the middle of a page of an index that no command needs in order to open the file."""
    with closing(sqlite3.connect(file_of(cli))) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'events_by_task'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    with file_of(cli).open("r+b") as file:
        file.seek((page - 1) * size + 100)
        file.write(b"\xff" * (size - 200))

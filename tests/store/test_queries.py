"""Named SQL, said as each database wants it."""

from __future__ import annotations

import re
from pathlib import Path

import drover
from drover.store.queries import load, numbered, say

HERE = Path(drover.__file__).parent
SQL = HERE / "store" / "sql"
CALL = re.compile(r'"([a-z]+_[a-z_{}]+)"')


def test_a_token_reads_as_each_database_wants_it() -> None:
    text = "SELECT 1 /*pg: FOR UPDATE */ LIMIT 2 /*:pg*/ AND /*pg: x */ /*:pg*/ y"
    assert say(text, "sqlite").split() == ["SELECT", "1", "LIMIT", "2", "AND", "y"]
    assert say(text, "postgres").split() == ["SELECT", "1", "FOR", "UPDATE", "AND", "x", "y"]


def test_parameters_are_numbered_in_the_order_they_appear_in() -> None:
    sql, names = numbered("UPDATE t SET a = :a, b = CAST(:b AS text), c = :a WHERE d::text = :d_e")
    assert sql == "UPDATE t SET a = $1, b = CAST($2 AS text), c = $1 WHERE d::text = $3"
    assert names == ("a", "b", "d_e")


def test_both_databases_know_the_same_queries_with_the_same_parameters() -> None:
    sqlite, postgres = load("sqlite"), load("postgres")
    assert sqlite.keys() == postgres.keys()
    for name, text in sqlite.items():
        extra = set(numbered(postgres[name])[1]) ^ set(numbered(text)[1])
        assert not extra, f"{name}: {extra}"


def test_no_token_is_left_unread() -> None:
    for dialect in ("sqlite", "postgres"):
        for name, text in load(dialect).items():
            assert "pg:" not in text and "/*" not in text, f"{dialect} {name}: {text}"
            assert ";" not in text, f"{dialect} {name} is more than one statement"


def test_every_query_has_one_name() -> None:
    names = [n for file in SQL.glob("*.sql") for n in re.findall(r"^-- name: (\w+)$", file.read_text(), re.MULTILINE)]
    assert sorted(names) == sorted(set(names)) == sorted(load("sqlite"))


def test_every_query_is_asked_by_somebody() -> None:
    asked = {word for file in HERE.rglob("*.py") for word in CALL.findall(file.read_text())}
    patterns = [re.compile(re.sub(r"\{[^}]*\}", r"\\w+", word)) for word in asked]
    unused = [name for name in load("sqlite") if not any(p.fullmatch(name) for p in patterns)]
    assert unused == []


def test_sql_is_written_in_one_place() -> None:
    """Outside the files of queries only the drivers speak to their database about itself."""
    verbs = re.compile(r'"\s*(SELECT|INSERT INTO|UPDATE \w+ SET|DELETE FROM) ')
    found = {str(f.relative_to(HERE)) for f in HERE.rglob("*.py") if verbs.search(f.read_text())}
    assert found <= {
        "store/sqlite.py", "store/sqlite_file.py", "store/postgres.py", "store/postgres_link.py",
        "store/postgres_schema.py", "store/migrate.py",
        # Statements about tables whose names only the schema knows, and about the database itself.
        "store/tables.py", "store/sqlite_tables.py", "store/postgres_tables.py", "store/audit.py",
        "store/facts.py", "store/postgres_facts.py", "store/backup.py", "store/postgres_calls.py",
    }  # fmt: skip

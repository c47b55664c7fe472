"""One project and several stores: an empty one tells of the other, and a schema belongs to one repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.conftest import Git


@pytest.fixture
def on_server(database_url: str) -> str:
    """A server's URL with a password in it, which nobody asks for."""
    return database_url.replace("postgres@", "postgres:sesame@")


def test_an_empty_server_tells_of_the_tasks_in_the_file(
    cli: Cli, on_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DROVER_DATABASE_URL", on_server)
    assert "is empty" not in cli("list").err  # nothing is anywhere
    monkeypatch.delenv("DROVER_DATABASE_URL")
    cli.add("one")
    monkeypatch.setenv("DROVER_DATABASE_URL", on_server)
    for command in (("list",), ("status",), ("run",), ("db", "status")):
        (line,) = [line for line in cli(*command).err.splitlines() if "is empty" in line]
        assert "drover.db holds 1 task; to bring them here: drover db copy --from sqlite:////" in line
        assert "sesame" not in line
    assert cli.json("list") == [] and cli("list", "--json").err == ""
    assert "holds 1 task" in cli.json("db", "status")["elsewhere"]
    cli("db", *line.partition("drover db ")[2].split())
    assert [task["title"] for task in cli.json("list")] == ["one"]
    assert "is empty" not in cli("list").err


def test_an_empty_file_tells_of_the_server(cli: Cli, on_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROVER_DATABASE_URL", on_server)
    cli.add("one")
    assert [task["title"] for task in cli.json("list")] == ["one"]
    monkeypatch.delenv("DROVER_DATABASE_URL")
    told = cli("list").err
    assert "is empty; this project's backlog was last at postgresql://postgres:***@127.0.0.1" in told
    assert "sesame" not in told and "set DROVER_DATABASE_URL" in told
    assert not [f for f in (cli.root / ".drover").iterdir() if f.is_file() and b"sesame" in f.read_bytes()]
    cli.add("mine")
    assert "is empty" not in cli("list").err


def test_nothing_is_said_where_there_is_nothing_else(cli: Cli) -> None:
    assert "is empty" not in cli("list").err


# ------------------------------------------------------------ whose it is


@pytest.fixture
def another(
    cli: Cli, tmp_path: Path, git: Git, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Cli:
    """Another repository, whose .drover.toml was copied from the first."""
    where = tmp_path / "another"
    where.mkdir()
    git(where, "init", "-q", "-b", "main")
    git(where, "config", "user.name", "Olive Operator")
    git(where, "config", "user.email", "olive@example.org")
    (where / ".drover.toml").write_text((cli.root / ".drover.toml").read_text())
    (where / "OTHER.md").write_text("# Another repository\n")
    git(where, "add", "-A")
    git(where, "commit", "-q", "-m", "first of another")
    return Cli(where, capsys, monkeypatch)


def test_a_project_id_of_another_repository_is_refused(
    cli: Cli, another: Cli, on_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DROVER_DATABASE_URL", on_server)
    cli.add("mine")
    for command in (("init",), ("list",), ("add", "theirs"), ("run",)):
        if command != ("init",):
            (another.root / ".drover").mkdir(exist_ok=True)
        error = another.error(*command, code=1)
        assert error["code"] == "another_repository" and "is the backlog of another repository" in error["message"]
        assert "set another [project] id" in error["hint"] and "sesame" not in str(error)
    assert [task["title"] for task in cli.json("list")] == ["mine"]
    another("db", "adopt")
    assert [task["title"] for task in another.json("list")] == ["mine"]


def test_an_id_of_its_own_is_all_that_another_repository_needs(
    cli: Cli, another: Cli, on_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DROVER_DATABASE_URL", on_server)
    cli.add("mine")
    settings = another.root / ".drover.toml"
    settings.write_text(settings.read_text().replace('id = "repo-', 'id = "another-'))
    another("init")
    assert another.json("list") == []


def test_clones_are_one_repository_shallow_or_not(
    cli: Cli, on_server: str, tmp_path: Path, git: Git, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    git(cli.root, "add", "-A")
    git(cli.root, "commit", "-q", "-m", "second")
    git(tmp_path, "clone", "-q", "--bare", str(cli.root), "shared.git")
    git(cli.root, "remote", "add", "origin", f"file://{tmp_path}/shared.git")
    monkeypatch.setenv("DROVER_DATABASE_URL", on_server)
    cli.add("mine")
    for name, options in (("whole", []), ("shallow", ["--depth=1"])):
        git(tmp_path, "clone", "-q", *options, f"file://{tmp_path}/shared.git", name)
        clone = Cli(tmp_path / name, capsys, monkeypatch)
        git(clone.root, "config", "user.name", "Carl Clone")
        git(clone.root, "config", "user.email", "carl@example.org")
        clone("init")
        assert [task["title"] for task in clone.json("list")] == ["mine"]

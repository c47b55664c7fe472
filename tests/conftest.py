"""What every test may use: the asyncio backend, a pinned git environment, a real repository."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest_plugins = ["tests.proof.plugin"]

GIT_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
    "LC_ALL": "C",
}


def pytest_configure() -> None:
    """What nohup, or a shell in the background, had ignored would be ignored by every drover that the tests start."""
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def pinned_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the developer's settings, home or git configuration."""
    for name in list(os.environ):
        if name.startswith(("DROVER_", "DBOS_", "GIT_", "ANTHROPIC_", "CLAUDE")) and name != "DROVER_AGENTS_CACHE":
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    for name, value in GIT_ENVIRONMENT.items():
        if not name.endswith("_DATE"):
            monkeypatch.setenv(name, value)
    yield


@pytest.fixture
def database_url() -> Iterator[str]:
    """A database of its own, with nothing in it, on the session's Postgres."""
    from tests.postgres_server import NoServer, empty_database, shared

    try:
        server = shared()
    except NoServer as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no Postgres: {reason}")
        pytest.skip(f"no Postgres: {reason}")
    with empty_database(server) as url:
        yield url


Git = Callable[..., str]


@pytest.fixture
def git() -> Git:
    """Run git in a directory as the operator would: ``git(path, "commit", "-m", "x")`` → stdout."""

    def call(where: Path, *argv: str, ok: bool = True) -> str:
        env = {**os.environ, **GIT_ENVIRONMENT}
        done = subprocess.run(["git", *argv], cwd=where, env=env, capture_output=True, text=True, check=False)
        if ok and done.returncode:
            raise AssertionError(f"git {' '.join(argv)}: {done.stderr}")
        return done.stdout.strip()

    return call


@pytest.fixture
def repository(tmp_path: Path, git: Git) -> Path:
    """A repository of one commit on ``main``, with an identity of its own."""
    where = tmp_path / "repo"
    where.mkdir()
    git(where, "init", "-q", "-b", "main")
    git(where, "config", "user.name", "Olive Operator")
    git(where, "config", "user.email", "olive@example.org")
    (where / "README.md").write_text("# A repository\n")
    git(where, "add", "-A")
    git(where, "commit", "-q", "-m", "first")
    return where

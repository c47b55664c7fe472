"""The remote: a push overwrites nobody, its outcome is known, and nothing on the way asks a question."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from drover.domain.errors import GitError
from drover.git import remote
from drover.git.remote import Unreachable, fetch, fetched_ref, look_at, push
from drover.git.repo import Repo
from tests.git.conftest import Change, Git

pytestmark = pytest.mark.anyio


@pytest.fixture
def bare(repository: Path, tmp_path: Path, git: Git) -> Path:
    """An empty remote called ``origin``."""
    where = tmp_path / "origin.git"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(where))
    git(repository, "remote", "add", "origin", str(where))
    return where


def hook(bare: Path, name: str, script: str) -> None:
    path = bare / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


async def test_a_push_makes_the_branch_that_is_not_there(repo: Repo, repository: Path, bare: Path, git: Git) -> None:
    tip = git(repository, "rev-parse", "main")
    assert await look_at(repo, "origin", "main") is None
    assert await push(repo, "origin", "main", new=tip, old=None)
    assert git(bare, "rev-parse", "main") == tip
    assert await push(repo, "origin", "main", new=tip, old=None), "done before is as good"


async def test_a_push_over_somebody_elses_commit_is_not_made(
    repo: Repo, repository: Path, bare: Path, git: Git, change: Change
) -> None:
    old = git(repository, "rev-parse", "main")
    await push(repo, "origin", "main", new=old, old=None)
    theirs = change(repository, old, {"theirs": "1\n"})
    git(repository, "push", "-q", "origin", f"{theirs}:refs/heads/main")
    ours = change(repository, old, {"ours": "1\n"})
    assert not await push(repo, "origin", "main", new=ours, old=old)
    assert git(bare, "rev-parse", "main") == theirs
    with pytest.raises(GitError, match="does not contain"):
        await push(repo, "origin", "main", new=ours, old=theirs)
    assert git(bare, "rev-parse", "main") == theirs


async def test_a_push_that_was_cut_off_after_it_had_been_taken_counts(
    repo: Repo, repository: Path, bare: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook(bare, "post-receive", "sleep 30")
    monkeypatch.setattr(remote, "NETWORK_S", 1.5)
    tip = git(repository, "rev-parse", "main")
    assert await push(repo, "origin", "main", new=tip, old=None), "the remote was asked"
    assert git(bare, "rev-parse", "main") == tip


async def test_a_refusal_is_told_in_the_remotes_words(repo: Repo, repository: Path, bare: Path, git: Git) -> None:
    hook(bare, "pre-receive", "echo main is protected >&2; exit 1")
    with pytest.raises(GitError, match="main is protected") as refused:
        await push(repo, "origin", "main", new=git(repository, "rev-parse", "main"), old=None)
    assert not isinstance(refused.value, Unreachable)


async def test_a_remote_that_is_away_is_named(repo: Repo, repository: Path, bare: Path, git: Git) -> None:
    bare.rename(bare.with_name("elsewhere"))
    with pytest.raises(Unreachable, match="origin cannot be reached"):
        await look_at(repo, "origin", "main")
    with pytest.raises(Unreachable, match="origin cannot be reached"):
        await push(repo, "origin", "main", new=git(repository, "rev-parse", "main"), old=None)


async def test_a_fetch_leaves_the_operators_own_refs_alone(
    repo: Repo, repository: Path, bare: Path, git: Git, change: Change
) -> None:
    git(repository, "push", "-q", "origin", "main")
    git(repository, "fetch", "-q", "origin")
    other = bare.parent / "other"
    git(repository, "clone", "-q", str(bare), str(other))
    git(other, "config", "user.name", "Other")
    git(other, "config", "user.email", "other@example.org")
    theirs = change(other, "main", {"theirs": "1\n"})
    git(other, "push", "-q", "origin", f"{theirs}:refs/heads/main", f"{theirs}:refs/tags/v1")
    before = git(repository, "for-each-ref", "refs/remotes", "refs/tags", "refs/heads")
    (repository / ".git" / "FETCH_HEAD").unlink(missing_ok=True)
    assert await fetch(repo, "origin", "main") == theirs
    assert git(repository, "show", f"{theirs}:theirs") == "1"
    assert git(repository, "rev-parse", fetched_ref("origin", "main")) == theirs
    assert git(repository, "for-each-ref", "refs/remotes", "refs/tags", "refs/heads") == before
    assert not (repository / ".git" / "FETCH_HEAD").exists()


@pytest.mark.parametrize("how", ["environment", "configuration"])
async def test_the_operators_ssh_is_used_and_asks_nothing(
    repo: Repo, repository: Path, tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    ssh, seen = tmp_path / "my-ssh", tmp_path / "seen"
    ssh.write_text(f'#!/bin/sh\necho "$@" > {seen}\nenv >> {seen}\nexit 255\n')
    ssh.chmod(0o755)
    if how == "environment":
        monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    else:
        git(repository, "config", "core.sshCommand", str(ssh))
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    monkeypatch.setenv("DROVER_DATABASE_URL", "postgresql://secret")
    git(repository, "remote", "add", "origin", "ssh://example.invalid/repo")
    with pytest.raises(Unreachable):
        await look_at(repo, "origin", "main")
    told = seen.read_text()
    assert "-oBatchMode=yes" in told.splitlines()[0]
    assert "GIT_TERMINAL_PROMPT=0" in told
    assert "SSH_AUTH_SOCK=/run/agent" in told, "a push is made as the operator"
    assert "secret" not in told


async def test_a_credential_helper_is_asked_and_a_person_is_not(
    repo: Repo, repository: Path, tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked"
    for name in ("GIT_ASKPASS", "SSH_ASKPASS"):
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\necho {name} >> {asked}\n")
        script.chmod(0o755)
        monkeypatch.setenv(name, str(script))
    git(repository, "config", "core.askPass", str(tmp_path / "SSH_ASKPASS"))
    git(repository, "config", "credential.helper", f"!echo helper >> {asked}; :")
    async with _wants_a_password() as port:
        git(repository, "remote", "add", "origin", f"http://127.0.0.1:{port}/repo")
        with pytest.raises(Unreachable):
            await look_at(repo, "origin", "main")
    assert set(asked.read_text().split()) == {"helper"}


@asynccontextmanager
async def _wants_a_password() -> AsyncGenerator[int]:
    """A web server that lets nobody in; its port."""

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Refuse)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

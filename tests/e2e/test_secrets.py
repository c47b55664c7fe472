"""Canaries: secrets planted wherever an operator has some, looked for wherever drover leaves something."""

from __future__ import annotations

import base64
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.agents.real import needs_claude
from tests.agents.rig import REAL
from tests.conformance.scene import Scene
from tests.e2e.conftest import Project
from tests.proof.plugin import Tally

# By where each is planted. What it may be seen by is said beside it.
ENVIRONMENT = {
    "AWS_SECRET_ACCESS_KEY": "canary-aws-3f81c0",  # nobody
    "PGPASSWORD": "canary-pg-9b2274",  # nobody
    "GITHUB_TOKEN": "canary-github-51d0aa",  # nobody: a command agent is not Copilot
    "OPENAI_API_KEY": "canary-openai-6c3be8",  # nobody: nor Codex
    "SERVICE_KEY": "canary-service-c47e19",  # the agent: its settings name it
}
SET = "canary-set-77ab02"  # the agent, and the file of settings that it stands in
NETRC, REMOTE, DOTENV = "canary-netrc-0d93f1", "canary-remote-e2c7b5", "canary-dotenv-84fe6c"  # nobody
PGPASS, STORED, HEADER = "canary-pgpass-5a10ce", "canary-stored-b38f70", "canary-header-29d4e6"  # nobody
ALL = (*ENVIRONMENT.values(), SET, NETRC, REMOTE, DOTENV, PGPASS, STORED, HEADER)

# It tells its environment to the test alone, and its secrets to everybody: as its output, its reason, its summary.
AGENT = """\
import json, os, pathlib, sys
sys.stdin.read()
own = pathlib.Path({place!r})
(own / f"environment.{{os.environ['DROVER_ATTEMPT']}}").write_text(json.dumps(dict(os.environ)))
secret = os.environ["SERVICE_KEY"]
if os.environ["DROVER_ATTEMPT"] == "1":
    result = {{"verdict": "failed", "reason": f"the service refused {{secret}}"}}
else:
    result = {{"verdict": "done", "summary": f"used {{secret}} and {{os.environ['SERVICE_PASSWORD']}}"}}
    pathlib.Path("work.txt").write_text("work\\n")
print("I was given", secret)
pathlib.Path(os.environ["DROVER_RESULT"]).write_text(json.dumps(result))
for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    try:
        line = path.read_bytes().replace(b"\\0", b" ").decode(errors="replace")
    except OSError:
        continue
    with (own / "argv").open("a") as file:
        file.write(line + "\\n")
"""


def spellings(secret: str) -> Iterator[bytes]:
    """As it is, for a URL, and as base64 would hide it at any place in a text."""
    yield secret.encode()
    yield quote(secret).encode()
    for before in range(3):
        text = base64.b64encode(b"x" * before + secret.encode() + b"x" * 3).decode()
        yield text[4:-8].encode()


def found_in(data: bytes) -> list[str]:
    return [secret for secret in ALL if any(spelling in data for spelling in spellings(secret))]


def git_objects(root: Path) -> bytes:
    """Every object and every ref of a repository, unpacked."""
    objects = subprocess.run(["git", "cat-file", "--batch-all-objects", "--batch"], cwd=root, capture_output=True,
                             check=True).stdout  # fmt: skip
    return objects + subprocess.run(["git", "for-each-ref"], cwd=root, capture_output=True, check=True).stdout


def leaks(root: Path, *, allowed: tuple[str, ...]) -> dict[str, list[str]]:
    """Which canaries stand in which file below ``.drover``, but for files of those names."""
    files = [path for path in (root / ".drover").rglob("*") if path.is_file() and path.name not in allowed]
    assert any(path.name.startswith("drover.db") for path in files)
    return {str(path): found for path in files if (found := found_in(path.read_bytes()))}


@pytest.mark.suite("T35")
def test_no_secret_is_left_where_others_can_read_it(project: Project, tmp_path: Path, tally: Tally) -> None:
    place = tmp_path / "own"
    place.mkdir()
    script = tmp_path / "agent.py"
    script.write_text(AGENT.format(place=str(place)))
    project.env.update(ENVIRONMENT)
    Path(project.env["HOME"], ".netrc").write_text(f"machine example.org password {NETRC}\n")
    Path(project.env["HOME"], ".pgpass").write_text(f"*:*:*:olive:{PGPASS}\n")
    Path(project.env["HOME"], ".git-credentials").write_text(f"https://olive:{STORED}@example.org\n")
    project.git("config", "http.https://example.org/.extraHeader", f"Authorization: Bearer {HEADER}")
    project.git("config", "credential.helper", "store")
    (project.root / ".env").write_text(f"TOKEN={DOTENV}\n")
    with (project.root / ".git" / "info" / "exclude").open("a") as file:
        file.write("\n.env\n")
    subprocess.run(["git", "remote", "add", "origin", f"https://olive:{REMOTE}@example.org/r.git"], cwd=project.root,
                   check=True)  # fmt: skip
    project.env["DROVER_AGENT_PATH"] = shlex.join([sys.executable, str(script)])
    settings = project.root / ".drover.toml"
    text = settings.read_text().replace('"LEDGER", "WORK_SECONDS"', '"SERVICE_KEY"')
    settings.write_text(
        f'{text}\n[agents.command.set]\nSERVICE_PASSWORD = "{SET}"\n[verify]\ncommand = "env > {place}/verify"\n'
    )
    task = project.add("Use the service", "--agent", "command")
    told = project.drover("run", "--json")
    views = (("info", task, "--json"), ("stream", "--jsonl"), ("status", "--json"), ("config", "show"), ("doctor",))
    for done in (told, *(project.drover(*argv, code=None) for argv in views)):
        assert found_in((done.stdout + done.stderr).encode()) == [], done.args
    assert "[secret]" in project.drover("info", task, "--json").stdout  # its words, without what it was given
    # The agent's own output is the agent's own: a private file, which holds what it chose to print.
    assert leaks(project.root, allowed=("output.log", "result.json")) == {}
    logs = list((project.root / ".drover" / "logs").rglob("output.log"))
    assert {path.stat().st_mode & 0o077 for path in logs} == {0}
    assert found_in(git_objects(project.root)) == []
    assert found_in((place / "argv").read_bytes()) == []
    assert found_in((place / "verify").read_bytes()) == []
    environments = list(place.glob("environment.*"))
    assert len(environments) == 2
    for environment in environments:
        assert set(found_in(environment.read_bytes())) == {ENVIRONMENT["SERVICE_KEY"], SET}
    assert len(ALL) == 12
    tally(points=len(ALL))


def command_lines() -> Iterator[bytes]:
    """Of every process that lives long enough to be read."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes()


@needs_claude
@pytest.mark.suite("T35")
def test_the_key_of_a_real_agent_is_left_nowhere(tmp_path: Path) -> None:
    key, password = ENVIRONMENT["AWS_SECRET_ACCESS_KEY"], ENVIRONMENT["PGPASSWORD"]
    with Scene(REAL["claude"], tmp_path / "scene", ANTHROPIC_API_KEY=key, PGPASSWORD=password) as scene:
        own = tmp_path / "environment"
        scene.add({"sh": f"env > {own}; until test -e {own}.seen; do sleep 0.1; done; echo x > x"}, {"say": "Done."})
        run = scene.run()
        run.until("the tool runs", own.exists)
        lines = b"".join(command_lines())
        Path(f"{own}.seen").touch()
        assert run.end() == 0
        assert password not in found_in(own.read_bytes())
        assert found_in(lines) == []
        assert found_in(git_objects(scene.root)) == []
        assert leaks(scene.root, allowed=()) == {}
        assert found_in((scene.call("info", scene.task, "--json") + scene.call("stream", "--jsonl")).encode()) == []

"""Agents leave traps for whoever runs git in their clones: through whole lives of drover, none of them goes off."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Project
from tests.e2e.trap_agent import all_traps

TRAPS = all_traps()
AGENT = Path(__file__).with_name("trap_agent.py")
ADD = """
import anyio, json, sys
from drover import app
async def main():
    async with app.open(repo=sys.argv[1]) as drover:
        ids = {}
        for name in json.loads(sys.stdin.read()):
            task = await drover.add("Do it", description=f"TRAP<{name}>", max_attempts=2)
            ids[task.id] = name
        print(json.dumps(ids))
anyio.run(main)
"""


@pytest.mark.suite("T29")
@pytest.mark.timeout(240)
def test_no_trap_of_an_agent_goes_off_in_a_whole_life(project: Project, tmp_path: Path) -> None:
    """Planted in the first attempt, which fails; then carried, saved, taken, landed, pruned and restored."""
    home = tmp_path / "traps"
    home.mkdir()
    (project.root / "dir").mkdir()
    (project.root / "dir" / "file.txt").write_text("a file\n")
    project.git("add", "-A")
    project.git("commit", "-q", "-m", "a directory")
    config = (project.root / ".git" / "config").read_bytes()
    project.env["DROVER_AGENT_PATH"] = f"{sys.executable} {AGENT} {home}"
    names = json.loads(project.python(ADD, str(project.root), stdin=json.dumps(list(TRAPS))))
    assert len(names) == len(TRAPS) >= 30
    project.drover("run", "--workers", "4", code=None, timeout=200)

    for argv in (["worktree", "list"], ["doctor", "--fix"], ["worktree", "cleanup", "--yes"], ["status"]):
        project.drover(*argv, code=None)
    tasks = {task["id"]: task for task in project.json("list")}
    for id, task in tasks.items():
        if task["status"] != "completed":
            for argv in (["diff", id], ["worktree", "restore", id], ["logs", id]):
                project.drover(*argv, code=None)

    planted = {names[path.parent.name] for path in home.glob("*/planted")}
    assert set(TRAPS) - planted == set(), "every trap was planted"
    went_off = {names[path.parent.name]: path.read_text() for path in home.glob("*/fired")}
    assert went_off == {}
    # Two traps write the same .gitattributes, and these agents resolve nothing: a conflict is no trap gone off.
    left = {id: task["last_error"]["class"] for id, task in tasks.items() if task["status"] != "completed"}
    refused = {names[id] for id, why in left.items() if why != "conflict"}
    assert all("repositor" in name or "submodule" in name for name in refused), "what is harmless has landed"
    assert [path.read_text() for path in home.glob("*/outside/*")] == ["kept\n"], "nothing was written through a link"
    assert (project.root / ".git" / "config").read_bytes() == config
    assert project.git("config", "--get-regexp", "alias|filter|fsmonitor", ok=False) == ""
    project.git("-c", "fsck.gitmodulesUpdate=ignore", "fsck", "--strict", "--no-dangling")
    print(f"{len(names)} traps planted, {len(refused)} refused, {len(went_off)} went off")

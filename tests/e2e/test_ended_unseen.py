"""An agent that ended while no drover looked: its work is taken, unless the machine was started again since."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import Project

AGENT = """\
#!/bin/sh
echo begun >> {place}/runs
until test -e {place}/go; do sleep 0.05; done
echo "$DROVER_TASK_ID" > work.txt
"""


@pytest.mark.suite("T17")
@pytest.mark.parametrize("started_again", [False, True])
def test_what_was_not_forced_to_the_disk_is_not_taken_for_the_work_of_an_agent(
    project: Project, tmp_path: Path, started_again: bool
) -> None:
    agent = tmp_path / "agent.sh"
    agent.write_text(AGENT.format(place=tmp_path))
    agent.chmod(0o755)
    project.env["DROVER_AGENT_PATH"] = str(agent)
    task = project.add("Write it")
    run = project.start("run")
    project.eventually((tmp_path / "runs").exists, "the agent to be at work")
    os.kill(run.pid, signal.SIGSTOP)
    (tmp_path / "go").touch()
    (record,) = (project.root / ".drover" / "logs" / task).glob("*/start.json")
    record = record.with_name("exit.json")
    project.eventually(record.exists, "the agent's supervisor to have seen its end")
    run.kill()
    run.wait()
    if started_again:  # the record was forced to the disk, the work was not
        record.write_text(json.dumps(json.loads(record.read_text()) | {"boot": "the one before"}))
        work = project.root / ".drover" / "worktrees" / task / "work.txt"
        assert work.read_text() == f"{task}\n"
        os.truncate(work, 0)
    project.drover("run")
    assert project.git("show", "main:work.txt") == task
    assert (tmp_path / "runs").read_text().count("begun") == 1 + started_again

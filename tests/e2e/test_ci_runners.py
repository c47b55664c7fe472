"""The recipe of docs/how-to/ci-runners.md: jobs on runners that vanish bring one backlog to its end."""

from __future__ import annotations

import shutil

from tests.e2e.fleet import git
from tests.e2e.test_many_hosts import MakeFleet, ends_in_order, make, scripted, url

__all__ = ["make", "url"]  # fixtures

# Each job lets as many agents through as it was given turns, and holds the next ones up for good.
TURNS = """
until mv "$(ls -d $TOP/turn-* 2>/dev/null | head -1)" "$TOP/used-$DROVER_TASK_ID" 2>/dev/null; do sleep 0.05; done
echo "$FLEET_HOST" > tasks/$DROVER_TASK_ID.txt
"""
TASKS = 3


def test_jobs_on_runners_that_vanish_bring_a_backlog_to_its_end(make: MakeFleet) -> None:
    fleet = make('claim_timeout = "2s"\nsnapshot_every = "300ms"\n[landing]\npush = "origin"\n')
    scripted(fleet, TURNS)
    desk = fleet.add_host("desk")
    desk.add_many(TASKS)
    for job in range(1, TASKS // 2 + 1):
        runner = fleet.add_host(f"runner-{job}", CI="true")
        for turn in (1, 2):
            (fleet.top / f"turn-{job}-{turn}").touch()
        runner.start("run", "--workers", "2")
        fleet.eventually(lambda job=job: len(fleet.landed()) == 2 * job, "two more tasks to have landed")
        runner.kill()  # without a word, and its disk goes with it
        shutil.rmtree(runner.root)
        fleet.hosts.remove(runner)
    for turn in range(TASKS):
        (fleet.top / f"turn-last-{turn}").touch()
    last = fleet.add_host("runner-last", CI="true")
    done = last.drover("run", "--workers", "2")
    assert "when the runner is gone, so is the backlog" not in done.stderr, "it is not: it is on a server"
    ends_in_order(fleet, last)
    wrote = {git(fleet.remote, "show", f"main:tasks/{task['id']}.txt").split("/")[-2] for task in last.json("list")}
    assert {"runner-1", "runner-last"} == wrote


def test_a_backlog_on_the_disk_of_a_runner_is_said_to_vanish(make: MakeFleet) -> None:
    fleet = make("")
    for key in ("DROVER_DATABASE_URL", "DROVER_HOST"):
        fleet.env[key] = ""
    runner = fleet.add_host("runner", CI="true")
    assert "when the runner is gone, so is the backlog" in runner.drover("run").stderr
    assert "runner" not in fleet.add_host("desk", CI="").drover("run").stderr

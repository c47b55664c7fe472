"""Hosts that share a backlog: whatever host dies where, every task lands once, on the remote."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import asyncpg
import pytest

from tests import postgres_server
from tests.e2e.fleet import AGENT, Fleet, Host, git, make_fleet
from tests.postgres_server import NoServer

TOML = 'claim_timeout = "4s"\nsnapshot_every = "300ms"\n[landing]\npush = "origin"\n'
_numbers = itertools.count()

MakeFleet = Callable[..., Fleet]


@pytest.fixture
def url() -> Iterator[str]:
    """A database of its own."""
    try:
        server = postgres_server.shared()
    except NoServer as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no Postgres: {reason}")
        pytest.skip(f"no Postgres: {reason}")
    name = f"fleet{os.getpid()}_{next(_numbers)}"
    anyio.run(say, server.url(), f"CREATE DATABASE {name}")
    yield server.url(name)
    anyio.run(say, server.url(), f"DROP DATABASE {name} WITH (FORCE)")


async def say(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@pytest.fixture
def make(tmp_path: Path, url: str) -> Iterator[MakeFleet]:
    made: list[Fleet] = []

    def call(toml: str = TOML, **env: str) -> Fleet:
        made.append(make_fleet(tmp_path, url, toml))
        made[-1].env.update(env)
        return made[-1]

    yield call
    for fleet in made:
        fleet.end()


def add(host: Host, title: str, *argv: str) -> str:
    return host.drover("add", title, "-q", *argv).stdout.strip()


def ends_in_order(fleet: Fleet, host: Host) -> None:
    """What must hold at the end of every story here."""
    tasks = host.json("list")
    assert {t["status"] for t in tasks} == {"completed"}
    landed = fleet.landed()
    assert {t["id"]: landed[t["id"]] for t in tasks} == {t["id"]: 1 for t in tasks}, "each landed once on the remote"
    for task in tasks:
        assert git(fleet.remote, "merge-base", "--is-ancestor", task["landed_commit"], "main") == ""
        assert git(fleet.remote, "show", f"main:tasks/{task['id']}.txt")
    git(fleet.remote, "fsck", "--strict", "--no-dangling")


def of_others(host: Host, task: str) -> list[dict[str, str]]:
    """The executions that went on with what another host had begun."""
    return [a for a in host.json("info", task)["attempts_log"] if a["origin"]]


def share(make: MakeFleet, count: int) -> None:
    """Three hosts; one is stopped for longer than its lease and goes on, one is killed for good."""
    fleet = make(WORK_SECONDS="0.1,0.5")
    scripted(fleet, f"{BEGINS}\nwhile [ ! -e $TOP/go ]; do sleep 0.05; done\nexec {sys.executable} {AGENT}")
    a, b, c = (fleet.add_host(name) for name in "abc")
    a.add_many(count, chained=3)
    for host in (a, b, c):
        host.start("run", "--workers", "2", "-v")
    fleet.eventually(lambda: all(len(_begun(fleet, name)) == 2 for name in "abc"), "all three to be at work")
    held = _begun(fleet, "a") | _begun(fleet, "b")
    a.freeze()
    b.kill()
    (fleet.top / "go").touch()
    fleet.eventually(lambda: _begun(fleet, "c") >= held, "c to take over what the two others had")
    a.thaw()
    assert c.started[0].wait(600) == 0, c.said()
    assert a.started[0].wait(600) == 0, a.said()
    ends_in_order(fleet, c)
    rescued = [e for e in _events(c) if e["type"] == "task.rescued"]
    assert {e["data"]["cause"] for e in rescued} == {"lease ended"}, "nobody judged another host by its pids"
    moved = [e for e in _events(c) if e["type"] == "task.moved"]
    assert {e["data"]["host"] for e in moved} >= {"c"}, "work has gone from host to host"
    starts = sum(book["event"] == "start" for book in fleet.books())
    assert starts <= count + len(rescued), "a repetition is paid for by a loss"
    assert [line for line in git(fleet.remote, "for-each-ref", "--format=%(refname)").split() if "drover" in line] == []


# Leaves a file that tells which host has begun which task.
BEGINS = 'touch $TOP/begun-$(basename "$(dirname "$FLEET_HOST")")-$DROVER_TASK_ID'


def _begun(fleet: Fleet, host: str) -> set[str]:
    """The tasks whose agents the host has started."""
    return {path.name.removeprefix(f"begun-{host}-") for path in fleet.top.glob(f"begun-{host}-*")}


def _events(host: Host) -> list[dict[str, object]]:
    return [json.loads(line) for line in host.drover("stream", "--jsonl").stdout.splitlines()]


def scripted(fleet: Fleet, script: str) -> None:
    """What the agents of hosts that are added from now on do; ``$TOP`` is the fleet's own directory."""
    agent = fleet.top / "agent.sh"
    agent.write_text(f"#!/bin/sh\nTOP={fleet.top}\nmkdir -p tasks\n{script}\n")
    agent.chmod(0o755)
    fleet.env["DROVER_AGENT_PATH"] = str(agent)


# Appends its host's name; on a host that is told to wait it has done half of its work then.
HALF = """
me=$(basename "$(dirname "$FLEET_HOST")")
echo "$me" >> tasks/$DROVER_TASK_ID.txt
touch $TOP/$me.began
while [ -e $TOP/wait-$me ]; do sleep 0.05; done
"""


def test_the_late_landing_of_a_host_that_was_given_up_is_refused_by_its_fence(make: MakeFleet) -> None:
    fleet = make()
    scripted(fleet, HALF)
    a, b = fleet.add_host("a"), fleet.add_host("b")
    task = add(a, "Late")
    a_held, b_held = fleet.hold_landings(a, "before"), fleet.hold_landings(b, "before")
    a.start("run", "--workers", "1", "-v")
    fleet.eventually(a_held.exists, "a to be about to push, its intent on record")
    a.freeze()
    before = git(fleet.remote, "rev-parse", "main")
    b.start("run", "--workers", "1", "-v")
    fleet.eventually(b_held.exists, "b to be about to push with what a had committed")
    a_held.with_suffix("").unlink()
    pushed = a.root.parent / "pushed"
    a.thaw_pushes()  # alone: its drover cannot call them off
    fleet.eventually(lambda: pushed.exists() and pushed.read_text(), "a's push to have ended")
    assert pushed.read_text() != "0\n", "it was refused, although nobody else had landed"
    assert git(fleet.remote, "rev-parse", "main") == before
    a.thaw()
    b_held.with_suffix("").unlink()
    assert b.started[0].wait(120) == 0
    assert a.started[0].wait(120) == 0
    ends_in_order(fleet, b)
    (taken,) = of_others(b, task)
    assert taken["origin"] == "continued with the result that a had committed"
    assert b.json("info", task)["executions"] == 1, "its agent did not run again"
    assert [row["state"] for row in b.json("info", task)["landings"]] == ["abandoned", "published"]
    assert a.git("rev-parse", f"refs/drover/attempts/{task}/1"), "what a made is kept there"


@pytest.mark.slow
def test_a_push_that_its_host_did_not_live_to_record_is_found(make: MakeFleet) -> None:
    fleet = make()
    scripted(fleet, HALF)
    a, b = fleet.add_host("a"), fleet.add_host("b")
    first = add(a, "First")
    second = add(a, "Second", "--blocked-by", first)
    held = fleet.hold_landings(a, "after")
    a.start("run", "--workers", "1")
    fleet.eventually(held.exists, "a's push to be taken")
    a.kill()
    assert fleet.landed() == {first: 1}
    b.drover("run", "--workers", "1")
    ends_in_order(fleet, b)
    assert b.json("info", first)["executions"] == 1
    assert b.json("info", second)["executions"] == 1
    (landed,) = [e for e in _events(b) if e["type"] == "task.landed" and e["task_id"] == first]
    assert landed["data"]["found"] == 1


def test_what_a_lost_host_had_begun_goes_on_from_its_last_snapshot(make: MakeFleet) -> None:
    fleet = make()
    scripted(fleet, HALF)
    a, b = fleet.add_host("a"), fleet.add_host("b")
    task = add(a, "Half")
    (fleet.top / "wait-a").touch()
    a.start("run", "--workers", "1")
    fleet.eventually(lambda: "snapshots" in git(fleet.remote, "for-each-ref"), "half of the work to be saved")
    a.kill()
    b.drover("run", "--workers", "1")
    ends_in_order(fleet, b)
    assert git(fleet.remote, "show", f"main:tasks/{task}.txt") == "a\nb"
    (taken,) = of_others(b, task)
    assert taken["host"] == "b"
    assert re.fullmatch(r"continued from snapshot \d+ s before the loss of a", taken["origin"])
    assert taken["origin"] in b.drover("info", task).stdout, "a person sees which it was"
    assert "drover" not in git(fleet.remote, "for-each-ref"), "nothing is kept of a task that is done"
    a.drover("run")
    assert a.git("show", f"refs/drover/wip/{task}/1:tasks/{task}.txt") == "a"


@pytest.mark.slow
def test_work_given_back_on_one_host_goes_on_on_another(make: MakeFleet) -> None:
    fleet = make('claim_timeout = "5m"\n[landing]\npush = "origin"\n')
    scripted(fleet, HALF)
    a, b = fleet.add_host("a"), fleet.add_host("b")
    task = add(a, "Half")
    (fleet.top / "wait-a").touch()
    run = a.start("run", "--workers", "1")
    fleet.eventually((fleet.top / "a.began").exists, "a's agent to be at work")
    os.kill(run.pid, signal.SIGINT)
    assert run.wait(60) == 130
    b.drover("run", "--workers", "1")
    ends_in_order(fleet, b)
    assert git(fleet.remote, "show", f"main:tasks/{task}.txt") == "a\nb"
    assert of_others(b, task)[0]["origin"].startswith("continued from ")


def test_three_hosts_share_a_backlog_and_lose_one_and_a_half(make: MakeFleet) -> None:
    share(make, 12)


@pytest.mark.slow
def test_three_hosts_share_sixty_tasks_and_lose_one_and_a_half(make: MakeFleet) -> None:
    share(make, 60)

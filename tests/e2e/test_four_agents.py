"""Four real agents in the middle of a tool when drover is killed: the same four sessions go on, nothing old lives."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from drover.engine.tools import Places
from drover.process import find_marked, is_alive
from tests.agents.real import needs_claude
from tests.agents.rig import REAL
from tests.conformance.scene import Facts, Scene

pytestmark = [pytest.mark.slow, needs_claude]

# A child, and a grandchild in a session of its own.
SLOW = "test -e started.{n} || {{ echo > started.{n}; setsid sleep 300 & sleep 300; }}; echo SLEPT"


def plan(n: int) -> tuple[Facts, ...]:
    return (
        {"write": [f"one.{n}", "1\n"]},
        {"sh": SLOW.format(n=n)},
        {"write": [f"two.{n}", "2\n"]},
        {"say": "All done."},
    )


@pytest.mark.parametrize("also", ["drover alone", "its supervisors too"])
def test_four_agents_in_mid_turn_survive_a_kill_of_drover(also: str, tmp_path: Path) -> None:
    with Scene(REAL["claude"], tmp_path / "scene") as scene:
        tasks = []
        for n in range(4):
            scene.add(*plan(n))
            tasks.append(scene.task)
        run = scene.run("run", "--workers", "4")
        clones = scene.root / ".drover" / "worktrees"
        run.until("four tools run", lambda: len(list(clones.glob("*/started.*"))) == len(tasks))
        time.sleep(1.5)  # the calls are saved a moment after they began, and nothing tells when
        old = find_marked(Places(scene.root / ".drover").marker_of_all)
        supervisors = [facts["attempts_log"][-1]["pid"] for facts in (scene.info_of(task) for task in tasks)]
        if also != "drover alone":
            run.process.send_signal(signal.SIGSTOP)  # it must not see them die
            for pid in supervisors:
                os.kill(pid, signal.SIGKILL)
        run.process.kill()
        run.process.wait()
        assert len(old) >= 4 * len(tasks)  # supervisor, agent, and the two sleeps of each
        assert scene.run("resume", "--workers", "4").end() == 0
        assert [identity for identity in old if is_alive(identity)] == []
        assert scene.alive == 0
        for task in tasks:
            first, second = scene.info_of(task)["attempts_log"]
            assert (second["resumed"], second["session_id"]) == ("continued", first["session_id"])
        assert {f"{name}.{n}" for name in ("one", "two") for n in range(4)} <= set(scene.landed())
        asked = scene.served.turns
        assert (asked.count(0), asked.count(1)) == (4, 4)  # what had been done was in the history that was sent

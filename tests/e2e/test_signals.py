"""A run that is told to end, however it is told, leaves nothing of its agents, whatever they have become."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.conftest import Project
from tests.process import shapes
from tests.proof.plugin import Tally

# Becomes the first shape that no other agent has become.
AGENT = """\
import os, pathlib, sys
for shape in {shapes}:
    try:
        os.mkdir(pathlib.Path({place!r}, shape))
    except FileExistsError:
        continue
    os.execv(sys.executable, [sys.executable, {program!r}, shape, "token", {place!r} + f"/{{shape}}/ready", "stays"])
"""
ENDS = {
    "an interrupt": [signal.SIGINT],
    "two interrupts": [signal.SIGINT, signal.SIGINT],
    "a request to end": [signal.SIGTERM],
    "a hangup": [signal.SIGHUP],
}


@pytest.mark.slow
@pytest.mark.suite("T24")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("end", ENDS)
def test_nothing_survives_a_run_that_is_told_to_end(project: Project, tmp_path: Path, end: str, tally: Tally) -> None:
    place, script = tmp_path / "shapes", tmp_path / "agent.py"
    place.mkdir()
    script.write_text(AGENT.format(shapes=shapes.SHAPES, place=str(place), program=shapes.__file__))
    project.env["DROVER_AGENT_PATH"] = f"{sys.executable} {script}"
    for shape in shapes.SHAPES:
        project.add(f"Become {shape}")
    run = project.start("run", "--workers", str(len(shapes.SHAPES)))
    project.eventually(lambda: len(list(place.glob("*/ready"))) == len(shapes.SHAPES), "agents of every shape")
    for each in ENDS[end]:
        run.send_signal(each)
    assert run.wait(120) == 130
    assert project.living() == []
    assert project.statuses() == Counter(ready=len(shapes.SHAPES))
    tally(points=len(shapes.SHAPES))

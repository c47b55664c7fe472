"""An agent that ended well and changed nothing is asked about it: once in an attempt, whatever dies in between."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from drover.domain.states import State
from tests.engine.places import Site

pytestmark = pytest.mark.anyio

QUESTION = "Is nothing to be done?"

# Claude Code as far as it matters here. What it was told is in what it says, so that both are in its log or neither is.
AGENT = """\
test "$1" = --version && echo 2.1.330 && exit 0
read -r line; told=$(printf %%s "$line" | tr '"\\\\' ' /')
case "$*" in *--resume*) how=resumed;; *) how=new;; esac
echo '{"type":"system","subtype":"init","session_id":"one","told":"'$how: "$told"'"}'
%s
echo '{"type":"result","subtype":"success","is_error":false,"result":"%s","num_turns":1,"total_cost_usd":0.5,
"usage":{"input_tokens":10,"output_tokens":1}}' | tr -d '\\n'
"""


def works(site: Site, commands: str = "", words: str = "It is all there already.") -> None:
    site.says(AGENT % (commands, words))


def told(site: Site, task_id: str) -> list[str]:
    """What each run of the agent was told, the first first."""
    logs = site.root / ".drover" / "logs" / task_id
    return [text for path in sorted(logs.glob("*/output*.jsonl")) if (text := path.read_text())]


async def test_it_is_asked_once_in_the_same_session_and_then_fails(site: Site) -> None:
    works(site)
    async with site.open(**{"agents.claude.path": str(site.agent)}) as drover:
        task = await drover.add("Nothing", agent="claude")
        await drover.run()
        after = await drover.task(task.id)
        [execution] = (await drover.details(task.id)).attempts
    assert (after.state, after.failures, after.executions) == (State.FAILED, 1, 2)
    assert after.error is not None
    assert after.error.error_class == "no_change"
    assert "It is all there already." in after.error.message
    assert "--allow-no-change" in after.error.what_to_do
    first, second = told(site, task.id)
    assert "new: " in first and QUESTION not in first
    assert "resumed: " in second and QUESTION in second
    assert execution.usage.cost_usd == 0.5, "the cost of a session is told as a whole, and counted once"
    assert (execution.usage.input_tokens, execution.usage.turns) == (20, 2)


async def test_it_may_change_something_when_asked(site: Site) -> None:
    works(site, 'case "$told" in *"Is nothing to be done"*) echo x > x.txt;; esac')
    async with site.open(**{"agents.claude.path": str(site.agent)}) as drover:
        task = await drover.add("Something", agent="claude")
        await drover.run()
        after = await drover.task(task.id)
        assert (after.state, after.error) == (State.COMPLETED, None)
    assert site.git("show", "main:x.txt") == "x"


async def test_it_may_change_nothing_where_the_task_says_so(site: Site) -> None:
    works(site)
    async with site.open(**{"agents.claude.path": str(site.agent)}) as drover:
        task = await drover.add("A look", agent="claude", allow_no_change=True)
        report = await drover.run()
        assert report.completed == (task.id,)
    assert [QUESTION in words for words in told(site, task.id)] == [False, True]


async def test_it_is_asked_a_question_of_its_own_only_once(site: Site) -> None:
    """What it says when asked may be a question, too: then a person decides, and it is not asked again."""
    works(site, words="NEEDS_HUMAN: which file?")
    async with site.open(**{"agents.claude.path": str(site.agent)}) as drover:
        task = await drover.add("Unclear", agent="claude")
        await drover.run()
        assert (await drover.task(task.id)).reason == "question"
    assert len(told(site, task.id)) == 1


async def test_a_program_without_sessions_is_asked_with_the_whole_prompt(site: Site) -> None:
    site.says(f"cat >> {site.top}/told; echo done")
    async with site.open() as drover:
        task = await drover.add("Nothing")
        await drover.run()
        after = await drover.task(task.id)
        assert after.error is not None and after.error.error_class == "no_change"
    words = (site.top / "told").read_text()
    assert words.count("# Task ") == 2
    assert words.count(QUESTION) == 1


# ---------------------------------------------------------------- whatever dies in between

FILL = """
import anyio, sys
from drover import app
async def main():
    async with app.open(repo=sys.argv[1]) as d:
        print((await d.add("Nothing")).id)
anyio.run(main)
"""


def die(top: Path, at: int) -> tuple[bool, int]:
    """Killed at that crossing, then run to the end: whether it was reached, and how many there are in all."""
    top.mkdir()
    site = Site(top)
    works(site)
    here = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(here), "DROVER_AGENT_TYPE": "claude", "DROVER_AGENT_PATH": str(site.agent)}
    filled = subprocess.run([sys.executable, "-c", FILL, str(site.root)], env=env, stdout=subprocess.PIPE, check=True)
    task_id = filled.stdout.decode().strip()
    killed = False
    for point in (at, 0):
        argv = [sys.executable, str(Path(__file__).with_name("dying_run.py")), str(site.root), str(point)]
        argv += [str(top / "crossings")]
        done = subprocess.run(argv, env=env, timeout=120, start_new_session=True, capture_output=True, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        killed = killed or done.returncode != 0
        if not killed:
            break
    questions = [QUESTION in words for words in told(site, task_id)]
    assert questions.count(True) == 1, (at, questions)
    shown = subprocess.run(
        [sys.executable, "-m", "drover", "info", task_id], cwd=site.root, env=env, capture_output=True, check=True
    ).stdout.decode()
    assert "no_change: the agent ended well and changed nothing, also when asked" in shown
    return killed, int((top / "crossings").read_text())


@pytest.mark.timeout(300)
def test_killed_at_some_points_it_is_asked_exactly_once(tmp_path: Path) -> None:
    _, crossings = die(tmp_path / "count", 0)
    assert crossings > 20
    for at in random.Random(5).sample(range(10, crossings - 4), 2):
        assert die(tmp_path / str(at), at)[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_any_point_it_is_asked_exactly_once(tmp_path: Path) -> None:
    at = 1
    while die(tmp_path / str(at), at)[0]:
        at += 1
    assert at > 20

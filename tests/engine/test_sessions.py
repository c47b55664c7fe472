"""How far a session is taken up: continued, restored, told what was done, or begun; and what each run used, once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from drover.app.drover import Drover
from drover.domain.models import Attempt
from drover.domain.states import State
from tests.engine.places import Site, run_until

pytestmark = pytest.mark.anyio

PLAN = "write one.txt 1\nwrite two.txt 2\nwait 5s\nwrite three.txt 3\n"


async def interrupted(site: Site, drover: Drover) -> str:
    """The id of a task whose agent was stopped in the middle of its plan."""
    task = await drover.add("In steps", description=PLAN, agent="scripted")
    report = await run_until(site, drover, site.worktree(task.id) / "two.txt")
    assert report.interrupted
    return task.id


async def finished(drover: Drover, task_id: str) -> None:
    await drover.run()
    assert (await drover.task(task_id)).state is State.COMPLETED


async def executions(drover: Drover, task_id: str) -> list[Attempt]:
    return list((await drover.details(task_id)).attempts)


async def test_a_session_that_is_there_goes_on(site: Site) -> None:
    async with site.open() as drover:
        id = await interrupted(site, drover)
        await finished(drover, id)
        first, second = await executions(drover, id)
    assert (first.resumed, second.resumed) == ("fresh", "continued")
    assert first.session_id == second.session_id
    assert (first.outcome, first.counted) == ("interrupted", True)
    assert first.usage.turns + second.usage.turns == 4, "each step is counted once, and none is lost"


async def test_a_session_whose_files_are_gone_is_brought_back_from_the_snapshot(site: Site) -> None:
    async with site.open() as drover:
        id = await interrupted(site, drover)
        [kept] = (site.root / ".drover/logs" / id).glob("session-*.json")
        kept.unlink()
        site.git("show", f"refs/drover/sessions/{id}/1:{kept.name}")
        await finished(drover, id)
        _, second = await executions(drover, id)
    assert second.resumed == "restored"


async def test_what_cannot_be_brought_back_goes_on_in_a_new_session_that_is_told(site: Site) -> None:
    async with site.open() as drover:
        id = await interrupted(site, drover)
        for path in (site.root / ".drover/logs" / id).glob("session-*.json"):
            path.unlink()
        site.git("update-ref", "-d", f"refs/drover/sessions/{id}/1")
        await finished(drover, id)
        first, second = await executions(drover, id)
    assert second.resumed == "soft"
    assert second.session_id != first.session_id
    told = (site.root / ".drover/logs" / id / "2" / "prompt.md").read_text()
    assert "# This is a continuation" in told
    assert "> +++ b/two.txt" in told


COSTLY = """\
test "$1" = --version && echo 2.1.330 && exit 0
read -r line
echo '{"type":"system","subtype":"init","session_id":"one","model":"opus"}'
echo '{"type":"assistant","message":{"id":"m1","model":"opus","content":[{"type":"text","text":"It is '$SECRET_TOKEN'"}
],"usage":{"input_tokens":100,"output_tokens":7}}}' | tr -d '\\n'; echo
case "$*" in *--resume*) ;; *) echo yes > %(top)s/begun; exec sleep 60;; esac
echo x > x.txt
echo '{"type":"result","subtype":"success","is_error":false,"result":"Done.","num_turns":1,"total_cost_usd":0.75,
"usage":{"input_tokens":200,"output_tokens":20}}' | tr -d '\\n'; echo
"""


async def test_an_interrupted_execution_tells_what_it_used_and_nothing_is_counted_twice(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hush-hush-hush")
    site.says(COSTLY % {"top": site.top})
    site.configure('[agents.claude]\nenv = ["SECRET_TOKEN"]\n')
    async with site.open(**{"agents.claude.path": str(site.agent)}) as drover:
        task = await drover.add("Costs", agent="claude")
        stopped = await run_until(site, drover, site.top / "begun")
        assert stopped.tokens == 107, "what was interrupted is in the run's own sum"
        report = await drover.run()
        assert (report.tokens, report.cost_usd) == (220, 0.75)
        first, second = await executions(drover, task.id)
        status = await drover.status()
    assert (first.usage.tokens, first.usage.turns, first.usage.model) == (107, 1, "opus")
    assert first.words == "It is [secret]"
    assert (second.resumed, second.usage.tokens) == ("continued", 220)
    assert (status.tokens, status.cost_usd) == (327, 0.75)


async def test_what_a_run_that_was_killed_used_is_read_back_by_the_next(site: Site) -> None:
    site.says(COSTLY % {"top": site.top})
    flags = {"agents.claude.path": str(site.agent)}
    async with site.open(**flags) as drover:
        task = await drover.add("Costs", agent="claude")
        env = {**os.environ, "DROVER_AGENT_TYPE": "claude", "DROVER_AGENT_PATH": str(site.agent)}
        argv = [sys.executable, "-m", "drover", "run"]
        run = subprocess.Popen(argv, cwd=site.root, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            await site.eventually(site.top / "begun", 60)
        finally:
            run.kill()
            run.wait()
        report = await drover.run()
        first, second = await executions(drover, task.id)
        status = await drover.status()
    assert (first.outcome, first.usage.tokens, first.usage.model) == ("interrupted", 107, "opus")
    assert (second.resumed, second.usage.cost_usd) == ("continued", 0.75)
    assert (report.tokens, status.tokens, status.cost_usd) == (220, 327, 0.75)

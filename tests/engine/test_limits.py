"""A night in a minute: an account's limit is waited out by all its tasks, and uses up nothing of them."""

from __future__ import annotations

import anyio
import pytest

from drover.app.drover import Drover
from drover.domain.models import RunReport, Task
from drover.domain.states import State
from drover.domain.verdicts import Outcome
from drover.engine import limits
from tests.engine.places import Site

pytestmark = pytest.mark.anyio

# Claude Code in two sentences: until the day has come its account is used up.
VERSION = 'test "$1" = --version && echo 2.1.330 && exit 0\n'
AGENT = """\
read -r prompt
case "$*" in *--resume*) how=resumed;; *) how=new;; esac
printf '%s %s\\n' "$DROVER_TASK_ID" $how >> {top}/starts
now=$(date +%s)
mkdir {top}/first 2>/dev/null && echo $((now + {seconds})) > {top}/ends
until test -s {top}/ends; do :; done
if test $now -lt $(cat {top}/ends); then
  echo '{{"type":"system","subtype":"init","session_id":"'$DROVER_TASK_ID'"}}'
  echo '{{"type":"rate_limit_event","rate_limit_info":{{"status":"rejected","resetsAt":'$(cat {top}/ends)'}}}}'
  echo '{{"type":"result","subtype":"success","is_error":true,"api_error_status":429,"result":"used up"}}'
  exit 1
fi
echo x > $DROVER_TASK_ID.txt
echo '{{"type":"result","subtype":"success","is_error":false,"result":"Done.","num_turns":1}}'
"""


def limited(site: Site, seconds: int) -> None:
    site.says(VERSION + AGENT.format(top=site.top, seconds=seconds))


async def when_all_wait(drover: Drover, how_many: int) -> list[Task]:
    with anyio.fail_after(60):
        while True:
            waiting = [t for t in await drover.tasks() if t.state is State.WAITING]
            if len(waiting) == how_many:
                return waiting
            await anyio.sleep(0.02)


async def test_all_tasks_of_a_limited_agent_wait_and_wake_and_land(site: Site) -> None:
    limited(site, 6)
    reports: list[RunReport] = []
    async with site.open(**{"agents.claude.path": str(site.agent)}) as drover:
        for number in range(12):
            await drover.add(f"Task {number}", agent="claude")

        async def run() -> None:
            reports.append(await drover.run(workers=3))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            waiting = await when_all_wait(drover, 12)
            notes = (await drover.status()).notes
        tasks = await drover.tasks()
    assert {task.reason for task in waiting} == {Outcome.USAGE_LIMIT}
    assert len(notes) == 1
    assert notes[0].startswith("claude: limited until ")
    assert notes[0].endswith("(12 tasks waiting)")
    assert len(reports[0].completed) == 12
    assert {(task.attempt, task.failures) for task in tasks} == {(1, 0)}
    starts = (site.top / "starts").read_text().split()
    assert starts.count("resumed") <= 3  # only those that were running when the limit came have a session
    assert len(starts) / 2 <= 12 + 3  # nobody else tried before its end


async def test_a_refusal_without_a_time_is_tried_again_later_and_later(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.says(
        VERSION + f"read -r prompt; echo x >> {site.top}/starts\n"
        f"if test $(wc -l < {site.top}/starts) -lt 4; then\n"
        'echo \'{"type":"result","is_error":true,"api_error_status":529,"result":"Overloaded"}\'; exit 1; fi\n'
        'echo x > x.txt; echo \'{"type":"result","is_error":false,"result":"Done."}\''
    )
    waits: list[int] = []

    def backoff_ms(refusals: int, rng: object) -> int:
        waits.append(refusals)
        return 50

    monkeypatch.setattr(limits, "backoff_ms", backoff_ms)
    async with site.open(**{"agents.claude.path": str(site.agent)}) as drover:
        task = await drover.add("Work", agent="claude")
        report = await drover.run()
        assert report.completed == (task.id,)
        assert (await drover.status()).notes == ()  # an overload is not the account's
    assert waits == [1, 2, 3]


async def test_another_agent_goes_on_with_the_work_and_the_first_comes_back_after_its_limit(site: Site) -> None:
    """Recorded as what it was: a new session of another agent, told what had been done."""
    site.says(VERSION + LIMITED_AT_ITS_SECOND_STEP.replace("TOP", str(site.top)))
    other = site.top / "other.sh"
    other.write_text(f"#!/bin/sh\ncat >> {site.top}/told; echo by another > second.txt; echo finished\n")
    other.chmod(0o755)
    flags = {"agents.claude.path": str(site.agent), "agents.command.path": str(other)}
    async with site.open(**flags, **{"agents.fallback": ["command"]}) as drover:
        first = await drover.add("First", agent="claude")
        assert (await drover.run(workers=1)).completed == (first.id,)
        one, two = (await drover.details(first.id)).attempts
        notes = (await drover.status()).notes
        assert await drover.lift_limit("claude") == 0
        (site.top / "over").touch()
        second = await drover.add("Second", agent="claude")
        assert (await drover.run(workers=1)).completed == (second.id,)
        [three] = (await drover.details(second.id)).attempts
        after = await drover.task(first.id)
    assert notes[0].startswith("claude: limited until ")
    assert (one.agent, one.outcome, one.resumed) == ("claude", "usage_limit", "fresh")
    assert (two.agent, two.outcome, two.resumed) == ("command", "done", "soft")
    assert three.agent == "claude"
    assert (after.attempt, after.failures) == (1, 0)
    assert site.git("show", f"main:{first.id}.txt") == "half"
    assert site.git("show", "main:second.txt") == "by another"
    told = (site.top / "told").read_text()
    assert "An earlier session (claude) worked on this task" in told
    assert f"> +++ b/{first.id}.txt" in told


LIMITED_AT_ITS_SECOND_STEP = """\
read -r prompt
echo half > $DROVER_TASK_ID.txt
test -e TOP/over && echo '{"type":"result","is_error":false,"result":"Done."}' && exit 0
echo '{"type":"system","subtype":"init","session_id":"'$DROVER_TASK_ID'"}'
echo '{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":'$(($(date +%s) + 3600))'}}'
echo '{"type":"result","subtype":"success","is_error":true,"api_error_status":429,"result":"used up"}'
exit 1
"""


async def test_later_without_a_time_is_tried_again_by_itself(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []

    def backoff_ms(refusals: int, rng: object, **more: int) -> int:
        waits.append(refusals)
        return 50

    monkeypatch.setattr(limits, "backoff_ms", backoff_ms)
    site.says(f"echo x >> {site.top}/tries; test $(wc -l < {site.top}/tries) -gt 2 || exit 75; echo x > x.txt")
    async with site.open() as drover:
        task = await drover.add("Later")
        report = await drover.run()
        assert report.completed == (task.id,)
        assert (await drover.task(task.id)).failures == 0
    assert waits == [1, 2]

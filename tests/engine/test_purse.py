"""A run that may spend so much: it stops in time, keeps what was done, and goes on when there is more."""

from __future__ import annotations

import pytest

from drover.domain.models import Event
from drover.domain.states import State, Status
from tests.engine.places import Site

pytestmark = pytest.mark.anyio

# The first task is dear and ends at once; every other works until it may end.
AGENT = """\
cat > prompt
echo half > $DROVER_TASK_ID.txt
if grep -q Dear prompt; then
  until test $(ls {top}/begun-* 2>/dev/null | wc -l) -ge {others}; do sleep 0.02; done
  rm prompt; echo '{{"verdict": "done", "cost_usd": 6}}' > $DROVER_RESULT; exit 0
fi
touch {top}/begun-$DROVER_TASK_ID
until test -e {top}/end; do sleep 0.02; done
rm prompt; echo whole >> $DROVER_TASK_ID.txt; echo '{{"verdict": "done", "cost_usd": 0.5}}' > $DROVER_RESULT
"""


async def test_a_run_over_its_budget_keeps_its_work_and_goes_on_when_it_is_raised(site: Site) -> None:
    site.says(AGENT.format(top=site.top, others=2))
    told: list[Event] = []
    async with site.open(**{"budget.run_usd": 5, "budget.estimate_usd": "1.00"}) as drover:
        dear = await drover.add("Dear", priority=9)
        others = [await drover.add(f"Task {number}") for number in range(4)]
        report = await drover.run(workers=3, on_event=told.append)
        tasks = {task.id: task for task in await drover.tasks()}
        notes = (await drover.status()).needs_attention
    assert report.completed == (dear.id,)
    assert report.exit_code == 3
    assert report.over_budget == "the run's budget of $5.00 is used up ($6.00)"
    stopped = [tasks[one.id] for one in others if tasks[one.id].state is State.WAITING]
    assert [(t.reason, t.failures) for t in stopped] == [("budget", 0)] * 2
    assert sum(tasks[one.id].status is Status.READY for one in others) == 2
    assert {site.saved(t.id, 1, f"{t.id}.txt") for t in stopped} == {"half"}
    assert {note.task_id for note in notes} == {t.id for t in stopped}
    assert "raise it" in notes[0].reason
    assert [e.data["spent"] for e in told if e.type == "budget.used_up"] == [6_000_000]

    (site.top / "end").touch()
    async with site.open(**{"budget.run_usd": 20}) as drover:
        report = await drover.run(workers=3)
        rows = await drover.costs("task")
        assert (await drover.costs("agent"))[0].cost_microusd == 8_000_000
    assert len(report.completed) == 4
    assert report.exit_code == 0
    assert [row.cost_microusd for row in rows] == [6_000_000] + [500_000] * 4


async def test_a_budget_that_is_nearly_used_up_is_told_once(site: Site) -> None:
    site.says('cat > x.txt; echo \'{"verdict": "done", "cost_usd": 0.9}\' > $DROVER_RESULT; cp x.txt $DROVER_TASK_ID')
    told: list[Event] = []

    def on_event(event: Event) -> None:
        told.append(event)
        if event.type == "budget.low":
            (site.top / "told").touch()

    tests = f"until test -e {site.top}/told; do sleep 0.05; done"
    async with site.open(**{"budget.day_usd": 1, "verify.command": tests}) as drover:
        await drover.add("Task")
        report = await drover.run(on_event=on_event)
        assert (await drover.budget())[0].spent == 900_000
    assert len(report.completed) == 1
    assert [e.data["detail"] for e in told if e.type.startswith("budget.")] == [
        "$0.90 of the day's budget of $1.00 spent"
    ]

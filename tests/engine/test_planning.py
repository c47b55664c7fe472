"""A run that plans: a plan is made in a clone of its own, checked, kept, sent back, and carried out."""

from __future__ import annotations

import json
from functools import partial

import anyio
import pytest

from drover.domain.errors import UsageError
from drover.domain.states import State, Status
from drover.engine.workers import Stop
from tests.engine.places import Site

pytestmark = pytest.mark.anyio
PLAN = {"summary": "in one step", "steps": [{"title": "write it"}], "complexity": "medium"}
WRITE_PLAN = f"cat > prompt.txt; echo spoilt > README.md; echo '{json.dumps(PLAN)}' > drover-plan.json; cp prompt.txt "


async def test_a_plan_is_kept_and_whatever_else_the_agent_did_is_not(site: Site) -> None:
    site.says(WRITE_PLAN + str(site.top / "told"))
    async with site.open(mode="planning") as drover:
        first = await drover.add("First", description="do a thing")
        blocked = await drover.add("Second", blocked_by=[first])
        report = await drover.run(workers=2)
        assert report.exit_code == 3
        plans = await drover.plans()
        assert {plan.task_id for plan in plans} == {first.id, blocked.id}
        assert {(plan.status, plan.draft.summary) for plan in plans} == {("pending", "in one step")}
        assert list((site.root / ".drover" / "worktrees").iterdir()) == [], "the clones are gone"
    assert site.git("log", "--format=%s", "main") == "first"
    assert "Plan this task, do not do it" in (site.top / "told").read_text()
    assert site.git("for-each-ref", "refs/drover/wip") == ""


async def test_what_needs_no_approval_is_free_at_once(site: Site) -> None:
    site.says(f"echo '{json.dumps({**PLAN, 'complexity': 'low'})}' > drover-plan.json")
    async with site.open(mode="planning") as drover:
        task = await drover.add("Simple")
        assert (await drover.run()).exit_code == 0
        (plan,) = await drover.plans()
        assert (plan.status, plan.decided_by) == ("approved", "drover")
        assert (await drover.task(task.id)).status is Status.READY


async def test_the_approved_plan_is_what_the_builder_reads(site: Site) -> None:
    site.says(WRITE_PLAN + "prompt.txt.2")
    async with site.open() as drover:
        task = await drover.add("First")
        await drover.run(mode="planning")
        (plan,) = await drover.plans()
        assert (await drover.run(mode="building")).exit_code == 3, "it was not approved"
        assert (await drover.task(task.id)).executions == 1
        await drover.approve_plan(plan.id)
        site.says(f"cat > {site.top}/told; echo x > done.txt")
        assert (await drover.run(mode="building")).exit_code == 0
        assert (await drover.plan(plan.id)).status == "completed"
    told = (site.top / "told").read_text()
    assert "# The plan" in told
    assert "1. write it" in told
    assert site.git("show", "main:done.txt") == "x"


async def test_a_rejected_plan_is_made_anew_and_the_agent_hears_why(site: Site) -> None:
    site.says(WRITE_PLAN + str(site.top / "told"))
    async with site.open(mode="planning") as drover:
        await drover.add("First")
        await drover.run()
        (plan,) = await drover.plans()
        await drover.reject_plan(plan.id, "where are the tests?")
        await drover.run(mode="combined")  # nothing is built that was rejected: it is planned again
        first, second = await drover.plans()
        assert (first.status, second.status, second.revision) == ("rejected", "pending", 2)
    told = (site.top / "told").read_text()
    assert "> where are the tests?" in told
    assert "1. write it" in told
    assert site.git("log", "--format=%s", "main") == "first"


async def test_what_is_no_plan_is_a_failed_attempt_that_is_told_why(site: Site) -> None:
    site.says(f"cat > {site.top}/told; echo '{{}}' > drover-plan.json")
    async with site.open(mode="planning", max_attempts=2) as drover:
        task = await drover.add("First")
        assert (await drover.run()).exit_code == 3
        failed = await drover.task(task.id)
        assert (failed.state, failed.failures) == (State.FAILED, 2)
        assert failed.error is not None and "is no plan: summary: Field required" in failed.error.message
    assert "Field required" in (site.top / "told").read_text()


async def test_planning_leaves_the_work_of_an_earlier_attempt_alone(site: Site) -> None:
    site.says("echo half > half.txt; exit 1")
    async with site.open(max_attempts=1) as drover:
        task = await drover.add("First")
        await drover.run()
        await drover.retry([task.id], force=True)
        site.says(WRITE_PLAN + "x")
        await drover.run(mode="planning")
        (plan,) = await drover.plans()
        assert (site.worktree(task.id) / "half.txt").read_text() == "half\n"
        await drover.approve_plan(plan.id)
        site.says("cat half.txt > whole.txt")
        assert (await drover.run()).exit_code == 0
    assert site.git("show", "main:whole.txt") == "half"


async def test_a_stopped_run_gives_its_tasks_back_and_a_resume_plans_on(site: Site) -> None:
    site.says(f"echo begun > {site.top}/begun; exec sleep 60")
    stop = Stop()
    async with site.open() as drover:
        task = await drover.add("First")
        async with anyio.create_task_group() as group:
            group.start_soon(partial(drover.run, workers=1, stop=stop, mode="planning"))
            await site.eventually(site.top / "begun")
            stop.soft()
        assert (await drover.task(task.id)).status is Status.READY
        last = await drover.last_run()
        assert last is not None and last.mode == "planning"
        site.says(WRITE_PLAN + "x")
        await drover.run(mode=last.mode)
        assert [plan.status for plan in await drover.plans()] == ["pending"]
        assert (await drover.task(task.id)).failures == 0


STEPS = {"summary": "x", "steps": [{"title": f"write {n}", "verification": "look"} for n in (1, 2, 3)]}
BY_STEPS = (
    'prompt=$(cat); n=$(printf "%s" "$prompt" | sed -n "s/^# Now: step \\([0-9]\\) of 3.*/\\1/p");'
    'echo "$n" >> {told}; echo x > "$n.txt"; '
)


async def test_a_plan_is_built_step_by_step_and_no_step_twice(site: Site) -> None:
    site.says(f"echo '{json.dumps(STEPS)}' > drover-plan.json")
    stop = Stop()
    async with site.open(**{"building.verify_steps": True}) as drover:
        task = await drover.add("First")
        await drover.run(mode="planning")
        (plan,) = await drover.plans()
        await drover.approve_plan(plan.id)
        told = site.top / "told"
        by_steps = BY_STEPS.format(told=told)
        site.says(f'{by_steps} if [ "$n" = 2 ]; then echo > {site.top}/second; exec sleep 60; fi')
        async with anyio.create_task_group() as group:
            group.start_soon(partial(drover.run, workers=1, stop=stop))
            await site.eventually(site.top / "second")
            stop.soft()
        assert [step.name for step in await drover.store.claims.steps(task.id, 1) if "plan" in step.name] == [
            "plan_step_1"
        ]
        site.says(by_steps)
        assert (await drover.run(workers=1)).exit_code == 0
        assert (await drover.task(task.id)).failures == 0
    assert told.read_text().split() == ["1", "2", "2", "3"], "the second was cut off"
    for n in (1, 2, 3):
        assert site.git("show", f"main:{n}.txt") == "x"


async def test_a_mode_that_is_none_is_refused(site: Site) -> None:
    with pytest.raises(UsageError, match="mode"):
        async with site.open(mode="dreaming"):
            pass

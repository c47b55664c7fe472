"""The life of one task, top to bottom.

Every line of :func:`live` is a step: it runs, its result is committed under the claim's fence, and from
then on the task remembers it. Whoever takes the task up after a crash recalls the lines that have a
result and begins at the first that has none. What a step does to the world outside the database may
happen twice, so each one finds before it makes, and says so.
"""

from __future__ import annotations

from drover.domain.errors import AttemptFailed
from drover.domain.models import AgentReport, Commit, Landed, Proof, Published, Removed, Worktree
from drover.domain.verdicts import WAITS, Completed, Outcome, Parked, Verdict
from drover.engine import building, hooks, landing, limits, publishing, result, ride, workplace
from drover.engine.steps import Run, step


async def live(run: Run) -> Verdict:
    tree = await run(prepare_worktree)
    await hooks.call(run, "after_create", tree)
    await hooks.call(run, "before_agent", tree)
    report = await run(let_agent_work, tree)
    if report.outcome in WAITS:
        return await limits.wait_out(run, report)
    await hooks.call(run, "after_agent", tree, DROVER_OUTCOME=report.outcome)
    commit = await run(commit_changes, tree, report)
    proof = await run(verify, tree, commit)
    await hooks.call(run, "pre_land", tree, DROVER_COMMIT=commit.oid)
    landed = await run(land, commit, proof)
    await hooks.call(run, "post_land", tree, DROVER_COMMIT=landed.commit)
    await hooks.call(run, "before_remove", tree)
    await run(remove_worktree, tree, landed)
    published = await run(publish, landed)
    if not published.done:
        return Parked(reason="publish", detail=published.detail, landed=landed)
    return Completed(landed=landed)


@step
async def prepare_worktree(run: Run) -> Worktree:
    """A private clone on a base that holds every blocker's work, with what earlier attempts left; found or made.

    No process of an earlier execution of the task is alive when this returns.
    """
    return await workplace.prepare(run)


@step
async def let_agent_work(run: Run, tree: Worktree) -> AgentReport:
    """The agent works in the clone until it says it is done. Its session is continued where there is one.

    An execution that ended while drover was dead is adopted; one that was cut off goes on in the same
    session, so the agent is started again but not its work.
    """
    report = await building.hold(run, tree)
    if report.outcome in WAITS or report.outcome == Outcome.DONE:
        return report
    await run.tools.store.claims.report(run.claim, report)
    await hooks.run_hook(run, "after_agent", tree, {"DROVER_OUTCOME": report.outcome})
    raise AttemptFailed(report.outcome, report.reason or report.summary or "the agent failed", advice=report.advice)


@step
async def commit_changes(run: Run, tree: Worktree, report: AgentReport) -> Commit:
    """The clone's content as one commit on its base, kept on a ref; found or made: the same content, the same tree."""
    return await result.take(run, tree, report)


@step
async def verify(run: Run, tree: Worktree, commit: Commit) -> Proof:
    """The tests' verdict on the very tree that would land now. May run again: tests change nothing that is kept."""
    return await ride.to_a_proof(run, commit)


@step
async def land(run: Run, commit: Commit, proof: Proof) -> Landed:
    """The commit in the target's lane, exactly once: found in the lane's history, or landed by compare-and-swap."""
    return await landing.land(run, commit, proof)


@step
async def remove_worktree(run: Run, tree: Worktree, landed: Landed) -> Removed:
    """The clone is gone, or kept for another task; its work is in the lane. Gone already is as good."""
    await workplace.leave(run.tools, run.claim.task_id)
    return Removed(path=tree.path)


@step
async def publish(run: Run, landed: Landed) -> Published:
    """The target branch follows the lane, unless the operator's checkout is in the way. Followed already is as good."""
    return await publishing.publish(run.tools, landed)

"""Planning: an agent reads, thinks, and writes down what it would do; nothing of it lands.

Its clone is a second one beside the task's own, so what an earlier attempt has left there stays as it is,
and whatever the agent changes in it is thrown away. A task may be planned before its blockers have landed.
"""

from __future__ import annotations

from pathlib import Path

from anyio import to_thread

from drover.domain.errors import AttemptFailed
from drover.domain.models import AgentReport, Task, Worktree
from drover.domain.plans import Plan, PlanDraft, PlanError, read_plan
from drover.domain.verdicts import WAITS, Outcome, Planned, Verdict
from drover.engine import lane, limits, prompt, session
from drover.engine.steps import Run
from drover.engine.workplace import LEFTOVER_GRACE_S
from drover.git.worktree import ensure_worktree, remove_worktree
from drover.process import end_marked

PLAN_FILE = "drover-plan.json"
PLAN_LIMIT = 1_000_000  # bytes of one
PLAN_FORM = """{
  "summary": "what will be done and why this way, in a few sentences",
  "steps": [
    {"title": "a line", "description": "what exactly", "files": ["path"], "verification": "how one sees it is done"}
  ],
  "files_to_create": [{"path": "path", "reason": "what for"}],
  "files_to_modify": [{"path": "path", "reason": "what for"}],
  "complexity": "medium",
  "risk_factors": ["what could go wrong"]
}"""
BY_ITSELF = "drover"  # who has approved what needs nobody's approval


async def live(run: Run) -> Verdict:
    """The plan of an agent for the task, checked; a rejected one goes back with what was wrong."""
    tools, task = run.tools, run.claim.task
    await tools.store.plans.begin(run.claim)
    tree = await _prepare(run)
    rejected = await tools.store.plans.newest(task.id) if task.plan == "rejected" else None
    report = await session.hold(run, tree, _order(run, rejected))
    if report.outcome in WAITS:
        await tools.store.claims.report(run.claim, report)
        return await limits.wait_out(run, report)
    await tools.store.claims.report(run.claim, report)
    if report.outcome != Outcome.DONE:
        raise AttemptFailed(report.outcome, report.reason or report.summary or "the agent failed", advice=report.advice)
    draft = await _read(Path(tree.path), report, tools.settings.planning.max_steps)
    await remove_worktree(Path(tree.path))
    settings = tools.settings.planning
    free = not settings.require_approval or (settings.auto_approve_low and draft.complexity == "low")
    return Planned(draft=draft, approved_by=BY_ITSELF if free else None)


async def _prepare(run: Run) -> Worktree:
    """A clone at the lane's tip; the one of an interrupted execution, so that its session finds its files."""
    tools, task = run.tools, run.claim.task
    await end_marked(tools.places.marker(task.id), LEFTOVER_GRACE_S)
    path = tools.places.planning(task.id)
    tools.places.worktrees.mkdir(parents=True, exist_ok=True, mode=0o700)
    base = await lane.tip(tools)
    found = await ensure_worktree(tools.repo, path, base, branch=f"drover/{task.id}")
    return Worktree(path=str(path), base=base, target=tools.settings.project.target or "", found=found)


def _order(run: Run, rejected: Plan | None) -> session.Order:
    task, settings = run.claim.task, run.tools.settings
    words = planning_prompt(
        task,
        guidelines=prompt.fill(settings.guidelines, task, settings.project.name or run.tools.repo.root.name),
        max_steps=settings.planning.max_steps,
        rejected=rejected,
    )
    return session.Order(
        purpose="plan",
        prompt=words,
        # A session that goes on is told everything again: the plan may have come back since.
        follow_up=words,
        env={"DROVER_PLAN": str(run.tools.places.planning(task.id) / PLAN_FILE)},
    )


async def _read(tree: Path, report: AgentReport, max_steps: int) -> PlanDraft:
    text = await to_thread.run_sync(_text_of, tree / PLAN_FILE)
    try:
        return read_plan(report.summary if text is None else text, max_steps=max_steps)
    except PlanError as invalid:
        raise AttemptFailed(
            Outcome.FAILED, f"what the agent wrote is no plan: {invalid}", advice="drover logs shows what it wrote"
        ) from None


def _text_of(path: Path) -> str | None:
    if path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as file:
        return file.read(PLAN_LIMIT).decode(errors="replace")


def planning_prompt(task: Task, *, guidelines: str, max_steps: int, rejected: Plan | None) -> str:
    """What an agent is told that shall plan the task. ``rejected``: its last plan, and what was wrong with it."""
    parts = []
    if guidelines.strip():
        parts.append(f"# Project guidelines\n\n{guidelines.strip()}")
    parts.append(f"# Task {task.id}: {task.title}")
    if task.description.strip():
        parts.append(task.description.strip())
    if task.labels:
        parts.append("Labels: " + ", ".join(task.labels))
    parts.append(
        "# Plan this task, do not do it\n\n"
        "Read the code in the current directory, think, and write down how the task is to be done. Another agent "
        "will do it from your plan alone, after a person has read it. Change no file but the plan: whatever else "
        "you change is thrown away.\n\n"
        f"Write the plan into the file `{PLAN_FILE}` in the current directory, as one JSON object:\n\n{PLAN_FORM}\n\n"
        f"- From 1 to {max_steps} steps, in the order in which they are to be done.\n"
        "- Paths are relative to the current directory.\n"
        '- complexity is "low", "medium" or "high"; low only for what nobody needs to read before it is done.\n'
        "- If you cannot write files, end with that JSON object as your whole answer."
    )
    if rejected is not None:
        wrong = prompt.quoted(rejected.feedback, prompt.ERROR_LIMIT) if rejected.feedback else "> (no reason was given)"
        parts.append(
            f"# Your last plan was rejected\n\nWhat was wrong with it:\n\n{wrong}\n\nThat plan was:\n\n"
            f"{rejected.draft.as_text()}\n\nWrite a better one."
        )
    elif task.error is not None:
        parts.append(prompt.last_error(task))
    return "\n\n".join(parts) + "\n"

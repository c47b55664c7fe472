"""The attempt's result: what the agent left in its clone, as one commit of ours."""

from __future__ import annotations

from pathlib import Path

from anyio import to_thread

from drover.domain.errors import AttemptFailed
from drover.domain.models import AgentReport, Commit, Worktree
from drover.domain.verdicts import Outcome
from drover.engine import carrying
from drover.engine.steps import Run
from drover.git.command import shown
from drover.git.commit import TakenTree, make_commit, take_tree, task_message
from drover.git.include import LIST, list_included
from drover.git.landing import attempt_ref
from drover.git.repo import RefChange

ANSWER_LIMIT = 500
PATHS_KEPT = 200  # in the step's record; the commit knows them all


async def take(run: Run, tree: Worktree, report: AgentReport) -> Commit:
    """Take the tree, commit it, and put it on the attempt's ref before anybody hears of it."""
    tools, task = run.tools, run.claim.task
    taken = run.taken or await _take(run, tree)
    brought = {shown(path) for path in await list_included(tools.repo)}  # ignored when the clone was made
    refused = [*taken.refused, *(f"{path}: is a copy of yours ({LIST})" for path in taken.paths if path in brought)]
    if refused:
        raise AttemptFailed(
            Outcome.REFUSED,
            "the result holds what cannot land: " + ", ".join(refused[:10]),
            advice=f"put it right in $(drover edit {task.id}), then: drover retry {task.id}",
        )
    said = report.summary.strip()[:ANSWER_LIMIT]
    if not taken.paths and not task.may_change_nothing:
        raise AttemptFailed(
            Outcome.NO_CHANGE,
            "the agent ended well and changed nothing, also when asked" + (f": {said}" if said else ""),
            advice="say more exactly what is to be changed, or add the task with --allow-no-change",
        )
    if left := await to_thread.run_sync(_with_markers, Path(tree.path), tree.conflicts):
        raise AttemptFailed(
            Outcome.CONFLICT,
            f"conflict markers were left in {', '.join(left)}",
            advice=f"resolve them in $(drover edit {task.id}), then: drover retry {task.id}",
        )
    oid = await make_commit(
        tools.repo,
        tree=taken.tree,
        parents=(tree.base,),
        message=task_message(task.title, task.id, task.attempt, body=report.summary),
        identity=tools.identity,
        at_ms=tools.clock.now(),
    )
    ref = attempt_ref(task.id, run.claim.fence)
    old = (await tools.repo.read_refs([ref]))[ref]
    await tools.repo.update_refs([RefChange(ref=ref, new=oid, old=old)], since=(tree.base,))
    if tools.shared:
        await carrying.push_result(tools, run.claim, oid)
    paths = tuple(taken.paths)
    return Commit(
        oid=oid,
        tree=taken.tree,
        base=tree.base,
        paths=paths[:PATHS_KEPT],
        more_paths=max(0, len(paths) - PATHS_KEPT),
    )


async def is_unchanged(run: Run, tree: Worktree) -> bool:
    """Whether the clone holds what its base holds. If not, what was found is what is taken, unless a hook follows."""
    taken = await _take(run, tree)
    unchanged = not taken.paths and not taken.refused
    if not unchanged and not run.tools.settings.hooks.after_agent:
        run.taken = taken
    return unchanged


async def _take(run: Run, tree: Worktree) -> TakenTree:
    tools = run.tools
    scratch = tools.places.scratch(run.claim.task_id)
    return await take_tree(tools.repo, Path(tree.path), base=tree.base, scratch=scratch)


def _with_markers(root: Path, conflicted: tuple[str, ...]) -> list[str]:
    """Of the files that were handed over with conflict markers, those that still hold them."""
    found = []
    for name in conflicted:
        path = root / name
        if path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as file:
            lines = {line[:8] for line in file}
        if lines & {b"<<<<<<< ", b">>>>>>> "}:
            found.append(name)
    return found

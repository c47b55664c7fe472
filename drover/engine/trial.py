"""Trying a tree: the test command on the very tree that will land, in a checkout of its own."""

from __future__ import annotations

import secrets
from pathlib import Path

import anyio

from drover.domain.errors import AttemptFailed
from drover.domain.models import ProcessIdentity, Proof, Worktree
from drover.domain.verdicts import Outcome
from drover.engine import lane, session
from drover.engine.steps import Run
from drover.git.worktree import ensure_worktree, remove_worktree
from drover.process import Exit, Launch, supervise

TAIL_BYTES = 6_000


def command_of(run: Run) -> str | None:
    """What tests the task's work; None when nothing does."""
    tools, task = run.tools, run.claim.task
    if tools.test_mode(task) == "disabled" or tools.test_scope(task) == "skip":
        return None
    return tools.test_command(task)


async def of_tree(run: Run, tree: str, base: str) -> Proof:
    """The verdict on the tree, checked out on ``base``; a tree that has passed before is not tested again."""
    command = command_of(run)
    if command is None:
        return Proof(tree=tree, passed=True, mode="disabled")
    proof = await run.tools.store.landings.find_proof(tree, command)
    if proof is None or not proof.passed:
        proof = await _run_tests(run, tree, base, command)
        await run.tools.store.landings.keep_proof(proof)
    return proof.model_copy(update={"mode": run.tools.test_mode(run.claim.task)})


async def may_land(run: Run, tree: str, proof: Proof) -> bool:
    """Whether the tree may land: strict means that this very tree has passed. Tests nothing."""
    command = command_of(run)
    if command is None or run.tools.test_mode(run.claim.task) != "strict":
        return True
    if proof.tree == tree and proof.command == command and proof.passed:
        return True
    known = await run.tools.store.landings.find_proof(tree, command)
    return known is not None and known.passed


def refusal(run: Run, proof: Proof) -> AttemptFailed:
    """What a red tree means for the attempt in strict mode."""
    return AttemptFailed(
        Outcome.VERIFY,
        f"`{proof.command}` failed (exit {proof.exit_code}) on the tree that would have landed\n{_tail(proof.log)}",
        advice=f"see the whole output with: drover logs {run.claim.task_id}",
    )


async def _run_tests(run: Run, tree: str, base: str, command: str) -> Proof:
    tools, task = run.tools, run.claim.task
    name = f"{tree[:12]}-{secrets.token_hex(3)}"
    where = tools.places.state / "verify" / task.id / name
    logs = tools.places.test_logs(task.id)
    logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    where.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    retries = tools.settings.verify.retries
    try:
        for turn in range(retries + 1):
            await ensure_worktree(tools.repo, where, base, tree=tree)
            log = logs / f"{name}-{turn}.log"
            ended = await supervise(_launch(run, command, where, base, log), _Watcher(run), hurry=tools.hurry)
            if ended.ok or turn == retries:
                break
            await remove_worktree(where)
    finally:
        with anyio.CancelScope(shield=True):
            await remove_worktree(where)
    return Proof(
        tree=tree,
        passed=ended.ok,
        mode="strict",
        command=command,
        exit_code=ended.returncode if ended.returncode is not None else _signalled(ended),
        seconds=ended.seconds,
        log=str(log),
        retries=turn,
    )


def _launch(run: Run, command: str, where: Path, base: str, log: Path) -> Launch:
    tools, task = run.tools, run.claim.task
    place = Worktree(path=str(where), base=base, target=lane.target_of(tools))
    return Launch(
        argv=("/bin/sh", "-c", command),  # the operator's own command, from the command line or the project file
        cwd=where,
        env=session.environment(run, place, (), {}),
        marker=tools.places.marker(task.id, run.claim.fence),
        output_path=log,
        record_path=log.with_suffix(".exit.json"),
        output_limit_bytes=tools.settings.logs.limit,
        grace_s=2.0,
        timeout_s=tools.settings.verify.timeout_ms / 1000,
    )


class _Watcher:
    def __init__(self, run: Run) -> None:
        self._run = run

    async def started(self, identity: ProcessIdentity) -> None:
        self._run.hold()

    def progress(self, output_bytes: int) -> None:
        self._run.alive_at = self._run.tools.clock.now()


def _signalled(ended: Exit) -> int | None:
    return -ended.signal if ended.signal else None


def _tail(log: str | None) -> str:
    if log is None:
        return ""
    with Path(log).open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - TAIL_BYTES))
        return file.read().decode(errors="replace")

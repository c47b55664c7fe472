"""The operator's commands around a task: where each stands in its life, how it runs, and when it need not again.

================= =========================================== ============================ ===============
hook              runs                                        a completed one runs again   when it fails
================= =========================================== ============================ ===============
``after_create``  when the clone has been made                in a clone made anew         fails the attempt
``before_agent``  before the agent begins                     in the next attempt          fails the attempt
``after_agent``   when the agent has ended, well or badly     in the next attempt          warns
``pre_land``      before the verified result lands            in the next attempt          fails the attempt
``post_land``     when it has landed                          never                        warns
``before_remove`` before the clone is removed                 for the next clone           warns
================= =========================================== ============================ ===============

Each is a step of the life. Within one, every command leaves a record of its end; a life that is taken up after
a crash finds the records of those that succeeded and begins with the first that did not. The record is written
by the command's own supervisor, so it is there even when drover died first.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import anyio
from anyio import to_thread

from drover.domain.errors import AttemptFailed
from drover.domain.models import Hooked, ProcessIdentity, Worktree
from drover.domain.verdicts import Outcome
from drover.engine import session
from drover.engine.steps import Run, Step
from drover.git.durable import sync_filesystem, write_durably
from drover.process import Exit, Launch, adopt, supervise
from drover.settings import HOOKS, HookCommand, HookName

log = logging.getLogger(__name__)

DEMANDING: frozenset[HookName] = frozenset({"after_create", "before_agent", "pre_land"})
OF_A_CLONE: frozenset[HookName] = frozenset({"after_create", "before_remove"})
GRACE_S = 3.0
TAIL_BYTES = 3_000


async def call(run: Run, hook: HookName, tree: Worktree, **facts: str) -> None:
    """The hook as a step of the life; one that is not set is no step and costs nothing."""
    if run.tools.settings.hooks.stages(hook):
        await run(_STEPS[hook], tree, facts)


async def run_hook(run: Run, hook: HookName, tree: Worktree, facts: dict[str, str] | None = None) -> Hooked:
    """Every command of the hook that has not succeeded yet, in the clone; what became of them.

    ``facts`` are further variables of its environment. Raises AttemptFailed (``hook``) when a command
    of a demanding hook fails: those of its stage go on to their end, later stages do not begin.
    """
    stages = run.tools.settings.hooks.stages(hook)
    place = _Place(run, hook, tree, facts or {})
    ran, found, failed = 0, 0, list[str]()
    for number, stage in enumerate(stages, start=1):
        ends: dict[str, Exit | None] = {}

        async def one(command: HookCommand, number: int, ends: dict[str, Exit | None]) -> None:
            ends[command.name] = await place.run(command, number)

        async with anyio.create_task_group() as group:
            for command in stage:
                group.start_soon(one, command, number, ends, name=f"{hook} {command.name}")
        found += sum(end is None for end in ends.values())
        ran += sum(end is not None for end in ends.values())
        failed += [place.explain(c, number, end) for c in stage if (end := ends[c.name]) is not None and not end.ok]
        if failed:
            break
    return _judge(run, hook, Hooked(hook=hook, ran=ran, found=found, failed=tuple(failed)))


def _judge(run: Run, hook: HookName, hooked: Hooked) -> Hooked:
    if hooked.failed and hook in DEMANDING:
        raise AttemptFailed(
            Outcome.HOOK,
            f"the {hook} hook failed: " + "\n".join(hooked.failed),
            advice=f"see the whole output with: drover logs {run.claim.task_id}",
        )
    for why in hooked.failed:
        log.warning("%s: the %s hook failed: %s", run.claim.task_id, hook, why.splitlines()[0])
    return hooked


def _step(hook: HookName) -> Step[[Worktree, dict[str, str]], Hooked]:
    async def work(run: Run, tree: Worktree, facts: dict[str, str]) -> Hooked:
        return await run_hook(run, hook, tree, facts)

    return Step(name=hook, work=work, result=Hooked)


_STEPS = {hook: _step(hook) for hook in HOOKS}


class _Place:
    """Where one hook of one attempt runs, and where its records and output are."""

    def __init__(self, run: Run, hook: HookName, tree: Worktree, facts: dict[str, str]) -> None:
        tools, claim = run.tools, run.claim
        self._run = run
        self._hook = hook
        self._tree = tree
        self._logs = tools.places.hook_logs(claim.task_id)
        # What is done once for a clone is remembered as long as the clone, everything else as long as the attempt;
        # but an agent that ended badly may run again in the same attempt when drover dies before that is settled.
        outcome = facts.get("DROVER_OUTCOME", Outcome.DONE.value)
        badly = "" if outcome == Outcome.DONE else f"-{outcome}"
        of_attempt = self._logs / f"attempt-{claim.task.attempt}{badly}"
        self._records = tools.places.set_up(claim.task_id) if hook in OF_A_CLONE else of_attempt
        self._env = session.environment(run, tree, (), {**facts, "DROVER_HOOK": hook})

    async def run(self, command: HookCommand, stage: int) -> Exit | None:
        """None when it has succeeded before."""
        await to_thread.run_sync(self._make_directories)
        record = self._records / f"{self._hook}-{self._name(command, stage)}.exit.json"
        if await to_thread.run_sync(self._has_succeeded, record):
            return None
        launch = Launch(
            argv=("/bin/sh", "-c", command.command),  # the operator's own command, approved by them
            cwd=Path(self._tree.path),
            env=self._env,
            marker=self._marker(command, stage),
            output_path=self.output(command, stage),
            record_path=record,
            output_limit_bytes=self._run.tools.settings.logs.limit,
            grace_s=GRACE_S,
            timeout_s=(command.timeout_ms or self._run.tools.settings.hooks.timeout_ms) / 1000,
        )
        exit = await supervise(launch, _Watcher(self._run), hurry=self._run.tools.hurry)
        if exit.ok:
            await to_thread.run_sync(self._keep, record)
        return exit

    def _has_succeeded(self, record: Path) -> bool:
        """What it wrote may have been lost when the machine was started again, unless it was forced to the disk."""
        known = adopt(record)
        return known is not None and known.ok and (known.is_of_this_boot or _kept(record).exists())

    def _keep(self, record: Path) -> None:
        sync_filesystem(Path(self._tree.path))
        write_durably(_kept(record), "")

    def _marker(self, command: HookCommand, stage: int) -> str:
        """One's own within the execution's: the end of one command must not end those beside it."""
        execution = self._run.tools.places.marker(self._run.claim.task_id, self._run.claim.fence)
        return f"{execution}{self._hook}-{self._name(command, stage)}."

    def output(self, command: HookCommand, stage: int) -> Path:
        return self._logs / f"{self._run.claim.fence}-{self._hook}-{self._name(command, stage)}.log"

    def explain(self, command: HookCommand, stage: int, end: Exit) -> str:
        """Which command failed and how, with the end of its output."""
        how = "ran out of time" if end.timed_out else f"failed (exit {end.returncode})"
        if end.signal and not end.timed_out:
            how = f"was ended by signal {end.signal}"
        return f"`{command.command}` {how}\n{_tail(self.output(command, stage))}".rstrip()

    def _name(self, command: HookCommand, stage: int) -> str:
        """An edited command is another one, which has not run yet."""
        name = "".join(c if c.isalnum() or c in "-_" else "_" for c in command.name)[:40]
        return f"{stage}-{name}-{hashlib.sha256(command.command.encode()).hexdigest()[:8]}"

    def _make_directories(self) -> None:
        for directory in (self._logs, self._records):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)


def _kept(record: Path) -> Path:
    """Is there when what the command wrote is on the disk."""
    return record.with_suffix(".kept")


class _Watcher:
    def __init__(self, run: Run) -> None:
        self._run = run

    async def started(self, identity: ProcessIdentity) -> None:
        self._run.hold()

    def progress(self, output_bytes: int) -> None:
        self._run.alive_at = self._run.tools.clock.now()


def _tail(output: Path) -> str:
    try:
        with output.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            return file.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""

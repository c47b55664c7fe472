"""An agent's session: who is started, what it is told, what it may see, and what is recorded before it acts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import anyio
from anyio import to_thread
from pydantic import Field

from drover.agents.base import AgentHost, AgentJob
from drover.domain.models import AgentReport, Attempt, Frozen, ProcessIdentity, Resumed, Task, Usage, Word, Worktree
from drover.domain.verdicts import Outcome
from drover.engine import prompt
from drover.engine.steps import Run
from drover.git.durable import sync_filesystem
from drover.process import adopt

PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TERM", "TMPDIR", "SHELL")
LOOK_S = 5.0  # the safety net behind the bell
# Ends of an execution that the agent came to by itself; after any other it has to be told that it was interrupted.
BY_ITSELF = frozenset({Outcome.QUESTION.value, Outcome.PERMISSION.value, Outcome.LATER.value})
SESSION_LOST = frozenset({Outcome.CONTEXT_OVERFLOW.value})  # after these the session is not gone on with


class Order(Frozen):
    """What an agent is asked for, where that is not simply the task."""

    purpose: Literal["build", "plan"]
    prompt: str
    follow_up: str
    env: dict[str, str] = Field(default_factory=dict)


async def hold(run: Run, tree: Worktree, order: Order | None = None) -> AgentReport:
    """Start, continue or adopt the agent's execution; its report."""
    tools, task = run.tools, run.claim.task
    agent = tools.find_agent(tools.agent_of(task))
    earlier = [a for a in await tools.store.claims.attempts(task.id) if a.fence < run.claim.fence]
    history = [a for a in earlier if a.purpose == (order.purpose if order else "build")]
    adopted = _ended_unseen(history, task, tools.places.state)
    log_dir = Path(adopted.log) if adopted and adopted.log else tools.places.logs(task.id, run.claim.fence)
    log_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    session_id, spent = _session(history, agent.name, task)
    settings = tools.agent_settings(agent.name)
    said = await tools.store.orders.words(task.id)
    untold = await tools.store.orders.untold(task.id, run.claim.fence)
    job = AgentJob(
        task_id=task.id,
        attempt=task.attempt,
        fence=run.claim.fence,
        prompt=await _begin(run, tree, order, said),
        follow_up=_go_on(run, tree, order, untold, interrupted=_interrupted(history, task)),
        session_id=session_id,
        prior_cost_usd=spent.cost_usd,
        prior_usage=spent,
        worktree=Path(tree.path),
        log_dir=log_dir,
        env=environment(
            run,
            tree,
            (*agent.env_names, *settings.env),
            dict(settings.set) | (order.env if order else {}),
            log_dir / "result.json",
        ),
        marker=tools.places.marker(task.id, run.claim.fence),
        timeout_s=tools.timeout_s(task),
        stall_s=tools.settings.stall_timeout_ms / 1000,
        memory_limit_bytes=tools.settings.worker.memory_limit,
        output_limit_bytes=tools.settings.logs.limit,
        settings=settings,
    )
    report = await agent.work(job, _Host(run, agent.name, tree, log_dir, untold))
    # What is recorded as done is taken from these files, perhaps after a power cut; agents do not sync them.
    await to_thread.run_sync(sync_filesystem, tools.places.worktrees)
    return await _heard_out(run, report)


async def _begin(run: Run, tree: Worktree, order: Order | None, said: Sequence[Word]) -> str:
    tools, task = run.tools, run.claim.task
    if order is not None:
        return "\n\n".join([order.prompt, *prompt.said(said)])
    return prompt.task_prompt(
        task,
        guidelines=tools.settings.guidelines,
        blockers=await _blockers(run),
        plan=await tools.store.plans.newest(task.id) if task.plan == "approved" else None,
        tree=tree,
        test_command=tools.test_command(task) if tools.test_mode(task) != "disabled" else None,
        words=prompt.said(said),
    )


def _go_on(run: Run, tree: Worktree, order: Order | None, untold: Sequence[Word], *, interrupted: bool) -> str:
    if order is not None:
        return "\n\n".join([order.follow_up, *prompt.said(untold)])
    return prompt.follow_up(run.claim.task, tree, interrupted=interrupted, words=prompt.said(untold))


def environment(
    run: Run, tree: Worktree, names: Sequence[str], values: dict[str, str], result: Path | None = None
) -> dict[str, str]:
    """What an agent, or a test command, sees: an allow-list of drover's own environment and the facts of the task."""
    tools, task = run.tools, run.claim.task
    found = {n: v for n, v in tools.environ.items() if n in PASSED_ON or n in names or n.startswith("LC_")}
    found |= {
        "DROVER_TASK_ID": task.id,
        "DROVER_EPIC_ID": task.epic_id or "",
        "DROVER_ATTEMPT": str(task.attempt),
        "DROVER_WORKTREE": tree.path,
        "DROVER_ROOT": str(tools.repo.root),
        "DROVER_BASE": tree.base,
        "DROVER_BRANCH": f"drover/{Path(tree.path).name}",  # checked out in the clone
        "DROVER_RUN_ID": tools.run_id,
        # A clone whose .git is gone must not make git find the operator's repository above it.
        "GIT_CEILING_DIRECTORIES": str(tools.places.worktrees),
    }
    if run.first_port is not None:
        found["DROVER_PORT"] = str(run.first_port)
    if result is not None:
        found["DROVER_RESULT"] = str(result)
    return found | values


async def _heard_out(run: Run, report: AgentReport) -> AgentReport:
    """An agent that is done, but was told something meanwhile that it has not heard, is to be told it first."""
    if report.outcome != Outcome.DONE:
        return report
    if not await run.tools.store.orders.untold(run.claim.task_id, run.claim.fence):
        return report
    reason = "a person said something that its agent is told next"
    return report.model_copy(update={"outcome": Outcome.LATER, "reason": reason, "until": run.tools.clock.now()})


class _Host(AgentHost):
    """What the agent's driver tells the engine while it runs. ``words``: what its prompt tells from a person."""

    def __init__(self, run: Run, agent: str, tree: Worktree, log_dir: Path, words: Sequence[Word]) -> None:
        self._run = run
        self._agent = agent
        self._tree = tree
        self._log_dir = log_dir
        self._words = words
        self._passed_on = {word.number for word in words}

    @property
    def hurry(self) -> anyio.Event:
        return self._run.tools.hurry

    async def starting(self, process: ProcessIdentity, session_id: str | None, resumed: Resumed) -> None:
        run = self._run
        run.hold()
        run.alive_at = run.tools.clock.now()
        await run.tools.store.claims.start_agent(
            run.claim,
            agent=self._agent,
            process=process,
            marker=run.tools.places.marker(run.claim.task_id, run.claim.fence),
            session_id=session_id,
            resumed=resumed,
            log=str(self._log_dir),
            base=self._tree.base,
        )
        if self._words:
            await run.tools.store.orders.told(run.claim, self._words, "turn")

    async def session(self, session_id: str) -> None:
        await self._run.tools.store.claims.note_session(self._run.claim, session_id)

    def alive(self) -> None:
        self._run.alive_at = self._run.tools.clock.now()

    async def next_word(self) -> Word:
        store, claim = self._run.tools.store, self._run.claim
        while True:
            ticket = store.bell.ticket()
            for word in await store.orders.untold(claim.task_id, claim.fence):
                if word.number not in self._passed_on:
                    self._passed_on.add(word.number)
                    return word
            await store.bell.wait(ticket, LOOK_S)

    async def heard(self, word: Word) -> None:
        await self._run.tools.store.orders.told(self._run.claim, [word], "session")


def _ended_unseen(history: Sequence[Attempt], task: Task, state: Path) -> Attempt | None:
    """The last execution of this attempt, if its agent ended by itself while drover was not there to see it.

    Only here, in the clone whose ``state`` that is: what it did elsewhere is not in the files that are here.
    """
    mine = [a for a in history if a.attempt == task.attempt and a.log is not None]
    if not mine or mine[-1].outcome not in (None, Outcome.INTERRUPTED):
        return None  # what has been reported (a limit, say) was seen
    if not Path(str(mine[-1].log)).is_relative_to(state):
        return None
    record = adopt(Path(str(mine[-1].log)) / "exit.json")
    if record is None or record.stopped or record.timed_out or record.stalled or record.lost or record.signal:
        return None
    return mine[-1]


def _session(history: Sequence[Attempt], agent: str, task: Task) -> tuple[str | None, Usage]:
    """The session to go on with, and what it has used so far."""
    if task.fresh and task.attempt == task.first_attempt and not any(a.attempt == task.attempt for a in history):
        return None, Usage()
    known = [a for a in history if a.agent == agent and a.session_id]
    if task.fresh:
        known = [a for a in known if a.attempt >= task.first_attempt]
    if not known or known[-1].outcome in SESSION_LOST:
        return None, Usage()
    session_id = known[-1].session_id
    told = [a.usage for a in known if a.session_id == session_id]
    return session_id, Usage(
        input_tokens=sum(usage.input_tokens for usage in told),
        output_tokens=sum(usage.output_tokens for usage in told),
        cost_usd=sum(usage.cost_usd for usage in told),
    )


def _interrupted(history: Sequence[Attempt], task: Task) -> bool:
    mine = [a for a in history if a.attempt == task.attempt and a.agent_started_at is not None]
    return bool(mine) and mine[-1].outcome not in BY_ITSELF


async def _blockers(run: Run) -> list[tuple[Task, str]]:
    """The landed blockers of the task with the last words of their agents."""
    found = []
    for id in run.claim.task.blocked_by:
        blocker = await run.tools.store.tasks.get(id)
        steps = await run.tools.store.claims.steps(id, blocker.attempt)
        reports = [AgentReport.model_validate_json(s.result) for s in steps if s.name == "let_agent_work"]
        found.append((blocker, reports[0].summary if reports else ""))
    return found

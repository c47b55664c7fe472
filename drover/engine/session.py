"""An agent's session: who is started, what it is told, what it may see, and what is recorded before it acts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Literal

import anyio
from anyio import to_thread
from pydantic import Field

from drover.agents.base import Agent, AgentHost, AgentJob
from drover.domain.models import AgentReport, Claim, Frozen, ProcessIdentity, Resumed, Task, Usage, Word, Worktree
from drover.domain.verdicts import Outcome
from drover.engine import legacy, prompt, result, session_files, usage
from drover.engine.limits import OF_THE_PROVIDER
from drover.engine.past import Past
from drover.engine.steps import Run
from drover.engine.tools import Tools
from drover.git.durable import sync_filesystem
from drover.git.patch import patch_of_worktree

LOOK_S = 5.0  # the safety net behind the bell


class Order(Frozen):
    """What an agent is asked for, where that is not simply the task."""

    purpose: Literal["build", "plan"]
    prompt: str
    follow_up: str
    env: dict[str, str] = Field(default_factory=dict)


async def hold(run: Run, tree: Worktree, order: Order | None = None, *, part: str = "") -> AgentReport:
    """Start, continue or adopt the agent's execution; its report. ``part``: of the task, what is to be done now.

    An agent that ended well and changed nothing is asked about it, once in an attempt, in the same session; not where
    sub-tasks may have done everything.
    """
    tools, task = run.tools, run.claim.task
    agent = tools.find_agent(run.agent)
    past = await _past(run, order)
    words = await tools.store.orders.untold(task.id, run.claim.fence)
    if (adopted := past.ended_unseen(tools.places.state)) is not None:
        await usage.count(tools, task.id, adopted.fence)  # it is that execution's, not this one's
    job = await _job(run, tree, agent, past, words, order, part)
    if job.session_id is not None:
        elsewhere = run.moved is not None
        if await session_files.bring_back(tools, agent, past, job.session_id, elsewhere=elsewhere):
            job = job.model_copy(update={"restored": True})
    report = await _heard_out(run, await _work(run, tree, agent, job, words))
    may_ask = order is None and not (part or past.asked or task.subtasks)
    if may_ask and report.outcome == Outcome.DONE and await result.is_unchanged(run, tree):
        report = await _heard_out(run, await _ask(run, tree, agent, job, report))
    # What is recorded as done is taken from these files, perhaps after a power cut; agents do not sync them.
    await to_thread.run_sync(sync_filesystem, tools.places.worktrees)
    return report


async def preview(tools: Tools, task: Task, part_now: Callable[[Run, Worktree], Awaitable[str]]) -> AgentJob:
    """What the task's next execution would be given, as things stand; nothing is changed by it.

    Where no attempt has prepared a directory yet, it is one without conflicts. ``part_now``: of a plan.
    """
    run = Run(Claim(task=task, fence=task.fence + 1, worker_id="", lease_until=0), tools, {})
    done = await tools.store.claims.steps(task.id, task.attempt)
    prepared = next((step.result for step in done if step.name == "prepare_worktree"), None)
    target = tools.settings.project.target or ""
    tree = Worktree(path=str(tools.places.worktree(task.id)), base="", target=target)
    if prepared is not None:
        tree = Worktree.model_validate_json(prepared)
    untold = await tools.store.orders.untold(task.id, run.claim.fence)
    agent, part = tools.find_agent(tools.agent_of(task)), await part_now(run, tree)
    return await _job(run, tree, agent, await _past(run), untold, None, part)


async def _job(
    run: Run, tree: Worktree, agent: Agent, past: Past, untold: Sequence[Word], order: Order | None, part: str
) -> AgentJob:
    tools, task = run.tools, run.claim.task
    adopted = past.ended_unseen(tools.places.state)
    log_dir = Path(adopted.log) if adopted and adopted.log else _log_dir(run)
    session_id = past.session(agent.name)
    spent = past.without(adopted).spent(agent.name, session_id)
    settings = tools.agent_settings(agent.name)
    handover = await _handover(run, tree, past) if order is None else ""
    others = past.last is not None and past.last.agent != agent.name
    follow_up = _go_on(run, tree, order, untold, part, past)
    return AgentJob(
        task_id=task.id,
        attempt=task.attempt,
        fence=run.claim.fence,
        prompt=await _begin(run, tree, order, await tools.store.orders.words(task.id), part),
        follow_up=f"{handover}\n{follow_up}" if others else follow_up,
        handover=handover,
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
        contained=tools.settings.worker.contain,
        output_limit_bytes=tools.settings.logs.limit,
        settings=settings,
    )


async def _work(
    run: Run, tree: Worktree, agent: Agent, job: AgentJob, words: Sequence[Word] = (), *, asking: bool = False
) -> AgentReport:
    """One run of the agent; what it used is this execution's, unless it is one that had ended before."""
    job.log_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    host = _Host(run, agent.name, tree, job.log_dir, words, asking=asking)
    report = await agent.work(job, host)
    return report if host.started else report.model_copy(update={"usage": Usage()})


async def _ask(run: Run, tree: Worktree, agent: Agent, job: AgentJob, first: AgentReport) -> AgentReport:
    """The second turn. That it was asked is on record before it can hear it, so no later execution asks again."""
    log_dir = _log_dir(run)
    spent = (await _past(run)).spent(agent.name, first.session_id) + first.usage
    question = prompt.about_no_change()
    report = await _work(
        run,
        tree,
        agent,
        job.model_copy(
            update={
                "prompt": f"{job.prompt}\n{question}",
                "follow_up": question,
                "session_id": first.session_id,
                "restored": False,
                "prior_cost_usd": spent.cost_usd,
                "prior_usage": spent,
                "log_dir": log_dir,
                "env": job.env | {"DROVER_RESULT": str(log_dir / "result.json")},
                "reported": True,
            }
        ),
        asking=True,
    )
    return report.model_copy(update={"usage": first.usage + report.usage})


async def _past(run: Run, order: Order | None = None) -> Past:
    attempts = await run.tools.store.claims.attempts(run.claim.task_id)
    return Past.of(run.claim.task, attempts, run.claim.fence, order.purpose if order else "build")


def _log_dir(run: Run) -> Path:
    return run.tools.places.logs(run.claim.task_id, run.claim.fence)


async def _handover(run: Run, tree: Worktree, past: Past) -> str:
    """What a session is told of work that was done without it; nothing where there is none."""
    if past.last is None or not (tree.base and Path(tree.path).is_dir()):
        return ""
    tools, task = run.tools, run.claim.task
    scratch = tools.places.scratch(f"{task.id}.diff")
    patch = await patch_of_worktree(tools.repo, Path(tree.path), base=tree.base, scratch=scratch)
    heard = [a.words for a in past.executions if a.words and a.outcome not in OF_THE_PROVIDER]
    words = heard[-1] if heard else ""
    return prompt.handover(past.last.agent, words, patch)


async def _begin(run: Run, tree: Worktree, order: Order | None, said: Sequence[Word], part: str) -> str:
    tools, task = run.tools, run.claim.task
    if order is not None:
        return "\n\n".join([order.prompt, *prompt.said(said)])
    return prompt.task_prompt(
        task,
        guidelines=tools.settings.guidelines,
        template=tools.settings.task_template,
        project=tools.settings.project.name or tools.repo.root.name,
        parent=await tools.store.tasks.get(task.parent_id) if task.parent_id else None,
        blockers=await legacy.of_blockers(tools.store, task),
        plan=await tools.store.plans.newest(task.id) if task.plan == "approved" else None,
        tree=tree,
        test_command=tools.test_command(task) if tools.test_mode(task) != "disabled" else None,
        words=[*prompt.said(said), *([part] if part else [])],
    )


def _go_on(run: Run, tree: Worktree, order: Order | None, untold: Sequence[Word], part: str, past: Past) -> str:
    if order is not None:
        return "\n\n".join([order.follow_up, *prompt.said(untold)])
    words = [*prompt.said(untold), *([part] if part else [])]
    return prompt.follow_up(run.claim.task, tree, interrupted=past.interrupted, lost_power=past.lost_power, words=words)


def environment(
    run: Run, tree: Worktree, names: Sequence[str], values: dict[str, str], result: Path | None = None
) -> dict[str, str]:
    """What an agent, or a test command, sees: an allow-list of drover's own environment and the facts of the task."""
    tools, task = run.tools, run.claim.task
    found = tools.passed_on(names) | {
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

    def __init__(
        self, run: Run, agent: str, tree: Worktree, log_dir: Path, words: Sequence[Word], *, asking: bool
    ) -> None:
        self._run = run
        self._agent = agent
        self._tree = tree
        self._log_dir = log_dir
        self._words = words
        self._passed_on = {word.number for word in words}
        self._asking = asking
        self.started = False  # a process of this execution's own

    @property
    def hurry(self) -> anyio.Event:
        return self._run.tools.hurry

    async def starting(self, process: ProcessIdentity, session_id: str | None, resumed: Resumed) -> None:
        run = self._run
        run.hold()
        run.alive_at = run.tools.clock.now()
        self.started = True
        await run.tools.store.claims.start_agent(
            run.claim,
            agent=self._agent,
            process=process,
            marker=run.tools.places.marker(run.claim.task_id, run.claim.fence),
            session_id=session_id,
            resumed=resumed,
            log=str(self._log_dir),
            base=self._tree.base,
            asked=self._asking,
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

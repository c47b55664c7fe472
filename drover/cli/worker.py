"""drover-worker: one agent on one piece of work, in a supervised process of its own, without a backlog.

``drover-worker execute -`` reads an order as JSON from standard input, ``drover-worker execute --task-id …`` takes it
from options. The result is one line of JSON on standard output; exit 0 when the agent says that it is done, else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import anyio
from pydantic import BaseModel, ConfigDict, ValidationError

from drover.agents import registry
from drover.agents.base import AgentHost, AgentJob, AgentSettings
from drover.domain.errors import DroverError
from drover.domain.models import AgentReport, ProcessIdentity, Resumed, Usage, Word
from drover.domain.quantities import parse_duration, parse_size
from drover.domain.verdicts import Outcome
from drover.process import MARKER

HEARTBEAT_S = 10.0
DEFAULT_TIMEOUT = "30m"
_SIGNALS = {
    Outcome.RATE_LIMITED: "rate_limited", Outcome.USAGE_LIMIT: "rate_limited",
    Outcome.OVERLOADED: "api_error", Outcome.AUTH: "api_error",
}  # fmt: skip


class Order(BaseModel):
    """What is to be done. Keys that an order has beyond these are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    title: str
    worktree: Path
    description: str = ""
    epic_id: str | None = None
    guidance: tuple[str, ...] = ()
    timeout: str | int = DEFAULT_TIMEOUT  # a number is of nanoseconds, as Go writes durations
    claude_path: str = ""
    verbose: bool = False
    memory_limit: str = ""
    agent: str = "claude"
    prompt: str = ""  # all there is to say; made of the above where it is not given
    follow_up: str = ""
    session_id: str | None = None
    log_dir: Path | None = None
    model: str | None = None
    permissions: str | None = None
    prior_cost_usd: float = 0.0
    prior_usage: Usage = Usage()

    @property
    def words(self) -> str:
        if self.prompt:
            return self.prompt
        parts = [f"# Task {self.id}: {self.title}", self.description]
        parts += ["Guidance:\n" + "\n".join(f"- {one}" for one in self.guidance)] if self.guidance else []
        parts += [f"This task belongs to epic {self.epic_id}."] if self.epic_id else []
        return "\n\n".join(part for part in parts if part) + "\n"

    @property
    def timeout_s(self) -> float:
        if isinstance(self.timeout, int):
            return self.timeout / 1e9
        return parse_duration(self.timeout or DEFAULT_TIMEOUT) / 1000


class _Host(AgentHost):
    """Tells on standard error that the agent lives, as long as it does."""

    def __init__(self, task_id: str) -> None:
        self._task_id = task_id
        self._told = 0.0
        self._hurry = anyio.Event()

    @property
    def hurry(self) -> anyio.Event:
        return self._hurry

    async def starting(self, process: ProcessIdentity, session_id: str | None, resumed: Resumed) -> None:
        self.alive()

    async def session(self, session_id: str) -> None:
        self.alive()

    def alive(self) -> None:
        if time.monotonic() - self._told >= HEARTBEAT_S:
            self._told = time.monotonic()
            beat = {"type": "heartbeat", "task_id": self._task_id, "timestamp": int(time.time())}
            sys.stderr.write(json.dumps(beat) + "\n")
            sys.stderr.flush()

    async def next_word(self) -> Word:
        await anyio.sleep_forever()
        raise AssertionError

    async def heard(self, word: Word) -> None:
        """Nobody speaks here."""


def main(argv: Sequence[str] | None = None) -> int:
    """The program. Exit 0: done; 1: not; 2: the order makes no sense."""
    options = _parser().parse_args(argv)
    try:
        order = _order(options)
        job = _job(order)
    except ValidationError as error:
        first = error.errors()[0]
        return _refuse(f"the order does not parse: {'.'.join(map(str, first['loc']))}: {first['msg']}")
    except (ValueError, DroverError) as error:
        return _refuse(str(error))
    return anyio.run(_execute, order, job)


def _refuse(why: str) -> int:
    sys.stderr.write(f"error: {why}\n")
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("drover-worker", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="execute")
    execute = commands.add_parser("execute", help="Run one agent on one order and print its result as JSON.")
    execute.add_argument("source", nargs="?", choices=["-"], help="read the order as JSON from standard input")
    for name in ("task-id", "worktree", "title", "description", "epic-id", "timeout", "claude-path", "memory-limit"):
        execute.add_argument(f"--{name}", default="")
    execute.add_argument("--guidance", action="append", default=[])
    execute.add_argument("--agent", default="", help="which type of agent (claude)")
    execute.add_argument("--verbose", action="store_true", help="accepted; what the agent says is in its log")
    return parser


def _order(options: argparse.Namespace) -> Order:
    given = {
        key: value
        for key, value in vars(options).items()
        if key not in ("source", "task_id") and value not in ("", [], False)
    }
    if options.task_id:
        given["id"] = options.task_id
    if options.source == "-":
        order = json.loads(sys.stdin.read())
        if not isinstance(order, dict):
            raise ValueError("the order is no JSON object")
        given = {**{key: value for key, value in order.items() if value is not None}, **given}
    return Order.model_validate(given)


def _job(order: Order) -> AgentJob:
    if not order.worktree.is_dir():
        raise ValueError(f"there is no directory {order.worktree}")
    log_dir = order.log_dir or Path(tempfile.mkdtemp(prefix="drover-worker-"))
    log_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    outer = os.environ.get(MARKER, "")
    return AgentJob(
        task_id=order.id,
        attempt=1,
        fence=1,
        prompt=order.words,
        follow_up=order.follow_up or order.words,
        session_id=order.session_id,
        prior_cost_usd=order.prior_cost_usd,
        prior_usage=order.prior_usage,
        worktree=order.worktree.absolute(),
        log_dir=log_dir.absolute(),
        env={name: value for name, value in os.environ.items() if name != MARKER},
        marker=f"{outer or f'worker-{os.getpid()}.'}agent.",  # who ends the outer one finds this one, too
        timeout_s=order.timeout_s,
        memory_limit_bytes=parse_size(order.memory_limit) if order.memory_limit else None,
        settings=AgentSettings.of(
            order.agent, path=order.claude_path or None, model=order.model, permissions=order.permissions
        ),
    )


async def _execute(order: Order, job: AgentJob) -> int:
    began = time.monotonic()
    report = AgentReport(outcome=Outcome.INTERRUPTED, reason="it was stopped")
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_cancel_when_asked, group.cancel_scope)
            report = await registry.find(order.agent).work(job, _Host(order.id))
            group.cancel_scope.cancel()
    except* DroverError as errors:
        report = AgentReport(outcome=Outcome.FAILED, reason=str(errors.exceptions[0]))
    result = {
        "success": report.outcome == Outcome.DONE,
        "task_id": order.id,
        "output": report.summary,
        "error": "" if report.outcome == Outcome.DONE else report.reason,
        "duration_ms": round((time.monotonic() - began) * 1000),
        "signal": _SIGNALS.get(Outcome(report.outcome), "ok"),
        "verdict": {Outcome.DONE: "pass", Outcome.QUESTION: "blocked"}.get(Outcome(report.outcome), "fail"),
        "verdict_reason": report.question or report.reason,
        "outcome": report.outcome,
        "question": report.question,
        "advice": report.advice,
        "until": report.until,
        "session_id": report.session_id,
        "tokens": report.usage.tokens,
        "input_tokens": report.usage.input_tokens,
        "cost_usd": report.usage.cost_usd,
        "turns": report.usage.turns,
        "model": report.usage.model,
    }
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    return 0 if result["success"] else 1


async def _cancel_when_asked(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for _ in signals:
            scope.cancel()
            return


if __name__ == "__main__":
    raise SystemExit(main())

"""Adapters that break one promise each, made from the right one of docs/how-to/write-an-agent.md."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

import anyio
from anyio import to_thread

from drover.agents.base import AgentHost, AgentJob
from drover.domain.errors import AgentError
from drover.domain.models import AgentReport
from drover.domain.verdicts import Outcome
from drover.process import Exit, identify

Right = type[Any]
Make = Callable[[Right], Any]


def misnamed(right: Right) -> Any:
    class Wrong(right):
        name = "My Agent"

    return Wrong()


def raises_in_check(right: Right) -> Any:
    class Wrong(right):
        async def check(self, settings: Any) -> Any:
            found = await right.check(self, settings)
            if found.problem:
                raise FileNotFoundError(settings.argv[0])
            return found

    return Wrong()


def works_elsewhere(right: Right) -> Any:
    class Wrong(right):
        async def work(self, job: AgentJob, host: AgentHost) -> AgentReport:
            return await right.work(self, job.model_copy(update={"worktree": job.log_dir}), host)

    return Wrong()


def by_hand(right: Right, *, tells_first: bool = True, marked: bool = True) -> Any:
    """Starts the program with nothing but subprocess, as one would who has not read about supervise."""

    class Wrong(right):
        async def work(self, job: AgentJob, host: AgentHost) -> AgentReport:
            start = self.start_of(job)
            env = {**job.env, **({"DROVER_MARKER": job.marker} if marked else {})}
            process = subprocess.Popen(self.command(job, start), cwd=job.worktree, env=env, stdin=subprocess.PIPE,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)  # fmt: skip
            identity = identify(process.pid)
            assert identity is not None
            if not tells_first:
                await to_thread.run_sync(process.communicate, job.prompt)
            await host.starting(identity, start.session_id, start.resumed)
            host.alive()
            try:
                if tells_first:
                    await to_thread.run_sync(process.communicate, job.prompt, abandon_on_cancel=True)
            finally:
                process.kill()
                process.wait()
            return AgentReport(outcome=Outcome.DONE, session_id=start.session_id)

        def start_of(self, job: AgentJob) -> Any:
            from drover.agents.program import Start

            return Start(session_id=job.session_id or self.new_session())

    return Wrong()


def tells_nothing(right: Right) -> Any:
    return by_hand(right, tells_first=False)


def swallows_refusals(right: Right) -> Any:
    class Wrong(right):
        async def work(self, job: AgentJob, host: AgentHost) -> AgentReport:
            try:
                return await right.work(self, job, host)
            except AgentError as error:
                return AgentReport(outcome=Outcome.FAILED, reason=str(error))

    return Wrong()


def prompt_in_argv(right: Right) -> Any:
    class Wrong(right):
        def command(self, job: AgentJob, start: Any) -> tuple[str, ...]:
            return (*right.command(self, job, start), "-p", job.prompt)

    return Wrong()


def key_in_argv(right: Right) -> Any:
    class Wrong(right):
        def command(self, job: AgentJob, start: Any) -> tuple[str, ...]:
            return (*right.command(self, job, start), f"--key={job.env['MINE_API_KEY']}")

    return Wrong()


def hands_down_everything(right: Right) -> Any:
    class Wrong(right):
        def environment(self, job: AgentJob) -> dict[str, str]:
            return {**os.environ, **job.env}

    return Wrong()


def believes_everything(right: Right) -> Any:
    class Wrong(right):
        def report(self, job: AgentJob, ended: Any) -> AgentReport:
            return AgentReport(outcome=Outcome.DONE)

    return Wrong()


def believes_the_words(right: Right) -> Any:
    class Wrong(right):
        def report(self, job: AgentJob, ended: Any) -> AgentReport:
            if ended.reading.done:
                return AgentReport(outcome=Outcome.DONE)
            return right.report(self, job, ended)

    return Wrong()


def has_all_the_time(right: Right) -> Any:
    class Wrong(right):
        async def work(self, job: AgentJob, host: AgentHost) -> AgentReport:
            return await right.work(self, job.model_copy(update={"timeout_s": 4.0}), host)

        def report(self, job: AgentJob, ended: Any) -> AgentReport:
            exit: Exit = ended.exit
            late = exit.timed_out
            return AgentReport(outcome=Outcome.FAILED, reason="slow") if late else right.report(self, job, ended)

    return Wrong()


def stays(right: Right) -> Any:
    class Wrong(right):
        async def work(self, job: AgentJob, host: AgentHost) -> AgentReport:
            try:
                return await right.work(self, job, host)
            except anyio.get_cancelled_exc_class():
                return AgentReport(outcome=Outcome.INTERRUPTED, reason="it was stopped")

    return Wrong()


def is_slow(right: Right) -> Any:
    class Wrong(right):
        grace_s = 8.0

        async def work(self, job: AgentJob, host: AgentHost) -> AgentReport:
            class Deaf:
                hurry = anyio.Event()

                def __getattr__(self, name: str) -> Any:
                    return getattr(host, name)

            return await right.work(self, job, Deaf())

    return Wrong()


def keeps_its_session_to_itself(right: Right) -> Any:
    class Wrong(right):
        def report(self, job: AgentJob, ended: Any) -> AgentReport:
            return right.report(self, job, ended).model_copy(update={"session_id": "of-my-own"})

    return Wrong()


def always_begins_anew(right: Right) -> Any:
    class Wrong(right):
        async def work(self, job: AgentJob, host: AgentHost) -> AgentReport:
            return await right.work(self, job.model_copy(update={"session_id": None}), host)

    return Wrong()


def insists(right: Right) -> Any:
    class Wrong(right):
        def forgot(self, ended: Any) -> bool:
            return False

    return Wrong()


def chokes(right: Right) -> Any:
    class Wrong(right):
        def read(self) -> Any:
            reading = right.read(self)

            def line(text: str) -> None:
                raise ValueError(f"not JSON: {text[:20]!r}")

            reading.line = line
            return reading

    return Wrong()


def remembers(right: Right) -> Any:
    class Wrong(right):
        job: AgentJob | None = None

        def environment(self, job: AgentJob) -> dict[str, str]:
            self.job = self.job or job
            return dict(self.job.env)

    return Wrong()


def trips(right: Right) -> Any:
    class Wrong(right):
        async def work(self, job: AgentJob, host: AgentHost) -> AgentReport:
            try:
                return await right.work(self, job, host)
            except AgentError as error:
                raise FileNotFoundError(str(error)) from error

    return Wrong()


# Which rule finds which: the first that is looked for.
PLANTED: tuple[tuple[str, Make], ...] = (
    ("is named", misnamed),
    ("checks", raises_in_check),
    ("works", works_elsewhere),
    ("waits for its start", tells_nothing),
    ("obeys a refusal", swallows_refusals),
    ("keeps secrets off the command line", prompt_in_argv),
    ("keeps secrets off the command line", key_in_argv),
    ("bounds the environment", hands_down_everything),
    ("bounds the environment", lambda right: by_hand(right, marked=False)),
    ("tells a failure", believes_everything),
    ("tells a crash", believes_the_words),
    ("keeps time", has_all_the_time),
    ("stops", stays),
    ("stops", by_hand),
    ("hurries", is_slow),
    ("leaves nothing behind", by_hand),
    ("names its session", keeps_its_session_to_itself),
    ("goes on", always_begins_anew),
    ("begins anew", insists),
    ("bears noise", chokes),
    ("remembers nothing", remembers),
    ("says what is missing", trips),
)

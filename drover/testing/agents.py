"""A suite that says whether an adapter for an agent keeps the promises that drover builds on.

The adapter is driven as drover drives it, against a stand-in for its program that prints what the adapter's
author says the program prints. Each rule is looked at by itself, so that a test can name it:

    @pytest.mark.parametrize("rule", RULES)
    def test_it_conforms(rule: str, tmp_path: Path) -> None:
        assert_conforms(Mine(), STAGE, tmp_path, rule=rule)
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from drover.agents.base import Agent, AgentJob
from drover.domain.errors import AgentError
from drover.domain.models import AgentReport, Frozen
from drover.domain.verdicts import Outcome
from drover.process import end_marked
from drover.testing.stage import (
    BEGINS_S,
    ENDS_S,
    FOLLOW_UP,
    KEPT,
    PROMPT,
    Bench,
    Broken,
    Host,
    Stage,
    marked_environment,
)

Rule = Callable[[Bench], Awaitable[None]]
HURRY_S = 6.0  # less than most agents get as grace
FLOOD = 32 << 20  # bytes
_NAME, _VARIABLE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}"), re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Finding(Frozen):
    """What came of one rule; ``problem`` is empty when the adapter keeps it."""

    rule: str
    promise: str
    problem: str = ""


class NotConforming(AssertionError):
    """Rules that an adapter does not keep, each with what it did instead."""


async def examine(agent: Agent, stage: Stage, place: Path, *, rule: str | None = None) -> tuple[Finding, ...]:
    """Look at every rule, or at the one that is named. ``place`` is an empty directory; nothing is left running.

    Takes about half a minute for all. Raises KeyError for a rule that there is not.
    """
    found = []
    for name in [rule] if rule else RULES:
        bench, look = Bench(agent, stage, place / name.replace(" ", "-")), _RULES[name]
        problem = ""
        try:
            with anyio.fail_after(4 * ENDS_S):
                await look(bench)
        except Broken as broken:
            problem = str(broken)
        except TimeoutError:
            problem = "work() did not come to its end"
        except Exception as error:  # noqa: BLE001 - whatever an adapter raises is a finding
            problem = f"{type(error).__name__}: {error}"
        finally:
            with anyio.CancelScope(shield=True):
                for marker in bench.markers:
                    await end_marked(marker, 0.0)
        found.append(Finding(rule=name, promise=" ".join((look.__doc__ or "").split()), problem=problem))
    return tuple(found)


def assert_conforms(agent: Agent, stage: Stage, place: Path, *, rule: str | None = None) -> None:
    """Raise NotConforming unless the adapter keeps every rule, or the one named. For tests that are not async."""

    async def look() -> tuple[Finding, ...]:
        return await examine(agent, stage, place, rule=rule)

    broken = [f"{finding.rule}: {finding.problem}" for finding in anyio.run(look) if finding.problem]
    if broken:
        raise NotConforming("\n".join(broken))


# ---------------------------------------------------------------- the rules


async def _is_named(bench: Bench) -> None:
    """Its name is one that settings can say, and its variables are names of variables."""
    if not _NAME.fullmatch(bench.agent.name):
        raise Broken(f"{bench.agent.name!r} is no name: small letters, digits, - and _")
    if wrong := [name for name in bench.agent.env_names if not _VARIABLE.fullmatch(name)]:
        raise Broken(f"env_names has {wrong[0]!r}, which is no variable's name")


async def _checks(bench: Bench) -> None:
    """check() finds the program, and says of one that is not there what to do, without raising."""
    bench.acts(bench.stage.done)
    found = await bench.agent.check(bench.settings)
    if found.problem is not None:
        raise Broken(f"of a program that is there it says: {found.problem}")
    if bench.seen:
        raise Broken("check() has started it with work to do")
    absent = await bench.agent.check(bench.settings.model_copy(update={"argv": (str(bench.place / "absent"),)}))
    if absent.problem is None or not absent.hint:
        raise Broken("of a program that is not there it names no problem, or no hint")


async def _works(bench: Bench) -> None:
    """A run that did its task is reported as done, once, in the worktree, with signs of life."""
    bench.acts(bench.stage.done)
    job, host, report = await _done(bench)
    seen = bench.only()
    if report.outcome != Outcome.DONE:
        raise Broken(f"it is reported as {report.outcome}: {report.reason}")
    if Path(seen.cwd).resolve() != job.worktree.resolve():
        raise Broken(f"the program was started in {seen.cwd}, not in the worktree")
    if PROMPT not in seen.words:
        raise Broken("the program was not told the prompt")
    if not host.lives:
        raise Broken("alive() was never called")


async def _waits(bench: Bench) -> None:
    """The agent acts only when starting() has returned, told of a process that is alive."""
    bench.acts(bench.stage.done)
    host = Host(bench, holds_s=0.5)
    with anyio.fail_after(ENDS_S):
        await bench.agent.work(bench.job(), host)
    if len(host.starts) != 1:
        raise Broken(f"starting() was called {len(host.starts)} times instead of once")
    if host.wrong:
        raise Broken(host.wrong)


async def _obeys(bench: Bench) -> None:
    """When starting() raises, the agent never acts, and what was raised comes out of work()."""
    bench.acts(bench.stage.done)
    job, host = bench.job(), Host(bench)
    host.refusal = AgentError("the lease was lost")
    try:
        await bench.agent.work(job, host)
    except AgentError as error:
        if error is not host.refusal:
            raise Broken(f"another error came out: {error}") from error
    else:
        raise Broken("nothing came out of work()")
    await bench.none_left(job)
    if bench.seen:
        raise Broken("the agent acted all the same")


async def _keeps_secrets(bench: Bench) -> None:
    """Neither the prompt nor a key is on a command line, where everybody can read it."""
    bench.acts(bench.stage.done)
    await _done(bench)
    line = " ".join(bench.only().argv)
    if PROMPT in line or "zx-prompt-zx" in line:
        raise Broken("the prompt is on its command line")
    if bench.secret in line:
        raise Broken(f"the value of {bench.agent.env_names[0]} is on its command line")


async def _bounds_the_environment(bench: Bench) -> None:
    """The agent sees the job's environment and its marker, and nothing of drover's own."""
    bench.acts(bench.stage.done)
    with bench.canary():
        job, _, _ = await _done(bench)
    marked_environment(bench.only(), job)


async def _tells_failure(bench: Bench) -> None:
    """A program that ends by itself without having done its task is not reported as done."""
    bench.acts(bench.stage.failed)
    _, _, report = await _done(bench)
    if report.outcome == Outcome.DONE:
        raise Broken("it is reported as done")
    if not report.reason:
        raise Broken(f"it is reported as {report.outcome} without a reason")


async def _tells_crash(bench: Bench) -> None:
    """A program that is killed is reported as crashed, whatever it had said before."""
    bench.acts(bench.stage.done, killed=True)
    job, _, report = await _done(bench)
    if report.outcome != Outcome.CRASHED:
        raise Broken(f"it is reported as {report.outcome}")
    await bench.none_left(job)


async def _keeps_time(bench: Bench) -> None:
    """At job.timeout_s it is stopped with everything it started, and reported as a timeout."""
    bench.acts(bench.stage.done.model_copy(update={"stdout": ""}), hangs=True, brood=True)
    job, host = bench.job(timeout_s=1.0), Host(bench)
    with anyio.move_on_after(ENDS_S):
        report = await bench.agent.work(job, host)
        if report.outcome != Outcome.TIMEOUT:
            raise Broken(f"it is reported as {report.outcome}")
        await bench.none_left(job)
        return
    raise Broken(f"it was still at work {ENDS_S:.0f} seconds later")


async def _stops(bench: Bench) -> None:
    """Cancelled, it ends everything that was started, what is in a session of its own too, and stays cancelled."""
    bench.acts(bench.stage.done.model_copy(update={"stdout": ""}), hangs=True, brood=True)
    job = await _cancelled(bench)
    await bench.none_left(job)


async def _hurries(bench: Bench) -> None:
    """When hurry is set it gives no grace: a program that does not listen is killed at once."""
    bench.acts(bench.stage.done.model_copy(update={"stdout": ""}), hangs=True, deaf=True)
    job = await _cancelled(bench, hurry=True)
    await bench.none_left(job)
    if (took_s := time.monotonic() - bench.cancelled_at) > HURRY_S:
        raise Broken(f"it took {took_s:.0f} seconds")


async def _leaves_nothing(bench: Bench) -> None:
    """What the agent leaves behind when it ends by itself is ended, too."""
    bench.acts(bench.stage.done, brood=True)
    job, _, _ = await _done(bench)
    await bench.none_left(job)


async def _names_its_session(bench: Bench) -> None:
    """The session of the report is the one that was told at the start, or as soon as it was known."""
    bench.acts(bench.stage.done)
    _, host, report = await _done(bench)
    told = {id for id, _ in host.starts} | {*host.sessions}
    if bench.stage.continues and not report.session_id:
        raise Broken("the report names no session, so none could be gone on with")
    if report.session_id and report.session_id not in told:
        raise Broken("the session of the report was never told while it worked: a crash would have lost it")
    if (host.starts[0][1], report.resumed) != ("fresh", "fresh"):
        raise Broken(f"a session that begins is told of as {host.starts[0][1]}, reported as {report.resumed}")


async def _goes_on(bench: Bench) -> None:
    """With job.session_id that session goes on, is told the follow-up, and is reported as continued."""
    if not bench.stage.continues:
        return
    bench.acts(bench.stage.done)
    _, host, report = await _done(bench, session_id="5e551015-0000-4000-8000-000000000000")
    seen = bench.only()
    given = " ".join([*seen.argv, *seen.env.values(), seen.words])
    if "5e551015" not in given:
        raise Broken("the program was not told which session")
    if FOLLOW_UP not in seen.words:
        raise Broken("the program was not told the follow-up")
    if (host.starts[0], report.resumed) != (("5e551015-0000-4000-8000-000000000000", "continued"), "continued"):
        raise Broken(f"it is told of as {host.starts[0]}, reported as {report.resumed}")


async def _begins_anew(bench: Bench) -> None:
    """A session that the program does not know is begun anew, with the whole prompt, and reported as fresh."""
    if bench.stage.forgot is None:
        return
    bench.acts(bench.stage.forgot)
    job, host = bench.job(session_id="5e551015-0000-4000-8000-000000000000"), Host(bench)
    with anyio.fail_after(2 * ENDS_S):
        report = await bench.agent.work(job, host)
    if [resumed for _, resumed in host.starts] != ["continued", "fresh"] or report.resumed != "fresh":
        raise Broken(f"its starts were {host.starts}, reported as {report.resumed}")
    if PROMPT not in bench.seen[-1].words:
        raise Broken("the new session was not told the prompt")


async def _bears_noise(bench: Bench) -> None:
    """Lines that are no events, and a flood, change nothing; no more is kept than job.output_limit_bytes asks for."""
    done = bench.stage.done
    bench.acts(done.model_copy(update={"stdout": '\x00\xff{"type":\n{}\n[1]\n"x"\n' + done.stdout}), noise=FLOOD)
    job, _, report = await _done(bench)
    if report.outcome != Outcome.DONE:
        raise Broken(f"it is reported as {report.outcome}: {report.reason}")
    kept = sum(path.stat().st_size for path in job.log_dir.rglob("*") if path.is_file())
    if kept > 4 * KEPT:
        raise Broken(f"{kept} bytes are kept in job.log_dir; {KEPT} of each stream were asked for")


async def _remembers_nothing(bench: Bench) -> None:
    """Two jobs at the same time do not know of each other."""
    bench.acts(bench.stage.done)
    reports: list[AgentReport] = []

    async def work() -> None:
        reports.append((await _done(bench))[2])

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        group.start_soon(work)
    first, second = reports
    if {first.outcome, second.outcome} != {Outcome.DONE.value}:
        raise Broken(f"they are reported as {first.outcome} and {second.outcome}")
    if len({one.env.get("HOME") for one in bench.seen}) != len(reports):
        raise Broken("both ran in the environment of one")


async def _says_what_is_missing(bench: Bench) -> None:
    """A program that cannot be started is an AgentError, for the operator to read."""
    bench.acts(bench.stage.done)
    settings = bench.settings.model_copy(update={"argv": (str(bench.place / "absent"),)})
    try:
        await bench.agent.work(bench.job(settings=settings), Host(bench))
    except AgentError:
        return
    raise Broken("work() returned as if there had been an agent")


async def _done(bench: Bench, *, session_id: str | None = None) -> tuple[AgentJob, Host, AgentReport]:
    job, host = bench.job(session_id=session_id), Host(bench)
    with anyio.fail_after(ENDS_S):
        return job, host, await bench.agent.work(job, host)


async def _cancelled(bench: Bench, *, hurry: bool = False) -> AgentJob:
    """A job that was cancelled while its program hung."""
    job, host = bench.job(), Host(bench)
    came_back: list[AgentReport] = []

    async def work() -> None:
        came_back.append(await bench.agent.work(job, host))

    with anyio.fail_after(BEGINS_S + ENDS_S):
        async with anyio.create_task_group() as group:
            group.start_soon(work)
            await bench.hanging()
            if hurry:
                host.hurry.set()
            bench.cancelled_at = time.monotonic()
            group.cancel_scope.cancel()
    if came_back:
        raise Broken("work() returned a report instead of letting the cancellation go on")
    return job


_RULES: dict[str, Rule] = {
    "is named": _is_named,
    "checks": _checks,
    "works": _works,
    "waits for its start": _waits,
    "obeys a refusal": _obeys,
    "keeps secrets off the command line": _keeps_secrets,
    "bounds the environment": _bounds_the_environment,
    "tells a failure": _tells_failure,
    "tells a crash": _tells_crash,
    "keeps time": _keeps_time,
    "stops": _stops,
    "hurries": _hurries,
    "leaves nothing behind": _leaves_nothing,
    "names its session": _names_its_session,
    "goes on": _goes_on,
    "begins anew": _begins_anew,
    "bears noise": _bears_noise,
    "remembers nothing": _remembers_nothing,
    "says what is missing": _says_what_is_missing,
}
RULES = tuple(_RULES)

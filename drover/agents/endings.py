"""What an ending means, for every agent alike: of the process, of the last words, of a limit with a time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from drover.domain.models import AgentReport
from drover.domain.quantities import format_size
from drover.domain.verdicts import Outcome
from drover.process import Exit

TEXT_LIMIT = 8_000
QUESTION_LIMIT = 2_000
_QUESTION = re.compile(r"^[\s>*_`#-]*NEEDS_HUMAN:[*_`]*", re.MULTILINE)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_EPOCH = re.compile(r"limit reached\|(\d{10})\b")
_RESETS = re.compile(
    r"resets?(?: at)? (?:(?P<month>[A-Z][a-z]{2})[a-z]* (?P<day>\d{1,2}),? (?:at )?)?"
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d{2}))? ?(?P<half>[ap]m)(?: \((?P<zone>[^)]+)\))?"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def of_process(exit: Exit) -> AgentReport | None:
    """The report of a process that did not end by itself; None when its output has to say what it came to."""
    if exit.lost:
        return AgentReport(outcome=Outcome.CRASHED, reason="its supervisor was killed, and the agent with it")
    if exit.timed_out:
        return AgentReport(
            outcome=Outcome.TIMEOUT,
            reason=f"not finished after {exit.seconds:.0f} s",
            advice="give the task more time (--timeout), or make it smaller",
        )
    if exit.stalled:
        return AgentReport(
            outcome=Outcome.STALLED, reason="no output, no CPU use and no changed file for too long; it was stopped"
        )
    if exit.stopped:
        return AgentReport(outcome=Outcome.INTERRUPTED, reason="it was stopped")
    if exit.over_memory:
        used = format_size(exit.over_memory)
        return AgentReport(
            outcome=Outcome.MEMORY,
            reason=f"the agent and what it started used {used} of memory, over the limit; they were stopped",
            advice="make the task smaller, or raise the limit: DROVER_WORKER_MEMORY_LIMIT, memory_limit in [worker]",
        )
    if exit.out_of_memory:
        return AgentReport(
            outcome=Outcome.MEMORY,
            reason="the machine ran out of memory and its kernel killed the agent",
            advice="run fewer workers (--workers)",
        )
    if exit.signal is not None:
        return AgentReport(outcome=Outcome.CRASHED, reason=f"ended by signal {exit.signal}, which drover did not send")
    return None


def question_in(words: str) -> str:
    """What the last words ask a person (``NEEDS_HUMAN: …``), or nothing."""
    asked = [words[match.end() :] for match in _QUESTION.finditer(words)]
    if not asked:
        return ""
    return asked[-1].strip()[:QUESTION_LIMIT] or "it needs a person, and did not say why"


def reset_time(words: str, now: datetime) -> int | None:
    """When a limit ends, in unix ms, out of the wordings that have been seen; None when they tell no time.

    ``resets 10:05pm (Europe/Rome)`` is the next such moment after ``now``; without a zone, UTC is taken.
    """
    if match := _EPOCH.search(words):
        return int(match[1]) * 1000
    match = _RESETS.search(words)
    if match is None:
        return None
    try:
        zone = ZoneInfo(match["zone"] or "UTC")
        hour = int(match["hour"]) % 12 + (12 if match["half"] == "pm" else 0)
        here = now.astimezone(zone)
        moment = here.replace(hour=hour, minute=int(match["minute"] or 0), second=0, microsecond=0)
        if match["month"]:
            moment = moment.replace(month=_MONTHS.index(match["month"]) + 1, day=int(match["day"]))
            if moment < here - timedelta(days=1):
                moment = moment.replace(year=moment.year + 1)
        else:
            moment = next_such(moment, here)
    except (ValueError, OSError, KeyError):  # no such month, day or hour; ZoneInfoNotFoundError is a KeyError
        return None
    return int(moment.astimezone(UTC).timestamp() * 1000)


def next_such(moment: datetime, now: datetime) -> datetime:
    """The time of day that was told to the minute: today, tomorrow, or the end of the minute that it is now."""
    if moment > now:
        return moment
    minute = timedelta(minutes=1)
    return moment + (minute if moment + minute > now else timedelta(days=1))


def is_secret(name: str) -> bool:
    """Whether a variable of that name may hold what nobody else should read."""
    return _SECRET.search(name) is not None


def presentable(text: str, secrets: Iterable[str]) -> str:
    """An agent's words as they may be stored and shown: without its keys, and not endless."""
    for secret in secrets:
        if len(secret) >= 6:
            text = text.replace(secret, "[secret]")
    if len(text) > TEXT_LIMIT:
        text = text[: TEXT_LIMIT // 4] + "\n[…]\n" + text[-TEXT_LIMIT * 3 // 4 :]
    return text.strip()

"""Why a model's service did not serve: told apart by its status and its words, for agents that pass these on."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from drover.agents import endings
from drover.domain.clock import SystemClock
from drover.domain.models import AgentReport
from drover.domain.verdicts import Outcome

LONG_WAIT_S = 300.0
NOT_THERE = frozenset({408, 500, 502, 503, 504, 522, 524, 529})  # answers of a service that will be back
_STATUS = re.compile(r"(?:status:?|\"code\": ?|API Error:|statusCode\"?:) ?(\d{3})\b")
_PAY = re.compile(
    r"credit balance|insufficient_quota|^quota exceeded\. check your plan|payment required", re.IGNORECASE
)
_USAGE = re.compile(
    r"hit your (?:[\w-]+ )*limit|usage.?limit|daily quota|exceeded your current quota|no quota|quota_exceeded|"
    r"exhausted your (?:\w+ )*(?:quota|capacity)|quota will reset|QUOTA_EXHAUSTED",
    re.IGNORECASE,
)
_RATE = re.compile(r"rate.?limit|too many requests|RESOURCE_EXHAUSTED|Retrying after \d{5,}ms", re.IGNORECASE)
_TOO_LONG = re.compile(
    r"prompt is too long|ran out of room in the model|maximum context|exceeds? (?:the )?(?:model's )?(?:maximum )?"
    r"(?:context|token)|context.?(?:window|length).{0,20}(?:exceed|full|overflow)|context_length_exceeded",
    re.IGNORECASE,
)
_SIGNED_OUT = re.compile(
    r"not logged in|invalid (?:x-)?api[ -]key|api key not valid|please (?:run /login|log in|sign in)|unauthorized|"
    r"missing environment variable|set an auth method|no authentication|authentication (?:failed|required|error)",
    re.IGNORECASE,
)
_AWAY = re.compile(
    r"overloaded|high demand|ECONNREFUSED|ECONNRESET|ENOTFOUND|ETIMEDOUT|fetch failed|connection error|"
    r"unable to connect|could not connect to [\w ]*provider|connect(?:ion)? (?:refused|reset)|stream disconnected|"
    r"waiting for network|"
    r"error sending request|UNAVAILABLE|API Error: (?:terminated|Internal)|failed to get response|service unavailable",
    re.IGNORECASE,
)
_REFUSED = re.compile(r"level=ERROR .*AI_APICallError")  # OpenCode's log: it tries again, and does not say when
_AT = re.compile(
    r"try again at (?:(?P<month>[A-Z][a-z]{2})[a-z]* (?P<day>\d{1,2})(?:st|nd|rd|th)?,? (?P<year>\d{4}) )?"
    r"(?P<hour>\d{1,2}):(?P<minute>\d{2}) ?(?P<half>[AP]M)"
)
_UNIT = r"(?:ms|milliseconds?|seconds?|secs?|s|minutes?|mins?|m|hours?|h|days?|d)(?![a-z])"
_IN = re.compile(
    r"(?:try again in|reset after|retry(?:ing)? (?:after|in)|retry-after\"?:) ?\"?"
    rf"((?:\d+(?:\.\d+)? ?(?:{_UNIT})?,? ?)+)",
    re.IGNORECASE,
)
_PART = re.compile(r"(\d+(?:\.\d+)?) ?(ms|milli|s|m|h|d|)", re.IGNORECASE)
_WAITS = re.compile(r"retrying (?:after|in) (\d+)(ms|s)\b", re.IGNORECASE)
_RESETS_AT = re.compile(r"resets_at\\?\": ?(\d{10})\b")
_UNITS = {"ms": 0.001, "milli": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def report_of(said: str, status: int = 0, *, sign_in: str, now: datetime | None = None) -> AgentReport:
    """Why it failed. ``said`` may be several lines; ``status`` is HTTP's, 0 when it has to be read out of them.

    ``sign_in`` is the advice for a key that is missing or refused.
    """
    status = status or status_in(said)
    limited = _limit(said, status, now)
    if limited is not None:
        return limited
    if _TOO_LONG.search(said):
        advice = "it goes on in a new session; or make the task smaller"
        return AgentReport(outcome=Outcome.CONTEXT_OVERFLOW, reason=said, advice=advice)
    if _PAY.search(said) or status == 402:
        return AgentReport(outcome=Outcome.AUTH, reason=said, advice="add credit to the account, then `drover retry`")
    if status in (401, 403) or (status == 0 and _SIGNED_OUT.search(said)):
        return AgentReport(outcome=Outcome.AUTH, reason=said, advice=sign_in)
    if status in NOT_THERE or (status == 0 and _AWAY.search(said)):
        return AgentReport(outcome=Outcome.OVERLOADED, reason=said or "the service did not answer")
    return AgentReport(outcome=Outcome.FAILED, reason=said)


def waited_for(said: str, now: datetime | None = None) -> AgentReport | None:
    """What the words say that it waits for, a limit's end or the service, or None; for one stopped while it slept."""
    found = report_of(said, sign_in="", now=now)
    if found.outcome == Outcome.FAILED and _REFUSED.search(said):
        return AgentReport(outcome=Outcome.OVERLOADED, reason=said)
    return found if found.outcome in (Outcome.USAGE_LIMIT, Outcome.RATE_LIMITED, Outcome.OVERLOADED) else None


def is_long_wait(line: str) -> bool:
    """Whether an agent's complaint says that it is going to sleep until a limit ends, far too long to wait for it."""
    if match := _WAITS.search(line):
        return float(match[1]) * _UNITS[match[2].lower()] > LONG_WAIT_S
    # OpenCode's own log: it tries again in silence, for days if need be.
    return "level=ERROR" in line and _USAGE.search(line) is not None


def status_in(said: str) -> int:
    """The last HTTP status of an error that the words name; 0 without one."""
    found = _STATUS.findall(said)
    return int(found[-1]) if found else 0


def until(said: str, now: datetime | None = None) -> int | None:
    """When a limit ends, in unix ms, out of the wordings of all these agents; None when they tell no time.

    A time of day is taken as UTC, so an agent that tells local time has to be run with ``TZ=UTC``.
    """
    now = now or _now()
    if match := _RESETS_AT.search(said):
        return int(match[1]) * 1000
    if match := _AT.search(said):
        return _moment(match, now)
    if match := _IN.search(said):
        parts = _PART.findall(match[1])
        seconds = sum(float(number) * _UNITS[unit.lower()] for number, unit in parts)
        return int((now.timestamp() + seconds) * 1000)
    return endings.reset_time(said, now)


def next_midnight(zone: str, now: datetime | None = None) -> int:
    """The end of the day at a place, in unix ms: when quotas by the day begin anew there."""
    here = (now or _now()).astimezone(ZoneInfo(zone))
    midnight = here.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return int(midnight.timestamp() * 1000)


def _now() -> datetime:
    return datetime.fromtimestamp(SystemClock().now() / 1000, UTC)


def _limit(said: str, status: int, now: datetime | None) -> AgentReport | None:
    now = now or _now()
    if _PAY.search(said):
        return None
    if _USAGE.search(said):
        return AgentReport(outcome=Outcome.USAGE_LIMIT, reason=said, until=until(said, now))
    if status == 429 or (status == 0 and _RATE.search(said)):
        return AgentReport(outcome=Outcome.RATE_LIMITED, reason=said, until=until(said, now))
    return None


def _moment(match: re.Match[str], now: datetime) -> int | None:
    hour = int(match["hour"]) % 12 + (12 if match["half"] == "PM" else 0)
    try:
        moment = now.astimezone(UTC).replace(hour=hour, minute=int(match["minute"]), second=0, microsecond=0)
        if match["month"]:
            month = _MONTHS.index(match["month"]) + 1
            moment = moment.replace(year=int(match["year"]), month=month, day=int(match["day"]))
        else:
            moment = endings.next_such(moment, now)
    except ValueError:  # no such month, day or hour
        return None
    return int(moment.timestamp() * 1000)

"""What the words of a service that does not serve mean, and when it will."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from drover.agents import service
from drover.domain.verdicts import Outcome

NOW = datetime(2026, 11, 22, 21, 0, tzinfo=UTC)
CODEX = "You’ve hit your usage limit. Upgrade to Pro (https://chatgpt.com/explore/pro), visit … or try again"


@pytest.mark.parametrize(
    ("said", "outcome", "when"),
    [
        (f"{CODEX} at 10:46 PM.", Outcome.USAGE_LIMIT, "2026-11-22T22:46:00"),
        (f"{CODEX} at 8:59 PM.", Outcome.USAGE_LIMIT, "2026-11-23T20:59:00"),
        (f"{CODEX} at 9:00 PM.", Outcome.USAGE_LIMIT, "2026-11-22T21:01:00"),  # in this very minute: at its end
        (f"{CODEX} at 12:30 AM.", Outcome.USAGE_LIMIT, "2026-11-23T00:30:00"),
        (f"{CODEX} at Nov 27th, 2026 11:13 AM.", Outcome.USAGE_LIMIT, "2026-11-27T11:13:00"),
        (f"{CODEX} at Feb 31st, 2026 11:13 AM.", Outcome.USAGE_LIMIT, None),
        (f"{CODEX} in 2 days 17 hours 14 minutes.", Outcome.USAGE_LIMIT, "2026-11-25T14:14:00"),
        (f"{CODEX} later.", Outcome.USAGE_LIMIT, None),
        ("429 Sorry, you've hit a rate limit. Please try again in 58 hours.", Outcome.RATE_LIMITED,
         "2026-11-25T07:00:00"),
        ("Your quota will reset after 3h20m10s.. Retrying after 12651537ms...", Outcome.USAGE_LIMIT,
         "2026-11-23T00:20:10"),
        ("Attempt 1 failed: status 429. Retrying after 90000ms...", Outcome.RATE_LIMITED, "2026-11-22T21:01:30"),
        ('slow down\nretry-after: 3600', Outcome.RATE_LIMITED, "2026-11-22T22:00:00"),
        ("TerminalQuotaError: slow down\nSuggested retry after 12010s.", Outcome.RATE_LIMITED, "2026-11-23T00:20:10"),
        ('{"error":{"type":"usage_limit_reached","resets_at": 1795385106}}', Outcome.USAGE_LIMIT,
         "2026-11-22T22:05:06"),
        ("You've hit your limit · resets 10pm (America/New_York)", Outcome.USAGE_LIMIT, "2026-11-23T03:00:00"),
    ],
)  # fmt: skip
def test_a_limit_and_its_end_are_read_out_of_the_words(said: str, outcome: Outcome, when: str | None) -> None:
    report = service.report_of(said, 429, sign_in="", now=NOW)
    assert report.outcome == outcome
    found = datetime.fromtimestamp(report.until / 1000, UTC) if report.until else None
    assert found == (datetime.fromisoformat(when).replace(tzinfo=UTC) if when else None)


@pytest.mark.parametrize(
    ("said", "status", "outcome"),
    [
        ("exceeded retry limit, last status: 429 Too Many Requests", 0, Outcome.RATE_LIMITED),
        ("unexpected status 529 <unknown status code>: Overloaded, url: http://x", 0, Outcome.OVERLOADED),
        ("We’re currently experiencing high demand, which may cause temporary errors.", 0, Outcome.OVERLOADED),
        ("Reconnecting... waiting for network (tcp connect error)", 0, Outcome.OVERLOADED),
        ("Could not connect to local model provider at http://127.0.0.1:1/v1.", 0, Outcome.OVERLOADED),
        ("stream disconnected before completion: it ended", 0, Outcome.OVERLOADED),
        ("[API Error: terminated]", 0, Outcome.OVERLOADED),
        ("connect ECONNREFUSED 127.0.0.1:1", 0, Outcome.OVERLOADED),
        ("unexpected status 401 Unauthorized: x", 0, Outcome.AUTH),
        ("[API Error: 401 invalid x-api-key]", 0, Outcome.AUTH),
        ("Missing environment variable: `OPENAI_API_KEY`.", 0, Outcome.AUTH),
        ("Quota exceeded. Check your plan and billing details.", 0, Outcome.AUTH),
        ("You have no quota", 402, Outcome.USAGE_LIMIT),
        ("400 Your credit balance is too low to access the API.", 400, Outcome.AUTH),
        ("Codex ran out of room in the model's context window. Start a new thread", 0, Outcome.CONTEXT_OVERFLOW),
        ("This model's maximum context length is 128000 tokens", 400, Outcome.CONTEXT_OVERFLOW),
        ("the tests of the rate calculator failed", 0, Outcome.FAILED),
        ("", 0, Outcome.FAILED),
    ],
)
def test_failures_of_the_service_are_told_from_those_of_the_work(said: str, status: int, outcome: Outcome) -> None:
    assert service.report_of(said, status, sign_in="sign in", now=NOW).outcome == outcome


def test_a_day_ends_at_midnight_of_its_place() -> None:
    found = service.next_midnight("America/Los_Angeles", NOW)
    assert datetime.fromtimestamp(found / 1000, UTC) == datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "long"),
    [
        ("Your quota will reset after 3h20m10s.. Retrying after 12651537ms...", True),
        ("Attempt 1 failed: slow down. Retrying after 5237ms...", False),
        ("Retrying in 60s (attempt 1/10): [API Error: 429 slow down]", False),
        ("Retrying in 3600s (attempt 1/10): [API Error: 429 slow down]", True),
        ('level=ERROR message="stream error" error.error="AI_APICallError: Monthly usage limit reached"', True),
        ('level=ERROR message="stream error" error.error="AI_APICallError: Overloaded"', False),
    ],
)
def test_a_long_sleep_is_told_from_a_short_one(line: str, long: bool) -> None:
    assert service.is_long_wait(line) == long

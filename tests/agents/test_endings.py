"""What endings mean, for every agent alike."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from drover.agents.endings import is_secret, of_process, presentable, question_in, reset_time
from drover.domain.verdicts import Outcome
from drover.process import Exit

NOW = datetime(2026, 11, 22, 20, 48, tzinfo=UTC)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("You've hit your 5-hour limit · resets 9:48pm (UTC)", "2026-11-22T21:48:00+00:00"),
        ("You've hit your 5-hour limit · resets 8:48pm (UTC)", "2026-11-22T20:49:00+00:00"),  # at this minute's end
        ("You've hit your session limit · resets 8pm (UTC)", "2026-11-23T20:00:00+00:00"),
        ("You've hit your weekly limit · resets Nov 26, 7:25am (UTC)", "2026-11-26T07:25:00+00:00"),
        ("You've hit your limit · resets 10pm (America/New_York)", "2026-11-23T03:00:00+00:00"),
        ("usage limit reached, resets at 12am (Europe/Rome)", "2026-11-22T23:00:00+00:00"),
        ("limit · resets Jan 2, 12pm (Asia/Tokyo)", "2027-01-02T03:00:00+00:00"),
        ("Claude AI usage limit reached|1795384110", "2026-11-22T21:48:30+00:00"),
        ("hit your limit · resets 11pm", "2026-11-22T23:00:00+00:00"),
        ("You've hit your limit · resets 10pm (Nowhere/Atall)", None),
        ("You've hit your limit · resets Xyz 40, 10pm (UTC)", None),
        ("try again later", None),
    ],
)
def test_the_end_of_a_limit_is_read_in_its_time_zone(words: str, expected: str | None) -> None:
    found = reset_time(words, NOW)
    assert (None if found is None else datetime.fromtimestamp(found / 1000, UTC).isoformat()) == expected


@pytest.mark.parametrize(
    ("exit", "outcome"),
    [
        (Exit(lost=True), Outcome.CRASHED),
        (Exit(signal=9), Outcome.CRASHED),
        (Exit(signal=9, out_of_memory=True), Outcome.MEMORY),
        (Exit(signal=15, timed_out=True), Outcome.TIMEOUT),
        (Exit(returncode=143, stalled=True, stopped="order"), Outcome.STALLED),
        (Exit(returncode=0, stopped="orphaned"), Outcome.INTERRUPTED),
        (Exit(returncode=0), None),
        (Exit(returncode=3), None),
    ],
)
def test_a_process_that_did_not_end_by_itself_says_nothing_about_the_work(exit: Exit, outcome: Outcome | None) -> None:
    report = of_process(exit)
    assert (report and report.outcome) == outcome


@pytest.mark.parametrize(
    ("words", "question"),
    [
        ("All done.", ""),
        ("I wrote that a NEEDS_HUMAN: line is possible.", ""),
        ("Looked.\n\nNEEDS_HUMAN: which colour?", "which colour?"),
        ("**NEEDS_HUMAN:** red or\nblue?", "red or\nblue?"),
        ("NEEDS_HUMAN: one?\nNEEDS_HUMAN: two?", "two?"),
        ("NEEDS_HUMAN:", "it needs a person, and did not say why"),
    ],
)
def test_a_question_is_what_follows_the_marker_at_the_beginning_of_a_line(words: str, question: str) -> None:
    assert question_in(words) == question


@pytest.mark.suite("T35")
def test_secrets_are_taken_out_and_endless_words_cut() -> None:
    shown = presentable("the key is sk-123456 " + "x" * 100_000, ["sk-123456", "ab"])
    assert "sk-123456" not in shown
    assert shown.startswith("the key is [secret]")
    assert len(shown) < 10_000


def test_names_tell_what_may_be_secret() -> None:
    assert is_secret("ANTHROPIC_API_KEY")
    assert is_secret("MY_TOKEN")
    assert not is_secret("ANTHROPIC_BASE_URL")

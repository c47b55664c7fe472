"""What an agent writes is a plan, or it is said why not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from drover.domain.plans import PlanError, read_plan

PLAN: dict[str, Any] = {
    "summary": "Do it in two steps.",
    "steps": [{"title": "Write it", "files": ["src/a.py"], "verification": "it runs"}, {"title": "Test it"}],
    "files_to_create": [{"path": "src/a.py", "reason": "new"}],
    "complexity": "low",
    "risk_factors": ["none"],
    "estimated_time": "an hour",
}


def test_a_plan_is_read_from_a_file_or_from_an_answer() -> None:
    text = json.dumps(PLAN)
    in_words = f'I looked at {{everything}}.\n\n```json\n{{"old": 1}}\n```\n\nNow:\n\n```json\n{text}\n```\nThat is it.'
    for said in (text, in_words, f"My plan: {text} is good", in_words.removesuffix("\nThat is it.")):
        plan = read_plan(said, max_steps=2)
        assert [step.title for step in plan.steps] == ["Write it", "Test it"]
        assert (plan.complexity, plan.files_to_create[0].path) == ("low", "src/a.py")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("I did it.", "no JSON object"),
        ('{"summary": "x", "steps": [}', "cannot be read"),
        ('```json\n["a"]\n```', "not an object"),
        (json.dumps({"summary": "x"}), "steps: Field required"),
        (json.dumps({**PLAN, "steps": []}), "steps"),
        (json.dumps({**PLAN, "steps": [{"title": " "}]}), "steps.0.title"),
        (json.dumps({**PLAN, "steps": [{"title": "a"}] * 6}), "it has 6 steps; at most 5 are allowed"),
        (json.dumps({**PLAN, "complexity": "trivial"}), "complexity"),
        (json.dumps({**PLAN, "files_to_modify": [{"path": "../up"}]}), "not a path inside the repository"),
        (json.dumps({**PLAN, "files_to_modify": [{"path": "/etc/passwd"}]}), "not a path inside the repository"),
    ],
)
def test_what_is_no_plan_says_why(text: str, why: str) -> None:
    with pytest.raises(PlanError, match=why):
        read_plan(text, max_steps=5)

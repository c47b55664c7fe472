"""What a service answers instead of an answer: errors by their status, and an account's limits in its own words."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.agents.fakellm.wires import Anthropic, Chat, Gemini, Responses, Wire

Refusal = tuple[int, dict[str, str], bytes]  # status, headers, body


def refusal(fault: dict[str, Any], wire: Wire) -> Refusal:
    """The answer to a request that a fault of the plan strikes."""
    status, headers, body = int(fault.get("status", 500)), dict(fault.get("headers", {})), fault.get("body")
    if window := fault.get("limit"):
        status, headers, body = _limit(window, int(fault["reset"]), wire)
    body = body or wire.error(status, fault.get("kind"), fault.get("message", "as planned"))
    return status, {name: str(value) for name, value in headers.items()}, json.dumps(body).encode()


def _limit(window: str, reset: int, wire: Wire) -> tuple[int, dict[str, Any], dict[str, Any]]:
    left = max(1, reset - int(time.time()))
    if isinstance(wire, Anthropic):
        said = "This request would exceed your account's rate limit."
        return 429, _subscriber(window, reset), wire.error(429, "rate_limit_error", said)
    if isinstance(wire, Responses):  # a subscriber of ChatGPT
        told = {"plan_type": "plus", "resets_at": reset, "resets_in_seconds": left}
        error = {"type": "usage_limit_reached", "message": "The usage limit has been reached", **told}
        return 429, {"x-codex-primary-used-percent": 100, "x-codex-primary-reset-at": reset}, {"error": error}
    if isinstance(wire, Gemini):
        kind = "type.googleapis.com/google.rpc."
        quota = {
            "@type": f"{kind}QuotaFailure",
            "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}],
        }
        wait = {"@type": f"{kind}RetryInfo", "retryDelay": f"{left}s"}
        body = wire.error(429, None, "You exceeded your current quota, please check your plan and billing details.")
        body["error"]["details"] = [quota, wait]
        return 429, {}, body
    assert isinstance(wire, Chat)
    said = f"Monthly usage limit reached. Try again in {left} seconds."
    return 429, {"retry-after": left}, wire.error(429, "usage_limit_reached", said)


def _subscriber(window: str, reset: int) -> dict[str, Any]:
    """What Anthropic's API tells a subscriber whose window is used up."""
    short = {"five_hour": "5h", "seven_day": "7d"}
    facts: dict[str, object] = {"status": "rejected", "reset": reset, "representative-claim": window}
    for name, letters in short.items():
        used_up = name == window
        facts[f"{letters}-status"] = "rejected" if used_up else "allowed"
        facts[f"{letters}-reset"] = reset
        facts[f"{letters}-utilization"] = 1.0 if used_up else 0.3
    facts |= {"overage-status": "rejected", "overage-disabled-reason": "org_level_disabled"}
    return {f"anthropic-ratelimit-unified-{name}": value for name, value in facts.items()}

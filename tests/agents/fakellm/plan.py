"""The plan in a prompt, and where in it a conversation stands."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from typing import Any

PLAN = re.compile(r"<plan>(.*?)</plan>", re.DOTALL)
TURN = re.compile(r"^toolu_t(\d+)x")


def texts(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


def plan_of(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The plan of the latest user message that carries one."""
    for message in reversed(messages):
        if message["role"] == "user" and (found := PLAN.search(texts(message))):
            return list(json.loads(found[1]))
    return []


def next_turn(messages: list[dict[str, Any]], plan: list[dict[str, Any]]) -> int:
    """One after the last turn whose tool call, or closing words, stand in the history."""
    done = -1
    for message in messages:
        if message["role"] != "assistant":
            continue
        for part in message["content"] if isinstance(message["content"], list) else ():
            if found := TURN.match(part.get("id", "")):
                done = max(done, int(found[1]))
        said = texts(message)
        for number, turn in enumerate(plan):
            if number > done and not ({"write", "sh"} & turn.keys()) and turn.get("say") and turn["say"] in said:
                done = number
    return done + 1


def answer(turn: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """The content blocks of a turn, in the words of Claude Code's tools."""
    blocks: list[dict[str, Any]] = []
    if turn.get("say"):
        blocks.append({"type": "text", "text": turn["say"]})
    call = f"toolu_t{number}x{uuid.uuid4().hex[:12]}"
    if "write" in turn:
        path, content = turn["write"]
        given = {"file_path": path, "content": content}
        blocks.append({"type": "tool_use", "id": call, "name": "Write", "input": given})
    if "sh" in turn:
        given = {"command": turn["sh"], "description": "as planned"}
        if turn.get("background"):
            given["run_in_background"] = True
        blocks.append({"type": "tool_use", "id": call, "name": "Bash", "input": given})
    return blocks or [{"type": "text", "text": "Done."}]


def stream(blocks: list[dict[str, Any]], model: str) -> Iterator[bytes]:
    """The answer as server-sent events of the Messages API."""
    tool = any(block["type"] == "tool_use" for block in blocks)
    usage = {"input_tokens": 1000, "output_tokens": 1, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    start = {
        "id": f"msg_{uuid.uuid4().hex[:24]}", "type": "message", "role": "assistant", "model": model, "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    yield _event("message_start", message=start)
    for index, block in enumerate(blocks):
        empty = {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}
        yield _event("content_block_start", index=index, content_block=empty)
        if block["type"] == "text":
            delta = {"type": "text_delta", "text": block["text"]}
        else:
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)
    ending = {"stop_reason": "tool_use" if tool else "end_turn", "stop_sequence": None}
    yield _event("message_delta", delta=ending, usage={"output_tokens": 50})
    yield _event("message_stop")


def refusal(fault: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a fault."""
    headers = {name: str(value) for name, value in fault.get("headers", {}).items()}
    kind, message = fault.get("kind", "api_error"), fault.get("message", "as planned")
    status = int(fault.get("status", 500))
    if window := fault.get("limit"):
        status, kind, message = 429, "rate_limit_error", "This request would exceed your account's rate limit."
        headers |= _limit_headers(window, int(time.time() + fault["reset_s"]))
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": f"req_{uuid.uuid4().hex[:16]}"}
    return status, headers, json.dumps(body).encode()


def _limit_headers(window: str, reset: int) -> dict[str, str]:
    """What the API tells a subscriber whose window is used up."""
    short = {"five_hour": "5h", "seven_day": "7d"}
    facts: dict[str, object] = {"status": "rejected", "reset": reset, "representative-claim": window}
    for name, letters in short.items():
        used_up = name == window
        facts[f"{letters}-status"] = "rejected" if used_up else "allowed"
        facts[f"{letters}-reset"] = reset
        facts[f"{letters}-utilization"] = 1.0 if used_up else 0.3
    facts |= {"overage-status": "rejected", "overage-disabled-reason": "org_level_disabled"}
    return {f"anthropic-ratelimit-unified-{name}": str(value) for name, value in facts.items()}


def _event(name: str, **facts: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **facts})}\n\n".encode()

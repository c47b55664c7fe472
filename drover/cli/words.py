"""An agent's output as a person reads it: its words, the tools it used, what those said."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

_SHOWN_LINES = 12  # of a tool's output; `--raw` has the rest
_SHOWN_INPUT = 200
_TELLING = ("command", "file_path", "path", "pattern", "query", "url", "description", "prompt")
_CHATTER = frozenset(
    {
        "system",
        "command_lifecycle",
        "rate_limit_event",
        "thread.started",
        "turn.started",
        "turn.completed",
        "item.started",
        "item.updated",
    }
)


def words_of(line: str) -> Iterator[str]:
    """What one line of output says, in lines; a line that is no JSON object says itself."""
    event = _object(line)
    if event is None:
        if line.strip():
            yield line.rstrip()
        return
    kind = str(event.get("type"))
    if kind in _CHATTER:
        return
    message = event.get("message")
    item = event.get("item")
    if isinstance(message, Mapping):
        yield from _message(message)
    elif isinstance(item, Mapping):
        yield from _item(item)
    elif kind == "result":
        yield from _result(event)
    else:
        yield _other(event)


def _message(message: Mapping[str, object]) -> Iterator[str]:
    """A turn of a conversation: text, tools, and what they answered."""
    content = message.get("content")
    if message.get("role") == "user" and isinstance(content, str):
        yield from _output(content, "» ")  # what the agent was told: its prompt, or a person's words
        return
    for part in content if isinstance(content, list) else [{"type": "text", "text": content}]:
        if not isinstance(part, Mapping):
            continue
        match part.get("type"):
            case "text":
                yield from _lines(part.get("text"))
            case "tool_use":
                yield f"→ {part.get('name')}: {_input(part.get('input'))}"
            case "tool_result":
                yield from _output(_text(part.get("content")))


def _item(item: Mapping[str, object]) -> Iterator[str]:
    """A finished item of a thread: a message, a command with its output, or an error."""
    match item.get("type"):
        case "command_execution":
            yield f"→ {_short(str(item.get('command')))}"
            yield from _output(_text(item.get("aggregated_output")))
        case "error":
            yield f"! {item.get('message')}"
        case _ if isinstance(item.get("text"), str):
            yield from _lines(item["text"])
        case _:
            yield _other(item)


def _result(event: Mapping[str, object]) -> Iterator[str]:
    """The end of a session. Its text has been said already, unless it is an error."""
    if event.get("is_error"):
        yield f"! {event.get('result') or event.get('subtype') or 'failed'}"
    turns, cost = event.get("num_turns"), event.get("total_cost_usd")
    facts = [f"{turns} turns"] if isinstance(turns, int) else []
    facts += [f"${cost:.2f}"] if isinstance(cost, int | float) and not isinstance(cost, bool) else []
    yield "= " + (", ".join(facts) or "end")


def _other(event: Mapping[str, object]) -> str:
    kind = str(event.get("type") or "")
    facts = {key: value for key, value in event.items() if key != "type" and isinstance(value, str | int | float)}
    said = [str(value) for key, value in facts.items() if key in ("text", "message", "content", "reason", "question")]
    rest = [f"{key}={_short(str(value))}" for key, value in facts.items() if str(value) not in said]
    return f"{kind}: {' '.join(said or rest)}" if facts else kind


def _output(text: str, before: str = "  | ") -> Iterator[str]:
    lines = text.splitlines()
    for line in lines[:_SHOWN_LINES]:
        yield f"{before}{line}"
    if len(lines) > _SHOWN_LINES:
        yield f"{before}… {len(lines) - _SHOWN_LINES} more lines"


def _lines(text: object) -> Iterator[str]:
    if isinstance(text, str):
        yield from text.strip("\n").split("\n")


def _text(content: object) -> str:
    if isinstance(content, list):
        return "\n".join(_text(part.get("text")) for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""


def _input(given: object) -> str:
    if isinstance(given, Mapping):
        for key in _TELLING:
            if isinstance(given.get(key), str):
                return _short(str(given[key]))
    return _short(json.dumps(given, ensure_ascii=False))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_INPUT else f"{line[:_SHOWN_INPUT]}…"


def _object(line: str) -> Mapping[str, object] | None:
    if not line.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None

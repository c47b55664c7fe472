"""The plan in a prompt, and where in it a conversation stands: the same for every service's language."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

PLAN = re.compile(r"<plan>(.*?)</plan>", re.DOTALL)
TURN = re.compile(r"(?:^|_)t(\d+)x")
# How the agents tell their model where they are; some want absolute paths of it.
DIRECTORY = re.compile(
    r"(?:orking (?:in the )?directory:|<cwd>|Workspace (?:root|Directories):|current directory:)"
    r"[\s*-]*[`'\"]?(/[^\s<>`'\"]+)",
    re.IGNORECASE,
)
SHELLS = ("Bash", "bash", "exec_command", "shell_command", "run_shell_command", "shell")
WRITERS = ("Write", "write_file", "write", "create")

Plan = list[dict[str, Any]]


@dataclass(frozen=True)
class Message:
    """One step of a conversation. ``calls``: the ids of tools that it calls, as far as it tells any."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str = ""
    calls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tool:
    """What an agent offers: its arguments' names with their schemas, and those that must be there."""

    properties: dict[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()

    @classmethod
    def of(cls, schema: dict[str, Any] | None) -> Tool:
        schema = schema or {}
        return cls(schema.get("properties") or {}, tuple(schema.get("required") or ()))


@dataclass(frozen=True)
class Question:
    """A request, whatever language it came in."""

    messages: tuple[Message, ...]
    tools: dict[str, Tool]
    stream: bool
    model: str

    @property
    def directory(self) -> Path | None:
        for message in self.messages:
            if message.role in ("system", "user") and (found := DIRECTORY.search(message.text)):
                return Path(found[1].rstrip(".,"))
        return None


@dataclass(frozen=True)
class Call:
    id: str
    name: str
    input: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the model says. ``number`` is the turn's; it travels in the ids of its calls."""

    text: str
    calls: tuple[Call, ...] = ()


def texts(content: Any) -> str:
    """The text of a message's content: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    return "\n".join(part if isinstance(part, str) else str(part.get("text") or "") for part in parts)


def plan_of(messages: Sequence[Message]) -> Plan:
    """The plan of the latest user message that carries one."""
    for message in reversed(messages):
        if message.role == "user" and (found := PLAN.search(message.text)):
            return list(json.loads(found[1]))
    return []


def next_turn(messages: Sequence[Message], plan: Plan) -> int:
    """One after the last turn whose tool call, or closing words, stand in the history.

    What an agent invents while it resumes ("No response requested.") says nothing of the plan and is none.
    """
    done = -1
    for message in messages:
        if message.role != "assistant":
            continue
        tags = [int(found[1]) for id in message.calls if (found := TURN.search(id))]
        done = max([done, *tags])
        if message.calls and not tags:  # an agent that gives calls ids of its own
            done += 1
        for number, turn in enumerate(plan):
            if (
                number > done
                and not ({"write", "sh"} & turn.keys())
                and turn.get("say")
                and turn["say"] in message.text
            ):
                done = number
    return done + 1


def answer(turn: dict[str, Any], number: int, question: Question) -> Answer:
    """The turn in the words of the tools that the agent offers."""
    said = _prose(turn["say_bytes"]) if "say_bytes" in turn else turn.get("say", "")
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    if "write" in turn:
        calls = (_writing(*turn["write"], question),)
    elif "sh" in turn:
        calls = (_shell(turn["sh"], question, background=bool(turn.get("background"))),)
    if not said and not calls:
        said = "Done."
    return Answer(said, tuple(Call(f"t{number}x{uuid.uuid4().hex[:12]}", *call) for call in calls))


def _prose(length: int) -> str:
    """So many characters in which nothing repeats: some agents stop a model that goes round in a circle."""
    lines = (hashlib.sha256(str(number).encode()).hexdigest() for number in range(length // 65 + 1))
    return "\n".join(lines)[:length]


def _shell(command: str, question: Question, *, background: bool = False) -> tuple[str, dict[str, Any]]:
    name = next((name for name in SHELLS if name in question.tools), "")
    if not name:
        return "no_shell_offered", {"command": command}  # what the agent then does is the agent's
    tool = question.tools[name]
    given: dict[str, Any] = {}
    key = "cmd" if "cmd" in tool.properties else "command"
    is_list = (tool.properties.get(key) or {}).get("type") == "array"
    given[key] = ["bash", "-lc", command] if is_list else command
    if "description" in tool.properties:
        given["description"] = "as planned"
    if "yield_time_ms" in tool.properties:
        given["yield_time_ms"] = 30_000
    if background:
        given["run_in_background"] = True
    return name, _completed(given, tool)


def _writing(path: str, content: str, question: Question) -> tuple[str, dict[str, Any]]:
    name = next((name for name in WRITERS if name in question.tools), "")
    if not name:
        quoted = shlex.quote(path)
        return _shell(f"mkdir -p $(dirname {quoted}); printf %s {shlex.quote(content)} > {quoted}", question)
    tool = question.tools[name]
    place = str(question.directory / path) if question.directory else path
    where = next((key for key in ("file_path", "filePath", "path") if key in tool.properties), "file_path")
    what = next((key for key in ("content", "file_text") if key in tool.properties), "content")
    return name, _completed({where: place, what: content}, tool)


def _completed(given: dict[str, Any], tool: Tool) -> dict[str, Any]:
    """With a harmless value for whatever else must be there."""
    harmless = {"boolean": False, "integer": 1, "number": 1, "array": [], "object": {}}
    for name in tool.required:
        if name not in given:
            schema = tool.properties.get(name) or {}
            given[name] = (schema.get("enum") or [harmless.get(str(schema.get("type")).lower(), "as planned")])[0]
    return given

"""``[hooks]``: the operator's commands around a task, and which of them have to be approved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field

from drover.domain.models import Frozen
from drover.domain.quantities import parse_duration

MINUTE = 60_000
LONGEST_MS = 24 * 60 * MINUTE

HookName = Literal["after_create", "before_agent", "after_agent", "pre_land", "post_land", "before_remove"]
HOOKS: tuple[HookName, ...] = get_args(HookName)
_FORMS = 'a command, a table of commands side by side, or a list of these in order, like "npm ci"'


class HookCommand(Frozen):
    """One shell command. ``timeout_ms`` None: that of the table."""

    name: str
    command: str
    timeout_ms: int | None = None


Stage = tuple[HookCommand, ...]
"""Commands that run side by side. A hook is stages in their order; no stage, no hook."""


def _read(value: object) -> object:
    """A hook as it is written → its stages."""
    if isinstance(value, list):
        return tuple(_stage(item, f"{number}") for number, item in enumerate(value, start=1))
    return (_stage(value, "1"),) if value not in ("", {}) and not isinstance(value, tuple) else value or ()


def _stage(value: object, name: str) -> Stage:
    if isinstance(value, Mapping) and "command" not in value:
        if not value:
            raise ValueError(f"an empty table is not {_FORMS}")
        return tuple(_command(inner, str(key)) for key, inner in value.items())
    return (_command(value, name),)


def _command(value: object, name: str) -> HookCommand:
    if isinstance(value, str) and value.strip():
        return HookCommand(name=name, command=value)
    if isinstance(value, Mapping) and set(value) <= {"command", "timeout"}:
        command, timeout = value.get("command"), value.get("timeout")
        if isinstance(command, str) and command.strip() and isinstance(timeout, str | None):
            return HookCommand(name=name, command=command, timeout_ms=None if timeout is None else _time(timeout))
    raise ValueError(f"{value!r} is not {_FORMS}")


def _time(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a time with its unit, like '10m'")
    time = parse_duration(value)
    if not 0 < time <= LONGEST_MS:
        raise ValueError(f"{value!r} is out of range; it may be from 1ms to 1d")
    return time


Hook = Annotated[tuple[Stage, ...], BeforeValidator(_read)]


class HooksTable(Frozen):
    """``[hooks]``: commands around a task, run by ``/bin/sh -c`` in its worktree."""

    after_create: Hook = ()
    before_agent: Hook = ()
    after_agent: Hook = ()
    pre_land: Hook = ()
    post_land: Hook = ()
    before_remove: Hook = ()
    timeout_ms: Annotated[int, BeforeValidator(_time)] = Field(10 * MINUTE, alias="timeout")

    def stages(self, hook: HookName) -> tuple[Stage, ...]:
        """The stages of one hook, in their order."""
        stages: tuple[Stage, ...] = getattr(self, hook)
        return stages

    def commands_from(self, sources: Mapping[str, str], origin: str) -> dict[str, list[str]]:
        """The commands of every hook that comes from one place, by hook."""
        return {
            hook: [command.command for stage in self.stages(hook) for command in stage]
            for hook in HOOKS
            if self.stages(hook) and sources.get(f"hooks.{hook}") == origin
        }


def digest_of(commands: Mapping[str, list[str]]) -> str:
    """Names exactly these commands: another word anywhere, and it is another digest."""
    return hashlib.sha256(json.dumps(commands, sort_keys=True).encode()).hexdigest()

"""Reads settings from their five places and remembers which one each value came from."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ValidationError

from drover.domain.errors import SettingsError
from drover.domain.quantities import parse_switch
from drover.settings.explain import explain
from drover.settings.model import AgentTable, Settings

# Of two variables for one key the first that is set counts.
ENVIRONMENT = (
    ("DROVER_AGENT_TYPE", "agent"),
    ("DROVER_AGENT_PATH", "agent_path"),
    ("DROVER_CLAUDE_PATH", "agents.claude.path"),
    ("DROVER_WORKERS", "workers"),
    ("DROVER_TASK_TIMEOUT", "task_timeout"),
    ("DROVER_CLAIM_TIMEOUT", "claim_timeout"),
    ("DROVER_STALL_TIMEOUT", "stall_timeout"),
    ("DROVER_MAX_ATTEMPTS", "max_attempts"),
    ("DROVER_HOST", "host"),
    ("DROVER_DATABASE_URL", "database_url"),
    ("DBOS_SYSTEM_DATABASE_URL", "database_url"),
    ("DROVER_OPERATOR", "operator"),
    ("DROVER_GUIDELINES", "guidelines"),
    ("DROVER_BACKPRESSURE_ENABLED", "backpressure.enabled"),
    ("DROVER_BACKPRESSURE_INITIAL_CONCURRENCY", "backpressure.initial_concurrency"),
    ("DROVER_BACKPRESSURE_MIN_CONCURRENCY", "backpressure.min_concurrency"),
    ("DROVER_BACKPRESSURE_MAX_CONCURRENCY", "backpressure.max_concurrency"),
    ("DROVER_BACKPRESSURE_RATE_LIMIT_BACKOFF", "backpressure.rate_limit_backoff"),
    ("DROVER_BACKPRESSURE_MAX_BACKOFF", "backpressure.max_backoff"),
    ("DROVER_BACKPRESSURE_MEMORY_AWARE_ENABLED", "backpressure.memory_aware_enabled"),
    ("DROVER_BACKPRESSURE_MEMORY_THRESHOLD_MB", "backpressure.memory_threshold_mb"),
    ("DROVER_BACKPRESSURE_MEMORY_CRITICAL_MB", "backpressure.memory_critical_mb"),
    ("DROVER_BACKPRESSURE_WORKER_RSS_LIMIT_MB", "backpressure.worker_rss_limit_mb"),
    ("DROVER_POOL_ENABLED", "pool.enabled"),
    ("DROVER_POOL_MIN_SIZE", "pool.min_size"),
    ("DROVER_POOL_MAX_SIZE", "pool.max_size"),
    ("DROVER_POOL_WARMUP", "pool.warmup"),
    ("DROVER_POOL_CLEANUP_ON_EXIT", "pool.cleanup_on_exit"),
    ("DROVER_WORKER_MEMORY_LIMIT", "worker.memory_limit"),
    ("DROVER_WORKER_BINARY", "agents.worker.path"),
    ("DROVER_WORKER_MODE", "mode"),
    ("DROVER_PLANNING_REQUIRE_APPROVAL", "planning.require_approval"),
    ("DROVER_PLANNING_AUTO_APPROVE_LOW", "planning.auto_approve_low"),
    ("DROVER_PLANNING_MAX_STEPS", "planning.max_steps"),
    ("DROVER_BUILDING_APPROVED_ONLY", "building.approved_only"),
    ("DROVER_BUILDING_VERIFY_STEPS", "building.verify_steps"),
    ("DROVER_REFINEMENT_ENABLED", "refinement.enabled"),
    ("DROVER_REFINEMENT_MAX_REFINEMENTS", "refinement.max_refinements"),
)
PROJECT_VARIABLE = "DROVER_PROJECT"

# Keys that the original's files hold and that mean nothing here (yet): said once, never an error.
_WITHOUT_EFFECT = (
    "task_context_count",
    "task_context_max_age",
    "max_description_size",
    "max_diff_size",
    "max_file_size",
    "default_labels",
)
_VARIABLES_WITHOUT_EFFECT = {
    "DROVER_BACKPRESSURE_SLOW_THRESHOLD": "an agent that takes long is no sign that there are too many",
}
# What drover itself puts into an agent's environment; an agent may call drover.
_GIVEN_TO_AGENTS = frozenset(
    f"DROVER_{name}"
    for name in (
        "TASK_ID",
        "EPIC_ID",
        "ATTEMPT",
        "WORKTREE",
        "ROOT",
        "BASE",
        "BRANCH",
        "PORT",
        "RUN_ID",
        "RESULT",
        "PLAN",
        "MARKER",
        "HOOK",
        "OUTCOME",
        "COMMIT",
    )
)

# Flags that are not called as the last word of their key.
_FLAGS = {
    "budget.run_usd": "budget",
    "pool.enabled": "pool",
    "pool.min_size": "pool-min",
    "pool.max_size": "pool-max",
}

_AGENT_KEYS = tuple(AgentTable.model_fields)

KeyPath = tuple[str, ...]


@dataclass(frozen=True)
class _Layer:
    """The values of one place; ``origins`` names the place of a key where it differs from ``origin``."""

    origin: str
    values: Mapping[str, object]
    origins: Mapping[KeyPath, str] = field(default_factory=dict)

    def origin_of(self, path: KeyPath) -> str:
        return self.origins.get(path, self.origin)


def load(project_root: Path | None, *, environ: Mapping[str, str], flags: Mapping[str, object]) -> Settings:
    """Settings of the project at ``project_root`` (None: outside of any), for these variables and flags.

    ``flags`` has dotted keys as in a file (``workers``, ``project.target``); None means not given. A variable
    that is empty counts as unset. Raises SettingsError for what does not parse, is unknown or out of range,
    also where a stronger place would have overridden it.
    """
    warnings: list[str] = []
    layers = [
        _user_layer(environ, warnings),
        _file_layer(project_root / ".drover.toml" if project_root else None, warnings),
        _environment_layer(environ, warnings),
        _flag_layer(flags),
    ]
    merged: dict[KeyPath, object] = {}
    ranks: dict[KeyPath, int] = {}
    sources = dict.fromkeys(_known_keys(Settings), "default")
    for rank, layer in enumerate(layers):
        _check(layer)
        for path, value in _leaves(layer.values):
            merged[path], ranks[path] = value, rank
            sources[".".join(path)] = layer.origin_of(path)
    _fold_agent_path(merged, ranks, sources)
    settings = Settings.model_validate(_nested(merged))
    return settings.model_copy(update={"sources": sources, "warnings": tuple(warnings)})


def user_file(environ: Mapping[str, str]) -> Path | None:
    """Where the user's own settings are, whether or not the file exists; None without a home directory."""
    base = environ.get("XDG_CONFIG_HOME", "")
    if not base.startswith("/"):  # the XDG rules: a relative path there is to be ignored
        home = environ.get("HOME")
        if not home:
            return None
        base = f"{home}/.config"
    return Path(base) / "drover" / "config.toml"


def _user_layer(environ: Mapping[str, str], warnings: list[str]) -> _Layer:
    layer = _file_layer(user_file(environ), warnings)
    if "project" in layer.values:
        raise SettingsError(
            f"project ({layer.origin}): one project's settings stand in the user's file",
            hint="move [project] into the .drover.toml of the repository it belongs to",
        )
    return layer


def _file_layer(path: Path | None, warnings: list[str]) -> _Layer:
    if path is None:
        return _Layer("", {})
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _Layer(str(path), {})
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            f"{path} is not TOML: {error}", hint="correct the file; nothing was read from it"
        ) from error
    for key in _WITHOUT_EFFECT:
        if values.pop(key, None) is not None:
            warnings.append(f"{key} ({path}) has no effect")
    if "max_workers" in values:
        if "workers" in values:
            raise SettingsError(f"max_workers ({path}): workers is given too", hint="keep one of the two")
        values["workers"] = values.pop("max_workers")
    return _Layer(str(path), values)


def _environment_layer(environ: Mapping[str, str], warnings: list[str]) -> _Layer:
    found: dict[KeyPath, object] = {}
    origins: dict[KeyPath, str] = {}
    for variable, key in ENVIRONMENT:
        path = tuple(key.split("."))
        if environ.get(variable) and path not in found:
            found[path], origins[path] = environ[variable], f"environment {variable}"
            if variable == "DROVER_CLAUDE_PATH":
                warnings.append("DROVER_CLAUDE_PATH is an old name; use DROVER_AGENT_PATH")
    if environ.get("DROVER_USE_WORKER_SUBPROCESS"):
        try:
            forced = parse_switch(environ["DROVER_USE_WORKER_SUBPROCESS"])
        except ValueError as error:
            raise SettingsError(f"agent (environment DROVER_USE_WORKER_SUBPROCESS): {error}") from None
        if forced:
            found[("agent",)], origins[("agent",)] = "worker", "environment DROVER_USE_WORKER_SUBPROCESS"
    for variable, why in _VARIABLES_WITHOUT_EFFECT.items():
        if environ.get(variable):
            warnings.append(f"{variable} has no effect: {why}")
    known = [variable for variable, _ in ENVIRONMENT]
    known += [PROJECT_VARIABLE, "DROVER_USE_WORKER_SUBPROCESS", *_VARIABLES_WITHOUT_EFFECT]
    for variable in sorted(environ):
        if variable.startswith("DROVER_") and variable not in known and variable not in _GIVEN_TO_AGENTS:
            for meant in difflib.get_close_matches(variable, known, n=1, cutoff=0.9):
                warnings.append(f"{variable} is not read; {meant} is")
    return _Layer("environment", _nested(found), origins)


def _flag_layer(flags: Mapping[str, object]) -> _Layer:
    found = {tuple(key.split(".")): value for key, value in flags.items() if value is not None}
    return _Layer("flag", _nested(found), {path: _flag_of(path) for path in found})


def _flag_of(path: KeyPath) -> str:
    named = _FLAGS.get(".".join(path)) or path[-1].replace("_", "-")
    return f"flag --{named}"


def _check(layer: _Layer) -> None:
    """One place's values by themselves, so that an error names the place it stands in."""
    for reserved in ("sources", "warnings"):
        if reserved in layer.values:
            raise SettingsError(f"{reserved} ({layer.origin}): unknown key")
    try:
        Settings.model_validate(layer.values)
    except ValidationError as error:
        types = layer.values.get("agents")
        known = [f"agents.{name}.{key}" for name in (types if isinstance(types, dict) else ()) for key in _AGENT_KEYS]
        key, problem, hint = explain(error, known=[*_known_keys(Settings), *known])
        origin = layer.origin_of(tuple(key.split(".")))
        hint = hint or "correct it there; `drover config show` prints what is set"
        raise SettingsError(f"{key} ({origin}): {problem}", hint=hint) from None


def _fold_agent_path(merged: dict[KeyPath, object], ranks: dict[KeyPath, int], sources: dict[str, str]) -> None:
    """``agent_path`` is the program of the agent in use, unless a stronger place names that type's own."""
    own = ("agents", str(merged.get(("agent",), Settings.model_fields["agent"].default)), "path")
    if ("agent_path",) in merged and ranks.get(own, -1) <= ranks[("agent_path",)]:
        merged[own] = merged[("agent_path",)]
        sources[".".join(own)] = sources["agent_path"]


def _known_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted keys that always exist, as they are written in a file."""
    for name, about in model.model_fields.items():
        key = prefix + (about.alias or name)
        if isinstance(about.annotation, type) and issubclass(about.annotation, BaseModel):
            yield from _known_keys(about.annotation, f"{key}.")
        elif key not in ("sources", "warnings", "agents"):
            yield key


def _leaves(values: Mapping[str, object], prefix: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and prefix != ("hooks",):  # a hook's table is one value
            yield from _leaves(value, (*prefix, key))
        else:
            yield (*prefix, key), value


def _nested(leaves: Mapping[KeyPath, object]) -> dict[str, object]:
    tree: dict[str, object] = {}
    for (*tables, last), value in leaves.items():
        here = tree
        for table in tables:
            inner = here.setdefault(table, {})
            assert isinstance(inner, dict)  # noqa: S101 - every layer was checked: a key is a table in all or in none
            here = inner
        here[last] = value
    return tree

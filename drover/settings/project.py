"""The project a command works on: where it is, and the file that names it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from drover.domain.errors import NoProject, SettingsError
from drover.domain.models import Frozen

STATE = ".drover"
FILE = ".drover.toml"


class Project(Frozen):
    """A repository that drover works on; ``root`` is absolute and holds ``.drover/``."""

    root: Path

    @property
    def state_dir(self) -> Path:
        return self.root / STATE

    @property
    def config_file(self) -> Path:
        return self.root / FILE

    @property
    def database_url(self) -> str:
        """The store's URL when no setting names another."""
        return f"sqlite:///{self.state_dir / 'drover.db'}"


def find_project(start: Path, *, home: Path, named: str | None) -> Project | None:
    """The nearest directory from ``start`` upwards that holds ``.drover/`` and is inside a git repository.

    ``~/.drover`` never makes the home directory a project. ``named`` (relative to ``start``) is looked at
    alone, without going upwards.
    """
    if named:
        here = (start / Path(named).expanduser()).resolve()
        return Project(root=here) if _is_project(here, home) else None
    here = start.resolve()
    for directory in (here, *here.parents):
        if _is_project(directory, home):
            return Project(root=directory)
    return None


def get_project(start: Path, *, home: Path, named: str | None) -> Project:
    """As :func:`find_project`; raises NoProject saying what was looked at."""
    project = find_project(start, home=home, named=named)
    if project is not None:
        return project
    if named and not (start / Path(named).expanduser()).is_dir():
        raise NoProject(f"there is no directory {named}", hint="name the directory that holds .drover/")
    where = named or str(start)
    raise NoProject(f"{where} is not in a drover project", hint="in the repository to work on, type: drover init")


def _is_project(directory: Path, home: Path) -> bool:
    try:
        if not (directory / STATE).is_dir() or directory == home.resolve():
            return False
        return any((above / ".git").exists() for above in (directory, *directory.parents))
    except PermissionError:
        return False


def write_project_file(root: Path, *, name: str, project_id: str, target: str) -> tuple[str, ...]:
    """Make ``.drover.toml``, or add what its ``[project]`` lacks; the keys that were written, often none.

    A file that is there keeps every value and every line it has. Raises SettingsError if it cannot be read
    or its form leaves no place to add to.
    """
    path = (root / FILE).resolve()  # a symbolic link stays one
    wanted = {"name": name, "id": project_id, "target": target}
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except FileNotFoundError:
        _replace(path, _TEMPLATE.format(**{key: _quoted(value) for key, value in wanted.items()}))
        return tuple(wanted)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(
            f"{path} cannot be read: {error}", hint="correct the file, then type: drover init"
        ) from error
    table = values.get("project", {})
    if not isinstance(table, dict):
        raise SettingsError(f"project ({path}): {table!r} is not a table", hint="write [project] on a line of its own")
    missing = {key: value for key, value in wanted.items() if key not in table}
    if missing:
        _replace(path, _with_added(text, values, missing, path))
    return tuple(missing)


def _with_added(text: str, values: Mapping[str, object], missing: Mapping[str, str], path: Path) -> str:
    """The text with these keys in its ``[project]``: the first way of adding that changes nothing else."""
    table = values.get("project", {})
    wanted = {**values, "project": {**(table if isinstance(table, dict) else {}), **missing}}
    for changed in _ways_to_add(text, missing):
        with suppress(tomllib.TOMLDecodeError):
            if tomllib.loads(changed) == wanted:
                return changed
    keys = ", ".join(f"{key} = {_quoted(value)}" for key, value in missing.items())
    raise SettingsError(f"{path} holds [project] in a form that drover cannot add to", hint=f"add to it: {keys}")


def _ways_to_add(text: str, missing: Mapping[str, str]) -> Iterator[str]:
    lines = [f"{key} = {_quoted(value)}\n" for key, value in missing.items()]
    for header in re.finditer(r"^[ \t]*\[[ \t]*project[ \t]*\][ \t]*(#.*)?(\r?\n|\Z)", text, re.MULTILINE):
        before = text[: header.end()]
        yield before + ("" if before.endswith("\n") else "\n") + "".join(lines) + text[header.end() :]
    yield text + ("" if text.endswith("\n") or not text else "\n") + "\n[project]\n" + "".join(lines)
    yield "".join(f"project.{line}" for line in lines) + text


def _quoted(value: str) -> str:
    """A TOML basic string. JSON's form is TOML's, but for DEL, which TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _replace(path: Path, text: str) -> None:
    """Complete or not at all; an existing file keeps its permissions."""
    new = path.with_name(f"{FILE}.new")
    new.write_text(text, encoding="utf-8", newline="")
    if path.exists():
        new.chmod(path.stat().st_mode & 0o7777)
    new.replace(path)


_TEMPLATE = """\
# Settings of this project for drover. Meant to be committed: everyone who works on it shares them.
# `drover config show` prints each value and where it came from.
# A flag wins over the environment, that over this file, this file over your own config file.

# Which agent works, and how long it may take.
# agent = "claude"          # or codex, amp, opencode, command, scripted
# workers = 3               # tasks at the same time
# task_timeout = "60m"      # the longest one session of an agent may take
# stall_timeout = "15m"     # an agent without any sign of life this long is stopped; 0 turns it off
# max_attempts = 3          # failed executions before a task is given up
# guidelines = "Text that every prompt begins with. {{{{project}}}}, {{{{task_type}}}}, {{{{labels}}}} are filled in."
# task_template = "{{{{description}}}}"   # how a task's text reads in a prompt: say what is true of every task

[project]
name = {name}
id = {id}          # names the project in a shared database; never change it
target = {target}  # the branch that finished tasks land on

# The tests that a result must pass before it lands; they run in a fresh checkout of what would land.
# [verify]
# command = "make test"
# mode = "strict"           # or lenient (failures only warn), disabled
# timeout = "30m"

# [landing]
# style = "squash"          # or merge
# conflict_attempts = 2     # how often an agent is asked to resolve a conflict with the target

# Commands around a task, run in its worktree: one, {{ name = "command" }} side by side, or a list in order.
# [hooks]
# after_create = "npm ci"   # also before_agent, after_agent, pre_land, post_land, before_remove
# timeout = "10m"           # of each command

# [disk]
# floor = "1G"              # with less space free no new task is started
# reuse = 8                 # directories of landed tasks kept for later ones; 0 keeps none

# One table for each type of agent that needs something.
# [agents.claude]
# path = "/usr/local/bin/claude"
# model = "opus"
# env = ["NAME"]            # variables that it gets from your environment
"""

"""Writes the reference pages: docs/reference/cli/ from the commands' own help, settings.md from the model.

``generate_docs.py`` writes them, ``generate_docs.py --check`` only says which are not as they would be written.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

from cyclopts import App
from pydantic import BaseModel, ValidationError

from drover.cli import main as drover
from drover.cli.commands import build
from drover.domain.quantities import format_duration, format_size
from drover.domain.verdicts import CLASSES
from drover.settings import (
    AgentTable,
    BackpressureTable,
    BudgetTable,
    BuildingTable,
    DiskTable,
    HooksTable,
    LandingTable,
    LogsTable,
    PlanningTable,
    PoolTable,
    ProjectTable,
    RefinementTable,
    Settings,
    VerifyTable,
    WorkerTable,
)
from drover.settings.sources import ENVIRONMENT

DOCS = Path(__file__).parents[1] / "docs"
NOTE = "<!-- Written by scripts/generate_docs.py from the program itself; do not edit. -->\n"

# What each key means. A key without a line here, or a line without its key, stops the generator.
MEANINGS = {
    "agent": "Which type of agent works on tasks that name none themselves.",
    "agent_path": "The program of the agent in use, and words to put before its own, split as a shell splits words.",
    "workers": "How many tasks are worked on at the same time.",
    "task_timeout": "The longest one execution of an agent may take, its children included.",
    "claim_timeout": "The lease: a claim that nobody has renewed for this long may be taken over.",
    "stall_timeout": "An agent without output, CPU use or changed files for this long is stopped and the task retried.",
    "max_attempts": "How many failed executions a task may have. Interruptions, lost leases and limits do not count.",
    "database_url": "The one store. A relative SQLite path is relative to the project. "
    "Unset: `sqlite:///.drover/drover.db`.",
    "operator": "Who is recorded as having done a thing. Unset: git's `user.name`.",
    "guidelines": "Text that every prompt begins with. `{{project}}`, `{{task_type}}`, `{{labels}}`, `{{epic}}`, "
    "`{{task_id}}` and `{{title}}` are filled in.",
    "task_template": "How a task's text reads in a prompt, with a place for it: `{{description}}`. The same names are "
    "filled in as in `guidelines`.",
    "mode": "`planning`: agents write plans and nothing is built. `building`: only tasks whose plan was approved. "
    "`combined`: each task is done in one go.",
    "project.name": "What the project is called.",
    "project.id": "Names the project in a shared database; never change it.",
    "project.target": "The branch that finished tasks land on.",
    "verify.command": "The tests, run by `/bin/sh -c` in a checkout of what would land. Unset: nothing is tested.",
    "verify.mode": "`strict`: what fails does not land. `lenient`: it lands, and the failure is kept. "
    "`disabled`: nothing runs.",
    "verify.scope": "`skip` runs nothing; `all` and `diff` run the command.",
    "verify.timeout": "The longest the command may take.",
    "verify.retries": "How often a command that failed is tried again on the same tree.",
    "landing.style": "`squash`: one commit a task. `merge`: a merge commit whose second parent is the task's.",
    "landing.conflict_attempts": "How often an agent is asked to resolve a conflict with what landed meanwhile.",
    "landing.parallel": "How many results may be tested at the same time.",
    "host": "What this machine is called among those that share a backlog; nothing: its own name.",
    "snapshot_every": "How often an agent's work is saved on a ref while it works: what a lost machine can cost.",
    "landing.push": "A remote that the target branch is pushed to; then `completed` means that it is there, too.",
    "planning.require_approval": "Whether a plan waits until a person approves it.",
    "planning.auto_approve_low": "A plan that its agent calls of low complexity needs nobody's approval.",
    "planning.max_steps": "A plan of more steps is refused, and the agent told.",
    "building.approved_only": "Whether `--mode building` leaves tasks alone that have no approved plan.",
    "building.verify_steps": "Whether an agent is given the steps of an approved plan one by one, each to be checked "
    "the way the plan says before the next.",
    "refinement.enabled": "Whether a rejected plan goes back to an agent.",
    "refinement.max_refinements": "How many rejected plans of a task do so; after that it waits for a person.",
    "logs.limit": "How much is kept of each stream of each execution; of what is longer, the beginning and the end.",
    "disk.reuse": "How many directories of landed tasks are kept to become those of later ones, each as large as a "
    "checkout: what has changed since is all that then has to be written. `0` keeps none.",
    "disk.floor": "With less space free no new task is started; those at work go on. `0` turns it off.",
    "backpressure.enabled": "Whether anything of this table holds a task back. How long a limit is waited out stays.",
    "backpressure.initial_concurrency": "How many tasks a run begins with. Unset: as many as it may.",
    "backpressure.min_concurrency": "What no refusal goes below.",
    "backpressure.max_concurrency": "What no success goes above. Unset: the number of workers.",
    "backpressure.rate_limit_backoff": "The first wait after a refusal for too many requests that told no time; "
    "doubled with each in a row, half of it at random.",
    "backpressure.max_backoff": "The longest such wait.",
    "backpressure.memory_aware_enabled": "Whether memory is looked at before a task is started.",
    "backpressure.memory_threshold_mb": "With less memory available than this another task is started only if "
    "`worker_rss_limit_mb` more fits above the critical floor, or none runs.",
    "backpressure.memory_critical_mb": "With less memory available than this no task is started.",
    "backpressure.worker_rss_limit_mb": "What one agent is expected to use of memory.",
    "worker.memory_limit": "An agent that uses more memory than this, with all it has started, is stopped and its "
    "attempt fails as `memory`. Unset: none is.",
    "worker.contain": "Every agent runs in a PID namespace of its own (Linux, `unshare`): what it starts cannot "
    "outlive it, even when drover and its supervisor are killed at the same moment.",
    "budget.task_usd": "What all executions of a task may cost.",
    "budget.epic_usd": "What all tasks of an epic may cost.",
    "budget.run_usd": "What one run may cost; `--budget` wins.",
    "budget.day_usd": "What the executions that begin on one day may cost, whatever run they belong to. "
    "Days are those of the machine's clock.",
    "budget.tokens": "How many tokens one run may use.",
    "budget.estimate_usd": "What a claim puts aside for its execution. Unset: the mean of the agent's executions "
    "so far, $0.50 before there is any.",
    "budget.warn_percent": "At how much of a limit a warning is told.",
    "pool.enabled": "Whether clones are made ahead; `--pool` does.",
    "pool.min_size": "How many warm clones a run keeps at least, while tasks are ready.",
    "pool.max_size": "How many it keeps at most; one more is kept for each task that had found none.",
    "pool.warmup": "The longest the making of one, its set-up included, may take.",
    "pool.cleanup_on_exit": "Whether warm clones go at the end of a run that was not stopped.",
    "pool.lock_files": "Names of files: where one differs, in whichever directory, a warm clone is made anew.",
    "hooks.after_create": "When a task's worktree has been made, before anything works in it.",
    "hooks.before_agent": "Before the agent of an attempt begins.",
    "hooks.after_agent": "When the agent has ended, well or badly. What it changes is taken with the work.",
    "hooks.pre_land": "Before a tested result lands.",
    "hooks.post_land": "When a result has landed.",
    "hooks.before_remove": "Before a worktree is removed.",
    "hooks.timeout": "The longest each of these commands may take, unless it names its own.",
    "agents.fallback": "Agents that stand in, the first that can, while what an agent's account may use is used up.",
    "agents.TYPE.path": "Its program. Unset: found on the PATH.",
    "agents.TYPE.args": "Words added to its command line.",
    "agents.TYPE.model": "The model it is asked to use.",
    "agents.TYPE.permissions": "What it may do without asking, in the agent's own words.",
    "agents.TYPE.env": "Names of variables that it gets from drover's environment.",
    "agents.TYPE.set": "A table of variables and their values.",
}
TABLES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("", Settings),
    ("project", ProjectTable),
    ("verify", VerifyTable),
    ("landing", LandingTable),
    ("planning", PlanningTable),
    ("building", BuildingTable),
    ("refinement", RefinementTable),
    ("logs", LogsTable),
    ("disk", DiskTable),
    ("backpressure", BackpressureTable),
    ("worker", WorkerTable),
    ("budget", BudgetTable),
    ("pool", PoolTable),
    ("hooks", HooksTable),
    ("agents.TYPE", AgentTable),
)
TOO_MUCH = ("99999d", "99999T", 10**9)


def main() -> int:
    """0 when the pages are as they should be, 1 when ``--check`` found one that is not."""
    pages = {
        "settings.md": settings_page(),
        "outcomes.md": outcomes_page(),
        **{f"cli/{name}.md": page for name, page in command_pages()},
    }
    if "--check" not in sys.argv[1:]:
        write(pages)
        return 0
    wrong = stale(pages)
    for name in wrong:
        sys.stdout.write(f"docs/reference/{name} is not what the program says; run: make docs\n")
    return 1 if wrong else 0


def write(pages: dict[str, str]) -> None:
    shutil.rmtree(DOCS / "reference" / "cli", ignore_errors=True)
    (DOCS / "reference" / "cli").mkdir(parents=True)
    for name, text in pages.items():
        (DOCS / "reference" / name).write_text(text, encoding="utf-8")


def stale(pages: dict[str, str]) -> list[str]:
    """Pages that are missing, different, or there without their command."""
    there = {f"cli/{path.name}" for path in (DOCS / "reference" / "cli").glob("*.md")}
    wrong = sorted(there - set(pages))
    for name, text in pages.items():
        path = DOCS / "reference" / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            wrong.append(name)
    return wrong


# ---------------------------------------------------------------- outcomes


def outcomes_page() -> str:
    """Every class of outcome, from the table that the program itself decides by."""
    parts = [NOTE, "# Outcomes\n", _OUTCOMES]
    for outcome, follows in CLASSES.items():
        lines = [f"{follows.meaning}", f"- by itself: **{_THEN[follows.then]}** {follows.how}"]
        lines += [f"- what you can do: {follows.advice}"] if follows.advice else []
        parts.append(f"## `{outcome}`\n\n{lines[0]}\n\n" + "\n".join(lines[1:]) + "\n")
    return "\n".join(parts)


_OUTCOMES = """\
What an execution of an agent can come to. `drover info` shows it for each execution, and with it how the session
was taken up; a failed task names the class of its last error. An attempt is used up only by what is *retried* or
*fails* below; what *waits*, *asks* or *goes on* costs none.
"""
_THEN = {
    "lands": "lands.",
    "retried": "retried, as long as attempts are left.",
    "waits": "waits, then goes on.",
    "asks": "waits for you.",
    "goes on": "goes on.",
    "fails": "fails at once.",
}


# ---------------------------------------------------------------- the command line


def command_pages() -> Iterator[tuple[str, str]]:
    """One page a command, its sub-commands below it, and the list of all."""
    names = command_names()
    lines = [NOTE, "# The commands\n", "`drover` and `python -m drover` are the same.\n", help_of()]
    lines += ["## Pages\n", "\n".join(f"- [drover {name}]({name}.md)" for name, _ in names) + "\n"]
    yield "README", "\n".join(lines)
    for name, below in names:
        parts = [NOTE, f"# drover {name}\n", help_of(name)]
        for sub in below:
            parts += [f"## drover {name} {sub}\n", help_of(name, sub)]
        yield name, "\n".join(parts)


def command_names() -> list[tuple[str, list[str]]]:
    """Every command in the order of ``drover --help``, with its sub-commands."""
    app = build()
    return [(name, _plain_names(app[name])) for name in _plain_names(app)]


def _plain_names(app: App) -> list[str]:
    return [name for name in app if not name.startswith("-")]


def help_of(*command: str) -> str:
    """What ``drover COMMAND --help`` prints, as a block."""
    out = io.StringIO()
    with _environment(COLUMNS="100", TERM="dumb", NO_COLOR="1"), contextlib.redirect_stdout(out):
        code = drover([*command, "--help"])
    if code != 0:
        raise SystemExit(f"drover {' '.join(command)} --help ended with {code}")
    return f"```text\n$ drover {' '.join([*command, '--help'])}\n{out.getvalue().rstrip()}\n```\n"


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# ---------------------------------------------------------------- the settings


def settings_page() -> str:
    """Every key of the settings model with its type, range, default and variable."""
    known = {key for table, model in TABLES for key, _ in keys_of(table, model)}
    if known != set(MEANINGS):
        raise SystemExit(f"MEANINGS and the settings differ in: {', '.join(sorted(known ^ set(MEANINGS)))}")
    parts = [NOTE, "# Settings\n", _INTRODUCTION]
    for table, model in TABLES:
        parts.append(f"## `[{table}]`\n" if table else "## At the top of the file\n")
        about = (model.__doc__ or "").strip().partition("\n\n")[0].replace("``", "`")
        if table:
            parts.append(f"{' '.join(about.split())}\n")
        parts.append(_table(table, model))
    parts.append(_VARIABLES + "\n".join(f"| `{variable}` | `{key}` |" for variable, key in ENVIRONMENT) + "\n")
    parts.append(_QUANTITIES)
    return "\n".join(parts)


def keys_of(table: str, model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """The dotted key as it is written in a file, and the attribute's name."""
    for name, about in model.model_fields.items():
        nested = isinstance(about.annotation, type) and issubclass(about.annotation, BaseModel)
        if not nested and name not in ("agents", "sources", "warnings"):
            yield f"{table}.{about.alias or name}".lstrip("."), name


def _table(table: str, model: type[BaseModel]) -> str:
    rows = ["| key | value | default | means |", "|---|---|---|---|"]
    for key, name in keys_of(table, model):
        short = key.removeprefix(f"{table}.")
        rows.append(f"| `{short}` | {_kind(model, name)} | {_default(model, name)} | {MEANINGS[key]} |")
    return "\n".join(rows) + "\n"


def _kind(model: type[BaseModel], name: str) -> str:
    """What may be written there. Ranges are asked of the model itself, by giving it too much."""
    field = model.model_fields[name]
    for annotation in (field.annotation, *get_args(field.annotation)):
        if get_origin(annotation) is Literal:
            return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    if model is HooksTable and not name.endswith("_ms"):
        return "a command, a table of them side by side, or a list in order"
    if field.annotation is bool:
        return "`true`, `false`"
    if get_origin(field.annotation) is tuple:
        return "a list of texts"
    if name == "set":
        return "a table"
    for value in TOO_MUCH:
        try:
            model.model_validate({field.alias or name: value})
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            if "it may be " in message:
                what = {"d": "a duration ", "T": "a size "}.get(str(value)[-1], "a number ")
                return what + message.partition("it may be ")[2]
    return "a text"


def _default(model: type[BaseModel], name: str) -> str:
    field = model.model_fields[name]
    value = field.get_default(call_default_factory=True)
    if name.endswith("_ms"):
        return f"`{format_duration(value)}`"
    if name in ("limit", "floor"):
        return f"`{format_size(value)}`"
    if value in (None, "", (), {}):
        return "unset"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


_INTRODUCTION = """\
Where a value comes from, the strongest first: a flag, the environment, `.drover.toml` in the repository, your own file
(`$XDG_CONFIG_HOME/drover/config.toml`, usually `~/.config/drover/config.toml`), the default. `drover config show`
prints every value and its source; `drover config path` prints where the files are.

A value that does not parse, an unknown key or a number out of range stops the command with exit code 2 and names the
key and the place; nothing is guessed. That holds also where a stronger place would have overridden it. `[project]` may
only stand in a repository's file.
"""
_VARIABLES = """\
## Variables

A variable that is empty counts as unset. Of two for one key the first that is set counts. `DROVER_PROJECT` names the
project's directory, as `--project` does. `DROVER_CLAUDE_PATH` is an old name and warns.

| variable | key |
|---|---|
"""
_QUANTITIES = """\
## Durations, sizes, switches

Durations are written with their units, from large to small: `500ms`, `90s`, `5m`, `1h30m`, `2d`. Sizes are powers of
1024: `512M`, `2G`, `64K`. In both a bare `0` needs no unit. Variables are read by the same rules as the file.
"""


if __name__ == "__main__":
    raise SystemExit(main())

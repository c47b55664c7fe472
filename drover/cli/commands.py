"""The table of commands: their names, where each lives, and the line that `drover --help` says of it.

Commands are registered by the place they live at, so that only the one that is typed is imported.
"""

from __future__ import annotations

from collections.abc import Sequence

from cyclopts import App, Group, Parameter

from drover import __version__
from drover.cli.help import Columns

_START = Group("Start", sort_key=1)
_BACKLOG = Group("Backlog", sort_key=2)
_RUN = Group("Run", sort_key=3)
_SEE = Group("See", sort_key=4)
_STEER = Group("Steer", sort_key=5)
_DROVER = Group("Drover itself", sort_key=6)

_COMMANDS: tuple[tuple[Group, str, str, str], ...] = (
    (_START, "init", "start:init", "Make the repository around a drover project."),
    (_START, "demo", "demo:demo", "Show the whole promise: a run, a hard kill, a resume, a proof."),
    (_START, "doctor", "doctor:doctor", "Check what an unattended night needs."),
    (_START, "config", "config:config", "Show the settings and where each came from."),
    (_BACKLOG, "epic", "epic:epic", "Containers of tasks: add, list, show, close."),
    (_BACKLOG, "add", "task:add", "Add a task."),
    (_BACKLOG, "quick", "task:quick", "Add a task, nothing else asked."),
    (_BACKLOG, "list", "listing:list_tasks", "One line a task."),
    (_BACKLOG, "ready", "listing:ready", "The tasks that could start now."),
    (_BACKLOG, "block", "task:block", "Let a task wait for others."),
    (_BACKLOG, "unblock", "task:unblock", "Let a task wait no longer for others."),
    (_BACKLOG, "edit-task", "task:edit_task", "Change a task that is not running."),
    (_BACKLOG, "info", "info:info", "Everything about a task."),
    (_BACKLOG, "logs", "logs:logs", "The agent's words and the tests' output."),
    (_BACKLOG, "diff", "info:diff", "What a task changed, or has changed so far."),
    (_RUN, "run", "run:run", "Drive every eligible task to completion."),
    (_RUN, "plan", "plan:plan", "What agents mean to do: list, show, approve, reject, delete, review."),
    (_RUN, "resume", "run:resume", "Go on with the last run, saying first what it left."),
    (_SEE, "status", "status:status", "Counts, what is running, what needs a person."),
    (_SEE, "watch", "status:watch", "The status, live."),
    (_SEE, "cost", "cost:cost", "What agents have used."),
    (_SEE, "stream", "stream:stream", "The event log."),
    (_BACKLOG, "context", "info:context", "What a task's agent will be given."),
    (_SEE, "recap", "morning:recap", "What happened since yesterday evening, in a screen."),
    (_SEE, "attach", "attach:attach", "The live session of a task's agent."),
    (_STEER, "inbox", "morning:inbox", "What needs you, and what settles it."),
    (_STEER, "answer", "steer:answer", "Answer an agent's question."),
    (_STEER, "hint", "steer:hint", "Tell a task's agent something."),
    (_STEER, "pause", "steer:pause", "Stop tasks until you let them go on."),
    (_STEER, "resume-task", "steer:resume_task", "Let a paused task go on."),
    (_STEER, "edit", "steer:edit", "Print where a task's worktree is."),
    (_STEER, "cancel", "steer:cancel", "Stop tasks for good."),
    (_STEER, "retry", "steer:retry", "Give failed or cancelled tasks another chance."),
    (_STEER, "reset", "steer:reset", "Put tasks back to the start."),
    (_STEER, "resolve", "steer:resolve", "Drop what a task still waits for."),
    (_STEER, "agent", "agent:agent", "The limits of agents' accounts: list, lift."),
    (_STEER, "db", "db:db", "The database: status, migrate, copy, backup, check, adopt."),
    (_STEER, "worktree", "worktree:worktree", "What is on disk: list, prune, cleanup, restore."),
)

_ABOUT = """Drives a backlog of coding-agent tasks to completion and lands each exactly once.

Start with: drover init, drover add "…", drover run. Whatever happens, drover resume goes on.
"""


NAMES = tuple(name for _, name, _, _ in _COMMANDS)


def build(words: Sequence[str] = ()) -> App:
    """The whole command line; nothing of a command is imported yet.

    ``words`` are what was typed. A line of the table stands in for a command's own text only where all are
    listed: given always, it would replace that text on the command's own page.
    """
    listing = not words or words[0] in ("--help", "-h")
    app = App(
        name="drover",
        help=_ABOUT,
        version=__version__,
        version_flags=("--version",),
        help_format="plaintext",
        help_formatter=Columns(),
        default_parameter=Parameter(show_default=False, negative=(), consume_multiple=False),
        group_commands=_DROVER,
        group_parameters=Group("Options"),
        print_error=False,
        exit_on_error=False,
        result_action="return_value",
    )
    for place, (group, name, where, line) in enumerate(_COMMANDS):
        app.command(f"drover.cli.{where}", name=name, help=line if listing else None, group=group, sort_key=place)
    app.register_install_completion_command(help="Install completion for bash, zsh or fish.")
    return app

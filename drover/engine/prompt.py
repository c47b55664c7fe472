"""What an agent is told. Everything foreign in it is marked as quoted."""

from __future__ import annotations

from collections.abc import Sequence

from drover.domain.models import Task, Worktree
from drover.domain.verdicts import Outcome

ERROR_LIMIT = 6_000
SUMMARY_LIMIT = 1_500


def task_prompt(
    task: Task,
    *,
    guidelines: str,
    blockers: Sequence[tuple[Task, str]],
    tree: Worktree,
    test_command: str | None,
) -> str:
    """The whole prompt of a session's start. ``blockers``: finished tasks and the last words of their agents."""
    parts = []
    if guidelines.strip():
        parts.append(f"# Project guidelines\n\n{guidelines.strip()}")
    parts.append(f"# Task {task.id}: {task.title}")
    if task.description.strip():
        parts.append(task.description.strip())
    if task.labels:
        parts.append("Labels: " + ", ".join(task.labels))
    if blockers:
        lines = [
            f"- {b.id}: {b.title}" + (f"\n{_quoted(words, SUMMARY_LIMIT)}" if words else "") for b, words in blockers
        ]
        parts.append("# Done before this task\n\nTheir changes are in your working directory.\n\n" + "\n".join(lines))
    parts.append(_terms(task, test_command))
    if tree.conflicts:
        parts.append(_conflict(tree))
    if task.error is not None and not tree.conflicts:
        parts.append(_last_error(task))
    return "\n\n".join(parts) + "\n"


def follow_up(task: Task, tree: Worktree, *, interrupted: bool) -> str:
    """What to say when the session goes on: why it stopped, and what is wanted now."""
    if interrupted:
        return (
            "You were interrupted in the middle of this task; your changes are still in the working directory. "
            "Look at what is done, then go on and finish it.\n"
        )
    if tree.conflicts:
        return _conflict(tree) + "\n"
    # The operator may have changed the task since the session began.
    reads = f"The task now reads:\n\n# Task {task.id}: {task.title}\n\n{task.description.strip()}".rstrip() + "\n"
    if task.error is not None:
        return f"{_last_error(task)}\n\n{reads}"
    return f"Go on with the task and finish it. {reads}"


def _terms(task: Task, test_command: str | None) -> str:
    lines = [
        "# How to work",
        "",
        "- The current directory is a private clone made for this task. Change only files in it.",
        "- You need not commit: what is in the directory when you end is taken, committed and merged for you.",
        "- Nobody can answer questions while you work. If a person has to decide something before you can go on, "
        "end with a last line that begins with NEEDS_HUMAN: and says what you need to know.",
        "- Finish the whole task. End when it is done.",
    ]
    if test_command:
        lines.insert(4, f"- Before your work is merged this has to succeed: `{test_command}`")
    return "\n".join(lines)


def _conflict(tree: Worktree) -> str:
    paths = "\n".join(f"- {path}" for path in tree.conflicts)
    return (
        "# Conflicts to resolve\n\n"
        "While you worked, others changed the same places on the target branch. Your work has been put on top of "
        "theirs in the working directory; these files hold conflict markers (<<<<<<<, =======, >>>>>>>), the upper "
        f"side theirs, the lower side yours:\n\n{paths}\n\n"
        "Resolve every conflict so that both intentions are kept, and leave no markers behind."
    )


def _last_error(task: Task) -> str:
    error = task.error
    if error is None:
        return ""
    what = {
        Outcome.VERIFY: "The tests failed on your work merged with the target branch",
        Outcome.NO_CHANGE: "You ended without changing any file. If nothing has to be changed, say so and why; "
        "otherwise make the change",
        Outcome.TIMEOUT: "You ran out of time",
        Outcome.STALLED: "You showed no sign of life for too long and were stopped",
    }.get(Outcome(error.error_class), "The last attempt failed")
    return (
        f"# The last attempt\n\n{what}. What was reported:\n\n{_quoted(error.message, ERROR_LIMIT)}\n\n"
        "What you had done is still in the working directory. Put it right and finish the task."
    )


def _quoted(text: str, limit: int) -> str:
    """Foreign text, cut from its middle, every line marked."""
    if len(text) > limit:
        text = text[: limit // 3] + "\n[…]\n" + text[-2 * limit // 3 :]
    return "\n".join(f"> {line}" for line in text.strip().splitlines())

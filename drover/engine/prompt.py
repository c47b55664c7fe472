"""What an agent is told. Everything foreign in it is marked as quoted."""

from __future__ import annotations

import re
from collections.abc import Sequence

from drover.domain.models import Task, Word, Worktree
from drover.domain.plans import Plan
from drover.domain.verdicts import Outcome
from drover.engine.legacy import Legacy

ERROR_LIMIT = 6_000
SUMMARY_LIMIT = 1_500
WORDS_LIMIT = 8_000  # of all that a person said
LAST_WORDS_LIMIT = 3_000
BACKGROUND_LIMIT = 16_000  # of all that finished tasks have left
PARENT_LIMIT = 4_000
PATHS_LIMIT = 30
TITLE_LIMIT = 200
HERE = "Their changes are in your working directory."
_PLACE = re.compile(r"\{\{ *(\w+) *\}\}")
PATCH_LIMIT = 24_000


def task_prompt(
    task: Task,
    *,
    guidelines: str,
    template: str,
    project: str,
    parent: Task | None,
    blockers: Sequence[Legacy],
    plan: Plan | None,
    tree: Worktree,
    test_command: str | None,
    words: Sequence[str] = (),
) -> str:
    """The whole prompt of a session's start.

    ``blockers``: what finished tasks have left; ``plan``: the approved one; ``words``: what a person has said since.
    """
    parts = []
    if guidelines.strip():
        parts.append(f"# Project guidelines\n\n{fill(guidelines, task, project).strip()}")
    parts.append(f"# Task {task.id}: {task.title}")
    if template.strip():
        parts.append(fill(template, task, project).strip())
    else:
        parts += [task.description.strip()] if task.description.strip() else []
        parts += ["Labels: " + ", ".join(task.labels)] if task.labels else []
    if parent is not None:
        parts.append(_whole(parent))
    parts += background(task, blockers)
    if plan is not None:
        parts.append(
            "# The plan\n\nIt was read and approved. Follow it; where the code proves it wrong, keep to its intent."
            f"\n\n{plan.draft.as_text()}"
        )
    parts.append(_terms(task, test_command))
    if tree.conflicts:
        parts.append(_conflict(tree))
    if task.error is not None and not tree.conflicts:
        parts.append(last_error(task))
    return "\n\n".join([*parts, *words]) + "\n"


def fill(text: str, task: Task, project: str) -> str:
    """``{{project}}``, ``{{task_type}}``, ``{{labels}}`` and other facts of the task in their places.

    Braces that name no fact stay as they are: guidelines may well speak of templates.
    """
    facts = {
        "project": project,
        "task_id": task.id,
        "task_type": task.type,
        "labels": ", ".join(task.labels) or "none",
        "epic": task.epic_id or "none",
        "title": task.title,
        "description": task.description.strip(),
    }
    return _PLACE.sub(lambda place: facts.get(place[1], place[0]), text)


def background(task: Task, blockers: Sequence[Legacy]) -> list[str]:
    """What was done before the task, in sections of bounded size; of too much, what landed last is told in full."""
    told: dict[str, str] = {}
    room = BACKGROUND_LIMIT
    for left in reversed(blockers):
        title = f"- {left.task.id}: {left.task.title[:TITLE_LIMIT]}"
        whole = "\n".join([title, *_left(left)])
        told[left.task.id] = whole if len(whole) <= room else title
        room -= len(told[left.task.id])
        if room < 0:
            break
    parts = [told[left.task.id] for left in blockers if left.task.id in told and left.task.parent_id == task.id]
    others = [told[left.task.id] for left in blockers if left.task.id in told and left.task.parent_id != task.id]
    if untold := len(blockers) - len(told):
        others.insert(0, f"- and {untold} before these")
    sections = []
    if others:
        sections.append(f"# Done before this task\n\n{HERE}\n\n" + "\n".join(others))
    if parts:
        sections.append(
            f"# Its sub-tasks are done\n\n{HERE} See that the whole is right, and do what is left of it. If nothing is "
            "left, end without changing a file.\n\n" + "\n".join(parts)
        )
    return sections


def _left(left: Legacy) -> list[str]:
    lines = []
    if left.paths:
        more = len(left.paths) - PATHS_LIMIT + left.more_paths
        listed = ", ".join(left.paths[:PATHS_LIMIT]) + (f" and {more} more" if more > 0 else "")
        lines.append(f"  changed: {listed}")
    lines += [f"  decided: {decision}" for decision in left.decisions]
    return lines + ([quoted(left.summary, SUMMARY_LIMIT)] if left.summary.strip() else [])


def _whole(parent: Task) -> str:
    words = f"# The whole it is a part of\n\nThis is a sub-task of {parent.id}: {parent.title}. Do your part only."
    text = parent.description.strip()
    return f"{words}\n\n{quoted(text, PARENT_LIMIT)}" if text else words


def follow_up(
    task: Task, tree: Worktree, *, interrupted: bool, lost_power: bool = False, words: Sequence[str] = ()
) -> str:
    """What to say when the session goes on: why it stopped, what a person has said since, and what is wanted now.

    With the task, for the operator may have changed it, and a session that silently began blank knows none.
    """
    if interrupted:
        why = (
            "You were interrupted in the middle of this task; your changes are still in the working directory. "
            "Look at what is done, then go on and finish it."
        )
        if lost_power:
            why += (
                " The machine was started again since: what was written shortly before may be missing or empty, "
                "so look into the files themselves."
            )
    elif tree.conflicts:
        why = _conflict(tree)
    elif task.error is not None:
        why = last_error(task)
    else:
        why = "Go on with the task and finish it."
    reads = f"The task now reads:\n\n# Task {task.id}: {task.title}\n\n{task.description.strip()}".rstrip()
    return "\n\n".join([why, *words, reads]) + "\n"


def handover(agent: str, words: str, patch: str) -> str:
    """For a session that has to go on with what an earlier one of ``agent`` did: its last words, and the diff so far.

    Empty when there is neither.
    """
    if not words.strip() and not patch.strip():
        return ""
    parts = [
        "# This is a continuation\n\n"
        f"An earlier session ({agent}) worked on this task. What it did is in the working directory; what it knew "
        "is not at hand, but for what follows. Look at it, then go on from there: do not begin again."
    ]
    if words.strip():
        parts.append(f"Its last words:\n\n{quoted(words, LAST_WORDS_LIMIT)}")
    if patch.strip():
        parts.append(f"What it has changed so far:\n\n{quoted(patch, PATCH_LIMIT)}")
    else:
        parts.append("It has changed no file so far.")
    return "\n\n".join(parts) + "\n"


def about_no_change() -> str:
    """What an agent is asked that says it is done and has changed nothing."""
    return (
        "You ended, and you changed no file. Is nothing to be done? If that is right, say why in a sentence or two. "
        "Otherwise make the change now, in the working directory, and finish the task.\n"
    )


def said(words: Sequence[Word]) -> list[str]:
    """What a person said, as the agent is told it, oldest first; of too much, the latest."""
    parts: list[str] = []
    room = WORDS_LIMIT
    for word in reversed(words):
        told = quoted(word.text, WORDS_LIMIT)
        if word.question:
            asked = quoted(word.question, SUMMARY_LIMIT)
            part = f"You asked a person:\n\n{asked}\n\nThe answer:\n\n{told}"
        else:
            part = f"A person who watches over this task says:\n\n{told}"
        room -= len(part)
        if room < 0 and parts:
            break
        parts.insert(0, part)
    return parts


def _terms(task: Task, test_command: str | None) -> str:
    lines = [
        "# How to work",
        "",
        "- The current directory is a private clone made for this task. Change only files in it.",
        "- You need not commit: what is in the directory when you end is taken, committed and merged for you.",
        "- Nobody can answer questions while you work. If a person has to decide something before you can go on, "
        "end with a last line that begins with NEEDS_HUMAN: and says what you need to know.",
        "- Finish the whole task. End when it is done.",
        "- Say in your last words what you did. Begin a line of them with DECISION: for each decision that later tasks "
        "have to know.",
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


def last_error(task: Task) -> str:
    """What the last attempt came to, for the agent of the next one."""
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
        f"# The last attempt\n\n{what}. What was reported:\n\n{quoted(error.message, ERROR_LIMIT)}\n\n"
        "What you had done is still in the working directory. Put it right and finish the task."
    )


def quoted(text: str, limit: int) -> str:
    """Foreign text, cut from its middle, every line marked."""
    if len(text) > limit:
        text = text[: limit // 3] + "\n[…]\n" + text[-2 * limit // 3 :]
    return "\n".join(f"> {line}" for line in text.strip().splitlines())

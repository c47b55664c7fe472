"""The program behind the scripted agent: ``scripted_plan.py start|resume SESSION_FILE SESSION_ID``, prompt on stdin.

Standard library only; it starts in 20 ms. The plan is every line of the task's description that is one
of these, with words as in a shell; without any it writes ``<task-id>.md`` holding the task's title. Asked to plan
(``DROVER_PLAN``), it writes these lines as the steps of a plan, and beside them what was wrong with its last one:

    write PATH TEXT      append PATH TEXT     wait 2s          say TEXT
    fail N [MESSAGE]     later 5s             ask QUESTION

``fail N`` fails as long as the number of the attempt is not above N. A session is a file: what has been
done in it is not done again when it is resumed. In files the prompt names as conflicting, both sides are kept.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time

VERBS = {"write": 2, "append": 2, "wait": 1, "say": 1, "fail": 1, "later": 1, "ask": 1}  # verb → words it needs
_TITLE = re.compile(r"^# Task (\S+): (.*)$", re.MULTILINE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_CONFLICT = re.compile(r"^<<<<<<<[^\n]*\n(.*?)(?:^\|{7}[^\n]*\n.*?)?^={7}[^\n]*\n(.*?)^>>>>>>>[^\n]*\n?", re.M | re.S)


def parse(prompt: str) -> list[list[str]]:
    """The steps of the plan in a prompt's task section, as verb and words."""
    title = _TITLE.search(prompt)
    if title is None:
        return [["say", "there is no task here"]]
    section = prompt[title.end() :].split("\n# ", 1)[0]
    steps = [step for line in section.splitlines() if (step := _step(line))]
    return steps or [["write", f"{title[1]}.md", f"{title[2]}\n"]]


def _step(line: str) -> list[str] | None:
    if not line.startswith(tuple(VERBS), len(line) - len(line.lstrip())):
        return None  # prose, of which there may be a megabyte
    try:
        words = shlex.split(line)
    except ValueError:  # an apostrophe in prose
        return None
    if not words or len(words) <= VERBS.get(words[0], len(words)):
        return None
    verb, first = words[0], words[1]
    if (verb == "fail" and not first.isdecimal()) or (verb in ("wait", "later") and not _DURATION.fullmatch(first)):
        return None
    if verb in ("write", "append"):
        return [verb, first, " ".join(words[2:])]
    return [verb, " ".join(words[1:])] if verb in ("say", "ask") else words


def seconds(text: str) -> float:
    """``1.5s``, ``200ms``, ``2m``."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"not a duration: {text}")
    return float(match[1]) * _UNITS[match[2]]


def tell(kind: str, **facts: object) -> None:
    """One event on standard output."""
    print(json.dumps({"type": kind, **facts}), flush=True)


class Session:
    """What is to be done, and how much of it is, in a file that is replaced as a whole at each step."""

    def __init__(self, path: str, plan: list[list[str]], done: int = 0, begun: bool = False) -> None:
        self.path, self.plan, self.done, self.begun = path, plan, done, begun
        self.conflicts: list[str] = []  # files that the last prompt named and that may still hold markers

    @classmethod
    def open(cls, path: str) -> Session | None:
        try:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib would be a third of the start
                kept = json.load(file)
        except FileNotFoundError:
            return None
        session = cls(path, kept["plan"], kept["done"], kept["begun"])
        session.conflicts = kept["conflicts"]
        return session

    def save(self) -> None:
        kept = {"plan": self.plan, "done": self.done, "begun": self.begun, "conflicts": self.conflicts}
        replace(self.path, json.dumps(kept), self.path + ".tmp")

    def resolve(self, prompt: str) -> None:
        """Keep both sides of every conflict in the files that this prompt, or an interrupted one, has named."""
        named = [line[2:].strip() for line in prompt.splitlines() if line.startswith("- ")]
        self.conflicts += [path for path in named if os.path.isfile(path)]  # noqa: PTH113 - as above
        self.save()
        for path in self.conflicts:
            old = content(path)
            if "<<<<<<<" in old:
                replace(path, _CONFLICT.sub(r"\1\2", old), self.path + ".file")
                tell("words", text=f"Kept both sides in {path}")
        self.conflicts = []
        self.save()

    def write_plan(self, path: str, prompt: str) -> dict[str, object]:
        """The steps as a plan that drover reads, instead of doing them."""
        title = _TITLE.search(prompt)
        wrong = [line[2:] for line in prompt.splitlines() if line.startswith("> ")]
        plan = {
            "summary": (title[2] if title else "nothing") + "".join(f"\nMinding: {line}" for line in wrong),
            "steps": [{"title": " ".join(step)[:200].replace("\n", " ")} for step in self.plan],
            "complexity": "medium",
        }
        replace(path, json.dumps(plan, indent=2), path + ".tmp")
        return {"verdict": "done", "summary": f"Wrote a plan of {len(self.plan)} steps."}

    def go_on(self) -> dict[str, object]:
        """Do what is left; the result."""
        words = ""
        while self.done < len(self.plan):
            step = self.plan[self.done]
            was_begun, self.begun = self.begun, True
            self.save()
            if step[0] == "fail" and int(os.environ.get("DROVER_ATTEMPT", "1")) <= int(step[1]):
                self.begun = False
                self.save()
                return {"verdict": "failed", "reason": " ".join(step[2:]) or "the plan says so", "summary": words}
            words = do(step, was_begun) or words
            self.done, self.begun = self.done + 1, False
            self.save()
            tell("step", step=self.done, of=len(self.plan), verb=step[0])
            if step[0] == "ask":
                return {"verdict": "question", "question": step[1], "reason": step[1], "summary": words}
            if step[0] == "later":
                until = int((time.time() + seconds(step[1])) * 1000)
                return {"verdict": "later", "until": until, "reason": "the plan says so", "summary": words}
        return {"verdict": "done", "summary": words or f"Did all {len(self.plan)} steps of the plan."}


def do(step: list[str], was_begun: bool) -> str:
    """One step; what it says, if it says anything."""
    verb = step[0]
    if verb in ("write", "append"):
        text = step[2].replace("\\n", "\n").rstrip("\n") + "\n"
        put(step[1], text, append=verb == "append", maybe_there=was_begun)
    elif verb == "wait":
        time.sleep(seconds(step[1]))
    elif verb == "say":
        tell("words", text=step[1])
        return step[1]
    return ""


def put(path: str, text: str, *, append: bool, maybe_there: bool) -> None:
    """Write below the current directory. ``maybe_there``: an append that a kill interrupted may have been made."""
    if os.path.isabs(path) or ".." in path.split("/"):  # noqa: PTH117 - as above
        raise ValueError(f"not below the worktree: {path}")
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)  # noqa: PTH103, PTH120 - as above
    if not (append and maybe_there and content(path).endswith(text)):
        with open(path, "a" if append else "w", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
            file.write(text)


def content(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:  # noqa: PTH123 - as above
            return file.read()
    except FileNotFoundError:
        return ""


def replace(path: str, text: str, scratch: str) -> None:
    """All of the new content or all of the old, whenever we are killed; ``scratch`` is on the same file system."""
    with open(scratch, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:  # noqa: PTH123 - as above
        file.write(text)
    if os.path.exists(path):  # noqa: PTH110 - as above
        os.chmod(scratch, os.stat(path).st_mode & 0o777)  # noqa: PTH101, PTH116 - as above
    os.replace(scratch, path)  # noqa: PTH105 - as above


def main(how: str, path: str, session_id: str) -> int:
    """Exit 0 with a result, whatever the verdict; 1 when the session to resume is not known."""
    prompt = sys.stdin.read()
    session = Session.open(path)
    if how == "resume" and session is None:
        tell("no_session", id=session_id)
        return 1
    if session is None or how == "start":
        session = Session(path, parse(prompt))
    tell("session", id=session_id, resumed=how == "resume", done=session.done, of=len(session.plan))
    session.resolve(prompt)
    plan_file = os.environ.get("DROVER_PLAN")
    result = session.write_plan(plan_file, prompt) if plan_file else session.go_on()
    tell("result", **result)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))

"""The operator works on in their own checkout while tasks land: not a byte of theirs changes, and nothing waits."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Project

TASKS = 20
LINES = [f"line {number}\n" if number % 4 == 0 else f"between {number}\n" for number in range(TASKS * 4)]
AGENT = """#!/bin/sh
number=$(cat | sed -n 's/.*NUMBER<\\([0-9]*\\)>.*/\\1/p' | head -1)
sed "s/^line $number\\$/line $number by $DROVER_TASK_ID/" README.md > README.new && mv README.new README.md
"""
ADD = f"""
import anyio, sys
from drover import app
async def main():
    async with app.open(repo=sys.argv[1]) as drover:
        tasks = []
        for number in range({TASKS}):
            after = [tasks[number - {TASKS // 2}]] if number >= {TASKS // 2} else []
            title, text = f"Edit line {{number * 4}}", f"NUMBER<{{number * 4}}>"
            tasks.append(await drover.add(title, description=text, blocked_by=after))
        print(*[task.id for task in tasks])
anyio.run(main)
"""


class Operator(threading.Thread):
    """Types into README.md without a break, and looks before each word whether the last one is still there."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.text = path.read_text()
        self.words = 0
        self.lost: list[str] = []
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.wait(0.05):
            if self.path.read_text() != self.text:
                self.lost.append(self.path.read_text())
                return
            self.text += f"my word {self.words}\n"
            self.path.write_text(self.text)
            self.words += 1


@pytest.mark.suite("T21")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("way", ["commit", "stash"])
def test_twenty_tasks_land_in_a_file_that_the_operator_is_editing(project: Project, way: str) -> None:
    readme = project.root / "README.md"
    readme.write_text("".join(LINES))
    project.git("commit", "-qam", "lines")
    agent = project.root.parent / "agent.sh"
    agent.write_text(AGENT)
    agent.chmod(0o755)
    project.env["DROVER_AGENT_PATH"] = str(agent)
    ids = project.python(ADD, str(project.root)).split()
    main = project.git("rev-parse", "main")
    operator = Operator(readme)
    operator.start()
    run = project.start("run", "--workers", "3", "--wait")
    lane = "refs/drover/target/main"

    def all_landed() -> bool:
        return bool(project.git("for-each-ref", lane)) and project.landed(lane) == Counter(ids)

    project.eventually(all_landed, "every task to land in the lane, dependents with them", 120)
    said = f"{TASKS} landed, not yet in main: your checkout has changes in README.md"
    project.eventually(lambda: said in " ".join(project.drover("status").stdout.split()), "status to say so")
    operator.enough.set()
    operator.join()
    assert operator.lost == []
    assert operator.words > 20
    assert readme.read_text() == operator.text, "not one byte of theirs has changed"
    assert project.git("rev-parse", "main") == main

    project.git(*(["commit", "-qam", "my words"] if way == "commit" else ["stash", "-q"]))
    assert run.wait(60) == 0, "the target has caught up by itself"
    assert project.statuses() == {"completed": TASKS}
    if way == "stash":
        project.git("stash", "pop", "-q")
    text = readme.read_text()
    assert all(f"line {number * 4} by {id}\n" in text for number, id in enumerate(ids))
    assert text.endswith("".join(f"my word {word}\n" for word in range(operator.words)))
    in_history = project.git("log", "--format=%(trailers:key=Drover-Task,valueonly,separator=%x2c)", "main").split()
    assert Counter(in_history) == Counter(ids)


# ---------------------------------------------------------------- the states a checkout can be in


State = Callable[[Project], None]


def _dirty(project: Project) -> None:
    (project.root / "mine.txt").write_text("edited\n")


def _staged(project: Project) -> None:
    (project.root / "mine.txt").write_text("staged\n")
    project.git("add", "mine.txt")
    (project.root / "mine.txt").write_text("staged, then edited\n")


def _untracked(project: Project) -> None:
    (project.root / "new.txt").write_text("untracked\n")
    (project.root / "new.ignored").write_text("ignored\n")


def _in_the_way(project: Project) -> None:
    (project.root / "tasks").mkdir()
    (project.root / "tasks" / "a.txt").write_text("my own, and not a task's\n")


def _rebasing(project: Project) -> None:
    project.git("switch", "-q", "-c", "side", "HEAD~1")
    (project.root / "mine.txt").write_text("side\n")
    project.git("add", "-A")
    project.git("commit", "-qm", "side")
    project.git("switch", "-q", "main")
    project.git("rebase", "side", ok=False)


def _merging(project: Project) -> None:
    _rebasing(project)
    project.git("rebase", "--abort")
    project.git("merge", "side", ok=False)


def _detached(project: Project) -> None:
    project.git("switch", "-q", "--detach")
    (project.root / "mine.txt").write_text("detached\n")


def _elsewhere(project: Project) -> None:
    project.git("switch", "-q", "-c", "other")
    (project.root / "mine.txt").write_text("on another branch\n")


def _locked(project: Project) -> None:
    _dirty(project)
    (project.root / ".git" / "index.lock").touch()


STATES: dict[str, tuple[State, bool]] = {  # and whether the branch can follow meanwhile
    "edits in other files": (_dirty, True),
    "staged changes": (_staged, True),
    "untracked and ignored files": (_untracked, True),
    "a file of theirs in the way": (_in_the_way, False),
    "a rebase under way": (_rebasing, False),
    "a merge under way": (_merging, False),
    "a detached head": (_detached, True),
    "another branch": (_elsewhere, True),
    "a locked index": (_locked, False),
}


def picture(project: Project, *, of_main: bool) -> dict[str, object]:
    """The operator's state: HEAD, what is staged, every file of theirs, operations under way."""
    git_dir = project.root / ".git"
    own = {
        str(path.relative_to(project.root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(project.root.rglob("*"))
        if path.is_file() and not {".git", ".drover"} & set(path.relative_to(project.root).parts)
    }
    return {
        "head": (git_dir / "HEAD").read_text(),
        "main": project.git("rev-parse", "main") if of_main else "",
        "staged": project.git("diff", "--cached", "--name-status"),
        "files": own if of_main else {name: own[name] for name in own if not name.startswith("tasks/")},
        "under way": sorted(
            name for name in ("rebase-merge", "MERGE_HEAD", "index.lock", "ORIG_HEAD") if (git_dir / name).exists()
        ),
    }


@pytest.mark.suite("T21")
@pytest.mark.parametrize("name", STATES)
def test_a_checkout_in_any_state_is_left_in_it_while_tasks_land(project: Project, name: str) -> None:
    put_into, follows = STATES[name]
    (project.root / "mine.txt").write_text("mine\n")
    (project.root / ".gitignore").write_text("*.ignored\n")
    project.git("add", "-A")
    project.git("commit", "-qm", "mine")
    (project.root / "mine.txt").write_text("main\n")
    project.git("commit", "-qam", "main")
    script = 'mkdir -p tasks; echo x > tasks/a.txt; echo x > "tasks/$DROVER_TASK_ID.txt"'
    project.env["DROVER_AGENT_PATH"] = f"/bin/sh -c '{script}'"
    first = project.add("First")
    second = project.add("Second", "--blocked-by", first)
    put_into(project)
    before = picture(project, of_main=not follows)
    project.drover("run", "--workers", "2", code=0 if follows else 3)
    assert picture(project, of_main=not follows) == before
    assert project.landed("refs/drover/target/main") == Counter([first, second])
    if follows:
        assert project.landed("main") == Counter([first, second])
    else:
        assert project.json("info", second)["reason"] == "publish"

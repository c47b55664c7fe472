"""The judge: from the ledger that the agents kept, from git and from the database, and from nothing else.

It imports nothing of drover, so that what drover believes is not what it is judged by. The ledger is a file of JSON
lines: ``start``, ``end`` and ``fail`` of each execution (with its task, attempt, fence, time and the content it
wrote), and from whoever makes the trouble ``fault`` (a kill, a cut) and ``tip`` (where the target stood).

``python -m tests.proof.checker PROJECT LEDGER`` prints what it finds and ends with 1 if that is anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

Rows = Callable[[str], list[dict[str, Any]]]
Violation = tuple[str, str]  # the invariant, and what broke it
TERMINAL = ("task.completed", "task.failed", "task.cancelled")
MOVES = (
    *TERMINAL,
    *(f"task.{w}" for w in ["claimed", "started", "retrying", "waiting", "stopped", "released", "rescued"]),
)
ORDERS = ("task.retried", "task.reset")  # an operator begins a new generation


def rows_of_sqlite(file: Path) -> Rows:
    """Reads a database file as anybody could."""

    def ask(sql: str) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(sql)]

    return ask


@dataclass
class Evidence:
    """Where a project stands, and what its agents wrote down."""

    root: Path
    rows: Rows
    ledger: list[dict[str, Any]]
    branch: str = "main"
    marked: str = ""  # what the environment of every process of the project holds; empty: nobody is looked for
    finished: bool = True  # whether the run has ended: everything is settled and nothing may lie around
    _dead_ends: list[str] = field(default_factory=list)

    def git(self, *argv: str, stdin: str | None = None, ok: bool = True) -> str:
        done = subprocess.run(
            ["git", *argv], cwd=self.root, input=stdin, capture_output=True, text=True, check=False,
            env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        )  # fmt: skip
        if ok and done.returncode:
            raise AssertionError(f"git {' '.join(argv)}: {done.stderr}")
        return done.stdout.strip()

    @cached_property
    def lane(self) -> str:
        """Where everything that landed is: drover's own ref, or the target where there is none yet."""
        ref = f"refs/drover/target/{self.branch}"
        return self.git("rev-parse", "-q", "--verify", ref, ok=False) or self.git("rev-parse", self.branch)

    @cached_property
    def reached(self) -> set[str]:
        """Every commit in the lane."""
        return set(self.git("rev-list", self.lane).split())

    @cached_property
    def landed(self) -> list[tuple[str, str, str]]:
        """Commit, its first parent and its task, for each landing on the lane's first-parent chain."""
        form = "--format=%H %P|%(trailers:key=Drover-Task,valueonly,separator=%x2c)"
        found = []
        for line in self.git("log", "--first-parent", form, self.lane).splitlines():
            oids, task = line.split("|")
            if task:
                found.append((oids.split()[0], oids.split()[1], task))
        return found

    @cached_property
    def kept(self) -> set[str]:
        """Every object that some ref reaches, here or in a task's clone."""
        found = set(self.git("rev-list", "--objects", "--no-object-names", "--all").split())
        for clone in sorted((self.root / ".drover" / "worktrees").glob("task-*")):
            for file in clone.rglob("*"):
                with suppress(OSError):  # whoever works there may remove it just now
                    if file.is_file() and ".git" not in file.parts:
                        found.add(blob_of(file.read_bytes()))
        return found

    @cached_property
    def tasks(self) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in self.rows("SELECT * FROM tasks")}

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        return self.rows("SELECT * FROM events ORDER BY seq")

    @cached_property
    def steps(self) -> list[dict[str, Any]]:
        return self.rows("SELECT * FROM steps")

    def of_ledger(self, *kinds: str) -> list[dict[str, Any]]:
        return [line for line in self.ledger if line["event"] in kinds]


def blob_of(content: bytes) -> str:
    """The name that git gives to a file with that content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def judge(evidence: Evidence) -> list[Violation]:
    """Everything that is wrong, each with the invariant that it breaks."""
    return [
        (name, what) for name, check in CHECKS.items() for what in check(evidence) if evidence.finished or name != "I20"
    ]


def a_terminal_state_is_final(e: Evidence) -> Iterator[str]:
    ended: dict[str, str] = {}
    for event in e.events:
        task = event["task_id"]
        if event["type"] in ORDERS:
            ended.pop(task, None)
        elif (ended.get(task), event["type"]) == ("task.cancelled", "task.stopped"):
            pass  # no move: it tells that nothing of what was cancelled is alive any more
        elif task in ended and event["type"] in MOVES:
            yield f"{task}: {event['type']} after {ended[task]}"
        elif event["type"] in TERMINAL:
            ended[task] = event["type"]
    for id, task in e.tasks.items():
        if id in ended and f"task.{task['state']}" != ended[id]:
            yield f"{id}: is {task['state']} after {ended[id]}"


def what_is_done_is_landed(e: Evidence) -> Iterator[str]:
    for id, task in e.tasks.items():
        commit = task["landed_commit"]
        if task["state"] == "completed" and not commit:
            yield f"{id} is completed and has landed nowhere"
        if commit and commit not in e.reached:
            yield f"{id} has landed as {commit}, which is not in {e.branch}"
    for row in e.rows("SELECT * FROM landings WHERE state IN ('landed', 'published')"):
        if row["commit_oid"] not in e.reached:
            yield f"{row['task_id']}: the landing {row['commit_oid']} is not in {e.branch}"


def each_lands_once(e: Evidence) -> Iterator[str]:
    recorded = {row["commit_oid"] for row in e.rows("SELECT commit_oid FROM landings")}
    counted = Counter(task for *_, task in e.landed)
    for task, times in counted.items():
        if times > 1 and not any(ev["task_id"] == task and ev["type"] == "task.reset" for ev in e.events):
            yield f"{task} stands {times} times in {e.branch}"
    for commit, _, task in e.landed:
        if task not in e.tasks:
            yield f"{commit} is of {task}, which nobody knows"
        elif commit not in recorded and commit != e.tasks[task]["landed_commit"] and e.finished:
            yield f"{task}: the landing {commit} was never recorded"
    for id, task in e.tasks.items():
        if (commit := task["landed_commit"]) and (commit, id) not in {(c, t) for c, _, t in e.landed}:
            if commit in e.reached and id not in counted and _wrote_nothing(e, id):
                continue  # it had nothing to land
            yield f"{id}: {commit} is recorded, and not the commit of its landing"


def _wrote_nothing(e: Evidence, task: str) -> bool:
    return not any(line.get("path") for line in e.of_ledger("end") if line["task"] == task)


def a_landing_changes_only_its_own(e: Evidence) -> Iterator[str]:
    for commit, parent, task in e.landed:
        wrote = {line["path"]: line["blob"] for line in e.of_ledger("end", "fail") if line["task"] == task}
        changed = e.git("diff-tree", "-r", "--no-renames", "--raw", "--no-abbrev", "-z", parent, commit).split("\0")
        for raw, path in zip(changed[0::2], changed[1::2], strict=False):
            blob = raw.split()[3]
            if path not in wrote:
                yield f"{commit} of {task} changed {path}, which {task} never wrote"
            elif blob not in {line["blob"] for line in e.of_ledger("end", "fail") if line["task"] == task}:
                yield f"{commit} of {task} has content in {path} that its agent never wrote"


def the_target_only_grows(e: Evidence) -> Iterator[str]:
    logged = e.git("reflog", "show", "--format=%H", e.branch, ok=False).split()
    for oid in dict.fromkeys([*(line["oid"] for line in e.of_ledger("tip")), *logged]):
        if oid not in e.reached:
            yield f"{e.branch} was at {oid}, which is not in it any more"
    if e.finished and e.git("rev-parse", e.branch) not in e.reached:
        yield f"{e.branch} is not in its lane"


def no_finished_task_runs_again(e: Evidence) -> Iterator[str]:
    ended = {ev["task_id"]: ev["at"] for ev in e.events if ev["type"] in TERMINAL}
    begun: dict[str, int] = {}
    for event in e.events:
        if event["type"] in ORDERS:
            begun[event["task_id"]] = event["at"]
    # Whose beginning was written down before a cancellation may write its own first line after it, once.
    told = e.rows("SELECT task_id, fence, agent_started_at AS at FROM attempts WHERE agent_started_at IS NOT NULL")
    allowed = {(row["task_id"], row["fence"]): row["at"] for row in told}
    for line in e.of_ledger("start"):
        task, at = line["task"], line["at"] * 1000
        before = allowed.pop((task, line["fence"]), None)
        if task not in ended or (before is not None and before <= ended[task]):
            continue
        if at > ended[task] + 1 and begun.get(task, 0) <= ended[task]:
            yield f"an agent of {task} began {at - ended[task]:.0f} ms after the task had ended"


def no_completed_step_repeats(e: Evidence) -> Iterator[str]:
    told = Counter(
        (ev["task_id"], ev["attempt"], json.loads(ev["data"])["step"])
        for ev in e.events
        if ev["type"] == "step.completed"
    )
    for (task, attempt, step), times in told.items():
        if times > 1:
            yield f"{task}: {step} of attempt {attempt} was completed {times} times"
    done = {(s["task_id"], s["attempt"]): s["finished_at"] for s in e.steps if s["name"] == "let_agent_work"}
    for line in e.of_ledger("start"):
        at = done.get((line["task"], line["attempt"]))
        if at is not None and line["at"] * 1000 > at + 1:
            yield f"{line['task']}: an agent began after its work of attempt {line['attempt']} was complete"


def a_repetition_is_paid_for(e: Evidence) -> Iterator[str]:
    faults = [line["at"] for line in e.of_ledger("fault")]
    starts: dict[tuple[str, int], list[float]] = defaultdict(list)
    for line in e.of_ledger("start"):
        starts[line["task"], line["attempt"]].append(line["at"])
    # An agent may write its first line a moment after whoever started it was killed; it was allowed to before.
    allowed: dict[tuple[str, int], float] = {}
    for row in e.rows("SELECT task_id, attempt, agent_started_at FROM attempts WHERE agent_started_at IS NOT NULL"):
        key = (row["task_id"], row["attempt"])
        allowed[key] = min(allowed.get(key, row["agent_started_at"] / 1000), row["agent_started_at"] / 1000)
    for (task, attempt), at in starts.items():
        paid = sum(min(*at, allowed.get((task, attempt), at[0])) <= fault <= max(at) for fault in faults)
        if len(at) > 1 + paid:
            yield f"{task}: the agent of attempt {attempt} began {len(at)} times over {paid} faults"


def nothing_that_an_agent_wrote_is_lost(e: Evidence) -> Iterator[str]:
    last = {(line["task"], line["attempt"]): line for line in e.of_ledger("end", "fail") if line.get("blob")}
    for (task, attempt), line in last.items():
        if line["blob"] not in e.kept:
            yield f"{task}: what attempt {attempt} wrote to {line['path']} is on no ref"


def no_row_is_written_by_a_stale_holder(e: Evidence) -> Iterator[str]:
    claimed: dict[str, int] = {}
    seen: dict[tuple[str, int, str], int] = {}
    for event in e.events:
        data = json.loads(event["data"])
        if event["type"] == "task.claimed":
            if data["fence"] <= claimed.get(event["task_id"], 0):
                yield f"{event['task_id']}: fence {data['fence']} after {claimed[event['task_id']]}"
            claimed[event["task_id"]] = data["fence"]
        elif event["type"] == "step.completed":
            seen[event["task_id"], event["attempt"], data["step"]] = claimed.get(event["task_id"], 0)
    for step in e.steps:
        held = seen.get((step["task_id"], step["attempt"], step["name"]))
        if held is None:
            yield f"{step['task_id']}: {step['name']} is complete and was never told"
        elif held != step["fence"]:
            yield f"{step['task_id']}: {step['name']} was written with fence {step['fence']} while {held} was held"
    for id, task in e.tasks.items():
        if claimed.get(id, 0) != task["fence"]:
            yield f"{id}: has fence {task['fence']}, and the last claim had {claimed.get(id, 0)}"


def blockers_come_first(e: Evidence) -> Iterator[str]:
    edges = e.rows("SELECT task_id, blocker_id FROM blockers")
    bases = e.rows("SELECT task_id, base, agent_started_at FROM attempts WHERE base IS NOT NULL")
    for edge in edges:
        blocker = e.tasks[edge["blocker_id"]]
        for row in bases:
            if row["task_id"] != edge["task_id"]:
                continue
            if not blocker["landed_commit"] or row["agent_started_at"] < blocker["landed_at"]:
                yield f"{row['task_id']} began before {blocker['id']} had landed"
            elif e.git("merge-base", blocker["landed_commit"], row["base"], ok=False) != blocker["landed_commit"]:
                yield f"{row['task_id']} began on {row['base']}, which lacks {blocker['id']}"
    counted = Counter(edge["task_id"] for edge in edges if e.tasks[edge["blocker_id"]]["landed_at"] is None)
    for id, task in e.tasks.items():
        if task["open_blockers"] != counted[id]:
            yield f"{id} counts {task['open_blockers']} open blockers, and has {counted[id]}"


def nothing_is_left_lying_around(e: Evidence) -> Iterator[str]:
    place = e.root / ".git"
    for file in sorted(place.rglob("*.lock")):
        if file.parent == place / "drover":
            continue  # a file that the kernel locks, and that nobody removes
        yield f"{file.relative_to(e.root)} is locked"
    for name in ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply", "index.lock"):
        if (place / name).exists():
            yield f".git/{name} is there"
    for pid in _living(e.marked):
        yield f"process {pid} is alive"
    for clone in sorted((e.root / ".drover" / "worktrees").glob("*")):
        if (task := e.tasks.get(clone.name.removeprefix(".").split(".")[0])) is None or task["state"] == "completed":
            yield f"{clone.relative_to(e.root)} is left of a task that is done"
    for id, task in e.tasks.items():
        if task["state"] in ("running", "waiting") or (task["state"] == "queued" and not task["open_blockers"]):
            yield f"{id} is {task['state']} after the run has ended"
    for row in e.rows("SELECT task_id, state FROM landings WHERE state = 'landed'"):
        yield f"{row['task_id']}: its landing is {row['state']}, neither published nor given up"
    if said := e.git("status", "--porcelain"):
        yield f"the checkout is not clean: {said.splitlines()[0]}"
    if said := e.git("fsck", "--strict", "--no-dangling", "--no-progress", ok=False):
        yield f"git fsck: {said.splitlines()[0]}"


def _living(marked: str) -> Iterator[int]:
    for entry in Path("/proc").iterdir() if marked else ():
        try:
            is_other = entry.name.isdigit() and int(entry.name) != os.getpid()
            if is_other and marked.encode() in (entry / "environ").read_bytes() and (entry / "exe").exists():
                yield int(entry.name)
        except OSError:
            continue


def the_log_has_no_gap(e: Evidence) -> Iterator[str]:
    told = {(ev["task_id"], ev["type"]) for ev in e.events}
    for id, task in e.tasks.items():
        for state, kind in (
            ("completed", "task.completed"),
            ("failed", "task.failed"),
            ("cancelled", "task.cancelled"),
        ):
            if task["state"] == state and (id, kind) not in told:
                yield f"{id} is {state}, and no event tells of it"
        if (id, "task.created") not in told:
            yield f"{id} is there, and no event tells of its making"
        if task["landed_commit"] and (id, "task.landed") not in told:
            yield f"{id} has landed, and no event tells of it"
    numbers = [ev["seq"] for ev in e.events]
    if len(set(numbers)) != len(numbers):
        yield "two events have one number"


CHECKS: dict[str, Callable[[Evidence], Iterator[str]]] = {
    "I1": a_terminal_state_is_final,
    "I2": what_is_done_is_landed,
    "I3": each_lands_once,
    "I4": a_landing_changes_only_its_own,
    "I5": the_target_only_grows,
    "I6": no_finished_task_runs_again,
    "I7": no_completed_step_repeats,
    "I8": a_repetition_is_paid_for,
    "I9": nothing_that_an_agent_wrote_is_lost,
    "I11": no_row_is_written_by_a_stale_holder,
    "I15": blockers_come_first,
    "I20": nothing_is_left_lying_around,
    "I24": the_log_has_no_gap,
}


def read_ledger(file: Path) -> list[dict[str, Any]]:
    """Its lines; one that a power cut left half written is none."""
    found = []
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def main(project: str, ledger: str) -> int:
    root = Path(project)
    evidence = Evidence(root, rows_of_sqlite(root / ".drover" / "drover.db"), read_ledger(Path(ledger)))
    found = judge(evidence)
    for name, what in found:
        print(f"{name}: {what}")
    print(
        f"{len(evidence.tasks)} tasks, {len(evidence.landed)} landings, {len(found)} violations of {len(CHECKS)} laws"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

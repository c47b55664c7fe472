"""A power cut, made with a disk image: what anybody could see as landed is landed on what the disk kept.

The project lies on a filesystem in a file, mounted so that the kernel writes nothing back by itself for ten minutes.
A copy of that file is what a disk would hold if the power went now: only what was forced to it. Needs root.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import Project, make_project
from tests.e2e.test_landing import AGENT, fill, landings
from tests.proof.plugin import Tally

CUTS = 100  # half of them when something has just landed, half at some moment
GONE_ON_WITH = 10  # of these, by a machine that is started again
TASKS = 160  # more than land between so many cuts, however quick the machine
SEED = 17

pytestmark = [
    pytest.mark.suite("T17"),
    pytest.mark.slow,
    pytest.mark.timeout(1_800),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("mkfs.ext4") is None or not Path("/dev/loop-control").exists(),
        reason="needs root, mkfs.ext4 and loop devices",
    ),
]


def call(*argv: str | Path) -> None:
    subprocess.run([str(word) for word in argv], check=True, capture_output=True, timeout=60)


class Disk:
    """A filesystem in a file."""

    def __init__(self, image: Path, where: Path) -> None:
        self.image, self.where = image, where

    def mount(self, *, image: Path | None = None) -> None:
        self.where.mkdir(exist_ok=True)
        call("mount", "-o", "loop,commit=600", image or self.image, self.where)

    def unmount(self) -> None:
        for _ in range(50):
            if subprocess.run(["umount", str(self.where)], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)
        call("umount", "-l", self.where)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(256 * 1024 * 1024)
    call("mkfs.ext4", "-q", "-F", image)
    made = Disk(image, tmp_path / "mnt")
    try:
        made.mount()
    except subprocess.CalledProcessError as refused:
        pytest.skip(f"nothing can be mounted here: {refused.stderr!r}")
    try:
        yield made
    finally:
        made.unmount()


def copy_of(image: Path) -> Path:
    """To be looked at: mounting replays the journal, and the machine that starts again has to do that itself."""
    copy = image.with_name("looked-at.img")
    copy.unlink(missing_ok=True)
    call("cp", "--sparse=always", image, copy)
    return copy


def landed_of(database: Path) -> dict[str, str]:
    """Task → commit, as any reader sees it."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        return dict(db.execute("SELECT id, landed_commit FROM tasks WHERE landed_commit IS NOT NULL").fetchall())


def broken_objects(project: Project, root: Path) -> list[str]:
    """Objects that some ref reaches and that cannot be read. What no ref reaches may be lost in a power cut."""
    oids = project.git("-C", str(root), "rev-list", "--objects", "--no-object-names", "--all")
    done = subprocess.run(
        ["git", "cat-file", "--batch-check"], cwd=root, input=oids + "\n", capture_output=True, text=True, check=True
    )
    return [line for line in done.stdout.splitlines() if line.endswith("missing")]


def stop_everybody(project: Project, run: int) -> list[int]:
    """Stop every process that writes to the disk between two of its instructions; who was stopped.

    All of them, because the copy is made block by block: with one journal commit between two blocks it
    would be a disk that never was.
    """
    os.kill(run, signal.SIGSTOP)
    stopped = [run]
    while fresh := [pid for pid in project.living() if pid not in stopped]:
        for pid in fresh:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        stopped += fresh
    time.sleep(0.1)  # what they had asked of the kernel ends by itself; there is nothing to wait on
    return stopped


def judge(project: Project, root: Path, seen: dict[str, str]) -> None:
    """That everything seen as landed is so on this disk, in the database and in git."""
    kept = root / ".drover" / "drover.db"
    with closing(sqlite3.connect(kept)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        recorded = dict(db.execute("SELECT id, landed_commit FROM tasks WHERE landed_commit IS NOT NULL").fetchall())
    assert seen.items() <= recorded.items(), "an acknowledged landing was lost by the database"
    assert broken_objects(project, root) == [], "everything that a ref reaches is whole"
    for task, commit in recorded.items():
        project.git("-C", str(root), "merge-base", "--is-ancestor", commit, "refs/drover/target/main")
        assert project.git("-C", str(root), "show", f"refs/drover/target/main:tasks/{task}.txt") == task


def on_disk(disk: Disk, agent: str) -> Project:
    """A project on the disk, all of it synced."""
    home = disk.where / "home"
    home.mkdir()
    project = make_project(home)
    with (project.root / ".drover.toml").open("a") as file:
        file.write("\n[disk]\nfloor = 0\n")
    project.git("commit", "-q", "-a", "-m", "no floor")
    project.env["DROVER_AGENT_PATH"] = agent
    return project


def only_their_own(project: Project, ids: list[str]) -> None:
    """Each has landed once, and what the cut did to a clone is nobody's work."""
    assert Counter(task for _, task in landings(project)) == Counter(ids)
    for oid, task in landings(project):
        changed = project.git("diff-tree", "-r", "--name-only", f"{oid}^1", oid).split()
        assert changed == [f"tasks/{task}.txt"]
        assert project.git("show", f"{oid}:tasks/{task}.txt") == task


def start_again(project: Project, *argv: str) -> None:
    """Drover on a machine that was started again: another run of it, by the kernel's own account."""
    boot = project.root.parent / "boot_id"
    boot.write_text(f"{uuid.uuid4()}\n")
    here = f"mount --bind {boot} /proc/sys/kernel/random/boot_id && exec {sys.executable} -m drover {' '.join(argv)}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", here], cwd=project.root, env=project.env, capture_output=True,
                          text=True, timeout=120, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_clone_that_was_just_made_is_whole_after_a_power_cut(disk: Disk, tmp_path: Path) -> None:
    project = on_disk(disk, f"/bin/sh -c 'sleep 1; exec {sys.executable} {AGENT}'")
    ids = fill(project, [{"title": "Task"}])
    call("sync", "-f", disk.where)
    process = project.start("run")
    cut = tmp_path / "cut.img"
    try:
        project.eventually(
            lambda: any((disk.where / "home/project/.drover/logs").glob("*/*/*")), "the agent to be at work"
        )
        stop_everybody(project, process.pid)
        call("cp", "--sparse=always", disk.image, cut)
    finally:
        for pid in project.living():
            os.kill(pid, signal.SIGKILL)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    project.eventually(lambda: not project.living(), "nothing to be alive on the disk")
    disk.unmount()
    disk.mount(image=cut)
    start_again(project, "run")
    only_their_own(project, ids)


def test_what_was_seen_as_landed_survives_a_power_cut(disk: Disk, tmp_path: Path, tally: Tally) -> None:
    project = on_disk(disk, f"{sys.executable} {AGENT}")
    ids = fill(project, [{"title": f"Task {n}", "test_command": "sleep 0.1"} for n in range(TASKS)])
    call("sync", "-f", disk.where)
    process = project.start("run", "--workers", "4")
    rng = random.Random(SEED)
    seen: dict[str, str] = {}
    kept: list[Path] = []
    cuts = 0
    try:
        while process.poll() is None and cuts < CUTS:
            if cuts % 2:
                time.sleep(rng.uniform(0, 0.15))
            elif landed_of(project.root / ".drover" / "drover.db") == seen:
                time.sleep(0.01)
                continue
            stopped = stop_everybody(project, process.pid)
            seen = landed_of(project.root / ".drover" / "drover.db")
            other = Disk(tmp_path / f"cut-{cuts}.img", tmp_path / "cut")
            call("cp", "--sparse=always", disk.image, other.image)
            kept.append(other.image)
            other.mount(image=copy_of(other.image))
            try:
                judge(project, other.where / "home" / "project", seen)
            finally:
                other.unmount()
                for pid in stopped:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
            cuts += 1
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert cuts == CUTS and seen, "a story without cuts proves nothing"
    project.eventually(lambda: not project.living(), "nothing to be alive on the disk")
    for image in kept[CUTS // GONE_ON_WITH - 1 :: CUTS // GONE_ON_WITH]:
        disk.unmount()
        disk.mount(image=image)  # as the machine that starts again finds it
        start_again(project, "run", "--workers", "8")
        only_their_own(project, ids)
        assert project.git("status", "--porcelain") == "", "the checkout has kept what was published into it"
        judge(project, project.root, landed_of(project.root / ".drover" / "drover.db"))
    tally(points=cuts + GONE_ON_WITH, seed=SEED)

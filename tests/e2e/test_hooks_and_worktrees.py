"""Hooks and worktrees as the command line has them."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys

from tests.e2e.conftest import Project


def with_hook(project: Project) -> None:
    with (project.root / ".drover.toml").open("a") as file:
        file.write('\n[hooks]\nafter_create = "echo the hook was here; touch made"\n')
    project.git("commit", "-qam", "a hook")


def test_a_repositorys_hooks_run_only_once_approved(project: Project) -> None:
    with_hook(project)
    task = project.add("Work")
    refused = project.drover("run", code=1)
    assert "nobody has approved" in refused.stderr and "drover run --yes" in refused.stderr
    assert not project.books(), "no agent was started either"
    project.drover("run", "--yes")
    assert project.git("show", "main:made") == ""
    assert "the hook was here" in project.drover("logs", task).stdout
    project.add("More work")
    project.drover("run")
    assert project.statuses() == {"completed": 2}


def test_a_person_at_a_terminal_is_asked(project: Project) -> None:
    """And what is asked names the command."""
    with_hook(project)
    project.add("Work")
    for answer, code in ((b"n\n", 1), (b"y\n", 0)):
        ours, theirs = pty.openpty()
        run = subprocess.Popen(
            [sys.executable, "-m", "drover", "run", "--plain"],
            cwd=project.root,
            env=project.env,
            stdin=theirs,
            stderr=theirs,
            stdout=subprocess.DEVNULL,
        )
        os.close(theirs)
        said = b""
        try:
            while b"[y/N]" not in said:
                assert select.select([ours], [], [], 30)[0], said
                said += os.read(ours, 4096)
            os.write(ours, answer)
            while True:  # a terminal that nobody reads would hold the run up
                try:
                    said += os.read(ours, 4096)
                except OSError:
                    break
            assert run.wait(60) == code, said
        finally:
            run.kill()
            run.wait()
            os.close(ours)
        assert b"after_create: echo the hook was here" in said
    assert project.statuses() == {"completed": 1}


def test_a_removed_worktree_is_brought_back(project: Project) -> None:
    task = project.add("FAIL ALWAYS", "--max-attempts", "1")
    project.drover("run", code=3)
    tree = project.root / ".drover" / "worktrees" / task
    work = (tree / "tasks" / f"{task}.txt").read_text()
    [row] = project.json("worktree", "cleanup", "--dry-run")
    assert row["bytes"] > 0 and row["proof"] == f"saved on refs/drover/wip/{task}/1"
    assert tree.is_dir()
    project.drover("worktree", "cleanup", "--yes")
    assert not tree.exists()
    assert project.drover("worktree", "restore", task).stdout.strip() == str(tree)
    assert (tree / "tasks" / f"{task}.txt").read_text() == work
    fresh = project.add("Has done nothing")
    assert "nothing of" in project.drover("worktree", "restore", fresh, code=4).stderr

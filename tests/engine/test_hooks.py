"""The operator's commands around a task: in their places, approved, logged, and not run twice for nothing."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from drover.domain.errors import NotApproved
from drover.domain.models import STEPS
from drover.domain.states import State
from tests.engine.places import Site, run_until

pytestmark = pytest.mark.anyio

ALL = ("after_create", "before_agent", "after_agent", "pre_land", "post_land", "before_remove")


def note(site: Site, word: str) -> str:
    return f"echo {word} >> {site.top}/notes"


def notes(site: Site) -> list[str]:
    path = site.top / "notes"
    return path.read_text().split() if path.exists() else []


async def test_each_hook_runs_once_and_in_its_place(site: Site) -> None:
    site.says(f"{note(site, 'agent')}; echo work > work.txt")
    seen = '"$DROVER_HOOK:$(test -e work.txt && echo worked)"'
    hooks = {f"hooks.{hook}": note(site, seen) for hook in ALL}
    async with site.open(**hooks) as drover:
        task = await drover.add("Work")
        await drover.run()
        done = [step.name for step in (await drover.details(task.id)).steps]
    assert notes(site) == [
        "after_create:", "before_agent:", "agent", "after_agent:worked", "pre_land:worked", "post_land:worked",
        "before_remove:worked",
    ]  # fmt: skip
    assert [name for name in done if name in STEPS] == list(STEPS)
    assert set(done) - set(STEPS) == set(ALL)


async def test_hooks_that_are_not_set_are_no_steps(site: Site) -> None:
    async with site.open() as drover:
        task = await drover.add("Work")
        await drover.run()
        assert [step.name for step in (await drover.details(task.id)).steps] == list(STEPS)


async def test_hooks_and_agents_see_the_same_facts(site: Site) -> None:
    names = ["ROOT", "WORKTREE", "TASK_ID", "EPIC_ID", "ATTEMPT", "BRANCH", "BASE", "RUN_ID", "PORT"]
    show = "; ".join(f'echo "{name}=$DROVER_{name}"' for name in names)
    site.says(f"({show}) > {site.top}/agent.env; echo x > x.txt; git branch --show-current > {site.top}/branch")
    async with site.open(**{"hooks.before_agent": f"({show}) > {site.top}/hook.env; pwd > {site.top}/pwd"}) as drover:
        epic = await drover.add_epic("Epic")
        task = await drover.add("Work", epic=epic)
        await drover.run()
    lines = (site.top / "agent.env").read_text().splitlines()
    facts = dict(line.split("=", 1) for line in lines)
    assert (site.top / "hook.env").read_text().splitlines() == lines
    assert all(facts.values())
    assert facts["TASK_ID"] == task.id and facts["EPIC_ID"] == epic.id and facts["ROOT"] == str(site.root)
    assert (site.top / "pwd").read_text().strip() == facts["WORKTREE"] == str(site.worktree(task.id))
    assert (site.top / "branch").read_text().strip() == facts["BRANCH"]


async def test_a_list_runs_in_order_and_a_table_side_by_side(site: Site) -> None:
    """Each of the two in the middle waits for the other: one after the other they would never end."""
    meet = f"touch {site.top}/%s; while [ ! -e {site.top}/%s ]; do sleep 0.02; done; {note(site, 'met')}"
    hook = [
        note(site, "first"),
        {"a": meet % ("a", "b"), "b": {"command": meet % ("b", "a"), "timeout": "20s"}},
        note(site, "last"),
    ]
    async with site.open(**{"hooks.before_agent": hook}) as drover:
        await drover.add("Work")
        report = await drover.run()
        assert report.exit_code == 0
    assert notes(site) == ["first", "met", "met", "last"]


@pytest.mark.parametrize("hook", ["after_create", "before_agent", "pre_land"])
async def test_a_demanding_hook_that_fails_fails_the_attempt(site: Site, hook: str) -> None:
    async with site.open(max_attempts=1, **{f"hooks.{hook}": "echo the hook says no; exit 3"}) as drover:
        task = await drover.add("Work")
        await drover.run()
        error = (await drover.task(task.id)).error
        assert error is not None and error.error_class == "hook"
        assert "exit 3" in error.message and "the hook says no" in error.message
        logs = await drover.log_files(task.id)
        assert any("the hook says no" in path.read_text() for path in logs)
    assert site.git("log", "--format=%s", "refs/drover/target/main") == "first", "nothing has landed"


@pytest.mark.parametrize("hook", ["after_agent", "post_land", "before_remove"])
async def test_a_hook_after_the_fact_only_warns(site: Site, hook: str, caplog: pytest.LogCaptureFixture) -> None:
    async with site.open(**{f"hooks.{hook}": "exit 3"}) as drover:
        task = await drover.add("Work")
        with caplog.at_level(logging.WARNING):
            await drover.run()
        assert (await drover.task(task.id)).state is State.COMPLETED
    assert any(hook in record.getMessage() for record in caplog.records)


async def test_a_hook_that_takes_too_long_is_ended(site: Site) -> None:
    hook = {"one": {"command": "sleep 60 & sleep 60", "timeout": "300ms"}}
    async with site.open(max_attempts=1, **{"hooks.before_agent": hook}) as drover:
        task = await drover.add("Work")
        await drover.run()
        error = (await drover.task(task.id)).error
        assert error is not None and "ran out of time" in error.message


async def test_what_is_done_for_a_clone_is_not_done_again_for_the_next_attempt_in_it(site: Site) -> None:
    site.says("test -e built/deps || exit 9; echo x >> x.txt; test $DROVER_ATTEMPT = 2 || exit 1")
    create = f"mkdir -p built; echo deps > built/deps; {note(site, 'created')}"
    flags = {"hooks.after_create": create, "hooks.before_agent": note(site, "before"), "max_attempts": 2}
    async with site.open(**flags) as drover:
        task = await drover.add("Work")
        await drover.run(wait=False)
        assert (await drover.task(task.id)).state is State.COMPLETED
    assert Counter(notes(site)) == {"created": 1, "before": 2}


@pytest.mark.parametrize("kept", [True, False])
async def test_a_hook_is_done_again_when_the_machine_was_started_again_before_its_work_was_kept(
    site: Site, kept: bool
) -> None:
    site.says("test -e x.txt && exit 0; echo x > x.txt; exec sleep 60")
    async with site.open(**{"hooks.after_create": note(site, "created")}) as drover:
        task = await drover.add("Work")
        await run_until(site, drover, site.worktree(task.id) / "x.txt")
        records = drover.places.set_up(task.id)
        (record,) = records.glob("*.exit.json")
        record.write_text(json.dumps(json.loads(record.read_text()) | {"boot": "the one before"}))
        (mark,) = records.glob("*.kept")
        if not kept:
            mark.unlink()
        with closing(sqlite3.connect(site.root / ".drover" / "drover.db")) as db, db:
            db.execute("DELETE FROM steps WHERE name = 'after_create'")  # drover died before it was told
        await drover.run()
        assert (await drover.task(task.id)).state is State.COMPLETED
    assert notes(site) == ["created"] * (1 if kept else 2)


async def test_a_clone_made_anew_is_set_up_anew(site: Site) -> None:
    site.says("echo x > x.txt; exit 1")
    async with site.open(max_attempts=1, **{"hooks.after_create": note(site, "created")}) as drover:
        task = await drover.add("Work")
        await drover.run()
        await drover.prune_worktrees(everything=True)
        site.says("echo y > y.txt")
        await drover.retry([task.id], force=True)
        await drover.run()
        assert (await drover.task(task.id)).state is State.COMPLETED
    assert notes(site) == ["created", "created"]


@pytest.mark.parametrize("writes", [True, False])
async def test_a_clone_that_somebody_removed_is_set_up_anew(site: Site, writes: bool) -> None:
    site.says("echo x > x.txt; exit 1" if writes else "exit 1")
    async with site.open(max_attempts=1, **{"hooks.after_create": note(site, "created")}) as drover:
        task = await drover.add("Work")
        await drover.run()
        shutil.rmtree(site.worktree(task.id))
        site.says("echo y > y.txt")
        await drover.retry([task.id], force=True)
        await drover.run()
        assert (await drover.task(task.id)).state is State.COMPLETED
    assert notes(site) == ["created", "created"]
    if writes:
        assert site.saved(task.id, 1, "x.txt") == "x", "what was saved is not lost by it"


async def test_an_interrupted_task_does_not_repeat_its_hooks(site: Site) -> None:
    site.says(f"echo x > x.txt; test -e {site.top}/go || exec sleep 60")
    hooks = {f"hooks.{hook}": note(site, hook) for hook in ALL}
    async with site.open(**hooks) as drover:
        task = await drover.add("Work")
        await run_until(site, drover, site.worktree(task.id) / "x.txt")
        (site.top / "go").touch()
        await drover.run()
        assert (await drover.task(task.id)).state is State.COMPLETED
    assert notes(site) == list(ALL)


RUN = """
import sys, anyio
from drover import app
async def main():
    async with app.open(repo=sys.argv[1], agent="command", **{"agents.command.path": sys.argv[2]}) as drover:
        await drover.approve_hooks()
        await drover.run(workers=1)
anyio.run(main)
"""


def run_apart(site: Site) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    argv = [sys.executable, "-c", RUN, str(site.root), str(site.agent)]
    return subprocess.Popen(argv, env=env, start_new_session=True)


@pytest.mark.parametrize("hook", ALL)
async def test_a_kill_in_the_middle_of_a_hook_repeats_only_the_command_that_was_cut_off(site: Site, hook: str) -> None:
    stop = f"echo here > {site.top}/here; test -e {site.top}/go || exec sleep 60"
    async with site.open() as drover:
        task = await drover.add("Work")
    site.configure(f"[hooks]\n{hook} = ['{note(site, 'one')}', '{stop}', '{note(site, 'three')}']\n")
    run = run_apart(site)
    try:
        await site.eventually(site.top / "here")
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert notes(site) == ["one"]
    (site.top / "go").touch()
    assert run_apart(site).wait(60) == 0
    assert notes(site) == ["one", "three"]
    async with site.open() as drover:
        assert (await drover.task(task.id)).state is State.COMPLETED


async def test_a_worktree_that_is_pruned_is_taken_down_first(site: Site) -> None:
    site.says("echo x > x.txt; exit 1")
    hook = f"test -e x.txt && {note(site, 'down')}"
    async with site.open(max_attempts=1, **{"hooks.before_remove": hook}) as drover:
        task = await drover.add("Work")
        await drover.run()
        await drover.prune_worktrees(everything=True, dry_run=True)
        assert notes(site) == []
        await drover.prune_worktrees(everything=True)
        assert notes(site) == ["down"]
        assert not site.worktree(task.id).exists()


async def test_what_follows_an_agent_that_failed_is_finished_and_follows_the_next_one_again(site: Site) -> None:
    """Drover dies in the middle of the hook, before the failure is settled."""
    site.says(f"echo x > x.txt; test -e {site.top}/go || exit 1")
    stop = f"echo here > {site.top}/here; test -e {site.top}/go || exec sleep 60"
    async with site.open() as drover:
        task = await drover.add("Work")
    site.configure(f"[hooks]\nafter_agent = ['{note(site, '$DROVER_OUTCOME')}', '{stop}']\n")
    run = run_apart(site)
    try:
        await site.eventually(site.top / "here")
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    (site.top / "go").touch()
    assert run_apart(site).wait(60) == 0
    assert notes(site) == ["failed", "done"]
    async with site.open() as drover:
        assert (await drover.task(task.id)).state is State.COMPLETED


# ---------------------------------------------------------------- approval


async def test_what_the_repository_wants_to_run_is_approved_once_and_again_when_it_changed(site: Site) -> None:
    async with site.open() as drover:
        await drover.add("Work")
    site.configure(f"[hooks]\nbefore_agent = '{note(site, 'ran')}'\n")
    async with site.open() as drover:
        with pytest.raises(NotApproved) as refusal:
            await drover.run()
        assert "before_agent: echo ran" in refusal.value.message
        assert "drover run --yes" in (refusal.value.hint or "")
        assert notes(site) == [], "not a word of it has run"
        assert [c.level for c in await drover.doctor() if c.name == "hooks"] == ["problem"]
        await drover.approve_hooks()
        await drover.run()
    assert notes(site) == ["ran"]
    async with site.open() as drover:
        assert await drover.unapproved_hooks() == {}
        assert [c for c in await drover.doctor() if c.name == "hooks"] == []
    text = (site.root / ".drover.toml").read_text().replace("echo ran", "echo other")
    (site.root / ".drover.toml").write_text(text)
    async with site.open() as drover:
        assert list(await drover.unapproved_hooks()) == ["before_agent"]
        with pytest.raises(NotApproved):
            await drover.run()

"""Warm clones: taken by one task each, at the right commit, set up once; whatever dies in between."""

from __future__ import annotations

import os
import subprocess
import sys

import anyio
import pytest

from drover.app.drover import Drover
from drover.engine import lane, pool
from drover.engine.tools import Tools
from tests.engine.places import Site

pytestmark = pytest.mark.anyio

SET_UP = "mkdir -p built && echo set-up >> built/log && echo $DROVER_WORKTREE >> {top}/set-ups"


def set_ups(site: Site) -> list[str]:
    log = site.top / "set-ups"
    return log.read_text().split() if log.exists() else []


async def tools_of(drover: Drover, *, run_id: str = "run-x") -> Tools:
    tools = await drover.tools(run_id=run_id)
    await lane.tip(tools)
    return tools


def given(site: Site, **more: object) -> dict[str, object]:
    return {"pool.enabled": True, "hooks.after_create": SET_UP.format(top=site.top), **more}


def pool_files(site: Site) -> list[str]:
    worktrees = site.root / ".drover" / "worktrees"
    return sorted(path.name for path in worktrees.iterdir() if "pool-" in path.name)


async def test_a_task_gets_a_clone_that_was_made_and_set_up_before(site: Site) -> None:
    site.says(
        "cp built/log $DROVER_TASK_ID.txt; git branch --show-current > branch.txt; git status --short > status.txt"
    )
    async with site.open(**given(site, **{"pool.cleanup_on_exit": False})) as drover:
        await drover.add("Warms the pool")
        await pool.Keeper(await tools_of(drover)).look()
        assert len(set_ups(site)) == 2
        assert all(".pool-" in where for where in set_ups(site))
        task = (await drover.tasks())[0]
        await drover.run(workers=1)
        (found,) = [e async for e in drover.events(types=["task.completed"])]
    assert site.git("show", f"{found.data['commit']}:{task.id}.txt") == "set-up"
    assert site.git("show", f"{found.data['commit']}:branch.txt") == f"drover/{task.id}"
    seen = site.git("show", f"{found.data['commit']}:status.txt").split()
    assert sorted(seen) == sorted(["??", "branch.txt", "??", f"{task.id}.txt", "??", "status.txt"])
    assert task.id not in " ".join(set_ups(site))  # it was set up as a clone of the pool


async def test_a_warm_clone_stands_on_what_its_blocker_has_landed(site: Site) -> None:
    site.says('test -n "$(ls *.txt 2>/dev/null)" && cat *.txt > seen; echo $DROVER_TASK_ID > $DROVER_TASK_ID.txt')
    async with site.open(**given(site)) as drover:
        first = await drover.add("First")
        second = await drover.add("Second", blocked_by=[first])
        await pool.Keeper(await tools_of(drover)).look()
        report = await drover.run(workers=1)
    assert report.completed == (first.id, second.id)
    assert site.git("show", "main:seen") == first.id
    assert not [where for where in set_ups(site) if "task-" in where]
    assert pool_files(site) == []  # all went with the run


async def test_a_clone_is_taken_by_one_only(site: Site) -> None:
    async with site.open(**given(site, **{"pool.min_size": 3})) as drover:
        for number in range(6):
            await drover.add(f"Task {number}")
        tools = await tools_of(drover)
        base = await lane.tip(tools)
        await pool.Keeper(tools).look()
        taken: dict[str, bool] = {}

        async def take(id: str) -> None:
            taken[id] = await pool.take(tools, id, base)

        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(take, f"task-{number}")
        assert sum(taken.values()) == 3
        assert {id for id, got in taken.items() if got} == {p.name for p in tools.places.worktrees.glob("task-*")}
        assert tools.missed == {id for id, got in taken.items() if not got}
    assert pool_files(site) == []


@pytest.mark.parametrize("changed", ["lock", "set-up", "included"])
async def test_a_clone_with_an_old_set_up_is_not_taken_and_is_made_anew(site: Site, changed: str) -> None:
    site.write("sub/uv.lock", "1\n")
    site.write(".worktreeinclude", ".env\n")
    site.write(".env", "A=1\n")
    site.commit("a lock file")
    async with site.open(**given(site, **{"pool.min_size": 1})) as drover:
        await drover.add("Task")
        tools = await tools_of(drover)
        await pool.Keeper(tools).look()
    if changed == "lock":
        site.write("sub/uv.lock", "2\n")
        site.commit("another lock")
    if changed == "included":
        site.write(".env", "A=22\n")
    more = {"hooks.after_create": "echo other"} if changed == "set-up" else {}
    async with site.open(**given(site, **{"pool.min_size": 1, **more})) as drover:
        tools = await tools_of(drover)
        before = pool_files(site)
        base = await lane.tip(tools)
        if changed == "lock":
            await pool.Keeper(tools).look()
            assert pool_files(site) != before
            assert len(set_ups(site)) == 2
            assert await pool.take(tools, "task-x", base)
            assert (tools.places.worktree("task-x") / "sub/uv.lock").read_text() == "2\n"
        else:
            assert not await pool.take(tools, "task-x", base)
            assert pool_files(site) == []
            assert not tools.places.worktree("task-x").exists()


async def test_a_warm_clone_follows_the_target(site: Site) -> None:
    async with site.open(**given(site, **{"pool.min_size": 1})) as drover:
        await drover.add("Task")
        tools = await tools_of(drover)
        await pool.Keeper(tools).look()
        site.write("new.txt", "new\n")
        site.git("rm", "-q", "README.md")
        site.commit("moved on")
        base = await lane.tip(tools)
        await pool.Keeper(tools).look()
        (clone,) = [p for p in tools.places.worktrees.iterdir() if p.is_dir() and p.name.startswith(".pool-")]
        assert (clone / "new.txt").read_text() == "new\n"
        assert not (clone / "README.md").exists()
        assert (clone / "built" / "log").read_text() == "set-up\n"
        assert len(set_ups(site)) == 1
        assert await pool.take(tools, "task-x", base)


async def test_a_set_up_that_fails_or_lasts_too_long_leaves_nothing(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with site.open(**given(site, **{"hooks.after_create": "exit 3"})) as drover:
        await drover.add("Task")
        await pool.Keeper(await tools_of(drover)).look()
    assert pool_files(site) == []
    async with site.open(**given(site, **{"hooks.after_create": "sleep 600", "pool.warmup": "300ms"})) as drover:
        await pool.Keeper(await tools_of(drover)).look()
    assert pool_files(site) == []
    assert "after_create hook failed" in caplog.text
    assert "not ready within" in caplog.text


async def test_more_are_kept_when_tasks_find_none_and_none_when_nothing_is_ready(site: Site) -> None:
    async with site.open(**given(site, **{"pool.min_size": 1, "pool.max_size": 3})) as drover:
        tools = await tools_of(drover)
        keeper = pool.Keeper(tools)
        await keeper.look()
        assert pool_files(site) == []
        await drover.add("Task")
        tools.missed.update({"a", "b", "c", "d"})
        await keeper.look()
        assert len({name.split(".")[1] for name in pool_files(site) if not name.startswith("..")}) == 3


DYING = """
import anyio, os, signal, sys
from drover import app
from drover.engine import lane, pool

async def main(root, step):
    async with app.open(repo=root, agent="command", **{"pool.enabled": True, "pool.min_size": 1,
                        "hooks.after_create": "echo x > built.txt"}) as drover:
        tools = await drover.tools(run_id="run-x")
        base = await lane.tip(tools)
        die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        keeper = pool.Keeper(tools)
        if step in ("ensure_worktree", "_put"):
            setattr(pool, step, die)
        await keeper.look()
        setattr(pool, step, die)
        await pool.take(tools, "task-x", base)
anyio.run(main, *sys.argv[1:])
"""


@pytest.mark.parametrize("step", ["ensure_worktree", "_put", "_fits", "bring_to", "_move", "warm"])
async def test_what_a_killed_run_had_in_hand_is_removed_and_what_was_warm_is_adopted(site: Site, step: str) -> None:
    async with site.open() as drover:
        await drover.add("Task")
    done = subprocess.run([sys.executable, "-c", DYING, str(site.root), step], env=os.environ, check=False, timeout=60)
    assert (done.returncode == -9) == (step != "warm")
    left = pool_files(site)
    async with site.open(**given(site)) as drover:
        tools = await tools_of(drover)
        if step == "warm":
            assert left == []  # it was taken
            assert (tools.places.worktree("task-x") / "built.txt").exists()
            return
        assert left
        await pool.tidy(tools)
    assert pool_files(site) == []


async def test_a_pool_that_is_left_is_used_by_the_next_run_or_removed_when_it_is_off(site: Site) -> None:
    async with site.open(**given(site)) as drover:
        await drover.add("Task")
        await pool.Keeper(await tools_of(drover)).look()
        left = pool_files(site)
        assert await pool.tidy(await tools_of(drover)) == 0
        assert pool_files(site) == left
    site.says("echo x > x.txt")
    async with site.open() as drover:
        await drover.run()
    assert pool_files(site) == []


async def test_warm_clones_are_listed_and_go_with_a_cleanup(site: Site) -> None:
    async with site.open(**given(site)) as drover:
        await drover.add("Task")
        await pool.Keeper(await tools_of(drover)).look()
        rows = await drover.worktrees()
        assert [(row.status, row.removable) for row in rows] == [("warm", False)] * 2
        assert await drover.prune_worktrees() == []
        assert len(await drover.prune_worktrees(everything=True)) == 2
        assert await drover.worktrees() == []
    assert pool_files(site) == []


def test_places_are_told_by_their_names() -> None:
    names = (".pool-abc", ".pool-abc.warm", ".pool-abc.hand-b:1:2", "..pool-abc.set-up")
    assert all(pool._PART.match(name) for name in names)
    assert not any(pool._PART.match(name) for name in ("task-pool", "..pool-abc.making-x1", ".task-a.set-up"))

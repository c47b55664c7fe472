"""Whatever ends an attempt, what its agent had written is on a ref before anything else happens to it."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import pytest

from drover.domain.clock import SystemClock
from drover.domain.errors import NotFound, WrongState
from drover.domain.states import State
from drover.engine import reaper, workplace
from drover.git.snapshot import list_kept
from tests.engine.places import Site, run_until

pytestmark = pytest.mark.anyio

DAY = 24 * 3600 * 1000
WORK = "mkdir -p src; echo half > src/work.txt; echo more >> README.md"


class Later(SystemClock):
    """The wall clock, so many milliseconds ahead."""

    def __init__(self, ahead: int) -> None:
        self.ahead = ahead

    def now(self) -> int:
        return super().now() + self.ahead


def is_saved(site: Site, task_id: str, attempt: int = 1) -> bool:
    return site.saved(task_id, attempt, "src/work.txt") == "half" and site.saved(task_id, attempt, "README.md") == (
        "# A site\nmore"
    )


async def test_an_agent_that_fails_leaves_its_work_on_a_ref(site: Site) -> None:
    site.says(f"{WORK}; exit 1")
    async with site.open(max_attempts=1) as drover:
        task = await drover.add("Fails")
        await drover.run()
        assert (await drover.task(task.id)).state is State.FAILED
    assert is_saved(site, task.id)


async def test_nothing_is_left_of_a_task_that_has_landed_at_its_second_attempt(site: Site) -> None:
    site.says(f"{WORK}; test $DROVER_ATTEMPT = 2")
    async with site.open() as drover:
        task = await drover.add("Fails once")
        with anyio.fail_after(60):
            await drover.run()
        assert (await drover.task(task.id)).attempt == 2
    assert list(site.worktree(task.id).parent.iterdir()) == []


async def test_an_agent_that_runs_out_of_time_leaves_its_work_on_a_ref(site: Site) -> None:
    site.says(f"{WORK}; exec sleep 60")
    async with site.open(max_attempts=1) as drover:
        task = await drover.add("Takes too long", timeout_ms=700)
        await drover.run()
        error = (await drover.task(task.id)).error
        assert error is not None and error.error_class == "timeout"
    assert is_saved(site, task.id)


async def test_an_interrupted_agent_leaves_its_work_on_a_ref(site: Site) -> None:
    site.says(f"{WORK}; exec sleep 60")
    async with site.open() as drover:
        task = await drover.add("Is interrupted")
        report = await run_until(site, drover, site.worktree(task.id) / "src/work.txt")
        assert report.interrupted
        assert (await drover.task(task.id)).state is State.QUEUED
    assert is_saved(site, task.id)


@pytest.mark.parametrize("order", ["cancel", "reset", "reset --fresh"])
async def test_a_task_taken_from_its_agent_leaves_its_work_on_a_ref(site: Site, order: str) -> None:
    site.says(f"{WORK}; exec sleep 60")
    async with site.open() as drover:
        task = await drover.add("Is taken away")

        async def take_away() -> None:
            await site.eventually(site.worktree(task.id) / "src/work.txt")
            site.says("echo anew > anew.txt")
            if order == "cancel":
                await drover.cancel([task.id])
            else:
                await drover.reset([task.id], fresh=order.endswith("fresh"))

        async with anyio.create_task_group() as group:
            group.start_soon(take_away)
            await drover.run(workers=1)
        after = await drover.task(task.id)
        assert after.state is (State.CANCELLED if order == "cancel" else State.COMPLETED)
    assert is_saved(site, task.id)
    if order == "reset --fresh":
        assert site.git("ls-tree", "--name-only", "main", "src") == "", "what was started over began without it"
    if order == "reset":
        assert site.git("show", "main:src/work.txt") == "half", "what was begun again was carried over"


async def test_work_is_saved_now_and_then_while_the_agent_works(site: Site) -> None:
    site.says(f"{WORK}; while [ ! -e {site.top}/go ]; do sleep 0.05; done")
    async with site.open(snapshot_every="100ms") as drover:
        task = await drover.add("Works long")

        async def look() -> None:
            with anyio.fail_after(60):
                while "refs/drover/wip" not in site.git("for-each-ref", "refs/drover/wip"):
                    await anyio.sleep(0.05)
            assert is_saved(site, task.id)
            (site.top / "go").touch()

        async with anyio.create_task_group() as group:
            group.start_soon(look)
            await drover.run(workers=1)
        assert (await drover.task(task.id)).state is State.COMPLETED


async def test_a_fresh_start_cut_off_twice_does_not_overwrite_the_saved_work(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off after the new clone was made: that clone is not the old work, and is not saved in its place."""
    site.says(f"{WORK}; exit 1")
    async with site.open(max_attempts=1) as drover:
        task = await drover.add("Begins anew")
        await drover.run()
        site.write("meanwhile.txt", "the base has moved\n")
        site.commit("meanwhile")
        await drover.retry([task.id], force=True, fresh=True)
        site.says("echo anew > anew.txt")
        make = workplace.ensure_worktree
        cut = 0

        async def cut_off(*argv: object, **options: object) -> bool:
            nonlocal cut
            found = await make(*argv, **options)  # type: ignore[arg-type]
            if cut == 0:
                cut += 1
                raise OSError("cut off")
            return found

        monkeypatch.setattr(workplace, "ensure_worktree", cut_off)
        await drover.run()
        assert cut == 1
        assert (await drover.task(task.id)).state is State.COMPLETED
    assert is_saved(site, task.id)


# ---------------------------------------------------------------- worktrees that go, and come back


async def failed_task(site: Site, drover: object) -> str:
    site.says(f"{WORK}; mkdir -p built; head -c 100000 /dev/zero > built/big; exit 1")
    task = await drover.add("Fails")  # type: ignore[attr-defined]
    await drover.run()  # type: ignore[attr-defined]
    return str(task.id)


async def test_a_worktree_goes_only_with_its_proof_and_comes_back(site: Site) -> None:
    async with site.open(max_attempts=1) as drover:
        id = await failed_task(site, drover)
        (site.worktree(id) / "src/work.txt").write_text("edited by hand\n")
        assert await drover.prune_worktrees() == [], "prune leaves what failed to be looked at"
        [would] = await drover.prune_worktrees(everything=True, dry_run=True)
        assert would.bytes > 100_000
        assert "would be saved on refs/drover/wip" in would.proof
        assert site.saved(id, 1, "src/work.txt") == "half", "a dry run writes nothing"
        assert site.worktree(id).is_dir()
        [gone] = await drover.prune_worktrees(everything=True)
        assert gone.proof == f"saved on refs/drover/wip/{id}/1"
        assert not site.worktree(id).exists()
        assert site.saved(id, 1, "src/work.txt") == "edited by hand"
        row = await drover.restore_worktree(id)
        assert row.path == site.worktree(id)
        assert (row.path / "src/work.txt").read_text() == "edited by hand\n"
        assert (row.path / "README.md").read_text() == "# A site\nmore\n"
        assert site.git("status", "--porcelain") == ""


@pytest.mark.parametrize("order", ["retry", "retry --fresh", "cancel, retry", "reset"])
async def test_a_task_whose_worktree_is_gone_begins_again_with_its_saved_work(site: Site, order: str) -> None:
    async with site.open(max_attempts=1) as drover:
        id = await failed_task(site, drover)
        await drover.prune_worktrees(everything=True)
        if order == "reset":
            await drover.reset([id])
        elif order == "cancel, retry":
            await drover.retry([id], force=True)
            await drover.cancel([id])
            await drover.retry([id])
        else:
            await drover.retry([id], force=True, fresh=order.endswith("fresh"))
        site.says(f"cat src/work.txt > {site.top}/found; echo end > end.txt")
        await drover.run()
        assert (await drover.task(id)).state is State.COMPLETED
    fresh = order == "retry --fresh"
    assert (site.top / "found").read_text() == ("" if fresh else "half\n")
    assert site.git("show", "main:README.md") == ("# A site" if fresh else "# A site\nmore")
    assert is_saved(site, id)


async def test_work_from_before_a_fresh_start_does_not_come_back_with_a_later_attempt(site: Site) -> None:
    async with site.open(max_attempts=1) as drover:
        id = await failed_task(site, drover)
        await drover.retry([id], force=True, fresh=True)
        site.says("exit 1")
        await drover.run()
        await drover.prune_worktrees(everything=True)
        await drover.retry([id], force=True)
        site.says("echo end > end.txt")
        await drover.run()
        assert (await drover.task(id)).state is State.COMPLETED
    assert site.git("ls-tree", "--name-only", "main", "src/") == ""
    assert is_saved(site, id)


async def test_work_from_before_a_landing_does_not_come_back_with_a_reset(site: Site) -> None:
    site.says(f"{WORK}; test $DROVER_ATTEMPT = 2 && echo done > src/work.txt")
    async with site.open() as drover:
        task = await drover.add("Lands at its second attempt")
        await drover.run()
        assert site.git("show", "main:src/work.txt") == "done"
        assert is_saved(site, task.id)
        site.git("revert", "--no-edit", "HEAD")
        await drover.reset([task.id])
        site.says("ls src > src.txt; true")
        await drover.run()
        assert (await drover.task(task.id)).state is State.COMPLETED
    assert site.git("show", "main:src.txt") == ""


async def test_a_worktree_comes_back_as_it_was_and_not_as_its_agents_session(site: Site) -> None:
    async with site.open(max_attempts=1) as drover:
        task = await drover.add("Fails", description="write work.txt half\nfail 9", agent="scripted")
        await drover.run()
        ref = f"refs/drover/sessions/{task.id}/1"
        later = site.git("cat-file", "commit", ref).replace("> 1", "> 3")  # the session has grown since the snapshot
        (site.top / "later").write_text(later + "\n")
        site.git("update-ref", ref, site.git("hash-object", "-w", "-t", "commit", str(site.top / "later")))
        await drover.prune_worktrees(everything=True)
        row = await drover.restore_worktree(task.id)
        assert (row.path / "work.txt").read_text() == "half\n"


async def test_a_worktree_with_what_no_snapshot_can_hold_stays(site: Site) -> None:
    async with site.open(max_attempts=1) as drover:
        id = await failed_task(site, drover)
        site.git("init", "-q", str(site.worktree(id) / "inner"))
        (site.worktree(id) / "inner" / "file").write_text("only here\n")
        assert await drover.prune_worktrees(everything=True) == []
        [row] = await drover.worktrees()
        assert row.why.startswith("kept:")
        assert (site.worktree(id) / "inner" / "file").read_text() == "only here\n"


async def test_a_landed_worktree_with_later_edits_is_saved_before_it_goes(site: Site) -> None:
    async with site.open() as drover:
        task = await drover.add("Lands")
        await drover.run()
        row = await drover.restore_worktree(task.id)
        assert (row.path / f"{task.id}.txt").read_text() == f"{task.id}\n"
        assert row.removable and row.proof.startswith("landed as ")
        (row.path / "later.txt").write_text("an afterthought\n")
        [gone] = await drover.prune_worktrees()
        assert gone.proof == f"saved on refs/drover/wip/{task.id}/1"
        assert site.saved(task.id, 1, "later.txt") == "an afterthought"


async def test_a_task_that_is_taken_up_while_its_worktree_is_looked_at_keeps_it(site: Site) -> None:
    """Its before_remove hook takes its time; meanwhile the operator retries the task."""
    retry = (
        "import anyio, sys; from drover import app\nasync def main():\n async with app.open(repo=sys.argv[1]) as d: "
    )
    (site.top / "retry.py").write_text(f"{retry}await d.retry([sys.argv[2]], force=True)\nanyio.run(main)\n")
    async with site.open(max_attempts=1) as drover:
        id = await failed_task(site, drover)
    again = f"PYTHONPATH={Path(__file__).parents[2]} {sys.executable} {site.top}/retry.py {site.root} {id}"
    async with site.open(max_attempts=1, **{"hooks.before_remove": again}) as drover:
        assert await drover.prune_worktrees(everything=True) == []
        assert (await drover.task(id)).state is State.QUEUED
    assert (site.worktree(id) / "src/work.txt").read_text() == "half\n"


async def test_a_worktree_at_work_is_neither_pruned_nor_restored(site: Site) -> None:
    site.says(f"{WORK}; while [ ! -e {site.top}/go ]; do sleep 0.05; done")
    async with site.open() as drover:
        task = await drover.add("Works")

        async def look() -> None:
            await site.eventually(site.worktree(task.id) / "src/work.txt")
            assert await drover.prune_worktrees(everything=True) == []
            with pytest.raises(WrongState):
                await drover.restore_worktree(task.id)
            (site.top / "go").touch()

        async with anyio.create_task_group() as group:
            group.start_soon(look)
            await drover.run(workers=1)
        assert (await drover.task(task.id)).state is State.COMPLETED


@pytest.mark.parametrize(("days", "kept"), [(13, True), (15, False)])
async def test_work_of_finished_tasks_is_kept_for_14_days_and_that_of_others_for_ever(
    site: Site, days: int, kept: bool
) -> None:
    async with site.open(max_attempts=1) as drover:
        failed = await failed_task(site, drover)
        done = await drover.add("Lands")
        given_up = await drover.add("Given up")
        site.says(f"{WORK}; exit 1")
        await drover.run(tasks=[given_up.id])
        site.says("echo x > x.txt")
        await drover.run(tasks=[done.id])
        await drover.retry([given_up.id], force=True)
        await drover.cancel([given_up.id])
    async with site.open(Later(days * DAY), max_attempts=1) as drover:
        tools = await drover.tools()
        await reaper.recover(tools)
        left = {one.task_id for one in await list_kept(tools.repo)}
        assert left == ({failed, done.id, given_up.id} if kept else {failed})
        await drover.restore_worktree(failed)
        if not kept:
            with pytest.raises(NotFound):
                await drover.restore_worktree(done.id)

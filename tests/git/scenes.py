"""The operations that the kill bench kills: what they start from, what they do, and what must be true after."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from drover.git.checkout import Blocked, Published, absorb, publish
from drover.git.landing import lane_ref, raise_lease, read_lease, swap_lane, wip_ref
from drover.git.locks import clear_stale_locks
from drover.git.repo import Identity, Repo
from drover.git.snapshot import save_snapshot
from drover.git.worktree import ensure_worktree, rebase_worktree, remove_worktree

OLIVE = Identity(name="Olive Operator", email="olive@example.org")
AT = 1_767_225_600_000
OLD = {"a": "1\n" * 3000, "b": "1\n", "dir/x": "x\n", "gone": "g\n", "swap": "file\n", "run": "#!\n", "back/y": "y\n"}
NEW = {"a": "2\n" * 3000, "dir/moved": "x\n", "swap/inner": "i\n", "new/deep/file": "n\n", "back": "a file now\n"}
DATES = {"GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z"}


def git(where: Path, *argv: str) -> str:
    env = {**os.environ, **DATES}
    done = subprocess.run(["git", *argv], cwd=where, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (argv, done.stderr)
    return done.stdout.rstrip("\n")


def write(where: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_text(text)


class Scene:
    """A repository ``repo`` on ``main`` at tag ``old``; tag ``new`` is what comes."""

    variants = ("as it is",)
    changing_calls: tuple[str, ...] = ("update-ref",)
    kept = False  # whether the gits that move refs are kept

    def make(self, where: Path) -> None:
        repo = where / "repo"
        repo.mkdir()
        git(repo, "init", "-q", "--template=", "-b", "main")
        git(repo, "config", "user.name", OLIVE.name)
        git(repo, "config", "user.email", OLIVE.email)
        write(repo, {**OLD, ".gitignore": "*.ignored\n"})
        git(repo, "add", "-A")
        git(repo, "commit", "-q", "-m", "old")
        git(repo, "tag", "old")
        git(repo, "update-ref", lane_ref("main"), "old")
        git(repo, "switch", "-q", "--detach")
        for name in ("gone", "dir/x", "swap", "back/y"):
            (repo / name).unlink()
        (repo / "back").rmdir()
        write(repo, NEW)
        (repo / "run").chmod(0o755)
        (repo / "link").symlink_to("a")
        git(repo, "add", "-A")
        git(repo, "commit", "-q", "-m", "new")
        git(repo, "tag", "new")
        git(repo, "switch", "-q", "main")
        self.furnish(repo)

    def furnish(self, repo: Path) -> None:
        """What this scene has beyond that."""

    async def act(self, where: Path) -> None:
        raise NotImplementedError

    async def act_again(self, where: Path) -> None:
        """A restart: stale locks go, then the same call."""
        await clear_stale_locks(await Repo.find(where / "repo"), ["refs/heads/main"])
        await self.act(where)

    def judge_killed(self, where: Path) -> list[str]:
        return []

    def meddle(self, where: Path, variant: str) -> None:
        """What the operator does between the kill and the next call."""

    def judge_finished(self, where: Path, variant: str) -> list[str]:
        raise NotImplementedError


class Publishing(Scene):
    """The operator has changes of every kind beside the paths that change."""

    variants = ("as it is", "with an edit after the crash")
    changing_calls = ("read-tree", "update-ref")
    status = ("MM b", " D back2", "A  staged", "?? dir/untracked")

    def furnish(self, repo: Path) -> None:
        write(repo, {"back2": "x\n"})
        git(repo, "add", "back2")
        git(repo, "commit", "-q", "--amend", "-m", "old")
        git(repo, "tag", "-f", "old")
        tree = git(repo, "rev-parse", "new^{tree}")
        entries = git(repo, "ls-tree", tree) + f"\n100644 blob {git(repo, 'rev-parse', ':back2')}\tback2"
        made = subprocess.run(["git", "mktree"], cwd=repo, input=entries, capture_output=True, text=True, check=True)
        new = git(repo, "commit-tree", made.stdout.strip(), "-p", "old", "-m", "new")
        git(repo, "tag", "-f", "new", new)
        git(repo, "update-ref", lane_ref("main"), new)
        write(repo, {"b": "staged\n", "staged": "s\n"})
        git(repo, "add", "b", "staged")
        write(repo, {"b": "staged and edited\n", "dir/untracked": "u\n", "x.ignored": "i\n"})
        (repo / "back2").unlink()

    async def act(self, where: Path) -> None:
        repo = await Repo.find(where / "repo")
        new = await repo.resolve("new")
        outcome = await publish(repo, branch="main", new=new or "")
        assert isinstance(outcome, Published | Blocked), outcome

    def judge_killed(self, where: Path) -> list[str]:
        repo = where / "repo"
        found = self._operators(repo)
        tip = git(repo, "rev-parse", "main")
        index = git(repo, "ls-files", "-s", "a").split()[1]
        if tip == git(repo, "rev-parse", "new") and index != git(repo, "rev-parse", "new:a"):
            found.append("the branch is new and the index old: the landing looks reverted")
        if tip not in (git(repo, "rev-parse", "old"), git(repo, "rev-parse", "new")):
            found.append(f"the branch is at {tip}")
        return found

    def meddle(self, where: Path, variant: str) -> None:
        if variant != "as it is":
            write(where / "repo", {"a": "precious\n"})

    def judge_finished(self, where: Path, variant: str) -> list[str]:
        repo = where / "repo"
        found = self._operators(repo)
        tip = git(repo, "rev-parse", "main")
        expected = list(self.status)
        if variant == "as it is":
            if tip != git(repo, "rev-parse", "new"):
                found.append("it is not published")
        else:
            expected.append(" M a")
            if (repo / "a").read_text() != "precious\n":
                found.append("the edit made after the crash is lost")
        status = git(repo, "status", "--porcelain", "-uall").split("\n")
        if sorted(status) != sorted(expected):
            found.append(f"status {status}")
        at = "new" if tip == git(repo, "rev-parse", "new") else "old"
        if git(repo, "diff", "--name-only", at, "--").split() != sorted(
            line[3:] for line in expected if line[0] != "?"
        ):
            found.append(f"files differ from {at}")
        residue = [str(path) for path in (repo / ".git").rglob("*") if path.name.endswith(".lock")]
        residue += [str(path) for path in (repo / ".git").glob("drover-*")]
        if [path for path in residue if not path.endswith("drover/publish.lock")]:
            found.append(f"left behind: {residue}")
        if (repo / ".git/drover/publish.json").exists():
            found.append("the record is left")
        git(repo, "fsck", "--strict")
        return found

    def _operators(self, repo: Path) -> list[str]:
        texts = {"b": "staged and edited\n", "staged": "s\n", "dir/untracked": "u\n", "x.ignored": "i\n"}
        return [
            f"{name} of the operator is changed" for name, text in texts.items() if (repo / name).read_text() != text
        ]


class Swapping(Scene):
    async def act(self, where: Path) -> None:
        repo = await Repo.find(where / "repo")
        old, new = await repo.resolve("old"), await repo.resolve("new")
        lease = await raise_lease(repo, "task-a", 7)
        await swap_lane(repo, branch="main", old=old, new=new or "", task_id="task-a", lease_oid=lease.oid)

    def judge_killed(self, where: Path) -> list[str]:
        tip = git(where / "repo", "rev-parse", lane_ref("main"))
        old_and_new = git(where / "repo", "rev-parse", "old", "new").split()
        return [] if tip in old_and_new else [f"the lane is at {tip}"]

    def judge_finished(self, where: Path, variant: str) -> list[str]:
        repo = where / "repo"
        found = []
        if git(repo, "rev-parse", lane_ref("main")) != git(repo, "rev-parse", "new"):
            found.append("the lane has not moved")
        if git(repo, "cat-file", "blob", "refs/drover/lease/task-a") != "7":
            found.append("the lease does not hold the fence")
        if locks := [str(path) for path in (repo / ".git/refs").rglob("*.lock")]:
            found.append(f"left behind: {locks}")
        return found


class Absorbing(Scene):
    def furnish(self, repo: Path) -> None:
        git(repo, "update-ref", lane_ref("main"), "new")
        write(repo, {"b": "theirs\n"})
        git(repo, "commit", "-q", "-am", "theirs")

    async def act(self, where: Path) -> None:
        repo = await Repo.find(where / "repo")
        lane_tip = await repo.resolve(lane_ref("main"))
        await absorb(repo, branch="main", lane_tip=lane_tip or "", identity=OLIVE, at_ms=AT)

    def judge_finished(self, where: Path, variant: str) -> list[str]:
        parents = git(where / "repo", "log", "-1", "--format=%P", lane_ref("main")).split()
        expected = [git(where / "repo", "rev-parse", name) for name in ("new", "main")]
        return [] if parents == expected else [f"the lane's parents are {parents}"]


class Saving(Scene):
    def furnish(self, repo: Path) -> None:
        git(repo.parent, "clone", "-q", "repo", "attempt")
        write(repo.parent / "attempt", {"a": "work\n", "more": "m\n"})

    async def act(self, where: Path) -> None:
        repo = await Repo.find(where / "repo")
        base = await repo.resolve("old")
        await save_snapshot(
            repo, where / "attempt", ref=wip_ref("task-a", 1), base=base or "", message="wip\n", identity=OLIVE,
            scratch=where / "scratch", at_ms=AT,
        )  # fmt: skip

    def judge_finished(self, where: Path, variant: str) -> list[str]:
        changed = git(where / "repo", "diff", "--name-only", "old", wip_ref("task-a", 1)).split()
        return [] if changed == ["a", "more"] else [f"saved: {changed}"]


class Cloning(Scene):
    changing_calls = ("read-tree", "update-ref", "init")

    async def act(self, where: Path) -> None:
        repo = await Repo.find(where / "repo")
        await ensure_worktree(repo, where / "worktrees" / "task-a", await repo.resolve("new") or "")

    def judge_killed(self, where: Path) -> list[str]:
        path = where / "worktrees" / "task-a"
        if path.exists() and git(path, "status", "--porcelain"):
            return ["half of a clone has its name"]
        return []

    def judge_finished(self, where: Path, variant: str) -> list[str]:
        found = [] if list((where / "worktrees").iterdir()) == [where / "worktrees/task-a"] else ["leftovers"]
        path = where / "worktrees/task-a"
        if git(path, "status", "--porcelain") or git(path, "rev-parse", "HEAD") != git(
            where / "repo", "rev-parse", "new"
        ):
            found.append("the clone is not whole")
        return found


class Rebasing(Cloning):
    changing_calls = ("read-tree",)

    def furnish(self, repo: Path) -> None:
        path = repo.parent / "worktrees" / "task-a"
        git(repo.parent, "clone", "-q", "repo", str(path))
        write(path, {"a": "work\n", "more/of/it": "m\n"})

    async def act(self, where: Path) -> None:
        repo = await Repo.find(where / "repo")
        await rebase_worktree(repo, where / "worktrees" / "task-a", await repo.resolve("new") or "")

    def judge_killed(self, where: Path) -> list[str]:
        return []


class Removing(Cloning):
    def furnish(self, repo: Path) -> None:
        path = repo.parent / "worktrees" / "task-a"
        write(path, {"a": "1", "b/c": "2", "b/d/e": "3", ".git/HEAD": "x"})
        (path / "link").symlink_to(repo)

    async def act(self, where: Path) -> None:
        await remove_worktree(where / "worktrees" / "task-a")

    def judge_killed(self, where: Path) -> list[str]:
        path = where / "worktrees" / "task-a"
        files = sorted(str(file.relative_to(path)) for file in path.rglob("*"))
        whole = [".git", ".git/HEAD", "a", "b", "b/c", "b/d", "b/d/e", "link"]
        return ["half of it has its name"] if path.exists() and files != whole else []

    def judge_finished(self, where: Path, variant: str) -> list[str]:
        found = ["something is left"] if list((where / "worktrees").iterdir()) else []
        return found + ([] if (where / "repo/a").exists() else ["what a link pointed to is gone"])


class Leasing(Scene):
    async def act(self, where: Path) -> None:
        repo = await Repo.find(where / "repo")
        await raise_lease(repo, "task-a", 3)
        await raise_lease(repo, "task-a", 4)

    async def act_again(self, where: Path) -> None:
        repo = await Repo.find(where / "repo")
        await clear_stale_locks(repo)
        held = await read_lease(repo, "task-a")
        if held is None or held.fence < 4:
            await self.act(where)

    def judge_finished(self, where: Path, variant: str) -> list[str]:
        fence = git(where / "repo", "cat-file", "blob", "refs/drover/lease/task-a")
        return [] if fence == "4" else [f"the fence is {fence}"]


class KeptSwapping(Swapping):
    kept = True

    async def act(self, where: Path) -> None:
        repo = await Repo.find(where / "repo")
        old, new = await repo.resolve("old"), await repo.resolve("new")
        held = await read_lease(repo, "task-a")
        async with repo.keeping_writers():
            for fence in range(5 if held is None else held.fence, 8):
                lease = await raise_lease(repo, "task-a", fence)
            await swap_lane(repo, branch="main", old=old, new=new or "", task_id="task-a", lease_oid=lease.oid)


SCENES: dict[str, type[Scene]] = {
    "publish": Publishing,
    "swap": Swapping,
    "absorb": Absorbing,
    "save": Saving,
    "clone": Cloning,
    "rebase": Rebasing,
    "remove": Removing,
    "lease": Leasing,
    "swap by one git": KeptSwapping,
}

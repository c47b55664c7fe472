"""What an agent leaves in its clone to be run by whoever uses git there: none of it runs, and its work is taken."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from drover.git.checkout import Published, absorb, publish
from drover.git.commit import make_commit, take_tree, task_message
from drover.git.landing import (
    Merged,
    attempt_ref,
    changed_paths,
    check_content,
    find_landed,
    lane_ref,
    merge_trees,
    raise_lease,
    swap_lane,
    wip_ref,
)
from drover.git.limits import find_limits
from drover.git.locks import clear_stale_locks
from drover.git.repo import RefChange, Repo
from drover.git.snapshot import list_snapshots, restore_snapshot, save_snapshot
from drover.git.worktree import ensure_worktree, list_worktrees, rebase_worktree, remove_worktree

from .conftest import AT, OLIVE, Git

pytestmark = pytest.mark.anyio


class Trap:
    """A clone, and a program that leaves a mark when it is run."""

    def __init__(self, clone: Path, git: Git, home: Path) -> None:
        self.clone, self.call = clone, git
        self.mark = home / "fired"
        self.payload = home / "payload"
        self.payload.write_text(f'#!/bin/sh\necho "$0 $@" >> {self.mark}\ncat > /dev/null 2>&1 < /dev/null\nexit 0\n')
        self.payload.chmod(0o755)

    def git(self, *argv: str, ok: bool = True) -> str:
        return self.call(self.clone, *argv, ok=ok)

    def config(self, *keys: str) -> None:
        for key in keys:
            self.git("config", key, str(self.payload))

    def write(self, name: str, text: str) -> None:
        (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
        (self.clone / name).write_text(text)

    def hook(self, name: str, directory: str = ".git/hooks") -> None:
        target = self.clone / directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.payload, target)

    @property
    def fired(self) -> str:
        return self.mark.read_text() if self.mark.exists() else ""


Plant = Callable[[Trap], None]
HOOKS = (
    "pre-commit post-commit commit-msg prepare-commit-msg post-checkout reference-transaction post-index-change "
    "pre-merge-commit post-merge pre-auto-gc post-rewrite"
)
VECTORS: dict[str, Plant] = {f"hook {name}": lambda trap, n=name: trap.hook(n) for name in HOOKS.split()}


def vector(name: str) -> Callable[[Plant], Plant]:
    def keep(plant: Plant) -> Plant:
        VECTORS[name] = plant
        return plant

    return keep


@vector("core.hooksPath in the tree")
def _(trap: Trap) -> None:
    for name in ("pre-commit", "reference-transaction", "post-index-change", "post-checkout"):
        trap.hook(name, "hooks")
    trap.git("config", "core.hooksPath", str(trap.clone / "hooks"))


@vector("core.fsmonitor")
def _(trap: Trap) -> None:
    trap.config("core.fsmonitor")


@vector("filter.clean and smudge")
def _(trap: Trap) -> None:
    trap.config("filter.z.clean", "filter.z.smudge")
    trap.write(".gitattributes", "* filter=z\n")


@vector("filter.process by info/attributes")
def _(trap: Trap) -> None:
    trap.config("filter.z.process")
    trap.write(".git/info/attributes", "* filter=z\n")


@vector("diff.textconv and diff.command")
def _(trap: Trap) -> None:
    trap.config("diff.z.textconv", "diff.z.command")
    trap.write(".gitattributes", "* diff=z\n")


@vector("diff.external")
def _(trap: Trap) -> None:
    trap.config("diff.external")


@vector("merge driver")
def _(trap: Trap) -> None:
    trap.git("config", "merge.z.driver", f"{trap.payload} %O %A %B")
    trap.write(".git/info/attributes", "* merge=z\n")
    trap.write(".gitattributes", "* merge=z\n")


@vector("commit.gpgSign")
def _(trap: Trap) -> None:
    trap.config("gpg.program", "gpg.ssh.program")
    trap.git("config", "commit.gpgSign", "true")


@vector("log.showSignature")
def _(trap: Trap) -> None:
    trap.config("gpg.program")
    trap.git("config", "log.showSignature", "true")


@vector("config.worktree")
def _(trap: Trap) -> None:
    trap.git("config", "extensions.worktreeConfig", "true")
    trap.write(".git/config.worktree", f"[core]\n\tfsmonitor = {trap.payload}\n")


@vector("include.path to a file of the tree")
def _(trap: Trap) -> None:
    trap.write("inc", f"[core]\n\tfsmonitor = {trap.payload}\n\tsshCommand = {trap.payload}\n")
    trap.git("config", "include.path", str(trap.clone / "inc"))


def _evil_git_dir(trap: Trap) -> Path:
    evil = trap.mark.parent / "evil"
    (trap.clone / ".git").rename(evil)
    (evil / "hooks").mkdir(exist_ok=True)
    for name in ("pre-commit", "post-index-change", "reference-transaction"):
        shutil.copy(trap.payload, evil / "hooks" / name)
    with (evil / "config").open("a") as config:
        config.write(f"[core]\n\tfsmonitor = {trap.payload}\n\tworktree = {trap.clone}\n")
    return evil


@vector(".git file that points elsewhere")
def _(trap: Trap) -> None:
    trap.write(".git", f"gitdir: {_evil_git_dir(trap)}\n")


@vector("pager, editor, askpass and aliases")
def _(trap: Trap) -> None:
    trap.config("core.pager", "core.editor", "core.askPass", "sequence.editor", "pager.log", "pager.diff")
    for name in ("add", "read-tree", "update-index", "write-tree", "diff-files"):
        trap.git("config", f"alias.{name}", f"!{trap.payload}")


@vector("repository inside of the tree")
def _(trap: Trap) -> None:
    trap.git("init", "-q", "sub")
    trap.write("sub/f", "x")
    inside = ("-C", "sub")
    trap.git(*inside, "add", "-A")
    trap.git(*inside, "-c", "user.name=a", "-c", "user.email=a@x", "commit", "-q", "-m", "x")
    trap.git(*inside, "config", "core.fsmonitor", str(trap.payload))
    trap.git("add", "sub")


@vector(".git link that points elsewhere")
def _(trap: Trap) -> None:
    (trap.clone / ".git").symlink_to(_evil_git_dir(trap))


@vector("submodule with an update command")
def _(trap: Trap) -> None:
    VECTORS["repository inside of the tree"](trap)
    trap.write(".gitmodules", f'[submodule "sub"]\n\tpath = sub\n\turl = ./x\n\tupdate = !{trap.payload}\n')
    trap.git("config", "submodule.sub.update", f"!{trap.payload}")
    trap.git("config", "submodule.recurse", "true")


@vector("a bare repository as a directory of the tree")
def _(trap: Trap) -> None:
    trap.git("init", "-q", "--bare", "bare")
    trap.git("-C", "bare", "config", "core.fsmonitor", str(trap.payload))
    shutil.copy(trap.payload, trap.clone / "bare/hooks/post-index-change")


@vector("commands for transport, refs and credentials")
def _(trap: Trap) -> None:
    trap.config("core.sshCommand", "core.gitProxy", "core.alternateRefsCommand", "uploadpack.packObjectsHook")
    trap.git("config", "credential.helper", f"!{trap.payload}")
    trap.git("config", "remote.origin.url", f"ext::{trap.payload}")
    trap.git("config", "protocol.ext.allow", "always")


@vector("trailer and interactive commands")
def _(trap: Trap) -> None:
    trap.config("trailer.Drover-Task.cmd", "trailer.Drover-Task.command", "interactive.diffFilter", "difftool.z.cmd")


@vector("core.worktree at the operator's checkout")
def _(trap: Trap) -> None:
    elsewhere = trap.mark.parent / "elsewhere"
    elsewhere.mkdir()
    trap.git("config", "core.worktree", str(elsewhere))
    trap.config("core.fsmonitor")


@vector("a filter by the attributes of the tree that the operator's checkout gets too")
def _(trap: Trap) -> None:
    trap.write(".gitattributes", "* filter=z diff=z merge=z\n")
    trap.write(".gitconfig", f'[filter "z"]\n\tsmudge = {trap.payload}\n\tclean = {trap.payload}\n')
    trap.write(".lfsconfig", f"[lfs]\n\turl = file:///{trap.payload}\n")


@pytest.fixture
async def clone(repo: Repo, git: Git, tmp_path: Path) -> Path:
    where = tmp_path / "worktrees" / "task-a"
    await ensure_worktree(repo, where, git(repo.root, "rev-parse", "main"))
    return where


async def everything(repo: Repo, clone: Path, base: str, scratch: Path) -> str:
    """Every call that drover makes around an attempt, in the order of a life; what landed."""
    lane = lane_ref("main")
    await find_limits(repo)
    await clear_stale_locks(repo, [lane])
    assert await ensure_worktree(repo, clone, base) is True
    assert list_worktrees(clone.parent) == (clone,)
    await save_snapshot(
        repo, clone, ref=wip_ref("task-a", 1), base=base, message="wip\n", identity=OLIVE, scratch=scratch, at_ms=AT
    )
    taken = await take_tree(repo, clone, base=base, scratch=scratch)
    assert "README.md" in taken.paths
    message = task_message("Do it", "task-a", 1)
    commit = await make_commit(repo, tree=taken.tree, parents=(base,), message=message, identity=OLIVE, at_ms=AT)
    change = RefChange(ref=attempt_ref("task-a", 1), new=commit, old=None)
    await repo.update_refs([change, RefChange(ref=lane, new=base, old=None)], since=(base,))
    lease = await raise_lease(repo, "task-a", 1)
    await absorb(repo, branch="main", lane_tip=base, identity=OLIVE, at_ms=AT)
    merged = await merge_trees(repo, ours=base, theirs=commit)
    assert isinstance(merged, Merged)
    await rebase_worktree(repo, clone, base, tree=merged.tree)
    await swap_lane(repo, branch="main", old=base, new=commit, task_id="task-a", lease_oid=lease.oid)
    await check_content(repo, parent=base, landed=commit, allowed_paths=await changed_paths(repo, base, commit))
    assert await find_landed(repo, tip=commit, since=base, task_id="task-a") is not None
    assert isinstance(await publish(repo, branch="main", new=commit), Published)
    await remove_worktree(clone)
    for snapshot in await list_snapshots(repo):
        await restore_snapshot(repo, snapshot.ref, clone)
    await remove_worktree(clone)
    return commit


@pytest.mark.suite("T29")
@pytest.mark.parametrize("name", VECTORS)
async def test_nothing_an_agent_planted_runs(repo: Repo, git: Git, clone: Path, tmp_path: Path, name: str) -> None:
    trap = Trap(clone, git, tmp_path)
    base = git(repo.root, "rev-parse", "main")
    config = (repo.git_dir / "config").read_bytes()
    VECTORS[name](trap)
    trap.mark.unlink(missing_ok=True)  # planting itself may have set some of them off
    trap.write("README.md", "the agent's work\n")
    landed = await everything(repo, clone, base, tmp_path / "scratch")
    assert trap.fired == ""
    assert (repo.root / "README.md").read_text() == "the agent's work\n"
    assert git(repo.root, "rev-parse", "main") == landed
    assert (repo.git_dir / "config").read_bytes() == config
    assert git(repo.root, "-c", "fsck.gitmodulesUpdate=ignore", "fsck", "--strict") == ""


@pytest.mark.suite("T29")
async def test_the_traps_are_real(repo: Repo, git: Git, clone: Path, tmp_path: Path) -> None:
    """Ordinary use of git in such a clone sets them off; otherwise the test above would prove nothing."""
    armed = []
    for number, (name, plant) in enumerate(VECTORS.items()):
        where = tmp_path / str(number)
        where.mkdir()
        victim = where / "worktrees" / "task-a"
        shutil.copytree(clone, victim, symlinks=True)
        trap = Trap(victim, git, where)
        plant(trap)
        trap.write("README.md", f"changed {name}\n")
        for argv in (["status"], ["diff", "HEAD"], ["add", "-A"], ["commit", "-q", "-m", "x"], ["log", "-1", "-p"]):
            trap.git(*argv, ok=False)
        trap.git("-C", "bare", "status", ok=False)
        if trap.fired:
            armed.append(name)
    assert len(armed) >= 15, armed
    assert os.path.lexists(clone)

"""Kills an operation at every point of one kind, calls it again, and judges what is there.

``python kill_bench.py OPERATION KIND DIRECTORY [all]`` prints one JSON line: how many points there
were, how many were hit, and every violation in words; with ``all``, in every variant of what the
operator does after the kill. Each case is a fork of this process, so that a kill is a real one and
costs no start of an interpreter. Kinds of points:

- ``before``, ``after``: each call of git, by a program of that name first on PATH;
- ``files``: before each change of a file or directory that Python itself makes;
- ``syscalls``: at each changing system call inside of each git that moves refs or writes a checkout;
- ``twice``: after each of those gits, and then after each git call of the call that follows.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path

import anyio
import anyio.to_thread
from scenes import SCENES, Scene

REAL_GIT = shutil.which("git") or "git"
CHANGING = (
    "rename", "renameat2", "link", "symlink", "symlinkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "write",
    "chmod", "ftruncate",
)  # fmt: skip
EVENTS = ("os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.symlink", "os.chmod")
MOST_SYSCALLS = 150
MOST_CALLS = 100

# One that moves refs is asked again and again: each of its transactions is a call.
RELAY = """
import os, signal, subprocess, sys
home, argv = sys.argv[1], sys.argv[2:]
git = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
while asked := os.read(0, 65536):
    number = int(open(home + "/count").read()) + 1
    open(home + "/count", "w").write(f"{number}\\n")
    open(home + "/calls", "a").write(" ".join(argv[1:]) + "\\n")
    at, how, *_ = open(home + "/at").read().split()
    if (number, how) == (int(at), "before"):
        os.kill(os.getppid(), signal.SIGKILL)
        break
    git.stdin.write(asked)
    said = b""
    while not said.endswith(b"commit: ok\\n") and (part := git.stdout.read(4096)):
        said += part
    if (number, how) == (int(at), "after"):
        os.kill(os.getppid(), signal.SIGKILL)
        break
    os.write(1, said)
    if not said.endswith(b"commit: ok\\n"):
        break
git.stdin.close()
sys.exit(git.wait())
"""
SHIM = """#!/bin/sh
if [ -e {home}/relay.py ]; then
    case " $* " in *" update-ref "*) exec {python} -I -S {home}/relay.py {home} {git} "$@" ;; esac
fi
read n < {home}/count
n=$((n + 1))
echo $n > {home}/count
echo "$@" >> {home}/calls
read at how extra when < {home}/at
if [ "$n" != "$at" ]; then exec {git} "$@"; fi
case $how in
before) kill -9 $PPID; exit 137 ;;
after) {git} "$@"; kill -9 $PPID; exit 137 ;;
inside) strace -f -qq -o /dev/null -e trace=$extra -e inject=$extra:signal=KILL:when=$when {git} "$@" 2>/dev/null
    status=$?
    if [ $status -gt 128 ]; then kill -9 $PPID; fi
    exit $status ;;
esac
"""


class Bench:
    def __init__(self, scene: Scene, home: Path, variants: tuple[str, ...]) -> None:
        self.scene, self.home, self.variants = scene, home, variants
        self.violations: list[str] = []
        self.points = self.hit = 0
        (home / "bin").mkdir()
        (home / "bin/git").write_text(SHIM.format(home=home, git=REAL_GIT, python=sys.executable))
        (home / "bin/git").chmod(0o755)
        os.environ["PATH"] = f"{home / 'bin'}:{os.environ['PATH']}"
        if scene.kept:
            (home / "relay.py").write_text(RELAY)
        self.shim()
        (home / "template").mkdir()
        scene.make(home / "template")

    def shim(self, at: int = 0, how: str = "none", call: str = "none", when: int = 0) -> None:
        (self.home / "count").write_text("0\n")
        (self.home / "at").write_text(f"{at} {how} {call} {when}\n")

    def fresh(self) -> Path:
        where = self.home / "work"
        shutil.rmtree(where, ignore_errors=True)
        shutil.copytree(self.home / "template", where, symlinks=True)
        return where

    def case(self, name: str, arm: Callable[[], None], arm_again: Callable[[], None] | None = None) -> int:
        """One kill (or two) and all that is asked after it; the status of the process killed last."""
        status = 0
        for variant in self.variants:
            where = self.fresh()
            status = fork(self.scene.act, where, arm)
            self.shim()
            found = self.scene.judge_killed(where) if os.WIFSIGNALED(status) else []
            self.scene.meddle(where, variant)
            if os.WIFSIGNALED(status) and arm_again is not None:
                status = fork(self.scene.act_again, where, arm_again)
                self.shim()
            if not os.WIFSIGNALED(status):
                if os.WEXITSTATUS(status):
                    self.violations.append(f"{name}: failed instead of being killed")
                return status
            if again := fork(self.scene.act_again, where, lambda: None):
                found.append(f"the next call ended with {again}")
            found += self.scene.judge_finished(where, variant)
            self.violations += [f"{name}, {variant}: {words}" for words in found]
        self.hit += 1
        return status

    def sweep_calls(self, how: str) -> None:
        for number in range(1, len(self.count_calls()) + 1):
            self.points += 1
            self.case(f"{how} call {number}", lambda n=number: self.shim(n, how))

    def sweep_twice(self) -> None:
        for number, call in enumerate(self.count_calls(), 1):
            if not self.is_changing(call):
                continue
            for again in range(1, MOST_CALLS):
                name = f"after call {number} and after call {again} of the next"
                first, second = (lambda n=number: self.shim(n, "after")), (lambda n=again: self.shim(n, "after"))
                if not os.WIFSIGNALED(self.case(name, first, second)):
                    break
                self.points += 1

    def is_changing(self, call: str) -> bool:
        return any(f" {word} " in f" {call} " for word in self.scene.changing_calls)

    def count_calls(self) -> list[str]:
        (self.home / "calls").unlink()
        self.shim()
        fork(self.scene.act, self.fresh(), lambda: None)
        return (self.home / "calls").read_text().splitlines()

    def sweep_files(self) -> None:
        number = 0
        while True:
            number += 1
            status = self.case(f"before change {number}", lambda n=number: kill_at_change(n, self.home / "work"))
            if not os.WIFSIGNALED(status):
                return
            self.points += 1

    def sweep_syscalls(self) -> None:
        for number, call in enumerate(self.count_calls(), 1):
            if self.is_changing(call):
                for name in CHANGING:
                    self.sweep_syscall(number, name)

    def sweep_syscall(self, number: int, name: str) -> None:
        """strace counts each system call by itself, so each is swept by itself."""
        for when in range(1, MOST_SYSCALLS):
            where = f"at {name} {when} of git {number}"
            status = self.case(where, lambda w=when: self.shim(number, "inside", name, w))
            if not os.WIFSIGNALED(status):
                return
            self.points += 1


def fork(act: Callable[[Path], Coroutine[None, None, None]], where: Path, arm: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    code = 1
    try:
        arm()
        anyio.run(act, where)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
    return 0


def kill_at_change(number: int, where: Path) -> None:
    seen = 0
    guard = threading.Lock()

    def look(event: str, args: tuple[object, ...]) -> None:
        nonlocal seen
        if event == "open":
            flags = args[2] if isinstance(args[2], int) else 0
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
                return
        elif event not in EVENTS:
            return
        if not isinstance(args[0], str | bytes | os.PathLike):
            return
        path = Path(os.fsdecode(args[0]))  # relative: to the handle of a directory that is being removed
        if path.is_absolute() and where not in path.parents:
            return
        with guard:
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


def main(operation: str, kind: str, directory: str, *options: str) -> None:
    scene = SCENES[operation]()
    bench = Bench(scene, Path(directory), scene.variants if "all" in options else scene.variants[:1])
    kinds = {"files": bench.sweep_files, "syscalls": bench.sweep_syscalls, "twice": bench.sweep_twice}
    kinds.get(kind, lambda: bench.sweep_calls(kind))()
    print(json.dumps({"points": bench.points, "hit": bench.hit, "violations": bench.violations}))


if __name__ == "__main__":
    main(*sys.argv[1:])

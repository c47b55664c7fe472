"""Who a process is, and ending exactly those that carry a marker."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator

import anyio
import psutil
import pytest

from drover import process
from drover.process import identity as identities
from drover.process import leftovers
from drover.supervisor.table import ProcTable, PsutilTable, below, signal_exactly

Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    made: list[subprocess.Popen[bytes]] = []

    def start(*argv: str, marker: str | None = None) -> subprocess.Popen[bytes]:
        env = {**os.environ, **({"DROVER_MARKER": marker} if marker else {})}
        made.append(subprocess.Popen(argv or ("sleep", "300"), env=env, start_new_session=True, stdout=subprocess.PIPE))
        return made[-1]

    yield start
    for child in made:
        child.kill()
        child.wait()
        child.stdout and child.stdout.close()


@pytest.fixture
def marker() -> str:
    return f"test-{uuid.uuid4().hex}"


def test_a_process_is_itself_and_its_identity_can_be_written_down() -> None:
    me = process.current_identity()
    assert me.pid == os.getpid()
    assert process.is_alive(me)
    assert process.parse_identity(str(me)) == me
    for text in ("", "x", "boot:1", "boot:x:1", "boot:1:-2"):
        assert process.parse_identity(text) is None


def test_the_next_owner_of_a_pid_is_somebody_else() -> None:
    me = process.current_identity()
    assert not process.is_alive(me.model_copy(update={"started": me.started - 1}))
    assert not process.is_alive(me.model_copy(update={"boot_id": "another boot"}))


def test_a_zombie_is_dead(spawn: Spawn) -> None:
    child = spawn("true")
    identity = process.identify(child.pid)
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert process.identify(child.pid) is None
    assert identity is None or not process.is_alive(identity)


def test_a_name_with_brackets_and_blanks_does_not_confuse(spawn: Spawn) -> None:
    rename = "import ctypes, time; ctypes.CDLL(None).prctl(15, b') R 1 (', 0, 0, 0)"
    script = rename + "; print(flush=True); time.sleep(60)"
    child = spawn(sys.executable, "-c", script)
    assert child.stdout is not None
    child.stdout.readline()
    found = process.identify(child.pid)
    assert found is not None
    assert found.started > 0
    entry = ProcTable().one(child.pid)
    assert entry is None or entry[:2] == (os.getpid(), found.started)


def test_a_marker_is_found_by_its_whole_beginning(spawn: Spawn, marker: str) -> None:
    pids = {name: spawn(marker=name).pid for name in (f"{marker}1", f"{marker}10", f"{marker}1.7.", f"x{marker}1")}
    unmarked = spawn().pid

    def found(text: str) -> set[int]:
        return {identity.pid for identity in process.find_marked(text)}

    assert found(f"{marker}1") == {pids[f"{marker}1"], pids[f"{marker}1.7."]}
    assert found(f"{marker}1.") == found(f"{marker}1.7.") == {pids[f"{marker}1.7."]}
    assert found(f"{marker}10") == {pids[f"{marker}10"]}
    assert unmarked not in found("test-")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere an environment is never half there")
def test_a_child_that_is_long_in_the_middle_of_its_exec_is_waited_for(
    spawn: Spawn, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine it may be put aside just there, and shows no environment until it goes on."""
    child, read, asked = spawn(marker=marker), identities._read, list[float]()

    def not_yet(path: str) -> bytes:
        if path == f"/proc/{child.pid}/environ":
            asked.append(time.monotonic())
            if asked[-1] < asked[0] + 0.02:
                return b""
        return read(path)

    monkeypatch.setattr(identities, "_read", not_yet)
    assert [one.pid for one in process.find_marked(marker)] == [child.pid]


def test_a_process_does_not_find_itself(spawn: Spawn, marker: str) -> None:
    script = f"from drover.process import find_marked; print(find_marked({marker!r}))"
    child = spawn(sys.executable, "-c", script, marker=marker)
    assert child.stdout is not None
    assert child.stdout.read() == b"[]\n"


@pytest.mark.anyio
async def test_ending_what_is_marked_ends_that_and_nobody_else(spawn: Spawn, marker: str) -> None:
    gentle = spawn(marker=f"{marker}.1.")
    deaf = spawn("sh", "-c", "trap '' TERM; echo; while :; do sleep 0.05; done", marker=f"{marker}.1.")
    assert deaf.stdout is not None
    deaf.stdout.readline()
    stranger = spawn(marker=f"{marker}.10.")
    assert await process.end_marked(f"{marker}.1.", 0.3) >= 2
    assert (gentle.wait(60), deaf.wait(5)) == (-15, -9)
    assert stranger.poll() is None
    assert await process.end_marked(f"{marker}.1.", 0.3) == 0


@pytest.mark.anyio
async def test_a_pid_that_changed_hands_is_left_alone(
    spawn: Spawn, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = spawn()
    now = process.identify(stranger.pid)
    assert now is not None
    stale = now.model_copy(update={"started": now.started - 1})
    looks = iter([[stale]])
    monkeypatch.setattr(leftovers, "find_marked", lambda _: next(looks, []))
    assert await process.end_marked(marker, 0.2) == 1
    signal_exactly(stranger.pid, now.started - 1, 9, ProcTable())
    assert stranger.poll() is None
    signal_exactly(stranger.pid, now.started, 9, ProcTable())
    assert stranger.wait(60) == -9


@pytest.mark.anyio
async def test_what_does_not_end_is_reported(spawn: Spawn, marker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    child = spawn(marker=marker)

    async def no_signal(*_: object) -> None:
        await anyio.sleep(0.01)

    monkeypatch.setattr(leftovers, "_signal_one", no_signal)  # as if the kernel held it in a dead mount
    monkeypatch.setattr(leftovers, "KILL_S", 0.2)
    with pytest.raises(process.ProcessesRemain, match=str(child.pid)):
        await process.end_marked(marker, 0.0)


# ---------------------------------------------------------------- systems without /proc


def test_psutil_tells_the_same_identities_and_markers(
    spawn: Spawn, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = spawn(marker=f"{marker}.1.")
    monkeypatch.setattr(identities, "_LINUX", False)
    monkeypatch.setattr(identities, "boot_id", lambda: "a boot")
    found = process.identify(child.pid)
    assert found is not None
    assert process.is_alive(found)
    assert [identity.pid for identity in process.find_marked(marker)] == [child.pid]
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not process.is_alive(found), "a zombie is dead there, too"
    child.wait()
    assert not process.is_alive(found)
    assert process.find_marked(marker) == []


@pytest.mark.parametrize("linux", [True, False])
def test_a_group_lives_as_long_as_one_of_it(spawn: Spawn, monkeypatch: pytest.MonkeyPatch, linux: bool) -> None:
    leader = spawn("sh", "-c", "sleep 300 & echo; exit 0")
    assert leader.stdout is not None
    leader.stdout.readline()
    leader.wait()
    (left,) = [p for p in psutil.process_iter() if _group(p.pid) == leader.pid]
    monkeypatch.setattr(identities, "_LINUX", linux)
    assert identities.group_lives(leader.pid)
    left.kill()
    deadline = time.monotonic() + 60
    while identities.group_lives(leader.pid) and time.monotonic() < deadline:  # until somebody has buried it
        time.sleep(0.01)
    assert not identities.group_lives(leader.pid)


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


@pytest.mark.anyio
async def test_without_pidfds_what_is_marked_ends_too(
    spawn: Spawn, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = spawn("sh", "-c", "trap '' TERM; echo; while :; do sleep 0.05; done", marker=marker)
    assert deaf.stdout is not None
    deaf.stdout.readline()
    monkeypatch.setattr(leftovers.sys, "platform", "darwin")
    try:
        assert await process.end_marked(marker, 0.2) >= 1
    finally:
        monkeypatch.undo()
    assert deaf.wait(60) == -9


def test_both_tables_show_the_same_descendants(spawn: Spawn, marker: str) -> None:
    child = spawn("sh", "-c", "sleep 300 & setsid sleep 300 & wait", marker=marker)
    proc, other = ProcTable(), PsutilTable(os.path.dirname(os.path.dirname(psutil.__file__)))
    while len(below(child.pid, proc.all())) < 2:
        time.sleep(0.01)
    mine = below(child.pid, proc.all())
    assert below(child.pid, other.all()) == mine
    assert all(
        table.marked(pid, marker) and not table.marked(pid, marker[:-1]) for table in (proc, other) for pid in mine
    )
    for pid in mine:
        os.kill(pid, 9)

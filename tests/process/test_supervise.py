"""One agent under its supervisor: barrier, output, limits, signs of life, record."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from pathlib import Path

import anyio
import psutil
import pytest

from drover import process
from drover.domain.errors import LeaseLost
from drover.domain.models import ProcessIdentity

from .conftest import MakeLaunch, Watcher, alive_with, until_exists

pytestmark = pytest.mark.anyio
MIB = 1024 * 1024


async def test_an_exit_is_told_and_recorded(make_launch: MakeLaunch, watcher: Watcher) -> None:
    launch = make_launch("sh", "-c", "echo out; echo err >&2; exit 3")
    exit = await process.supervise(launch, watcher)
    assert (exit.returncode, exit.signal, exit.ok, exit.output_bytes, exit.cut) == (3, None, False, 8, False)
    assert launch.output_path.read_text() == "out\n"
    assert launch.error_path is not None
    assert launch.error_path.read_text() == "err\n"
    assert process.adopt(launch.record_path) == exit
    assert 0 <= exit.ended_at - exit.started_at < 10_000
    assert exit.marker == launch.marker
    assert exit.peak_rss > 100_000


async def test_files_are_for_the_operator_alone(make_launch: MakeLaunch, watcher: Watcher) -> None:
    launch = make_launch("true")
    await process.supervise(launch, watcher)
    for path in launch.record_path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert sorted(path.name for path in launch.record_path.parent.iterdir()) == ["errors", "exit.json", "output"]


async def test_both_streams_in_one_file_keep_their_order(make_launch: MakeLaunch, watcher: Watcher) -> None:
    launch = make_launch("sh", "-c", "echo 1; echo 2 >&2; echo 3", error_path=None)
    await process.supervise(launch, watcher)
    assert launch.output_path.read_text() == "1\n2\n3\n"


async def test_a_signal_of_somebody_else_is_told(make_launch: MakeLaunch, watcher: Watcher) -> None:
    exit = await process.supervise(make_launch("sh", "-c", "kill -SEGV $$"), watcher)
    assert (exit.returncode, exit.signal, exit.stopped) == (None, signal.SIGSEGV, None)


async def test_it_gets_its_input_environment_and_directory_and_nothing_else(
    make_launch: MakeLaunch, watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    (tmp_path / "prompt").write_text("the prompt")
    env = {"PATH": "/bin:/usr/bin", "NAME": "ñ"}
    launch = make_launch("sh", "-c", "cat; echo; pwd; env", stdin_path=tmp_path / "prompt", env=env)
    await process.supervise(launch, watcher)
    said = launch.output_path.read_text().splitlines()
    assert said[:2] == ["the prompt", str(tmp_path)]
    assert {line.split("=")[0] for line in said[2:]} <= {"PATH", "NAME", "DROVER_MARKER", "PWD", "SHLVL", "_", "OLDPWD"}
    assert f"DROVER_MARKER={launch.marker}" in said
    assert "NAME=ñ" in said


async def test_it_has_its_own_session_and_no_terminal_and_its_signals_are_reset(
    make_launch: MakeLaunch, watcher: Watcher
) -> None:
    script = (
        "import os, signal\nprint(os.getsid(0) == os.getpid() == os.getpgid(0))\n"
        "print([n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN and n not in (13, 25)])\n"
        "print(signal.pthread_sigmask(signal.SIG_BLOCK, []))\n"
        "print(sorted(os.listdir('/proc/self/fd'))[:-1])"
    )
    old = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        launch = make_launch(sys.executable, "-I", "-c", script)
        await process.supervise(launch, watcher)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    assert launch.output_path.read_text().splitlines() == ["True", "[]", "set()", "['0', '1', '2']"]


async def test_it_runs_only_after_its_identity_was_recorded(
    make_launch: MakeLaunch, tmp_path: Path, token: str
) -> None:
    class Recording(Watcher):
        async def started(self, identity: ProcessIdentity) -> None:
            assert process.is_alive(identity)
            await anyio.sleep(0.2)  # a slow database
            assert not (tmp_path / "acted").exists()
            await super().started(identity)

    watcher = Recording()
    exit = await process.supervise(make_launch("touch", "acted"), watcher)
    assert exit.ok
    assert (tmp_path / "acted").exists()
    assert watcher.identity is not None
    assert not process.is_alive(watcher.identity)


async def test_it_never_runs_when_its_start_may_not_be_recorded(make_launch: MakeLaunch, tmp_path: Path) -> None:
    class Fenced(Watcher):
        async def started(self, identity: ProcessIdentity) -> None:
            raise LeaseLost()

    launch = make_launch("touch", "acted")
    with pytest.raises(LeaseLost):
        await process.supervise(launch, Fenced())
    assert not (tmp_path / "acted").exists()
    assert not launch.record_path.exists()
    assert process.find_marked(launch.marker) == []


@pytest.mark.parametrize(
    ("argv", "error", "what"),
    [
        (("nowhere-at-all",), FileNotFoundError, "no such program: nowhere-at-all"),
        (("/nowhere/at/all",), FileNotFoundError, "/nowhere/at/all"),
        (("/etc/passwd",), PermissionError, "/etc/passwd"),
        (("nul\0",), OSError, "null"),
    ],
)
async def test_what_cannot_be_started_says_so(
    make_launch: MakeLaunch, watcher: Watcher, argv: tuple[str, ...], error: type[OSError], what: str
) -> None:
    with pytest.raises(error, match=what):
        await process.supervise(make_launch(*argv), watcher)


async def test_a_directory_that_has_gone_says_so(make_launch: MakeLaunch, watcher: Watcher, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        await process.supervise(make_launch("true", cwd=tmp_path / "gone"), watcher)


async def test_a_huge_environment_arrives(make_launch: MakeLaunch, watcher: Watcher) -> None:
    env = {"PATH": os.environ["PATH"], **{f"V{n}": "x" * 10_000 for n in range(60)}}
    launch = make_launch("sh", "-c", "echo ${#V59}", env=env)
    await process.supervise(launch, watcher)
    assert launch.output_path.read_text() == "10000\n"


# ---------------------------------------------------------------- output


async def test_output_up_to_the_limit_is_kept_whole(make_launch: MakeLaunch, watcher: Watcher) -> None:
    launch = make_launch("sh", "-c", "head -c 100000 /dev/zero", output_limit_bytes=100_000)
    exit = await process.supervise(launch, watcher)
    assert not exit.cut
    assert launch.output_path.read_bytes() == b"\0" * 100_000


@pytest.mark.suite("T26")
async def test_of_too_much_output_beginning_and_end_are_kept_and_the_cut_is_shown(
    make_launch: MakeLaunch, watcher: Watcher
) -> None:
    launch = make_launch("sh", "-c", "seq 1 300000; echo the last line", output_limit_bytes=1_000_000)
    exit = await process.supervise(launch, watcher)
    text = launch.output_path.read_text()
    assert exit.ok
    assert exit.cut
    assert text.startswith("1\n2\n3\n")
    assert text.endswith("299999\n300000\nthe last line\n")
    head, _, rest = text.partition("\n[drover: too much output")
    left_out = int(rest.split("[drover: ")[1].split()[0])
    end = rest.split("bytes left out]\n")[1]
    assert len(head) + left_out + len(end) == exit.output_bytes
    assert len(end) == 256 * 1024
    assert len(text) < 1_000_200


@pytest.mark.suite("T26")
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("what", "gigabytes"),
    [
        ("head -c 1000000000 /dev/zero", 1),
        ("yes | head -c 1000000000", 1),
        pytest.param("head -c 1000000000 /dev/urandom", 1, marks=pytest.mark.slow),
        pytest.param("yes | head -c 5000000000", 5, marks=pytest.mark.slow),
    ],
)
async def test_gigabytes_pass_at_pipe_speed_in_flat_memory(
    make_launch: MakeLaunch, watcher: Watcher, what: str, gigabytes: int
) -> None:
    peak = 0
    lags: list[float] = []
    launch = make_launch("sh", "-c", what + "; echo; echo the end")

    async def measure() -> None:
        nonlocal peak
        await watcher.born.wait()
        assert watcher.identity is not None
        supervisor = psutil.Process(watcher.identity.pid)
        while True:
            before = time.monotonic()
            await anyio.sleep(0.02)
            lags.append(time.monotonic() - before - 0.02)
            try:
                peak = max(peak, supervisor.memory_info().rss)
            except psutil.NoSuchProcess:
                return

    mine = psutil.Process().memory_info().rss
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(measure)
        exit = await process.supervise(launch, watcher)
        tasks.cancel_scope.cancel()
    assert psutil.Process().memory_info().rss - mine < 20 * MIB
    assert exit.output_bytes == gigabytes * 1_000_000_000 + 9
    assert exit.seconds < 200 * gigabytes
    assert launch.output_path.read_bytes()[-9:] == b"\nthe end\n"
    assert launch.output_path.stat().st_size < 65 * MIB
    assert 0 < peak < 40 * MIB
    assert sorted(lags)[len(lags) // 2] < 0.2
    assert len(watcher.bytes) <= exit.seconds * 20 + 2


@pytest.mark.suite("T15")
async def test_a_full_disk_loses_output_and_not_the_agent(make_launch: MakeLaunch, watcher: Watcher) -> None:
    launch = make_launch("sh", "-c", "echo lost; exit 3", output_path=Path("/dev/full"))
    exit = await process.supervise(launch, watcher)
    assert (exit.returncode, exit.cut) == (3, True)


async def test_a_record_that_cannot_be_written_is_still_told(
    make_launch: MakeLaunch, watcher: Watcher, tmp_path: Path
) -> None:
    launch = make_launch("sh", "-c", "exit 3", record_path=tmp_path / "nowhere" / "exit.json")
    exit = await process.supervise(launch, watcher)
    assert (exit.returncode, exit.lost) == (3, False)


async def test_a_grandchild_that_holds_the_pipe_is_heard_for_two_seconds_and_ended(
    make_launch: MakeLaunch, watcher: Watcher
) -> None:
    launch = make_launch("sh", "-c", "(sleep 0.5; echo late; sleep 60) & echo early")
    exit = await process.supervise(launch, watcher)
    assert launch.output_path.read_text() == "early\nlate\n"
    assert exit.ok
    assert 2 <= exit.seconds < 40


async def test_drover_stopped_does_not_hold_the_agent_up(make_launch: MakeLaunch, tmp_path: Path) -> None:
    """Nobody reads what the supervisor says; it goes on all the same."""

    class Busy(Watcher):
        def progress(self, output_bytes: int) -> None:
            super().progress(output_bytes)
            if not (tmp_path / "finished").exists():
                time.sleep(0.5)  # the event loop is blocked, as if the process had been stopped

    launch = make_launch("sh", "-c", "head -c 100000000 /dev/zero; touch finished")
    watcher = Busy()
    exit = await process.supervise(launch, watcher)
    assert (exit.ok, exit.output_bytes) == (True, 100_000_000)
    assert watcher.bytes  # the last words of one whom nobody reads may be lost


# ---------------------------------------------------------------- limits and signs of life


async def test_a_stop_is_gentle_first(make_launch: MakeLaunch, watcher: Watcher, tmp_path: Path) -> None:
    script = "trap 'echo saved > saved; exit 7' INT; touch ready; while :; do sleep 0.05; done"
    launch = make_launch("sh", "-c", script, stop_signal="INT", grace_s=10)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(process.supervise, launch, watcher)
        await until_exists(tmp_path / "ready")
        tasks.cancel_scope.cancel()
    exit = process.adopt(launch.record_path)
    assert exit is not None
    assert (exit.returncode, exit.stopped, exit.ok) == (7, "order", False)
    assert (tmp_path / "saved").exists()


async def test_one_that_is_deaf_is_killed_after_the_grace(
    make_launch: MakeLaunch, watcher: Watcher, tmp_path: Path
) -> None:
    launch = make_launch("sh", "-c", "trap '' TERM; touch ready; while :; do sleep 0.05; done", grace_s=0.5)
    began = 0.0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(process.supervise, launch, watcher)
        await until_exists(tmp_path / "ready")
        began = time.monotonic()
        tasks.cancel_scope.cancel()
    assert time.monotonic() - began >= 0.5
    exit = process.adopt(launch.record_path)
    assert exit is not None
    assert exit.signal == signal.SIGKILL


async def test_exit_0_of_one_that_was_stopped_is_not_ok(make_launch: MakeLaunch, watcher: Watcher) -> None:
    exit = await process.supervise(
        make_launch("sh", "-c", "trap 'exit 0' TERM; sleep 60 & wait", timeout_s=0.3), watcher
    )
    assert (exit.returncode, exit.timed_out, exit.ok) == (0, True, False)


async def test_a_sign_of_life_is_output_or_cpu_use(make_launch: MakeLaunch, watcher: Watcher) -> None:
    busy = "import time\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass"
    exit = await process.supervise(make_launch(sys.executable, "-c", busy, stall_s=0.6), watcher)
    assert exit.ok
    assert watcher.bytes
    assert set(watcher.bytes) == {0}


async def test_cpu_use_of_a_grandchild_counts(make_launch: MakeLaunch, watcher: Watcher) -> None:
    busy = "import time; end = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass"
    launch = make_launch("sh", "-c", f"setsid {sys.executable} -c '{busy}' & wait", stall_s=0.6)
    assert (await process.supervise(launch, watcher)).ok


async def test_without_a_sign_of_life_it_is_stopped(make_launch: MakeLaunch, watcher: Watcher) -> None:
    exit = await process.supervise(make_launch("sleep", "60", stall_s=0.4), watcher)
    assert (exit.stalled, exit.stopped, exit.ok) == (True, "order", False)
    assert exit.seconds < 40


async def test_changed_files_are_asked_for_only_in_silence(make_launch: MakeLaunch, watcher: Watcher) -> None:
    asked: list[float] = []

    async def changed(since: float) -> bool:
        asked.append(since)
        return len(asked) < 3

    exit = await process.supervise(make_launch("sleep", "60", stall_s=0.4), watcher, changed=changed)
    assert exit.stalled
    assert len(asked) == 3
    assert 1.0 <= exit.seconds < 40  # its silence began when drover spoke to it last, which is before it ran
    assert asked[0] <= time.time() - 1.2


async def test_want_of_memory_is_told_apart_from_a_kill(make_launch: MakeLaunch, watcher: Watcher) -> None:
    group = Path("/sys/fs/cgroup/memory") / f"drover-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(64 * MIB))
    except OSError:
        pytest.skip("no memory cgroup can be made here")
    try:
        script = f"echo $$ > {group}/cgroup.procs; exec {sys.executable} -c 'x = bytearray(500_000_000)'"
        exit = await process.supervise(make_launch("sh", "-c", script), watcher)
    finally:
        group.rmdir()
    assert (exit.signal, exit.out_of_memory) == (signal.SIGKILL, True)
    exit = await process.supervise(make_launch("sh", "-c", "kill -9 $$"), watcher)
    assert (exit.signal, exit.out_of_memory) == (signal.SIGKILL, False)


# ---------------------------------------------------------------- its record


def test_half_a_record_is_none(tmp_path: Path) -> None:
    record = tmp_path / "exit.json"
    assert process.adopt(record) is None
    for text in ("", '{"returncode": 0, "mar', "[]", '{"returncode": "x"}'):
        record.write_text(text)
        assert process.adopt(record) is None, text


def test_a_record_of_a_later_drover_is_read(tmp_path: Path) -> None:
    record = tmp_path / "exit.json"
    record.write_text('{"returncode": 0, "something": "new"}')
    assert process.adopt(record) == process.Exit(returncode=0)


@pytest.mark.suite("T35")
async def test_the_environment_of_an_agent_is_not_shown_by_accident(make_launch: MakeLaunch) -> None:
    assert "hunter2" not in repr(make_launch("true", env={"PASSWORD": "hunter2"}))


@pytest.mark.suite("T35")
async def test_no_secret_is_among_the_supervisors_arguments_or_in_its_environment(
    make_launch: MakeLaunch, watcher: Watcher, tmp_path: Path, token: str
) -> None:
    launch = make_launch("sh", "-c", "touch ready; sleep 60", env={"PATH": os.environ["PATH"], "KEY": "hunter2"})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(process.supervise, launch, watcher)
        await until_exists(tmp_path / "ready")
        assert watcher.identity is not None
        seen = [Path(f"/proc/{watcher.identity.pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
        tasks.cancel_scope.cancel()
    assert b"supervisor" in seen[0]
    assert b"hunter2" not in b"".join(seen)
    assert alive_with(token) == []


# ---------------------------------------------------------------- an input that stays open


async def test_what_is_said_comes_after_the_file_and_the_end_after_that(
    make_launch: MakeLaunch, watcher: Watcher, tmp_path: Path
) -> None:
    (tmp_path / "input").write_text("first\n")
    launch = make_launch(
        "sh", "-c", "read a; echo $a > said; cat; echo over", stdin_path=tmp_path / "input", stdin_open=True
    )
    voice = process.Voice()
    async with anyio.create_task_group() as tasks:

        async def speak() -> None:
            await until_exists(tmp_path / "said")
            voice.say("second")
            voice.say("third ☃")
            voice.hush()
            voice.say("never")

        tasks.start_soon(speak)
        exit = await process.supervise(launch, watcher, voice=voice)
    assert exit.ok
    assert launch.output_path.read_text() == "second\nthird ☃\nover\n"


async def test_much_is_heard_by_one_that_listens_late_and_nobody_waits_for_one_that_does_not(
    make_launch: MakeLaunch, watcher: Watcher, tmp_path: Path
) -> None:
    (tmp_path / "input").write_bytes(b"x" * MIB)
    voice = process.Voice()
    voice.say("y" * MIB)
    voice.hush()
    late = make_launch("sh", "-c", "sleep 0.3; wc -c", stdin_path=tmp_path / "input", stdin_open=True)
    await process.supervise(late, watcher, voice=voice)
    assert int(late.output_path.read_text()) == 2 * MIB + 1
    deaf = make_launch("sh", "-c", "exec 0<&-; sleep 0.1", name="b", stdin_path=tmp_path / "input", stdin_open=True)
    assert (await process.supervise(deaf, watcher, voice=voice)).ok


async def test_one_that_waits_for_more_ends_when_it_is_stopped(
    make_launch: MakeLaunch, watcher: Watcher, tmp_path: Path, token: str
) -> None:
    (tmp_path / "input").write_text("first\n")
    launch = make_launch(
        "sh", "-c", "read a; touch ready; read b", token, stdin_path=tmp_path / "input", stdin_open=True
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: process.supervise(launch, watcher, voice=process.Voice()))
        await until_exists(tmp_path / "ready")
        tasks.cancel_scope.cancel()
    assert alive_with(token) == []


# ---------------------------------------------------------------- memory

HOLD = "import sys, time; held = b'x' * (int(sys.argv[1]) << 20); print('has it', flush=True); time.sleep(600)"


async def test_an_agent_over_its_memory_is_killed_with_all_it_started_and_its_neighbour_is_not(
    make_launch: MakeLaunch, token: str
) -> None:
    greedy, modest = f"{token}-greedy", f"{token}-modest"
    # The one that takes the memory is a grandchild in a session of its own.
    script = f'setsid {sys.executable} -c "{HOLD}" 150 {token} {greedy} & wait'
    exits: dict[str, process.Exit] = {}
    neighbour = Watcher()

    async def run(name: str, launch: process.Launch, watcher: Watcher) -> None:
        exits[name] = await process.supervise(launch, watcher)

    async with anyio.create_task_group() as group:
        one = make_launch(sys.executable, "-c", HOLD, "30", token, modest, name="b", memory_limit_bytes=100 * MIB)
        group.start_soon(run, "modest", one, neighbour)
        with anyio.fail_after(60):
            await neighbour.moved.wait()
            await run("greedy", make_launch("sh", "-c", script, memory_limit_bytes=100 * MIB), Watcher())
        assert alive_with(greedy) == []
        assert len(alive_with(modest)) == 1
        group.cancel_scope.cancel()
    over = exits["greedy"]
    assert over.over_memory > 100 * MIB
    assert (over.ok, over.stopped, over.timed_out, over.survivors) == (False, None, False, ())


async def test_memory_that_is_shared_counts_once(make_launch: MakeLaunch, watcher: Watcher) -> None:
    share = "import os, time\nheld = b'x' * (60 << 20)\nfor _ in range(4):\n  if os.fork() == 0: break\ntime.sleep(1)"
    exit = await process.supervise(make_launch(sys.executable, "-c", share, memory_limit_bytes=150 * MIB), watcher)
    assert (exit.over_memory, exit.ok) == (0, True)

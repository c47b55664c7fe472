"""Short commands: run to their end, or ended with everything they started."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import anyio
import pytest

from drover import process
from drover.process import birth

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("born")]
ENV = {"PATH": os.environ["PATH"]}


@pytest.fixture(params=["by the C library", "by the standard library"])
def born(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How children are born in a test: each holds of both ways."""
    if request.param == "by the standard library":
        monkeypatch.setattr(birth, "_library", lambda: None)
    elif birth._library() is None:
        pytest.skip("this system's C library cannot do all of it")
    return str(request.param)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


async def test_a_command_gives_its_exit_code_and_both_outputs(tmp_path: Path) -> None:
    done = await process.run(["sh", "-c", "pwd; echo oops >&2; exit 3"], cwd=tmp_path, env=ENV)
    assert done == process.Finished(3, f"{tmp_path}\n".encode(), b"oops\n")


async def test_a_command_ended_by_a_signal_says_so() -> None:
    done = await process.run(["sh", "-c", "kill -9 $$"], env=ENV)
    assert done.returncode == -9


async def test_a_large_input_reaches_a_command_that_answers_while_it_reads() -> None:
    data = os.urandom(3_000_000)
    done = await process.run(["cat"], env=ENV, stdin=data)
    assert done.stdout == data


async def test_a_command_that_does_not_read_its_input_is_no_error() -> None:
    done = await process.run(["true"], env=ENV, stdin=b"x" * 1_000_000)
    assert done.returncode == 0


async def test_without_input_standard_input_is_empty() -> None:
    assert (await process.run(["cat"], env=ENV)).stdout == b""


async def test_the_environment_is_exactly_the_one_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    done = await process.run([sys.executable, "-c", "import os; print('A_SECRET' in os.environ)"], env={"B": "1"})
    assert done.stdout == b"False\n"


async def test_a_missing_program_is_file_not_found() -> None:
    with pytest.raises(FileNotFoundError):
        await process.run(["/nowhere/program"], env=ENV)


async def test_a_timeout_ends_the_whole_group(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        await process.run(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait"], env=ENV, timeout_s=0.3)
    assert gone(int((tmp_path / "pid").read_text()))


async def test_a_command_deaf_to_sigterm_is_killed_on_timeout(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await process.run(["sh", "-c", f"trap '' TERM; echo $$ > {tmp_path}/pid; sleep 60"], env=ENV, timeout_s=0.3)
    assert gone(int((tmp_path / "pid").read_text()))
    assert time.monotonic() - began < 25


async def test_a_cancelled_caller_leaves_no_process(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: process.run(["sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 60"], env=ENV))
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert gone(int((tmp_path / "pid").read_text()))


async def test_a_grandchild_that_holds_the_pipe_delays_the_answer_two_seconds_at_most() -> None:
    began = time.monotonic()
    done = await process.run(["sh", "-c", "sleep 30 & echo $!"], env=ENV)
    assert time.monotonic() - began < 25
    os.kill(int(done.stdout), signal.SIGKILL)


async def test_too_much_output_ends_the_command() -> None:
    with pytest.raises(process.TooMuchOutput, match="yes printed more than 100000 bytes"):
        await process.run(["yes"], env=ENV, limit_bytes=100_000)


async def test_a_child_of_a_parent_that_ignores_sigint_can_be_interrupted() -> None:
    show = "import signal; print([signal.getsignal(n) is signal.SIG_IGN for n in (2, 15, 1)])"
    old = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        done = await process.run([sys.executable, "-c", show], env=ENV)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    assert done.stdout == b"[False, False, False]\n"


async def test_a_command_cancelled_before_it_begins_is_never_started(tmp_path: Path) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await process.run(["touch", str(tmp_path / "begun")], env=ENV)
    assert not (tmp_path / "begun").exists()


async def test_a_grandchild_that_goes_on_talking_delays_the_answer_two_seconds_at_most() -> None:
    began = time.monotonic()
    done = await process.run(["sh", "-c", "while :; do echo x; sleep 0.05; done & echo $!"], env=ENV)
    assert time.monotonic() - began < 30
    os.killpg(os.getpgid(int(done.stdout.split()[0])), signal.SIGKILL)


async def test_a_command_deaf_to_sigterm_that_prints_too_much_is_killed() -> None:
    with pytest.raises(process.TooMuchOutput):
        await process.run(["sh", "-c", "trap '' TERM; yes; sleep 60"], env=ENV, limit_bytes=100_000)


async def test_many_commands_at_once_are_all_cancelled(tmp_path: Path) -> None:
    """More than there are threads for them."""
    async with anyio.create_task_group() as tasks:
        for n in range(60):
            call = ["sh", "-c", f"echo $$ > {tmp_path}/{n}; sleep 60"]
            tasks.start_soon(lambda call=call: process.run(call, env=ENV))
        with anyio.fail_after(60):
            while sum(1 for path in tmp_path.glob("[0-9]*") if path.read_text()) < 20:
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert all(gone(int(path.read_text())) for path in tmp_path.glob("[0-9]*") if path.read_text())


async def test_what_is_born_is_alone_in_its_session_and_deaf_to_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        status = await process.run(["cat", "/proc/self/stat", "/proc/self/status"], env=ENV)
    finally:
        signal.signal(signal.SIGHUP, before)
    pid, _, _, _, group, session, *_ = status.stdout.decode().split()
    assert pid == group == session
    ignored = int(
        next(line for line in status.stdout.decode().splitlines() if line.startswith("SigIgn")).split()[1], 16
    )
    assert not ignored & (1 << (signal.SIGHUP - 1) | 1 << (signal.SIGPIPE - 1))


async def test_nothing_that_is_open_here_is_open_there() -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        done = await process.run(["ls", "/proc/self/fd"], env=ENV)
    finally:
        os.close(reading)
        os.close(writing)
    assert done.stdout.split() == [b"0", b"1", b"2", b"3"], "3 is the directory that ls reads"


async def test_a_program_is_looked_for_in_the_path_that_it_gets(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    (tmp_path / "first/say").mkdir()  # a directory of that name is no program
    (tmp_path / "second/say").write_text("#!/bin/sh\necho second\n")
    (tmp_path / "second/say").chmod(0o755)
    for path in (f"{tmp_path}/first:{tmp_path}/second", "first:second"):
        done = await process.run(["say"], cwd=tmp_path, env={"PATH": path})
        assert done.stdout == b"second\n", path
    with pytest.raises(FileNotFoundError, match="say"):
        await process.run(["say"], cwd=tmp_path, env=ENV)


async def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        await process.run(["true"], cwd=tmp_path / "gone", env=ENV)


async def test_what_cannot_be_said_to_a_program_is_refused() -> None:
    with pytest.raises(ValueError, match="null"):
        await process.run(["echo", "a\0b"], env=ENV)


async def test_commands_are_born_at_the_same_time_and_leave_no_file_open() -> None:
    async def one(number: int) -> None:
        done = await process.run(["sh", "-c", f"cat; echo {number}"], env=ENV, stdin=b"in\n")
        assert done.stdout == f"in\n{number}\n".encode()

    await one(0)
    before = os.listdir("/proc/self/fd")
    async with anyio.create_task_group() as tasks:
        for number in range(24):
            tasks.start_soon(one, number)
    assert len(os.listdir("/proc/self/fd")) == len(before)

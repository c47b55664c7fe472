"""Where an adapter is looked at: a stand-in for its program, a host that remembers, jobs with canaries in them."""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

from drover.agents.base import Agent, AgentHost, AgentJob, AgentSettings
from drover.domain.models import Frozen, ProcessIdentity, Resumed, Word
from drover.process import MARKER, find_marked, is_alive
from drover.testing import stand_in

BEGINS_S, ENDS_S = 60.0, 60.0  # for a busy machine; a right adapter needs a fraction
LOOK_S = 0.02
KEPT = 1 << 20  # bytes of output that a job asks to be kept of each stream
PROMPT, FOLLOW_UP = "Write the parser. zx-prompt-zx", "Go on with it. zx-follow-up-zx"
CANARY = "DROVER_CONFORMANCE_CANARY"
SESSION = "{session}"


class Broken(Exception):
    """The adapter does not do what the rule says; the message says what it did."""


class Act(Frozen):
    """What the agent's program prints, and how it ends. ``{session}`` in it stands for the session's id."""

    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0


class Stage(Frozen):
    """What the program of one adapter does in the situations of the suite, in the language of that program.

    ``done``: it did its task and says so. ``failed``: it ends by itself without having done it. ``forgot``: it
    was to continue a session and knows none of that name; None for a program that cannot say so.
    ``continues``: whether the adapter goes on with a session at all. ``version``: what it says to --version.
    """

    done: Act
    failed: Act
    forgot: Act | None = None
    continues: bool = True
    version: str = "1.0.0"


class Seen(Frozen):
    """How the program was started, once."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    told: str
    at: float

    @property
    def words(self) -> str:
        """Everything it was told: on its standard input, or in a file that its command line names."""
        files = [Path(self.cwd, word) for word in self.argv if len(word) < 1024]
        return "\n".join([self.told, *(file.read_text(errors="replace") for file in files if file.is_file())])


class Host(AgentHost):
    """Remembers what the adapter tells. ``holds_s``: how long it holds it up at the start, to see whether it waits."""

    def __init__(self, bench: Bench, holds_s: float = 0.0) -> None:
        self._bench = bench
        self._holds_s = holds_s
        self._hurry = anyio.Event()
        self.starts: list[tuple[str | None, Resumed]] = []
        self.sessions: list[str] = []
        self.lives = 0
        self.refusal: Exception | None = None
        self.wrong = ""  # what was wrong with a start

    @property
    def hurry(self) -> anyio.Event:
        return self._hurry

    async def starting(self, process: ProcessIdentity, session_id: str | None, resumed: Resumed) -> None:
        if self.refusal is not None:
            raise self.refusal
        runs = len(self._bench.seen)
        if not is_alive(process):
            self.wrong = "the process that it told of is not alive"
        await anyio.sleep(self._holds_s)
        if len(self._bench.seen) > runs:
            self.wrong = "the program acted before starting() had returned"
        self.starts.append((session_id, resumed))
        self._bench.name_session(session_id or f"stand-in-{uuid.uuid4().hex[:8]}")

    async def session(self, session_id: str) -> None:
        self.sessions.append(session_id)

    def alive(self) -> None:
        self.lives += 1

    async def next_word(self) -> Word:
        await anyio.sleep_forever()
        raise AssertionError("nobody says anything here")

    async def heard(self, word: Word) -> None:
        self.wrong = f"it says that it heard {word.text!r}, which nobody said"


class Bench:
    """One adapter with one stand-in. Every job has a marker, a log directory and a worktree of its own."""

    def __init__(self, agent: Agent, stage: Stage, place: Path) -> None:
        self.agent, self.stage, self.place = agent, stage, place
        self.markers: list[str] = []
        self.cancelled_at = 0.0
        self._acts: dict[str, object] = {}
        place.mkdir(parents=True, exist_ok=True)

    @property
    def secret(self) -> str:
        return "zx-secret-value-zx"

    @property
    def settings(self) -> AgentSettings:
        program = (sys.executable, "-I", "-S", str(Path(stand_in.__file__)), str(self.place))
        return AgentSettings(type=self.agent.name, argv=program)

    def acts(
        self, act: Act, *, hangs: bool = False, brood: bool = False, deaf: bool = False, killed: bool = False,
        noise: int = 0,
    ) -> None:  # fmt: skip
        """What the program does from now on. ``brood``: with a child, and one in a session of its own."""
        self._acts = {**act.model_dump(), "hangs": hangs, "brood": brood, "deaf": deaf, "killed": killed}
        self._acts |= {"noise": noise, "version": self.stage.version}
        for name in ("seen.jsonl", "hanging"):
            (self.place / name).unlink(missing_ok=True)
        self._write()

    def name_session(self, id: str) -> None:
        """The id that its words name from now on."""
        self._write(id)

    def _write(self, session: str = SESSION) -> None:
        words = {name: str(self._acts[name]).replace(SESSION, session) for name in ("stdout", "stderr")}
        new = self.place / "act.new"
        new.write_text(json.dumps(self._acts | words))
        new.replace(self.place / "act.json")

    @property
    def seen(self) -> list[Seen]:
        """The program's runs since it was last told what to do."""
        path = self.place / "seen.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [Seen.model_validate_json(line) for line in lines if line.endswith("\n")]

    def only(self) -> Seen:
        """Its one run."""
        if len(self.seen) != 1:
            raise Broken(f"the program was started {len(self.seen)} times instead of once")
        return self.seen[0]

    async def hanging(self) -> None:
        """Return when the program has begun to hang."""
        for _ in range(round(BEGINS_S / LOOK_S)):
            if (self.place / "hanging").exists():
                return
            await anyio.sleep(LOOK_S)
        raise Broken("the program was not started")

    def job(
        self, *, session_id: str | None = None, timeout_s: float | None = None, settings: AgentSettings | None = None,
    ) -> AgentJob:  # fmt: skip
        marker = f"conformance-{uuid.uuid4().hex}."
        self.markers.append(marker)
        here = self.place / f"job-{len(self.markers)}"
        for name in ("worktree", "log", "home"):
            (here / name).mkdir(parents=True)
        env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(here / "home"), "DROVER_TASK_ID": "task-x"}
        env |= dict.fromkeys(self.agent.env_names[:1], self.secret)
        return AgentJob(
            task_id="task-x", attempt=1, fence=len(self.markers), prompt=PROMPT, follow_up=FOLLOW_UP,
            session_id=session_id, worktree=here / "worktree", log_dir=here / "log", env=env, marker=marker,
            timeout_s=timeout_s, output_limit_bytes=KEPT, settings=settings or self.settings,
        )  # fmt: skip

    async def none_left(self, job: AgentJob) -> None:
        """Nothing that was started for the job is alive."""
        if left := find_marked(job.marker):
            raise Broken(f"{len(left)} processes of it are alive after work() has ended")

    @contextmanager
    def canary(self) -> Iterator[None]:
        """A variable of drover's own environment that no agent may see."""
        os.environ[CANARY] = "1"
        try:
            yield
        finally:
            del os.environ[CANARY]


def marked_environment(seen: Seen, job: AgentJob) -> None:
    """The program got the job's environment with its marker, and nothing of drover's own."""
    if seen.env.get(MARKER) != job.marker:
        raise Broken(f"{MARKER} is not in its environment: what it leaves behind could not be found")
    if CANARY in seen.env:
        raise Broken("it sees drover's own environment; it may see job.env, and what the adapter itself sets")
    if missing := [name for name, value in job.env.items() if seen.env.get(name) != value]:
        raise Broken(f"of job.env it does not get {', '.join(sorted(missing))}")

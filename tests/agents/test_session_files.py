"""A session whose files are gone goes on when they are brought back: on this host, or on another one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from drover.agents.base import KeepsSessions, SessionPlace
from drover.agents.claude import Claude
from drover.agents.codex import Codex
from drover.domain.verdicts import Outcome

from .conftest import Host, MakeJob
from .fakellm import FakeModel
from .real import prompt
from .rig import REAL, Real

pytestmark = pytest.mark.anyio


def place(home: Path, worktree: str = "/srv/repo/.drover/worktrees/task-x") -> SessionPlace:
    return SessionPlace(env={"HOME": str(home)}, worktree=Path(worktree), logs=home / "logs")


def test_a_file_is_called_the_same_where_the_directory_is_another(tmp_path: Path) -> None:
    id = "11111111-2222-4333-8444-555555555555"
    there = place(tmp_path / "one")
    file = tmp_path / "one/.claude/projects/-srv-repo--drover-worktrees-task-x" / f"{id}.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("{}\n")
    (file.parent / "another.jsonl").write_text("{}\n")
    [(name, path)] = Claude().session_files(there, id).items()
    assert (name, path) == (f"projects/{{cwd}}/{id}.jsonl", file)
    here = place(tmp_path / "two", "/home/olive/code/.drover/worktrees/task-x")
    projects = tmp_path / "two/.claude/projects"
    assert Claude().session_path(here, name) == projects / "-home-olive-code--drover-worktrees-task-x" / f"{id}.jsonl"


@pytest.mark.parametrize(
    "name",
    ["../../.ssh/authorized_keys", "/etc/passwd", "settings.json", "projects/../../x.jsonl", "projects//x.jsonl", ""],
)
def test_nothing_is_brought_back_to_where_no_session_belongs(tmp_path: Path, name: str) -> None:
    assert Claude().session_path(place(tmp_path), name) is None


@pytest.mark.parametrize("id", ["*", "../../../../etc/passwd", "", "a/b"])
def test_no_session_is_found_by_what_is_no_id(tmp_path: Path, id: str) -> None:
    (tmp_path / ".codex/sessions/2026/11/23").mkdir(parents=True)
    (tmp_path / ".codex/sessions/2026/11/23/rollout-now-11111111.jsonl").write_text("{}\n")
    assert Codex().session_files(place(tmp_path), id) == {}
    assert len(Codex().session_files(place(tmp_path), "11111111")) == 1


# ---------------------------------------------------------------- the real ones


@pytest.fixture
def real(request: pytest.FixtureRequest) -> Real:
    found = REAL[request.param]
    if found.missing:
        pytest.skip(found.missing)
    return found


@pytest.fixture
def model(tmp_path: Path, real: Real) -> Iterator[FakeModel]:
    with FakeModel(tmp_path / "model.jsonl") as model:
        yield model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("real", "elsewhere"),
    # Qwen Code knows a session only at the path it began at.
    [
        *((name, False) for name in ("claude", "codex", "copilot", "qwen")),
        ("claude", True),
        ("codex", True),
        ("copilot", True),
    ],
    indirect=["real"],
)
async def test_the_real_session_goes_on_in_another_home(
    real: Real, model: FakeModel, make_job: MakeJob, host: Host, tmp_path: Path, elsewhere: bool
) -> None:
    agent, scratch = real.agent, tmp_path / "scratch"
    assert isinstance(agent, KeepsSessions)
    scratch.mkdir()
    worktree = tmp_path / "other" if elsewhere else tmp_path / "worktree"
    worktree.mkdir(exist_ok=True)
    turns = ({"say": "Begun.", "write": ["one.txt", "1"]}, {"say": "One is written."}, {"write": ["two.txt", "2"]})
    env = {**real.env(model.url), "TERM": "dumb", "TMPDIR": str(scratch)}
    first = make_job(prompt(*turns, {"say": "Done."}), env=env, settings=real.settings)
    real.configure(Path(first.env["HOME"]), model.url)
    report = await agent.work(first, host)
    assert report.outcome == Outcome.DONE and report.session_id is not None
    asked = len(model.turns)
    kept = agent.session_files(
        SessionPlace(env=first.env, worktree=first.worktree, logs=first.log_dir.parent), report.session_id
    )
    assert kept
    home = tmp_path / "home-2"
    second = make_job(
        env={**env, "HOME": str(home)}, settings=real.settings, session_id=report.session_id, restored=True,
        worktree=worktree, follow_up="Go on.",
    )  # fmt: skip
    real.configure(home, model.url)
    for name, path in kept.items():
        to = agent.session_path(SessionPlace(env=second.env, worktree=worktree, logs=second.log_dir.parent), name)
        assert to is not None
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(path.read_bytes())
    again = await agent.work(second, host)
    assert (again.outcome, again.resumed, again.session_id) == (Outcome.DONE, "restored", report.session_id)
    assert 0 not in model.turns[asked:], "the model was sent what had been said"

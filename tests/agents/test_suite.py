"""The suite for adapters: our own pass it, the one of the page passes it, and each wrong one is found out."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from drover.agents import registry
from drover.testing import RULES, NotConforming, assert_conforms, examine, stand_in
from tests.agents.stages import STAGES
from tests.agents.wrong import PLANTED, Make
from tests.conftest import Git
from tests.docs.pages import DOCS, ROOT, blocks

PAGE = DOCS / "how-to" / "write-an-agent.md"
FILES = {block.info.split()[1]: block.text for block in blocks(PAGE) if block.language == "python"}
# The rules that hang on what the program says; what hangs on the ways of processes is the same for all of ours.
OF_THE_WORDS = ("checks", "works", "tells a failure", "names its session", "goes on", "begins anew")
LISTENS = "claude"  # until nothing more is said to it; the others get their prompt and no more


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The modules of the page, loaded."""
    loaded = {}
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
        spec = importlib.util.spec_from_file_location(Path(name).stem, tmp_path / name)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, Path(name).stem, module)
        spec.loader.exec_module(module)
        loaded[name] = module
    return loaded


@pytest.mark.anyio
async def test_the_adapter_of_the_page_passes(page: dict[str, ModuleType], tmp_path: Path) -> None:
    found = await examine(page["mine.py"].Mine(), page["test_mine.py"].STAGE, tmp_path / "stage")
    assert [finding.rule for finding in found] == list(RULES)
    assert [(finding.rule, finding.problem) for finding in found if finding.problem] == []
    assert all(finding.promise.endswith(".") for finding in found)


@pytest.mark.parametrize(("rule", "make"), PLANTED, ids=[f"{rule}: {make.__name__}" for rule, make in PLANTED])
def test_an_adapter_that_breaks_a_promise_is_found_out(
    rule: str, make: Make, page: dict[str, ModuleType], tmp_path: Path
) -> None:
    with pytest.raises(NotConforming, match=f"^{rule}: "):
        assert_conforms(make(page["mine.py"].Mine), page["test_mine.py"].STAGE, tmp_path / "stage", rule=rule)


def test_every_rule_has_an_adapter_that_breaks_it() -> None:
    assert {rule for rule, _ in PLANTED} == set(RULES)


@pytest.mark.parametrize("name", sorted(STAGES))
def test_our_own_adapters_understand_their_programs(name: str, tmp_path: Path) -> None:
    for rule in (*OF_THE_WORDS, *(["bears noise"] if name == LISTENS else [])):
        assert_conforms(registry.find(name), STAGES[name], tmp_path, rule=rule)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(STAGES))
def test_our_own_adapters_keep_every_rule(name: str, tmp_path: Path) -> None:
    assert_conforms(registry.find(name), STAGES[name], tmp_path)


def test_the_page_names_every_rule() -> None:
    text = PAGE.read_text()
    assert [rule for rule in RULES if f"| `{rule}` |" not in text] == []


def test_a_package_that_offers_an_agent_is_enough_for_the_command_line(
    repository: Path, git: Git, tmp_path: Path
) -> None:
    package, act = tmp_path / "site", tmp_path / "act"
    (package / "mine-1.0.dist-info").mkdir(parents=True)
    (package / "mine-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (package / "mine-1.0.dist-info" / "entry_points.txt").write_text("[drover.agents]\nmine = mine:Mine\n")
    (package / "mine.py").write_text(FILES["mine.py"])
    act.mkdir()
    said = json.dumps({"event": "text", "text": "Nothing to do."}) + "\n" + json.dumps({"event": "done"}) + "\n"
    plain = {"stdout": said, "stderr": "", "exit_code": 0, "version": "1"}
    (act / "act.json").write_text(
        json.dumps({**plain, **dict.fromkeys(("deaf", "brood", "hangs", "killed"), False), "noise": 0})
    )
    env = {**os.environ, "PYTHONPATH": f"{package}:{ROOT}"}

    def drover(*argv: str) -> str:
        done = subprocess.run([sys.executable, "-m", "drover", *argv], cwd=repository, env=env, capture_output=True,
                              text=True, timeout=60, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    drover("init")
    with (repository / ".drover.toml").open("a") as file:
        file.write(f'\n[agents.mine]\npath = "{sys.executable} -I -S {stand_in.__file__} {act}"\n')
    drover("add", "A task", "--agent", "mine", "--allow-no-change")
    assert "1 landed" in drover("run")
    assert '"argv": ["run", "--session"' in (act / "seen.jsonl").read_text()

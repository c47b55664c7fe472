"""What an agent is given: what finished tasks leave, the project's guidelines and template, and `drover context`."""

from __future__ import annotations

import pytest

from drover.domain.models import Task
from drover.engine import prompt
from drover.engine.legacy import Legacy, decisions_in
from tests.cli.conftest import Cli, Start
from tests.cli.test_run import at_work, eventually

WITHIN = 90.0


def given(cli: Cli, task: str, fence: int = 1) -> str:
    """What the agent of an execution was given."""
    return (cli.root / ".drover" / "logs" / task / str(fence) / "prompt.md").read_text()


def setting(cli: Cli, line: str) -> None:
    path = cli.root / ".drover.toml"
    path.write_text(f"{line}\n{path.read_text()}")


def test_context_prints_what_the_run_then_gives_word_for_word(cli: Cli) -> None:
    setting(cli, 'guidelines = "In {{project}}, {{task_type}} tasks ({{labels}}) keep ${{ github.ref }}."')
    setting(cli, "task_template = '''Read this twice:\n\n{{description}}\n\nIts kind is {{ task_type }}.'''")
    setting(cli, "workers = 1")
    first = cli.add("Schema", "-d", 'write db/schema.sql "create"\nsay "DECISION: dates are UTC"')
    second = cli.add("API", "-d", 'write api.py "api"\nsay "The API is there."', "--blocked-by", first)
    third = cli.add(
        "Client",
        "-d",
        'write client.py "client"',
        "--blocked-by",
        f"{first},{second}",
        "--type",
        "feature",
        "--label",
        "ui",
    )
    assert "will have left something" in cli("context", third).err
    assert set(cli.json("context", third)["missing"]) == {first, second}
    cli("run", "--task", first, "--task", second)
    before = len(cli("stream", "--json").lines)
    told = cli("context", third)
    found = cli.json("context", third)
    assert len(cli("stream", "--json").lines) == before
    text = found["text"]
    assert (found["agent"], found["session_id"], found["missing"]) == ("scripted", None, [])
    assert told.out.rstrip("\n") == text.rstrip("\n")
    assert text.startswith(
        f"# Project guidelines\n\nIn {cli.root.name}, feature tasks (ui) keep ${{{{ github.ref }}}}."
    )
    assert 'Read this twice:\n\nwrite client.py "client"\n\nIts kind is feature.' in text
    assert f"- {first}: Schema\n  changed: db/schema.sql\n  decided: dates are UTC" in text
    assert f"- {second}: API\n  changed: api.py\n> The API is there." in text
    cli("run")
    assert given(cli, third) == text
    assert "has landed" in cli.error("context", third, code=4)["message"]


def test_context_of_a_session_that_goes_on_is_what_it_is_told_then(cli: Cli, start: Start) -> None:
    task = cli.add("Long", "-d", 'write begun.txt "begun"\nwait 8s')
    run = start("run")
    eventually(lambda: at_work(cli, task), "the agent at work", WITHIN)
    cli("pause", task)
    run.wait(WITHIN)
    cli("hint", task, "use tabs")
    found = cli.json("context", task)
    assert found["session_id"] == cli.json("info", task)["attempts_log"][0]["session_id"]
    assert "> use tabs" in found["text"]
    assert "interrupted" in found["text"]
    cli("resume-task", task)
    cli("run")
    assert given(cli, task, 2) == found["text"]


def test_what_a_person_decided_reaches_those_behind(cli: Cli) -> None:
    asks = cli.add("Asks", "-d", 'ask "which colour?"\nwrite a.txt "a"')
    behind = cli.add("Behind", "--blocked-by", asks)
    cli("run", code=3)
    cli("answer", asks, "blue")
    cli("run")
    assert "  decided: which colour? → blue" in given(cli, behind)


def test_what_was_decided_in_sub_tasks_reaches_those_behind_their_parent(cli: Cli) -> None:
    parent = cli.add("The whole")
    cli.add("Part", "--parent", parent, "-d", 'write a.txt "a"\nsay "DECISION: tokens are tuples"')
    behind = cli.add("Behind", "--blocked-by", parent)
    cli("run")
    assert "  decided: tokens are tuples" in given(cli, behind)


def test_a_template_without_a_place_for_the_task_is_refused(cli: Cli) -> None:
    setting(cli, 'task_template = "Be quick."')
    error = cli.error("list", code=2)
    assert "task_template" in error["message"]
    assert "{{description}}" in error["message"]


def left(number: int, summary: str = "", **more: object) -> Legacy:
    task = Task(id=f"task-{number:04}", title="x" * 1000, landed_at=number)
    return Legacy.model_validate({"task": task, "summary": summary, **more})


def test_what_blockers_leave_is_bounded_and_the_last_are_told_in_full() -> None:
    blockers = [left(n, f"words of {n}: " + "w" * 9000, paths=[f"p{i}" for i in range(200)]) for n in range(500)]
    (section,) = prompt.background(Task(id="task-x", title="t"), blockers)
    assert len(section) < prompt.BACKGROUND_LIMIT + 2_000
    assert "words of 499" in section
    assert "words of 1:" not in section
    assert "and 170 more" in section
    assert "before these" in section


@pytest.mark.parametrize(
    ("words", "decisions"),
    [
        ("Done.\nDECISION: dates are UTC\n**DECISION:** tabs", ["dates are UTC", "tabs"]),
        ("No decision: none", []),
        ("\n".join(f"- DECISION: number {n}" for n in range(50)), [f"number {n}" for n in range(10)]),
        ("DECISION: " + "x" * 1000, ["x" * 399 + "…"]),
    ],
)
def test_decisions_are_lines_that_say_so(words: str, decisions: list[str]) -> None:
    assert decisions_in(words) == decisions

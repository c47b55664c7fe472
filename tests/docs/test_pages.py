"""What the pages say exists: links, commands, options, settings, variables, targets, files."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from drover.agents import claude, registry
from drover.settings import load
from drover.settings.sources import ENVIRONMENT, PROJECT_VARIABLE
from tests.docs import pages as all_pages
from tests.docs.pages import DOCS, ROOT, anchors, blocks, invocations, links, name_of, prose, spans

generate_docs = all_pages.generator()
GIVEN_TO_AGENTS = (
    "TASK_ID",
    "EPIC_ID",
    "ATTEMPT",
    "WORKTREE",
    "ROOT",
    "BASE",
    "BRANCH",
    "PORT",
    "HOOK",
    "OUTCOME",
    "COMMIT",
    "RUN_ID",
    "RESULT",
    "PLAN",
    "MARKER",
    "SESSION_ID",
)
VARIABLES = {name for name, _ in ENVIRONMENT} | {PROJECT_VARIABLE} | {f"DROVER_{name}" for name in GIVEN_TO_AGENTS}

every_page = pytest.mark.parametrize("page", all_pages.pages(), ids=name_of)
every_written_page = pytest.mark.parametrize("page", all_pages.written_pages(), ids=name_of)


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert target.is_relative_to(ROOT), f"{link} leads out of the project"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading; there are {sorted(anchors(target))}"


def test_every_page_is_linked_from_another() -> None:
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in all_pages.pages()
        for link in links(page)
        if link.partition("#")[0]
    }
    alone = [
        name_of(p)
        for p in all_pages.pages()
        if p.resolve() not in linked and p.is_relative_to(DOCS) and p.parent != DOCS
    ]
    assert alone == []


@cache
def commands() -> dict[str, list[str]]:
    return dict(generate_docs.command_names())


@cache
def help_of(*command: str) -> str:
    return generate_docs.help_of(*command)


@every_page
def test_no_page_names_a_command_or_option_that_does_not_exist(page: Path) -> None:
    for words in invocations(page):
        typed = f"drover {' '.join(words)}"
        command = []
        if words and not words[0].startswith("-"):
            if words[0].isupper():
                continue  # a placeholder: drover COMMAND --help
            assert words[0] in commands(), f"there is no command {typed!r}"
            command = [words[0]]
            below = commands()[words[0]]
            if below and len(words) > 1 and not words[1].startswith("-") and not words[1].isupper():
                assert words[1] in below, f"there is no command {typed!r}"
                command.append(words[1])
        known = help_of(*command) + help_of()
        for word in words[: words.index("--")] if "--" in words else words:
            if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word):
                option = word.partition("=")[0]
                assert re.search(rf"(^|[\s,]){option}($|[\s,])", known), f"{typed!r}: no option {option}"


@every_written_page
def test_every_setting_shown_is_one_that_drover_accepts(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(b for b in blocks(page) if b.info == "toml"):
        root = tmp_path / str(number)
        root.mkdir()
        (root / ".drover.toml").write_text(block.text)
        assert tomllib.loads(block.text)
        assert load(root, environ={}, flags={}).warnings == (), f"{name_of(page)}:{block.line}"


@every_page
def test_every_variable_named_is_one_that_drover_knows(page: Path) -> None:
    named = set(re.findall(r"\bDROVER_[A-Z_]+\b", page.read_text()))
    assert named <= VARIABLES


@every_page
def test_every_make_target_named_is_in_the_makefile(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    typed = [*spans(page), *(line for b in blocks(page) if b.language == "sh" for line in b.text.splitlines())]
    named = {match[1] for text in typed if (match := re.match(r"make ([a-z-]+)", text))}
    # `make test` is also what a reader's own project may have.
    assert named <= targets


@every_written_page
def test_every_file_of_the_project_that_is_named_exists(page: Path) -> None:
    for span in spans(page):
        if re.fullmatch(r"(drover|tests|scripts|migrations|docs)/[\w/.-]*", span) and "NNNN" not in span:
            assert (ROOT / span).exists(), f"{name_of(page)} names {span}"


@every_written_page
def test_pages_keep_to_the_width_that_the_house_has(page: Path) -> None:
    text = prose(page)
    long = [line for line in text.splitlines() if len(line) > 120 and not line.startswith("|") and "](" not in line]
    assert long == []


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "how-to" / "configure-agents.md"], ids=name_of)
def test_every_agent_type_is_listed_with_the_versions_it_was_tried_with(page: Path) -> None:
    rows = {match[1]: match[0] for match in re.finditer(r"^\| `([a-z]+)` \|.*$", page.read_text(), re.MULTILINE)}
    for type in registry.names():
        assert type in rows, f"there is no row for {type}"
        verified = getattr(registry.find(type), "verified", claude.VERIFIED if type == "claude" else ())
        for version in filter(None, [verified] if isinstance(verified, str) else verified):
            assert version in rows[type], f"{type} was tried with {version}"


def test_the_reference_is_what_the_program_says() -> None:
    names = {"settings.md": generate_docs.settings_page()}
    names |= {f"cli/{name}.md": page for name, page in generate_docs.command_pages()}
    assert generate_docs.stale(names) == [], "run: make docs"

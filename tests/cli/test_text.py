"""Foreign text on a terminal: what could steer it never gets there."""

from __future__ import annotations

import io
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drover.cli.logs import Tail
from drover.cli.output import Printer, Styled
from drover.cli.text import clean, clean_block, fit, pad, spoken, width
from drover.cli.words import words_of

NASTY = st.text(
    alphabet=st.one_of(
        st.sampled_from(
            "\x1b\x07\x9b\x9d\x90\x00\x08\x0b\x0c\r\n\t\x7f\x85\u2028\u2029\u202e\u2066\u200f\u061c\ufeff[]m;0"
        ),
        st.characters(),
    ),
    max_size=60,
)


def steers(character: str) -> bool:
    """Whether a terminal might do something else than show it."""
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(character) in (
        "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
    ) or character in "\u200e\u200f\u061c"  # fmt: skip


@pytest.mark.suite("T34")
@given(NASTY)
def test_no_control_survives_in_a_line(text: str) -> None:
    assert not any(steers(character) for character in clean(text))


@pytest.mark.suite("T34")
@given(NASTY)
def test_no_control_but_line_ends_and_tabs_survives_in_a_block(text: str) -> None:
    assert not any(steers(character) for character in clean_block(text).replace("\n", "").replace("\t", ""))


@pytest.mark.suite("T34")
@given(NASTY)
def test_no_sink_of_the_printer_lets_a_control_through(text: str) -> None:
    out, err = io.StringIO(), io.StringIO()
    printer = Printer(out=out, err=err)
    printer.line("title ", text, Styled(text, "red"))
    printer.block(text, indent="  ")
    printer.table([("id", text, text), (text, "x", Styled(text, "dim"))])
    printer.note(text)
    printer.warning(text)
    printer.error("code", text, text)
    for line in (out.getvalue() + err.getvalue()).split("\n"):
        assert not any(steers(character) for character in line.replace("\t", ""))


@pytest.mark.suite("T34")
@given(NASTY)
def test_json_loses_nothing_and_holds_no_control(text: str) -> None:
    out = io.StringIO()
    Printer(as_json=True, out=out).document({"title": text})
    assert out.getvalue().isascii()
    assert json.loads(out.getvalue())["title"] == text


@pytest.mark.suite("T34")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07words", "words"),
        ("\x1b]52;c;aGFja2Vk\x1b\\words", "words"),
        ("a\x9b2Jb", "ab"),
        ("two\nlines\tand\r\nmore", "two lines and more"),
        ("x\u202egnp.exe", "xgnp.exe"),
        ("unfinished \x1b[31", "unfinished 31"),
        ("كتاب 書 café 👩‍🚀", "كتاب 書 café 👩‍🚀"),
    ],
)
def test_escape_sequences_go_and_words_stay(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_text_is_fitted_by_the_columns_it_takes() -> None:
    assert width("書書") == 4
    assert fit("書書書", 5) == "書書…"
    assert fit("short", 5) == "short"
    assert pad("書", 4) == "書  "


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0ms"), (850, "850ms"), (1_000, "1s"), (130_000, "2m10s"), (3_600_000, "1h"), (100_800_000, "1d4h")],
)
def test_durations_are_spoken_in_two_units(milliseconds: int, text: str) -> None:
    assert spoken(milliseconds) == text


# ---------------------------------------------------------------- an agent's words


def test_a_file_is_read_in_pieces_without_breaking_letters_or_keeping_endless_lines(tmp_path: Path) -> None:
    file = tmp_path / "output.log"
    file.write_bytes("é\n".encode() * 200_000 + b"x" * (5 << 20) + b"\nafter\nlast")
    tail, lines = Tail(file), []
    while data := tail.read():
        lines += list(tail.lines(data))
    lines += list(tail.rest())
    assert lines[:200_000] == ["é"] * 200_000
    assert [len(line) > 1000 for line in lines[200_000:]] == [True, False, False]
    assert len(lines[200_000]) < (1 << 20) + 200
    assert lines[200_001:] == ["after", "last"]


def said(**event: object) -> list[str]:
    return list(words_of(json.dumps(event)))


def test_a_conversation_is_shown_as_its_words_tools_and_answers() -> None:
    content = [
        {"type": "text", "text": "Writing it."},
        {"type": "tool_use", "name": "Bash", "input": {"command": "ls"}},
    ]
    assert said(type="assistant", message={"content": content}) == ["Writing it.", "→ Bash: ls"]
    answer = [{"type": "tool_result", "content": "\n".join(f"line {n}" for n in range(20))}]
    shown = said(type="user", message={"content": answer})
    assert shown[0] == "  | line 0"
    assert shown[-1] == "  | … 8 more lines"
    assert said(type="result", num_turns=3, total_cost_usd=0.0075, result="Done.") == ["= 3 turns, $0.01"]
    assert said(type="result", is_error=True, result="limit reached")[0] == "! limit reached"
    assert said(type="system", subtype="init") == []


def test_the_items_of_a_thread_are_shown_as_words_and_commands() -> None:
    assert said(type="item.completed", item={"type": "agent_message", "text": "Done."}) == ["Done."]
    command = {"type": "command_execution", "command": "make", "aggregated_output": "ok\n"}
    assert said(type="item.completed", item=command) == ["→ make", "  | ok"]


@given(
    st.text()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["type", "message", "content", "item", "text", "result", "input", "name"]) | st.text(),
                inner,
            )
        ),
    ).map(json.dumps)
)
def test_no_line_of_output_breaks_the_reader(line: str) -> None:
    assert all(isinstance(word, str) for word in words_of(line))

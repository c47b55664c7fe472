"""Lines of a growing file, and events of lines that are not always whole."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

from drover.agents.stream import LINE_LIMIT, Follower, Json, events, tail


def everything(follower: Follower) -> list[bytes]:
    found = []
    while (lines := follower.read()) is not None:
        found += lines
    return found


def test_lines_come_as_they_are_completed(tmp_path: Path) -> None:
    path = tmp_path / "out"
    follower = Follower(path)
    assert follower.read() is None
    path.write_bytes(b"one\ntw")
    assert everything(follower) == [b"one"]
    with path.open("ab") as file:
        file.write(b"o\nthree")
    assert everything(follower) == [b"two"]
    assert follower.rest() == [b"three"]
    assert follower.rest() == []


def test_a_line_of_ten_megabytes_is_left_out_and_those_around_it_are_read(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"before\n" + b"x" * 10 * LINE_LIMIT + b"\nafter\n")
    follower = Follower(path)
    tracemalloc.start()
    assert everything(follower) == [b"before", b"after"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * LINE_LIMIT


def test_an_endless_line_has_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"x" * 2 * LINE_LIMIT)
    follower = Follower(path)
    assert everything(follower) == []
    assert follower.rest() == []


def test_a_line_that_is_no_object_has_no_events() -> None:
    for line in (b"", b"plain", b"[1]", b"{broken", b'"text"', b"{" * 100_000, b"\xff\xfe"):
        assert list(events(line)) == []


def test_an_event_written_into_the_middle_of_another_gives_both() -> None:
    outer = json.dumps({"type": "assistant", "message": {"content": [{"type": "text", "text": "hello"}]}})
    inner = json.dumps({"type": "rate_limit_event", "rate_limit_info": {"status": "rejected"}, "session_id": "s"})
    for at in range(1, len(outer)):
        found = [event.value for event in events((outer[:at] + inner + outer[at:]).encode())]
        assert found == [json.loads(inner), json.loads(outer)], at


def test_facts_of_the_wrong_type_are_empty() -> None:
    event = Json({"a": {"b": 3}, "l": [1, {"x": "y"}], "t": "text", "f": True})
    assert event.number("a", "b") == 3
    assert event.text("a", "b") == ""
    assert event.number("t") == 0
    assert event.number("f") == 0
    assert event.true("f")
    assert event.text("a", "b", "c") == ""
    assert [item.text("x") for item in event.items("l")] == ["", "y"]
    assert not event.get("nothing")


def test_the_tail_of_a_file_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert tail(tmp_path / "none", 10) == ""
    (tmp_path / "some").write_text("0123456789")
    assert tail(tmp_path / "some", 4) == "6789"

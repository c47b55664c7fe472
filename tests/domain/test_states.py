"""The states of a task: the moves between them, and the words that people see."""

from __future__ import annotations

import re
import sqlite3
from itertools import product

import pytest

from drover.domain.states import DEAD, MOVES, TERMINAL, Move, State, Status, status_of
from drover.store import migrate


def test_every_state_is_one_the_table_knows_and_the_other_way_round() -> None:
    script = "".join(m.script for m in migrate.available("sqlite"))
    tasks = script[script.index("CREATE TABLE tasks") :]
    listed = re.search(r"state text NOT NULL DEFAULT 'queued'\s+CHECK \(state IN \(([^)]*)\)\)", tasks)
    assert listed is not None
    assert {word.strip(" '") for word in listed[1].split(",")} == {state.value for state in State}


def test_a_row_of_every_state_can_be_written_as_the_moves_leave_it() -> None:
    """The table's CHECKs tie columns to states; what each state needs is what a move into it brings."""
    needs: dict[State, dict[str, object]] = {
        State.RUNNING: {"claimed_by": "w", "lease_until": 1},
        State.WAITING: {"reason": "backoff", "due_at": 1},
        State.COMPLETED: {"completed_at": 1, "landed_at": 1},
    }
    connection = sqlite3.connect(":memory:")
    for migration in migrate.available("sqlite"):
        for statement in migration.statements():
            connection.execute(statement)
    for number, (state, filled) in enumerate(product(State, State)):
        columns = {"id": f"t{number}", "title": "", "description": "", "type": "", "priority": 0, "created_at": 0}
        columns |= {"updated_at": 0, "state": state.value} | needs.get(filled, {})
        names = ", ".join(columns)
        insert = f"INSERT INTO tasks ({names}) VALUES ({', '.join('?' * len(columns))})"
        # A reason is kept through a claim; a due time or a lease belong to one state alone.
        if state is filled or (not needs.get(filled) and state not in needs):
            connection.execute(insert, [*columns.values()])
        else:
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(insert, [*columns.values()])
    connection.close()


def test_a_terminal_state_is_left_by_the_operator_alone() -> None:
    assert {move for (state, move) in MOVES if state in TERMINAL} == {Move.REVIVE}
    assert {to for (state, _), to in MOVES.items() if state in TERMINAL} == {State.QUEUED}
    assert DEAD < TERMINAL


def test_every_state_can_be_reached_and_left() -> None:
    assert {start for start, _ in MOVES} == set(State)
    assert {*MOVES.values()} == set(State)


def test_a_state_that_is_not_queued_is_never_claimed() -> None:
    assert [state for state, move in MOVES if move is Move.CLAIM] == [State.QUEUED]


@pytest.mark.parametrize(
    ("state", "blockers", "executing", "due", "status"),
    [
        (State.QUEUED, 0, False, False, Status.READY),
        (State.QUEUED, 2, False, False, Status.BLOCKED),
        (State.WAITING, 0, False, False, Status.WAITING),
        (State.WAITING, 0, False, True, Status.READY),
        (State.WAITING, 1, False, True, Status.BLOCKED),
        (State.RUNNING, 0, False, False, Status.CLAIMED),
        (State.RUNNING, 0, True, False, Status.IN_PROGRESS),
        (State.RUNNING, 1, True, False, Status.IN_PROGRESS),
        (State.PAUSED, 1, False, False, Status.PAUSED),
        (State.COMPLETED, 1, False, False, Status.COMPLETED),
        (State.FAILED, 1, False, False, Status.FAILED),
        (State.CANCELLED, 0, False, False, Status.CANCELLED),
    ],
)
def test_a_status_reads_the_state_and_what_is_around_it(
    state: State, blockers: int, executing: bool, due: bool, status: Status
) -> None:
    assert status_of(state, open_blockers=blockers, executing=executing, due=due) is status


def test_every_status_is_the_reading_of_something() -> None:
    read = {
        status_of(state, open_blockers=blockers, executing=executing, due=due)
        for state, blockers, executing, due in product(State, (0, 1), (False, True), (False, True))
    }
    assert read == set(Status)

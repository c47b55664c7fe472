"""Every suite of the proof by its name: what it does, and which promises it holds drover to."""

from __future__ import annotations

from typing import NamedTuple


class Suite(NamedTuple):
    title: str
    what: str
    promises: tuple[str, ...]  # of docs/guarantees.md
    fewest: int = 1  # points of a whole proof; fewer means that the suite has lost something
    everywhere: bool = True  # False: needs root, strace or a real agent, and is told as not run without


SUITES = {
    "T0": Suite("the judge", "planted bad histories, each of which the checker must see", (), 8),
    "T1": Suite(
        "model",
        "every state of two workers, leases, fences and a lane that others move; and the protocol without each guard",
        ("I1", "I2", "I3", "I5", "I11", "I13", "I14"),
        1_000,
    ),
    "T2": Suite(
        "step kill",
        "a run killed around every transaction, git command and birth of a process, then finished and judged",
        ("I1", "I2", "I3", "I4", "I6", "I7", "I8", "I9", "I15", "I20"),
        800,
    ),
    "T3": Suite("double kill", "a run killed, and its recovery killed again", ("I3", "I7", "I19", "I20"), 400),
    "T4": Suite("git call kill", "every git operation killed around each call of git", ("I2", "I3", "I5", "I20"), 100),
    "T5": Suite(
        "inside git",
        "git killed at each system call that changes something, and each change of a file",
        ("I5", "I20", "I21"),
        100,
    ),
    "T6": Suite("commit kill", "SQLite killed at syncs of its journal", ("I7", "I17", "I18"), 10, everywhere=False),
    "T7": Suite("commit cut", "Postgres cut off before, after and during each COMMIT", ("I7", "I17"), 150),
    "T8": Suite("cancellation", "callers cancelled at every step of the event loop", ("I17",), 50),
    "T9": Suite(
        "histories",
        "random histories of store and engine, the laws held after each operation",
        ("I1", "I11", "I12", "I13", "I14", "I15", "I16", "I24"),
        2_000,
    ),
    "T10": Suite("parity", "the same history told to both databases, the same answers", ("I1", "I15"), 1_000),
    "T11": Suite("claim race", "many claimers and processes at once", ("I11", "I12"), 2_000),
    "T12": Suite("stale holder", "a holder that was stopped beyond its lease and goes on", ("I11", "I13"), 100),
    "T13": Suite("clock", "clocks that jump, lag and run apart", ("I13", "I14"), 1),
    "T14": Suite("held loop", "an event loop held up for longer than its lease", ("I11", "I14"), 1),
    "T15": Suite("disk full", "the disk full at many levels, then free again", ("I18",), 20, everywhere=False),
    "T16": Suite(
        "I/O errors", "each write, sync and rename refused, once and for ever", ("I18",), 100, everywhere=False
    ),
    "T17": Suite("power cut", "what a disk would hold if the power went now", ("I2", "I9"), 20, everywhere=False),
    "T18": Suite("database restart", "Postgres stopped and started under a running backlog", ("I16", "I17", "I18"), 45),
    "T19": Suite("dead socket", "a wire that forwards nothing and says nothing", ("I17", "I18"), 1),
    "T20": Suite("lost hints", "notifications that never come", ("I16",), 1),
    "T21": Suite("operator's checkout", "a checkout in any state while tasks land", ("I21",), 1),
    "T22": Suite("content", "renames, modes and deletes landed as a three-way merge would", ("I3", "I4"), 200),
    "T23": Suite("foreign mover", "others commit to the target and push to the remote", ("I2", "I5"), 1),
    "T24": Suite("process trees", "agents of every shape, ended in every way", ("I10", "I22"), 1),
    "T25": Suite("shutdown", "Ctrl+C once and twice, at a terminal", ("I16", "I22"), 25),
    "T26": Suite("floods", "agents that print and write without end", ("I23",), 1),
    "T29": Suite("hostile git", "repositories that want git to run what they say", ("I26",), 1),
    "T30": Suite(
        "hostile names", "titles, keys, paths and branches that mean something to somebody else", ("I26",), 10_000
    ),
    "T34": Suite("terminal", "control sequences in everything that is printed", ("I26",), 1),
    "T35": Suite("canaries", "secrets planted everywhere, looked for everywhere", ("I28",), 8),
    "T37": Suite("hygiene", "any order of the tests; nothing left behind by them", ("I23",), 1),
    "T38": Suite("upgrades", "every earlier schema, killed at each statement on its way to this one", ("I18",), 50),
}

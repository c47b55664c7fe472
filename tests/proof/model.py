"""The protocol of claims and landings as a machine of few states, all of which are visited.

One task, two holders, a lane that others move too. A holder claims (the fence rises), raises the task's lease ref to
its fence, reads the lane once, records an intent, swaps the lane, and records the landing. In between anybody may
crash, sleep for as long as it likes, or lose its lease. ``explore`` visits every order in which that can happen; with
a guard of the protocol taken away it must come upon a history that breaks a promise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

GUARDS = (
    "a claim needs a task that nobody holds",
    "a claim raises the fence",
    "renewal needs a lease that lasts",
    "the lease ref only moves forward",
    "an intent needs the fence",
    "what landed is looked for first",
    "the swap needs the lane as it was read",
    "the swap needs the lease ref",
    "a landing is recorded after the swap",
    "a record needs the fence",
)
MOST_CLAIMS, MOST_MOVES, MOST_CRASHES = 3, 2, 2


@dataclass(frozen=True)
class Holder:
    at: str = "idle"  # idle, claimed, leased, built, intended, swapped
    fence: int = 0
    base: int = -1  # how often the lane had moved when it was read


@dataclass(frozen=True)
class State:
    fence: int = 0
    holder: int | None = None
    lasts: bool = False  # the lease, by the database's clock
    lease_ref: int = 0
    moves: int = 0  # of the lane, by anybody
    landings: int = 0
    landed_row: bool = False
    moves_of_others: int = 0
    crashes: int = 0
    ended: bool = False  # whether the lease ended since the last claim
    broken: str = ""
    holders: tuple[Holder, Holder] = (Holder(), Holder())

    def now(self, who: int, **changes: object) -> State:
        """The state with that holder changed."""
        mine = replace(self.holders[who], **changes)  # type: ignore[arg-type]
        both = (mine, self.holders[1]) if who == 0 else (self.holders[0], mine)
        return replace(self, holders=both)


def explore(without: str | None = None) -> tuple[int, str, tuple[str, ...]]:
    """How many states there are, the promise that is broken first ("" when none is), and the way there."""
    guards = frozenset(GUARDS) - {without}
    start = State()
    seen, queue = {start}, deque([(start, ())])
    while queue:
        state, path = queue.popleft()
        if broken := judge(state):
            return len(seen), broken, path
        for what, after in follow(state, guards):
            if after not in seen:
                seen.add(after)
                queue.append((after, (*path, what)))  # type: ignore[arg-type]
    return len(seen), "", ()


def judge(state: State) -> str:
    if state.broken:
        return state.broken
    if state.landings > 1:
        return "I3: landed twice"
    if state.landed_row and not state.landings:
        return "I2: recorded, and not landed"
    return ""


def follow(state: State, guards: frozenset[str]) -> Iterator[tuple[str, State]]:
    """Everything that can happen next."""
    if state.lasts:
        yield "the lease ends", replace(state, lasts=False, ended=True)
    if state.moves_of_others < MOST_MOVES:
        yield "another lands", replace(state, moves=state.moves + 1, moves_of_others=state.moves_of_others + 1)
    for who in (0, 1):
        mine = state.holders[who]
        if mine.at != "idle" and state.crashes < MOST_CRASHES:
            crashed = state.now(who, at="idle", fence=0, base=-1)
            yield f"{who} crashes", replace(crashed, crashes=state.crashes + 1)
        yield from STEPS[mine.at](state, who, guards)
        if mine.at != "idle":
            yield from beat(state, who, guards)


Next = Iterator[tuple[str, State]]


def beat(state: State, who: int, guards: frozenset[str]) -> Next:
    mine = state.holders[who]
    if mine.fence != state.fence or state.holder != who or state.lasts:
        return
    if "renewal needs a lease that lasts" not in guards:
        yield f"{who} renews what has ended", replace(state, lasts=True, broken="I13: a lease was revived")


def claim(state: State, who: int, guards: frozenset[str]) -> Next:
    if state.landed_row or state.fence >= MOST_CLAIMS:
        return
    if state.lasts and "a claim needs a task that nobody holds" in guards:
        return
    fence = state.fence + 1 if "a claim raises the fence" in guards or not state.fence else state.fence
    broken = state.broken
    if state.lasts:
        broken = "I14: taken while its lease lasted"
    elif fence == state.fence:
        broken = "I12: two claims with one fence"
    after = replace(state, fence=fence, holder=who, lasts=True, ended=False, broken=broken)
    yield f"{who} claims ({fence})", after.now(who, at="claimed", fence=fence)


def raise_lease(state: State, who: int, guards: frozenset[str]) -> Next:
    mine = state.holders[who]
    if mine.fence < state.lease_ref and "the lease ref only moves forward" in guards:
        yield f"{who} finds a later claim", state.now(who, at="idle")
        return
    broken = "I11: the lease ref went back" if mine.fence < state.lease_ref else state.broken
    yield f"{who} raises the lease ref", replace(state, lease_ref=mine.fence, broken=broken).now(who, at="leased")


def look(state: State, who: int, guards: frozenset[str]) -> Next:
    if state.landings and "what landed is looked for first" in guards:
        yield f"{who} finds it landed", state.now(who, at="swapped")
    else:
        yield f"{who} looks, and builds on {state.moves}", state.now(who, at="built", base=state.moves)


def intend(state: State, who: int, guards: frozenset[str]) -> Next:
    mine = state.holders[who]
    held = mine.fence == state.fence and state.lasts
    if not held and "an intent needs the fence" in guards:
        yield f"{who} may not intend", state.now(who, at="idle")
        return
    broken = state.broken if held else "I11: an intent without the claim"
    if "a landing is recorded after the swap" not in guards:
        yield f"{who} records first", replace(state, landed_row=True).now(who, at="intended")
    yield f"{who} intends", replace(state, broken=broken).now(who, at="intended")


def swap(state: State, who: int, guards: frozenset[str]) -> Next:
    mine = state.holders[who]
    if mine.fence != state.lease_ref and "the swap needs the lease ref" in guards:
        yield f"{who} is fenced out by git", state.now(who, at="idle")
        return
    if mine.base != state.moves and "the swap needs the lane as it was read" in guards:
        yield f"{who} finds the lane moved", state.now(who, at="leased")
        return
    broken = state.broken
    if mine.fence < state.lease_ref:
        broken = "I11: a stale holder landed"
    elif mine.base != state.moves:
        broken = "I5: what others landed is gone"
    after = replace(state, moves=state.moves + 1, landings=state.landings + 1, broken=broken)
    yield f"{who} swaps the lane", after.now(who, at="swapped")


def record(state: State, who: int, guards: frozenset[str]) -> Next:
    mine = state.holders[who]
    if mine.fence != state.fence and "a record needs the fence" in guards:
        yield f"{who} may not record", state.now(who, at="idle")
        return
    broken = state.broken if mine.fence == state.fence else "I11: a stale holder recorded"
    yield f"{who} records", replace(state, landed_row=True, broken=broken).now(who, at="idle")


STEPS = {
    "idle": claim, "claimed": raise_lease, "leased": look, "built": intend, "intended": swap,
    "swapped": record,
}  # fmt: skip

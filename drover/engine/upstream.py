"""What this process knows of the remote that it pushes to."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

AWAY_S = 20.0  # how long a remote that did not answer is left alone


@dataclass
class Upstream:
    """One conversation at a time; after a failure, none for a while. Losing it costs a fetch."""

    turn: anyio.Lock = field(default_factory=anyio.Lock)
    landing: anyio.Lock = field(default_factory=anyio.Lock)  # whose turn it is in this process, where hosts share
    asked: bool = False  # whether ``tip`` is known at all
    tip: str | None = None  # where its branch was when last fetched from or pushed to; None: it had none
    why: str = ""  # it was not reached
    saved: dict[str, str] = field(default_factory=dict)  # work in progress that it has of ours: ref → commit
    _quiet_until: float = 0.0  # of the event loop's clock

    @property
    def resting(self) -> bool:
        return anyio.current_time() < self._quiet_until

    def rest(self, why: str) -> None:
        """It did not answer, or refused: leave it alone for a while, then begin with a fetch."""
        self.why, self.asked = why, False
        self._quiet_until = anyio.current_time() + AWAY_S

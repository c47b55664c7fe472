"""An agent's standard input that stays open: what is said to it is written as fast as it listens."""

from __future__ import annotations

import os

from drover.supervisor.slim import suppress


class Ear:
    """A pipe. ``theirs`` is the end to listen at; ``pipe`` the one to watch while ``waiting``, -1 when it is closed."""

    def __init__(self, beginning: str) -> None:
        self.theirs, self.pipe = os.pipe()
        os.set_blocking(self.pipe, False)
        with open(beginning, "rb") as file:  # noqa: PTH123 - importing pathlib costs each agent 5 ms
            self.unheard = bytearray(file.read())
        self.over = False

    @property
    def waiting(self) -> bool:
        """Whether something is to be done once the agent has listened."""
        return self.pipe >= 0 and (bool(self.unheard) or self.over)

    def say(self, data: bytes) -> None:
        """Add to what it hears; nothing once it was told that no more will come."""
        if not self.over:
            self.unheard += data

    def finish(self) -> None:
        """No more will come: the end follows what is still unheard."""
        self.over = True

    def pump(self) -> None:
        """Write what there is room for."""
        try:
            while self.unheard:
                del self.unheard[: os.write(self.pipe, self.unheard[:65536])]
        except BlockingIOError:
            return
        except OSError:  # it listens no more
            self.unheard.clear()
            self.over = True
        if self.over:
            self.close()

    def close(self) -> None:
        if self.pipe >= 0:
            with suppress(OSError):
                os.close(self.pipe)
            self.pipe = -1

"""Copies an agent's output into a file that does not grow without end."""

from __future__ import annotations

import fcntl
import os

from drover.supervisor.slim import suppress

CHUNK = 128 * 1024
PIPE = 1024 * 1024
TAIL = 256 * 1024


class Relay:
    """A pipe, and the file of about ``limit`` bytes that gets its beginning, a note and its end.

    ``theirs`` is the end to write to; ``pipe`` the one to watch, -1 when it is closed. What passes
    the limit waits in memory, the last 256 KiB of it, and is written when the pipe closes: so the
    agent's last line is kept whatever it printed before, and memory is flat.
    """

    def __init__(self, path: str, limit: int) -> None:
        self.pipe, self.theirs = os.pipe()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with suppress(OSError):  # beyond the user's share of pipe memory it stays as it was
                fcntl.fcntl(self.pipe, fcntl.F_SETPIPE_SZ, PIPE)
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self.keep = min(TAIL, limit // 2)
        self.head = limit - self.keep  # bytes that are written as they come
        self.total = 0
        self.tail = bytearray()
        self.cut = False
        self.full = False

    def pump(self) -> None:
        """Move what is there; at the end of the pipe, finish the file."""
        data = os.read(self.pipe, CHUNK)
        if not data:
            self.close()
            return
        room = max(0, self.head - self.total)
        self.total += len(data)
        if room:
            self._write(data[:room])
        if room < len(data):
            self._remember(data[room:])

    def close(self) -> None:
        """Finish the file, whoever still holds the pipe."""
        if self.pipe < 0:
            return
        os.close(self.pipe)
        self.pipe = -1
        if self.cut:
            del self.tail[: -self.keep]
            self._write(b"\n[drover: %d bytes left out]\n" % (self.total - self.head - len(self.tail)))
        self._write(self.tail)
        with suppress(OSError):
            os.fsync(self.file)
        os.close(self.file)

    def _remember(self, data: bytes) -> None:
        self.tail += data[-2 * self.keep :]
        if len(self.tail) <= self.keep:
            return
        if not self.cut:
            self.cut = True
            self._write(b"\n[drover: too much output; from here on only its end is kept]\n")
        if len(self.tail) > 2 * self.keep:
            del self.tail[: -self.keep]

    def _write(self, data: bytes | bytearray) -> None:
        """A full disk loses output, never the agent: its pipe is read on."""
        with memoryview(data) as view:
            done = 0
            while done < len(view) and not self.full:
                try:
                    done += os.write(self.file, view[done:])
                except OSError:
                    self.full = self.cut = True

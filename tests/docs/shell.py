"""A person at a terminal, reading a page from top to bottom and typing what it says.

Blocks marked ``run`` are typed into one bash behind a real pseudo-terminal, one after the other. A block
marked ``prints`` says what must have come out of the block before it: its lines in their order (``unordered``:
in any), where an id stands for any id, ``…`` for anything, and lines between them are let pass.
``ctrl-c-after="…"`` presses Ctrl+C once that pattern has been printed, and ``until-written="…"`` lets the
reader wait until an agent has written these files.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect

from tests.docs.pages import ROOT, Block, blocks

TIMEOUT_S = 60
_SAY_READY = "echo @@rea''dy@@ $?"  # what is typed is not what is waited for, should the terminal echo it
_READY = r"@@ready@@ (\d+)\r?\n"
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]")
_ID = re.compile(r"\b(task|epic|run)-[a-z0-9]+")


class Reader:
    """What was typed last, and what it printed."""

    def __init__(self, terminal: pexpect.spawn, home: Path) -> None:
        self._terminal = terminal
        self._home = home
        self._block = home / "block.sh"
        self.printed = ""

    def follow(self, page: Path) -> int:
        """Do what the page says; how many blocks were typed."""
        typed = 0
        for block in blocks(page):
            if block.marked("run") and block.language == "sh":
                where = f"{page.name}:{block.line}"
                self.type(block, where)
                typed += 1
            elif block.marked("prints"):
                self.compare(block, f"{page.name}:{block.line}")
        return typed

    def type(self, block: Block, where: str) -> None:
        """Type a block and wait until the shell is ready again. Its exit code has to be what the page says."""
        terminal = self._terminal
        self._block.write_text(block.text)
        terminal.sendline(f". {self._block}; {_SAY_READY}")
        before = ""
        if (sign := block.value("ctrl-c-after")) is not None:
            terminal.expect(sign)
            before = terminal.before + terminal.after
            self._await_files(block)
            terminal.sendintr()
        terminal.expect(_READY)
        self.printed = _COLOUR.sub("", before + terminal.before).replace("\r", "")
        code = int(terminal.match[1])
        self._await_files(block)
        wanted = int(block.value("exit") or 0)
        assert "@@failed@@" not in self.printed or wanted, f"{where}: a command failed\n{self.printed}"
        assert code == wanted, f"{where}: exit code {code}, not {wanted}\n{self.printed}"

    def _await_files(self, block: Block) -> None:
        """Until agents have written each of the files that ``until-written`` names."""
        end = time.monotonic() + TIMEOUT_S
        for name in (block.value("until-written") or "").split():
            while not list(self._home.glob(f"*/.drover/worktrees/*/{name}")):
                assert time.monotonic() < end, f"no agent has written {name}"
                time.sleep(0.05)

    def compare(self, block: Block, where: str) -> None:
        """The lines of a ``prints`` block among what was printed: in their order, or each for itself."""
        printed = [_even(line) for line in self.printed.splitlines()]
        for wanted in filter(None, (_even(line) for line in block.text.splitlines())):
            pattern = re.escape(wanted).replace(re.escape("…"), ".*")
            at = next((at for at, line in enumerate(printed) if re.fullmatch(pattern, line)), None)
            assert at is not None, f"{where}: {wanted!r} was not printed\n{self.printed}"
            printed = [*printed[:at], *printed[at + 1 :]] if block.marked("unordered") else printed[at + 1 :]


@contextmanager
def reader(home: Path) -> Iterator[Reader]:
    """A terminal with an empty home, in a directory of its own, in which ``drover`` is this checkout's."""
    bin_dir = home / "bin"
    bin_dir.mkdir(parents=True)
    (bin_dir / "drover").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m drover "$@"\n')
    (bin_dir / "drover").chmod(0o755)
    env = {
        "PATH": f"{bin_dir}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "NO_COLOR": "1",
        "PAGER": "cat",
        "GIT_PAGER": "cat",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
    }
    terminal = pexpect.spawn(
        "/bin/bash",
        ["--norc", "--noprofile"],
        cwd=str(home),
        env=env,
        encoding="utf-8",
        dimensions=(50, 200),
        echo=False,
        timeout=TIMEOUT_S,
    )
    try:
        quiet = "PS1= PS2=; bind 'set enable-bracketed-paste off'; set -E; trap 'echo @@failed@@ $BASH_COMMAND' ERR"
        terminal.sendline(f"{quiet}; {_SAY_READY}")
        terminal.expect(_READY)
        yield Reader(terminal, home)
    finally:
        terminal.sendeof()
        terminal.close(force=True)
        if terminal.isalive():
            os.kill(terminal.pid, signal.SIGKILL)


def _even(line: str) -> str:
    """A line with every id alike and its white space made even."""
    return re.sub(r"\s+", " ", _ID.sub(r"\1-…", line)).strip()

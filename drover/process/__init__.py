"""The only place where child processes are born, watched, limited and ended."""

from __future__ import annotations

from drover.process.spawn import Finished, TooMuchOutput, run

__all__ = ["Finished", "TooMuchOutput", "run"]

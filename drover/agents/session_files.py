"""Where agents that are programs keep their sessions: files below a home, found by the session's id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from drover.agents.base import SessionPlace

CWD = "{cwd}"
_SESSION_ID = re.compile(r"[A-Za-z0-9_-]{8,100}")


class SessionHome(NamedTuple):
    """``variable`` or else ``below`` the home directory; in it ``pattern``, in which ``{id}`` is the session's.

    A directory whose name is the task's directory, written with dashes, stands as ``{cwd}`` in the names of files:
    it is called otherwise on another host.
    """

    variable: str
    below: str
    pattern: str

    def root(self, place: SessionPlace) -> Path | None:
        if place.env.get(self.variable):
            return Path(place.env[self.variable])
        return Path(place.env["HOME"]) / self.below if place.env.get("HOME") else None

    def files(self, place: SessionPlace, session_id: str) -> Mapping[str, Path]:
        """Name → path of those that are there."""
        root = self.root(place)
        if root is None or not _SESSION_ID.fullmatch(session_id):
            return {}
        here = _dashed(place.worktree)
        found = sorted(path for path in root.glob(self.pattern.replace("{id}", session_id)) if path.is_file())
        names = [path.relative_to(root).parts for path in found]
        return {
            "/".join(CWD if part == here else part for part in parts): path
            for parts, path in zip(names, found, strict=True)
        }

    def path(self, place: SessionPlace, name: str) -> Path | None:
        """Where a file of that name belongs here."""
        root, parts = self.root(place), name.split("/")
        if root is None or not all(parts) or {".", ".."} & {*parts}:
            return None
        if not Path(name).match(self.pattern.replace("{id}", "*")):
            return None
        return root.joinpath(*(_dashed(place.worktree) if part == CWD else part for part in parts))


def _dashed(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9]", "-", str(path))

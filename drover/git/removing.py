"""Removes directories that an agent has left, whatever it has made of them."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_PASSES = 8  # over a directory that something still writes into while it is being removed


def remove_tree(path: Path) -> None:
    """Remove a tree that may hold read-only directories, may be deep beyond measure and may still be written into."""
    for _ in range(_PASSES):
        try:
            if sys.version_info >= (3, 12):
                shutil.rmtree(path, onexc=_open_up)
            else:
                shutil.rmtree(path, onerror=_open_up)
        except RecursionError:  # of its depth Python says so; these two programs know no limit
            for argv in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
                subprocess.run([*argv, "--", path], stderr=subprocess.DEVNULL, check=False)
        if not path.exists():
            return
    shutil.rmtree(path)  # says what is in the way


def _open_up(_function: Callable[..., object], name: str, _error: object) -> None:
    """Make a directory that refused writable for the next pass. Never touches what a link points to."""
    for path in (Path(name), Path(name).parent):
        with suppress(OSError):
            if stat.S_ISDIR(path.lstat().st_mode):
                path.chmod(stat.S_IRWXU)

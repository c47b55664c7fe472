"""A PID namespace for an agent: nothing that it starts can live longer than it, or than its supervisor."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache

# The shell is the namespace's first process: it reaps, and as the first one it is deaf to the gentle signals that its
# group gets. When it ends the kernel kills whatever is left inside.
_FIRST = ("/bin/sh", "-c", '"$@"; exit $?', "sh")


@cache
def find_containment() -> tuple[str, ...] | None:
    """The words before a command that runs it in a PID namespace of its own; None where that is not permitted."""
    setpriv, unshare = shutil.which("setpriv"), shutil.which("unshare")
    if setpriv is None or unshare is None:
        return None
    user = () if os.geteuid() == 0 else ("--user", "--map-current-user")
    # The kernel kills unshare when the supervisor dies, the first process when unshare does, and then all the others.
    words = (
        setpriv,
        "--pdeathsig",
        "KILL",
        unshare,
        *user,
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--",
        *_FIRST,
    )
    try:
        tried = subprocess.run([*words, "true"], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return words if tried.returncode == 0 else None

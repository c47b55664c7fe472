"""Without a network: a network namespace of one's own, in which there is nothing but loopback."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys

SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
INSIDE = "DROVER_CONFORMANCE_OFFLINE"


def go_offline(module: str) -> str:
    """Begin again without a network where that is permitted; how it was done, or why it was not."""
    how = os.environ.get(INSIDE)
    if how is not None:
        _raise_loopback()
        return how
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return "with the machine's network: there is no unshare here"
    for words in (("unshare", "--net"), ("unshare", "--map-root-user", "--net")):
        if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
            how = f"in a network namespace with nothing but loopback ({' '.join(words)})"
            env = {**os.environ, INSIDE: how}
            os.execvpe(words[0], [*words, sys.executable, "-m", module, *sys.argv[1:]], env)
    return "with the machine's network: a network namespace is not permitted here"


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))

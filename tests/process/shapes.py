"""Agents of eight shapes. ``shapes.py SHAPE TOKEN READY ends|stays``: TOKEN in argv is how tests find survivors."""

from __future__ import annotations

import os
import signal
import sys
import time

SHAPES = ("normal", "deaf", "setsid", "double_fork", "daemon", "flood", "silent", "breeding")


def hold() -> None:
    while True:
        time.sleep(60)


def ready(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))


def child(*, deaf: bool = False) -> int:
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if deaf:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        hold()
    return pid


def double_fork(*, closed: bool) -> None:
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    if closed:
        for fd in range(3):
            os.close(fd)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hold()


def breed() -> None:
    """Six lines of processes that each live 20 ms and leave one heir; they die out after 400 generations."""
    for _ in range(6):
        if os.fork() == 0:
            os.setsid()
            for _ in range(400):
                time.sleep(0.02)
                if os.fork():
                    os._exit(0)
            os._exit(0)


def main(shape: str, path: str, fate: str) -> None:
    if shape == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif shape == "setsid":
        child(deaf=True)
    elif shape in ("double_fork", "daemon"):
        double_fork(closed=shape == "daemon")
    elif shape == "breeding":
        breed()
    ready(path)
    if shape == "flood":
        for _ in range(200 if fate == "ends" else 1_000_000_000):
            os.write(1, b"x" * 65536)
    elif shape != "silent":
        os.write(1, b"at work\n")
    if fate == "stays":
        hold()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[3], sys.argv[4])

"""A program that plays an agent's part: it notes how it was started, prints what it was given, ends as it was told.

Started as ``python -I -S stand_in.py DIRECTORY …``: nothing of the caller's environment is imported.
"""

import json
import os
import select
import signal
import sys
import time

SILENCE_S = 0.3  # after which what it was told is taken for whole: its standard input may stay open


def listen() -> str:
    """What it is told on its standard input."""
    told = b""
    while select.select([0], [], [], SILENCE_S if told else 60.0)[0]:
        part = os.read(0, 1 << 16)
        if not part:
            break
        told += part
    return told.decode(errors="replace")


def main() -> None:
    place = sys.argv[1]
    with open(os.path.join(place, "act.json"), encoding="utf-8") as file:  # noqa: PTH118,PTH123 - starts quickly
        act = json.load(file)
    if "--version" in sys.argv:
        sys.stdout.write(act["version"] + "\n")
        return
    if act["deaf"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = listen()
    seen = {"argv": sys.argv[2:], "env": dict(os.environ), "cwd": os.getcwd(), "told": told, "at": time.time()}  # noqa: PTH109
    with open(os.path.join(place, "seen.jsonl"), "a", encoding="utf-8") as file:  # noqa: PTH118,PTH123
        file.write(json.dumps(seen) + "\n")
    if act["brood"]:
        for own_session in (False, True):
            argv = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]
            os.posix_spawn(sys.executable, argv, dict(os.environ), setsid=own_session)
    if act["noise"]:
        sys.stdout.write("x" * act["noise"] + "\n")
    sys.stderr.write(act["stderr"])
    sys.stderr.flush()
    sys.stdout.write(act["stdout"])
    sys.stdout.flush()
    if act["hangs"]:
        with open(os.path.join(place, "hanging"), "w", encoding="utf-8"):  # noqa: PTH118,PTH123
            pass
        time.sleep(600)
    while act["exit_code"] == 0 and os.read(0, 1 << 16):
        pass  # one that is at work listens until nobody can say anything any more
    if act["killed"]:
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(act["exit_code"])


if __name__ == "__main__":
    main()

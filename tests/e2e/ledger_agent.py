"""An agent that keeps its own books, outside of everything drover writes.

Appends one line at its start and one at its end to the ledger named by LEDGER, each with one write and an
fsync, and writes a random line to ``tasks/<id>.txt``, so that a second landing would be seen as content.
A line names the fence of its execution and the content it wrote, as git names it.
"""

import hashlib
import json
import os
import random
import sys
import time
from pathlib import Path


def note(**what: object) -> None:
    fence = int(os.environ.get("DROVER_MARKER", "..0.").split(".")[2])
    line = {"task": os.environ["DROVER_TASK_ID"], "attempt": int(os.environ["DROVER_ATTEMPT"]), "fence": fence, **what}
    handle = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(handle, (json.dumps(line) + "\n").encode())
    os.fsync(handle)
    os.close(handle)


def main() -> int:
    prompt = sys.stdin.read()
    note(event="start", pid=os.getpid(), at=time.time())
    low, high = (float(x) for x in os.environ.get("WORK_SECONDS", "0.1,0.4").split(","))
    time.sleep(random.uniform(low, high))
    place = Path("tasks")
    place.mkdir(exist_ok=True)
    path = place / f"{os.environ['DROVER_TASK_ID']}.txt"
    content = f"{random.getrandbits(64):x}\n".encode()
    path.write_bytes(content)
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    wrote = {"path": str(path), "blob": blob}
    if "FAIL ALWAYS" in prompt or ("FAIL ONCE" in prompt and os.environ["DROVER_ATTEMPT"] == "1"):
        note(event="fail", **wrote)
        return 1
    note(event="end", pid=os.getpid(), at=time.time(), **wrote)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""An agent that keeps its own books, outside of everything drover writes.

Appends one line at its start and one at its end to the ledger named by LEDGER, each with one write and an
fsync, and writes a random line to ``tasks/<id>.txt``, so that a second landing would be seen as content.
"""

import json
import os
import random
import sys
import time
from pathlib import Path


def note(**what: object) -> None:
    line = (
        json.dumps({"task": os.environ["DROVER_TASK_ID"], "attempt": int(os.environ["DROVER_ATTEMPT"]), **what}) + "\n"
    )
    handle = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, line.encode())
    os.fsync(handle)
    os.close(handle)


def main() -> int:
    prompt = sys.stdin.read()
    note(event="start", pid=os.getpid(), at=time.time())
    low, high = (float(x) for x in os.environ.get("WORK_SECONDS", "0.1,0.4").split(","))
    time.sleep(random.uniform(low, high))
    place = Path("tasks")
    place.mkdir(exist_ok=True)
    with (place / f"{os.environ['DROVER_TASK_ID']}.txt").open("w") as file:
        file.write(f"{random.getrandbits(64):x}\n")
    if "FAIL ALWAYS" in prompt:
        note(event="fail")
        return 1
    note(event="end", pid=os.getpid(), at=time.time())
    return 0


if __name__ == "__main__":
    sys.exit(main())

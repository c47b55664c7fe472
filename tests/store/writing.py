"""A process that adds tasks and says each one that it was promised, until it is ended.

usage: writing.py PATH [SIZE]
With SIZE no file may grow beyond that many bytes; what each write came to is said.
"""

from __future__ import annotations

import resource
import sys

import anyio

from drover.domain.errors import DroverError
from drover.domain.models import NewTask
from drover.store import open_store


async def main(path: str, size: str = "") -> None:
    async with open_store(f"sqlite:///{path}") as store:
        if size:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), resource.RLIM_INFINITY))
        before = None
        for n in range(40):
            new = NewTask(title=f"{n}", description="x" * 3_000, blocked_by=(before,) if before else ())
            try:
                before = (await store.tasks.add(new)).id
            except DroverError as error:
                print(f"{n} {type(error).__name__}", flush=True)
                return
            print(n, flush=True)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])

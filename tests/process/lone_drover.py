"""A drover that only supervises: ``lone_drover.py SPEC``, where SPEC is a JSON file of launches. Meant to be killed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio

from drover import process
from drover.domain.models import ProcessIdentity


class Watcher:
    def __init__(self, note: Path) -> None:
        self.note = note

    async def started(self, identity: ProcessIdentity) -> None:
        self.note.write_text(str(identity))

    def progress(self, output_bytes: int) -> None:
        pass


async def main(spec: list[dict[str, object]]) -> None:
    async with anyio.create_task_group() as tasks:
        for entry in spec:
            launch = process.Launch.model_validate(entry)
            tasks.start_soon(process.supervise, launch, Watcher(launch.record_path.with_name("supervisor")))


if __name__ == "__main__":
    anyio.run(main, json.loads(Path(sys.argv[1]).read_text()))

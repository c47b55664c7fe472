"""What agents and tests printed: logs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from drover.cli.options import NOTHING_SAID, Common, TaskId, option
from drover.cli.output import Printer, Styled
from drover.cli.session import opened, printer_of

_BITE = 64 * 1024
_LOOK_S = 0.2  # how often a followed file is looked at
_AT_WORK = ("claimed", "in_progress")


async def logs(
    task_id: TaskId,
    /,
    *,
    attempt: Annotated[int | None, option("--attempt", metavar="N", help="Only of this attempt.")] = None,
    follow: Annotated[bool, option("--follow", "-f", help="Go on while the task runs.")] = False,
    common: Common = NOTHING_SAID,
) -> None:
    """The agent's words and the tests' output, oldest first."""
    import anyio

    out = printer_of(common)
    async with opened(common) as drover:
        task = await drover.task(task_id)
        shown: dict[Path, int] = {}
        while True:
            task = await drover.task(task.id)
            for path in await drover.log_files(task.id, attempt):
                shown[path] = _show_from(out, path, shown.get(path, 0), common)
            if not follow or task.status not in _AT_WORK:
                break
            await anyio.sleep(_LOOK_S)
    if not shown:
        out.note(f"{task.id} has printed nothing yet")


def _show_from(out: Printer, path: Path, start: int, common: Common) -> int:
    """Print what the file holds beyond ``start``; where it ends now."""
    with path.open("rb") as file:
        file.seek(start)
        if start == 0 and path.stat().st_size and not common.json:
            out.line(Styled(f"── {path.parent.name}/{path.name}", "dim"))
        while bite := file.read(_BITE):
            text = bite.decode("utf-8", "replace")
            if common.json:
                out.record({"path": str(path), "text": text})
            else:
                out.chunk(text)
        out.out.flush()
        return file.tell()

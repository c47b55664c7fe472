"""``drover status --oneline`` as it is typed into prompts: a hundred times an hour, so without the parser.

With any other word the same is done by :mod:`drover.cli.status`, which is half as fast.
"""

from __future__ import annotations

from drover.cli.output import Printer
from drover.cli.overview import oneline
from drover.cli.session import project_of, standing


async def glance() -> None:
    """Print the status of the project around in one line."""
    report = await standing(project_of())
    if report.total:
        Printer(as_json=False, plain=False).line(oneline(report))
        return
    from drover.cli.status import status  # an empty backlog may be the wrong one, which the parser's way looks into

    await status(oneline=True)

"""``python -m tests.proof run [SUITE ...]``, ``points``, ``page``: the whole proof, its fault points, its page."""

from __future__ import annotations

import sys

from tests.proof import page, points, whole

COMMANDS = {"run": whole.run, "points": points.run, "page": page.run}


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print(__doc__)
        return 2
    return COMMANDS[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())

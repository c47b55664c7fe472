"""``python -m drover`` is ``drover``."""

from __future__ import annotations

import sys

from drover.cli import main

if __name__ == "__main__":
    sys.exit(main())

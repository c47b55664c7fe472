"""Started as ``python -I -S …/drover/supervisor/__main__.py``: nothing of the caller's environment is imported."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.append(__file__.rsplit("/", 3)[0])
    from drover.supervisor.life import main

    main()
    os._exit(0)  # there is nothing to tidy up, and an interpreter that does takes a sixth of all it used

"""An agent that turns on its keeper: it leaves one trap in its clone, fails, and does its work when it is called again.

usage: trap_agent.py HOME, with the trap's name in the prompt as TRAP<name>. Marks of traps that went off are in
HOME/<task>/fired.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.git.test_hostile import Plant, Trap


def git(where: Path, *argv: str, ok: bool = True) -> str:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", *argv], cwd=where, env=env, capture_output=True, text=True, check=False)
    assert not ok or done.returncode == 0, done.stderr
    return done.stdout.strip()


def leave_links(trap: Trap) -> None:
    """Links that lead out of the tree, one of them where a directory of the tree was."""
    outside = trap.mark.parent / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("kept\n")
    for name, target in (("out", outside), ("passwd", Path("/etc/passwd")), ("up", Path("../../.."))):
        (trap.clone / name).symlink_to(target)
    (trap.clone / "dir" / "file.txt").unlink()
    (trap.clone / "dir").rmdir()
    (trap.clone / "dir").symlink_to(outside)


def all_traps() -> dict[str, Plant]:
    from tests.git.test_hostile import VECTORS

    return {**VECTORS, "links out of the tree": leave_links}


def main() -> int:
    prompt = sys.stdin.read()
    home = Path(sys.argv[1]) / os.environ["DROVER_TASK_ID"]
    if not home.exists():
        sys.path.insert(0, str(Path(__file__).parents[2]))  # an agent's environment has no PYTHONPATH
        from tests.git.test_hostile import Trap

        home.mkdir()
        trap = Trap(Path.cwd(), git, home)
        next(plant for name, plant in all_traps().items() if f"TRAP<{name}>" in prompt)(trap)
        trap.mark.unlink(missing_ok=True)  # planting itself may have set it off
        (home / "planted").touch()
        Path("half.txt").write_text("half\n")
        return 1
    Path(f"{os.environ['DROVER_TASK_ID']}.txt").write_text("done\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

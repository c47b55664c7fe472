"""An agent that edits what others edit too, and resolves what it is handed with conflict markers.

The words of its prompt say what it does: REGION adds a line where everybody adds one, BROKEN leaves what
the tests refuse, SHUFFLE:<seed> renames, deletes, chmods and edits files of ``pile/``; otherwise it writes
a file of its own. Markers anywhere in ``pile/`` or in region.txt are resolved first, keeping both sides.
"""

import os
import random
import re
import sys
from pathlib import Path

TASK = os.environ["DROVER_TASK_ID"]
REGION, PILE = Path("region.txt"), Path("pile")


def resolve(path: Path) -> bool:
    """Both sides of every conflict, without the base; whether there was one."""
    if path.is_symlink() or not path.is_file():
        return False
    kept, inside, found = [], "", False
    for line in path.read_text().splitlines(keepends=True):
        mark = re.match(r"(<{7}|\|{7}|={7}|>{7})( |$)", line)
        if mark:
            inside = mark[1][0].replace(">", "")
            found = True
        elif inside != "|":
            kept.append(line)
    if found:
        path.write_text("".join(kept))
    return found


def shuffle(seed: str) -> None:
    rng = random.Random(seed)
    files = sorted(path for path in PILE.rglob("*") if path.is_file())
    for _ in range(rng.randint(1, 4)):
        path = rng.choice(files)
        if not path.exists():
            continue
        act = rng.choice(["edit", "edit", "edit", "rename", "delete", "mode", "new"])
        if act == "edit":
            lines = path.read_text().splitlines()
            lines.insert(rng.randint(0, len(lines)), f"{TASK} was here {rng.getrandbits(32):x}")
            path.write_text("\n".join(lines) + "\n")
        elif act == "rename":
            path.rename(path.with_name(f"{path.stem[:8]}-{rng.getrandbits(16):x}.txt"))
        elif act == "delete":
            path.unlink()
        elif act == "mode":
            path.chmod(path.stat().st_mode ^ 0o111)
        else:
            (PILE / f"{TASK}-{rng.getrandbits(16):x}.txt").write_text(f"{TASK}\n" * 12)


def main() -> None:
    prompt = sys.stdin.read()
    resolved = [resolve(path) for path in (REGION, *sorted(PILE.rglob("*")))]
    if any(resolved):
        return
    seed = re.search(r"SHUFFLE:(\w+)", prompt)
    if "REGION" in prompt:
        if f"{TASK}\n" not in REGION.read_text():
            REGION.write_text(REGION.read_text() + f"{TASK}\n")
    elif seed:
        shuffle(seed[1])
        PILE.mkdir(exist_ok=True)
        (PILE / f"of-{TASK}.txt").write_text(f"{TASK}\n" * 10)
    else:
        Path("tasks").mkdir(exist_ok=True)
        Path(f"tasks/{TASK}.{'bad' if 'BROKEN' in prompt else 'txt'}").write_text(f"{TASK}\n")


main()

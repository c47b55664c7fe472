"""A judge of what a landing did to each path, by a three-way merge of its own: no code of drover's has a part in it."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tests.e2e.conftest import Project

Entry = tuple[str, str] | None  # mode and blob; None: there is no such path
Tree = dict[str, Entry]


def tree_of(project: Project, commit: str) -> Tree:
    found: Tree = {}
    for line in project.git("ls-tree", "-r", commit).splitlines():
        head, path = line.split("\t", 1)
        mode, _, oid = head.split()
        found[path] = (mode, oid)
    return found


def wrong_paths(project: Project, landed: str, task: str) -> list[str]:
    """The paths on which a landing is not the merge of its task's result with what it landed on."""
    refs = project.git(
        "for-each-ref", "--sort=-version:refname", "--format=%(objectname)", f"refs/drover/attempts/{task}"
    )
    result = refs.split()[0]
    base, theirs = tree_of(project, f"{result}^"), tree_of(project, result)
    ours, merged = tree_of(project, f"{landed}^1"), tree_of(project, landed)
    wrong = []
    for path in sorted({*base, *theirs, *ours, *merged}):
        sides = base.get(path), ours.get(path), theirs.get(path), merged.get(path)
        if not _is_right(*sides) and not _is_content_merge(project, *sides) and not _followed(
            project, path, base, ours, theirs, merged
        ):  # fmt: skip
            wrong.append(path)
    return wrong


def _is_right(base: Entry, ours: Entry, theirs: Entry, merged: Entry) -> bool:
    """Where only one side changed a path, that side's is what there is."""
    if theirs in (base, ours):
        return merged == ours
    return ours == base and merged == theirs


def _is_content_merge(project: Project, base: Entry, ours: Entry, theirs: Entry, merged: Entry) -> bool:
    """Where both changed it, their changes are merged, mode and content each for itself."""
    if base is None or ours is None or theirs is None or merged is None:
        return False
    mode = theirs[0] if ours[0] == base[0] else ours[0]
    return merged == (mode, _merged_blob(project, base[1], ours[1], theirs[1]))


def _followed(project: Project, path: str, base: Tree, ours: Tree, theirs: Tree, merged: Tree) -> bool:
    """Where one side renamed a file that the other changed, the change is at the new name and nothing at the old."""
    for old, before in base.items():
        if before is None or old in merged:
            continue
        for mover, other in ((theirs, ours), (ours, theirs)):
            changed = other.get(old)
            if old in mover or changed is None:
                continue
            for new in [path] if old != path else _new_names(old, base, mover):
                there = mover.get(new)
                if there is None or new in base or other.get(new) is not None:
                    continue
                mode = changed[0] if there[0] == before[0] else there[0]
                if merged.get(new) == (mode, _merged_blob(project, before[1], changed[1], there[1])):
                    return True
    return False


def _new_names(old: str, base: Tree, mover: Tree) -> list[str]:
    """Where a side may have moved a file to: what kept its bytes, and the new files with its first letters.

    Several files of the same first letters may have moved at once, each with an edit of its own.
    """
    fresh = [path for path in mover if path not in base]
    same = [path for path in fresh if mover[path] and base[old] and mover[path][1] == base[old][1]]  # type: ignore[index]
    stem = Path(old).stem[:8]
    return [*same, *(path for path in fresh if Path(path).name.startswith(f"{stem}-"))]


def _merged_blob(project: Project, base: str, ours: str, theirs: str) -> str:
    """The blob that a line-wise merge of three blobs makes; empty when they conflict."""
    if ours == base or theirs in (base, ours):
        return theirs if ours == base else ours
    with tempfile.TemporaryDirectory() as place:
        names = []
        for name, oid in (("ours", ours), ("base", base), ("theirs", theirs)):
            path = Path(place) / name
            path.write_bytes(
                subprocess.run(
                    ["git", "cat-file", "blob", oid], cwd=project.root, capture_output=True, check=True
                ).stdout
            )
            names.append(str(path))
        done = subprocess.run(["git", "merge-file", "-p", *names], cwd=project.root, capture_output=True, check=False)
        if done.returncode:
            return ""
        made = subprocess.run(
            ["git", "hash-object", "-t", "blob", "--stdin"],
            cwd=project.root,
            input=done.stdout,
            capture_output=True,
            check=True,
        )
        return made.stdout.decode().strip()

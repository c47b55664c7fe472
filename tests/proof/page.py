"""Puts the counts of ``proof.json`` into ``docs/guarantees.md``, between the marks that it has for them."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

from tests.proof.suites import SUITES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guarantees.md"
MARK = re.compile(r"(<!-- (counts|table)(?: (I\d+))? -->)(.*?)(<!-- end -->)", re.DOTALL)


def run(argv: list[str]) -> int:
    """Write the page; it stays as it is while suites are missing, for it would tell less than it does."""
    proof = json.loads((ROOT / "proof.json").read_text())
    if missing := [name for name in SUITES if name not in proof["suites"]]:
        print(f"{PAGE.name} stays as it is: {', '.join(missing)} were not run here")
        return 0
    text = PAGE.read_text() if PAGE.exists() else ""
    PAGE.write_text(MARK.sub(lambda found: found[1] + _between(found[2], found[3], proof) + found[5], text))
    return 0


def _between(kind: str, promise: str | None, proof: dict[str, Any]) -> str:
    return _table(proof) if kind == "table" else _counts(promise or "", proof["suites"])


def _counts(promise: str, suites: dict[str, Any]) -> str:
    proving = [name for name, suite in SUITES.items() if promise in suite.promises and name in suites]
    parts = [
        f"{name} {SUITES[name].title}, {suites[name]['hit']:,} points, {len(suites[name]['violations'])} violations"
        for name in proving
    ]
    return (
        "\n\n"
        + textwrap.fill("Proved by " + "; ".join(parts) + ".", 116, initial_indent="> ", subsequent_indent="> ")
        + "\n"
    )


def _table(proof: dict[str, Any]) -> str:
    where = proof["where"]
    lines = [
        "",
        f"Measured on {where['system']}, {where['cores']} cores, Python {where['python']}, git {where['git']},"
        f" SQLite {where['sqlite']}.",
        "",
        "| Suite | What it does | Points | Hit | Violations | Seed | Seconds | Commit |",
        "|---|---|--:|--:|--:|---|--:|---|",
    ]
    for name, entry in proof["suites"].items():
        seeds = ", ".join(map(str, entry["seeds"])) or "–"
        left_out = " (some left out)" if entry["left_out"] else ""
        lines.append(
            f"| {name} {entry['title']} | {SUITES[name].what}{left_out} | {entry['points']:,} | {entry['hit']:,} |"
            f" {len(entry['violations'])} | {seeds} | {entry['seconds']:,.0f} | `{entry['commit']}` |"
        )
    total = sum(entry["hit"] for entry in proof["suites"].values())
    return "\n".join([*lines, "", f"In all {total:,} points hit.", ""])

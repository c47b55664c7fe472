"""The table as text for a terminal, and as a page of the documentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs" / "reference"
RESULT, PAGE = DOCS / "conformance.json", DOCS / "conformance.md"
Result = dict[str, Any]

NOTE = "<!-- Written by tests/conformance from conformance.json; do not edit. -->\n"
HEAD = """# What drover makes of each agent

Every cell is one life as a user would see it: drover's command line, a repository, and the agent's own program. Only
the model is a script, so each cell can be had again: `make agents`, then `make conformance`. A cell says what
happened, and **wrong** where that is not what drover promises.
"""
MEANT = {
    "run": "a task of three turns: it writes a file, runs a command, ends",
    "kill -9 of the agent": "in the middle of a tool that has a child, and a grandchild in a session of its own",
    "kill -9 of drover": "at the same moment; nothing may be left before the next drover starts, then `drover resume`",
    "Ctrl+C": "at the same moment, then `drover resume`",
    "429 with retry-after": "the service refuses until the task waits, and asks for an hour",
    "usage limit": "the account is used up for a quarter of a minute, told as its service tells it",
    "529": "the service is overloaded until the task waits",
    "401": "the key is refused, always",
    "network down": "nobody listens where the service should be, until the task waits",
    "timeout": "the task may take no longer than its first tool",
    "stall": "the model accepts the second question and never answers",
    "flood": "a tool prints 30 MB on each stream, then the model says 3 MB; 1 MiB of each log is to be kept",
    "resume": "it ended well, and the tests failed on its work: the same session is told so",
}
NOTES = """
- Usage limits: `claude` is told as a subscriber is, `codex` as a subscriber of ChatGPT; `gemini` tells a limit of the
  day, without its end; `opencode`, `qwen` and `copilot` pass on the words of a provider of one's own.
- Network, overload and limits: Claude Code is told to try three times (`CLAUDE_CODE_MAX_RETRIES=2`), the others try as
  often as they do by themselves. Where a service refuses for an hour, `stall_timeout` is 45 seconds in place of 15
  minutes: what sleeps that out in silence is stopped then.
- `amp` has no row: it works with its own service only, which cannot be had offline. Its driver is built from its
  documentation, and `drover doctor` says that it is unverified.
"""


def text(result: Result) -> str:
    """For a terminal: a block for each agent, a line for each cell."""
    lines = [f"{result['offline']}; {result['seconds']:.0f} s on {result['cores']} cores"]
    for name, agent in result["agents"].items():
        lines.append(f"\n{name} {agent['version'] or agent['missing']}")
        for cell, seen in agent["cells"].items():
            lines.append(f"  {cell:22} {seen['seconds']:6.1f} s  {'' if seen['ok'] else 'WRONG: '}{seen['seen']}")
    return "\n".join(lines)


def page(result: Result) -> str:
    """For the documentation."""
    agents = {name: agent for name, agent in result["agents"].items() if agent["cells"]}
    parts = [NOTE, HEAD, f"Last run on {result['date']}, {result['offline']}, {result['seconds'] / 60:.0f} minutes on "
             f"{result['cores']} cores.\n"]  # fmt: skip
    parts.append("| agent | version | cells | wrong |\n|---|---|---|---|")
    for name, agent in agents.items():
        wrong = sum(not seen["ok"] for seen in agent["cells"].values())
        parts.append(f"| `{name}` | {agent['version']} | {len(agent['cells'])} | {wrong} |")
    for cell, meant in MEANT.items():
        parts.append(f"\n## {cell[0].upper()}{cell[1:]}\n\n{meant[0].upper()}{meant[1:]}.\n")
        parts.append("| agent | what happened |\n|---|---|")
        for name, agent in agents.items():
            if seen := agent["cells"].get(cell):
                said = " ".join(seen["seen"].replace("|", "\\|").split())
                parts.append(f"| `{name}` | {'' if seen['ok'] else '**wrong**: '}{said} |")
    return "\n".join([*parts, "\n## Notes", NOTES.rstrip()]) + "\n"


def write(result: Result, where: Path = RESULT) -> None:
    """The result as JSON, and the page that it makes beside it."""
    where.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    where.with_suffix(".md").write_text(page(result))

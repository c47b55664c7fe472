"""The pages as the tests read them: fenced blocks, code spans, links, headings."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^(```+)(.*?)\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_INVOCATION = re.compile(r"(?<![\w./-])drover ([^\n|;&)<>#`]+)")


@dataclass(frozen=True)
class Block:
    """A fenced block: ``info`` is what stands after the opening fence, its first word the language."""

    info: str
    text: str
    line: int

    @property
    def language(self) -> str:
        return self.info.split(" ", 1)[0]

    def marked(self, mark: str) -> bool:
        return mark in self.info.split()

    def value(self, name: str) -> str | None:
        """What ``name="…"`` says in the info string."""
        found = re.search(rf'{name}="([^"]*)"', self.info)
        return found[1] if found else None


def pages() -> list[Path]:
    """Every page that people read, the generated ones included."""
    return sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])


def written_pages() -> list[Path]:
    """Those that people wrote."""
    generated = (DOCS / "performance.md",)
    return [p for p in pages() if p not in generated and not p.read_text().startswith("<!-- Written by")]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [Block(m[2].strip(), m[3], text[: m.start()].count("\n") + 1) for m in _FENCE.finditer(text)]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def spans(page: Path) -> list[str]:
    """What stands between single backticks."""
    return _SPAN.findall(prose(page))


def links(page: Path) -> list[str]:
    """Targets of links that lead to another file or heading of this project."""
    return [link for link in _LINK.findall(prose(page)) if "://" not in link and not link.startswith("mailto:")]


def anchors(page: Path) -> set[str]:
    """The names under which headings can be linked, as GitHub makes them."""
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(prose(page)))
    return {word.strip().replace(" ", "-") for word in words}


def invocations(page: Path) -> Iterator[list[str]]:
    """The words after ``drover`` wherever a page types it: in shell blocks and in code spans."""
    typed = [b.text for b in blocks(page) if b.language in ("sh", "console")] + spans(page)
    for text in typed:
        for match in _INVOCATION.finditer(text.replace("\\\n", " ")):
            try:
                yield shlex.split(match[1], posix=True)
            except ValueError:  # a quote that the pattern cut off
                yield match[1].split()


def generator() -> ModuleType:
    """scripts/generate_docs.py, which is no module of the package."""
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "scripts" / "generate_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

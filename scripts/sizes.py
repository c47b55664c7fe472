"""Print the ten longest files and functions of the package. It informs; it fails nothing."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1] / "drover"


def main() -> None:
    files, functions = [], []
    for path in sorted(ROOT.rglob("*.py")):
        text = path.read_text()
        files.append((len(text.splitlines()), str(path.relative_to(ROOT.parent))))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                functions.append((lines, f"{path.relative_to(ROOT.parent)}:{node.lineno} {node.name}"))
    print(f"{len(files)} files, {sum(n for n, _ in files)} lines")
    for title, found in (("files", files), ("functions", functions)):
        print(f"\nlongest {title}")
        for lines, name in sorted(found, reverse=True)[:10]:
            print(f"{lines:6} {name}")


if __name__ == "__main__":
    main()

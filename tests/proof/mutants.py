"""Small wrongs for Python and for SQL: each is the text of a file with one thing in it changed."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple


class Mutant(NamedTuple):
    path: str  # from the root of the tree
    line: int
    what: str  # what was changed into what
    place: str  # the function or the query that it is in
    make: Callable[[], str]  # the text of the whole file


COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
COUNTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
}  # fmt: skip
UNHEARD = ("log.",)  # what is only said to a log moves nothing


def of_python(path: str, source: str) -> Iterator[Mutant]:
    """Every mutant of a module: conditions turned, comparisons shifted, calls and raises left out, values exchanged.

    Left alone: annotations, docstrings and other text, what is only logged, and numbers that stand at the top of a
    module by a name of their own, which are there to be tuned.
    """
    tree = ast.parse(source)
    functions = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)]
    for place, node in enumerate(_places(tree)):
        line = getattr(node, "lineno", 0)
        for number, (what, _) in enumerate(_changes(node)):
            inside = f"{path}:{_first_line(functions, line)}"
            yield Mutant(path, line, what, inside, partial(_changed, source, place, number))


def _first_line(functions: Sequence[ast.FunctionDef | ast.AsyncFunctionDef], line: int) -> int:
    """Where the innermost function around the line begins, as its code object says it."""
    around = [f for f in functions if f.lineno <= line <= (f.end_lineno or line)]
    inner = max(around, key=lambda f: f.lineno)
    return min([inner.lineno, *(decorator.lineno for decorator in inner.decorator_list)])


def _changed(source: str, place: int, number: int) -> str:
    """The text with that node said otherwise, and every other letter as it was: some tests read the code."""
    node = list(_places(ast.parse(source)))[place]
    _, changed = list(_changes(node))[number]
    spot = node.test if isinstance(node, ast.If | ast.While) else node
    lines = [line.encode() for line in source.splitlines(keepends=True)]
    before = b"".join(lines[: spot.lineno - 1]) + lines[spot.lineno - 1][: spot.col_offset]
    after = lines[spot.end_lineno - 1][spot.end_col_offset :] + b"".join(lines[spot.end_lineno :])
    said = ast.unparse(ast.fix_missing_locations(changed))
    return (before + (said if isinstance(changed, ast.stmt) else f"({said})").encode() + after).decode()


def _places(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node inside of a function."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in child.body:
                yield from _below(statement)
        else:
            yield from _places(child)


def _below(node: ast.AST) -> Iterator[ast.AST]:
    if _is_left_alone(node):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list", "type_params"):
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, ast.AST):
                    yield from _below(item)


def _is_left_alone(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        if isinstance(node.value, ast.Constant):
            return True
        return ast.unparse(node.value).startswith(UNHEARD)
    return isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr)


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Compare(ops=[op]) if type(op) in COMPARED:
            changed = ast.Compare(node.left, [COMPARED[type(op)]()], node.comparators)
            yield f"{ast.unparse(node)} → {ast.unparse(changed)}", changed
        case ast.BoolOp(op=op):
            other = ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), node.values)
            yield f"{ast.unparse(node)} → {ast.unparse(other)}", other
        case ast.UnaryOp(op=ast.Not()):
            yield f"{ast.unparse(node)} → {ast.unparse(node.operand)}", node.operand
        case ast.BinOp(op=op) if type(op) in COUNTED and not _is_text(node):
            sum_ = ast.BinOp(node.left, COUNTED[type(op)](), node.right)
            yield f"{ast.unparse(node)} → {ast.unparse(sum_)}", sum_
        case ast.Constant(value=bool(value)):
            yield f"{value} → {not value}", ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield f"{value} → {value + 1}", ast.Constant(value + 1)
        case ast.If() | ast.While() if not isinstance(node.test, ast.Compare | ast.BoolOp | ast.Constant):
            yield f"if {ast.unparse(node.test)} → if not", ast.UnaryOp(ast.Not(), node.test)
        case ast.IfExp():
            yield (
                f"{ast.unparse(node)}: exchanged",
                ast.IfExp(node.test, node.orelse, node.body),
            )
        case ast.Return(value=value) if value is not None and not isinstance(value, ast.Constant):
            yield f"return {_short(value)} → return None", ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.Raise():
            yield f"{_short(node)}: left out", ast.Pass()
        case _:
            return


def _is_text(node: ast.BinOp) -> bool:
    """Whether words or paths are put together: the other operator has no meaning there."""
    sides = (node.left, node.right)
    return any(
        isinstance(s, ast.JoinedStr) or (isinstance(s, ast.Constant) and isinstance(s.value, str)) for s in sides
    )


def _short(node: ast.AST) -> str:
    words = " ".join(ast.unparse(node).split())
    return words if len(words) <= 90 else words[:87] + "…"


# ------------------------------------------------------------ SQL

COMPARISON = re.compile(r"(?<![<>=!])(<>|<=|>=|<|>|=)(?![<>=])")
TURNED = {"<>": "=", "<=": "<", ">=": ">", "<": "<=", ">": ">="}
CONDITION = re.compile(r"\bAND (?!.*\bBETWEEN\b)(.+?)(?=$|;|\bAND\b|\bOR\b|\bORDER\b|\bRETURNING\b|\bLIMIT\b|\))")
ASSIGNED = re.compile(r"(?:\bSET |, |^\s+)(\w+) = ((?::\w+)|NULL|'\w*'|\d+|\w+ \+ 1)(?=,|;|$|\s+WHERE)")


def of_sql(path: str, source: str) -> Iterator[Mutant]:
    """Every mutant of a file of queries: a condition left out, a comparison or an order turned, a column not set."""
    lines = source.split("\n")
    query = ""
    for number, line in enumerate(lines):
        if line.lstrip().startswith("--"):
            query = line.split(":", 1)[1].strip() if line.startswith("-- name:") else query
            continue
        for what, changed in _sql_changes(line):
            text = "\n".join([*lines[:number], changed, *lines[number + 1 :]])
            yield Mutant(path, number + 1, what, query, partial(str, text))


def _sql_changes(line: str) -> Iterator[tuple[str, str]]:
    for found in CONDITION.finditer(line):
        if line.count("(", *found.span()) == line.count(")", *found.span()):
            yield f"{found[0].strip()}: left out", line[: found.start()] + line[found.end() :]
    for found in ASSIGNED.finditer(line):
        kept = f"{found[1]} = {found[1]}"
        yield f"{found[1]} = {found[2]}: not set", line[: found.start(1)] + kept + line[found.end() :]
    assigned = [found.span() for found in ASSIGNED.finditer(line)]
    for found in COMPARISON.finditer(line):
        if found[1] in TURNED and not any(a <= found.start() < b for a, b in assigned):
            yield f"{line.strip()}: {found[1]} → {TURNED[found[1]]}", _exchanged(line, found, TURNED[found[1]])
    for found in re.finditer(r" \+ 1\b", line):
        yield f"{line.strip()}: + 1 → + 0", _exchanged(line, found, " + 0")
    for found in re.finditer(r"\bDESC\b", line):
        yield f"{line.strip()}: DESC → ASC", _exchanged(line, found, "ASC")
    for found in re.finditer(r"\bIS NOT NULL\b|\bIS NULL\b", line):
        other = "IS NULL" if "NOT" in found[0] else "IS NOT NULL"
        yield f"{line.strip()}: {found[0]} → {other}", _exchanged(line, found, other)


def _exchanged(line: str, found: re.Match[str], other: str) -> str:
    return line[: found.start()] + other + line[found.end() :]

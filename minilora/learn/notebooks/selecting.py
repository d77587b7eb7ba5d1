"""Which statements of a notebook its answers need: these themselves, and what they refer to.

A lesson's training takes a minute and its answers need none of it, so this is what makes checking a
class a matter of seconds. A statement is needed if it binds a needed name, as an import, a def and
an assignment do, stores something in what it names, or hands a needed value on: a call may change
what it is given. What a needed statement refers to is needed too.
"""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterator
from dataclasses import dataclass

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)
_DEEPEST = 100  # nodes in one another; ast.unparse gives up at some 200
_ANY = "*"  # what `from somewhere import *` binds


@dataclass(frozen=True)
class _Statement:
    """Names of the notebook: those that it refers to, binds, stores something in, as x.y = 1 and
    x[0] = 1 do, and hands to a call, as x.add(1) and change(x) do."""

    node: ast.stmt
    refers: frozenset[str]
    binds: frozenset[str]
    stores_in: frozenset[str]
    hands_on: frozenset[str]


def statements(cell: str) -> list[ast.stmt]:
    """What a cell consists of, with IPython's own lines (%pip, !ls, %%time) left out. Raises
    SyntaxError, also for what is nested so deeply that Python itself gives up."""
    too_deep = SyntaxError(f"nested more than {_DEEPEST} deep", ("cell", 1, 1, ""))
    try:
        try:
            tree = ast.parse(cell)
        except SyntaxError:
            magic = re.compile(r"^(\s*)(?:[%!?].*|[\w.]+\?\??)$")
            tree = ast.parse("\n".join(magic.sub(r"\1pass", line) for line in cell.split("\n")))
        compile(tree, "cell", "exec")  # a return outside a function is found only now
    except (RecursionError, MemoryError):
        raise too_deep from None
    except ValueError as error:  # what Python before 3.11.4 raises for a NUL
        raise SyntaxError(str(error), ("cell", 1, 1, "")) from None
    if _depth(tree) > _DEEPEST:
        raise too_deep
    return tree.body


def _depth(tree: ast.AST) -> int:
    """How many nodes of a tree are in one another."""
    level, depth = [tree], 0
    while level:
        level, depth = [child for node in level for child in ast.iter_child_nodes(node)], depth + 1
    return depth


def needed(cells: list[list[ast.stmt]], names: list[str]) -> list[list[ast.stmt]]:
    """Of each cell's statements those that the functions of these names need."""
    described = [[_describe(node) for node in cell] for cell in cells]
    everything = [one for cell in described for one in cell]
    values = {n for one in everything if not _is_definition(one.node) for n in one.binds}
    wanted = {*names, _ANY, "annotations"}  # the latter: from __future__ import annotations
    chosen: set[int] = set()
    growing = True
    while growing:
        growing = False
        for one in everything:
            gives = (one.binds | one.stores_in | (one.hands_on & values)) & wanted
            if id(one) not in chosen and gives:
                chosen.add(id(one))
                wanted |= one.refers
                growing = True
    return [[one.node for one in cell if id(one) in chosen] for cell in described]


def _is_definition(node: ast.stmt) -> bool:
    return isinstance(node, _DEFINITIONS + _IMPORTS)


def _describe(node: ast.stmt) -> _Statement:
    table = symtable.symtable(ast.unparse(node), "cell", "exec")
    symbols = table.get_symbols()
    binds = {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}
    if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
        binds = {_ANY}
    refers = {s.get_name() for s in symbols if s.is_referenced()}
    for inner in _inner(table):
        refers |= {s.get_name() for s in inner.get_symbols() if s.is_global()}
    stores_in, hands_on = (set(), set()) if _is_definition(node) else _changed(node)
    return _Statement(
        node, frozenset(refers), frozenset(binds), frozenset(stores_in), frozenset(hands_on)
    )


def _inner(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in table.get_children():
        yield child
        yield from _inner(child)


def _changed(statement: ast.stmt) -> tuple[set[str], set[str]]:
    stores_in: set[str] = set()
    hands_on: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            stores_in |= _root(node)
        elif isinstance(node, ast.Call):
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            if isinstance(node.func, ast.Attribute):
                given.append(node.func)
            for one in given:
                hands_on |= _root(one)
    return stores_in, hands_on


def _root(node: ast.expr) -> set[str]:
    """The name that x, x.y, x[0].y or *x begins with, if it begins with one."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        node = node.value
    return {node.id} if isinstance(node, ast.Name) else set()

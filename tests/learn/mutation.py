"""Mutated references: a solution with one operator, constant, index or line changed.

A checker that accepts such a mutant has no case that tells it from the solution; unless the mutant
computes the same, its cases are too few. (Mutation testing: DeMillo, Lipton and Sayward 1978.)
"""

import ast
import copy
from collections.abc import Iterator

SWAPPED_OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
SWAPPED_NAMES = {
    "max": "min", "min": "max", "sum": "max", "mean": "sum", "argmax": "argmin", "argmin": "argmax",
    "floor": "ceil", "ceil": "floor", "sqrt": "square", "exp": "expm1", "cumsum": "cumprod",
    "zeros": "ones", "ones": "zeros", "zeros_like": "ones_like", "tril": "triu", "triu": "tril",
    "True": "False", "False": "True",
}  # fmt: skip


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """(what was changed, source) of each mutant of a function or class."""
    tree = ast.parse(source)
    for i, node in enumerate(ast.walk(tree)):
        for new in _changes(node):
            changed = copy.deepcopy(tree)
            place = list(ast.walk(changed))[i]
            before = ast.unparse(place)
            for field, value in vars(new).items():
                setattr(place, field, value)
            place.__class__ = new.__class__  # type: ignore[assignment]
            ast.fix_missing_locations(changed)
            yield (
                f"line {getattr(node, 'lineno', 0)}: {before} -> {ast.unparse(place)}",
                ast.unparse(changed),
            )


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """What one node may become."""
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in SWAPPED_OPERATORS:
        yield _with(node, op=SWAPPED_OPERATORS[type(node.op)]())
    if isinstance(node, ast.BoolOp):
        yield _with(node, op=SWAPPED_OPERATORS[type(node.op)]())
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED_OPERATORS:
        yield _with(node, ops=[SWAPPED_OPERATORS[type(node.ops[0])](), *node.ops[1:]])
    if isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        new = not node.value if isinstance(node.value, bool) else node.value + 1
        yield _with(node, value=new)
    if isinstance(node, ast.UnaryOp):
        yield node.operand
    if isinstance(node, ast.Name) and node.id in SWAPPED_NAMES:
        yield _with(node, id=SWAPPED_NAMES[node.id])
    if isinstance(node, ast.Attribute) and node.attr in SWAPPED_NAMES:
        yield _with(node, attr=SWAPPED_NAMES[node.attr])
    if isinstance(node, ast.Attribute) and node.attr == "T":
        yield node.value
    if isinstance(node, ast.Assign | ast.AugAssign | ast.Expr) and not _is_docstring(node):
        yield ast.Pass()


def _with(node: ast.AST, **fields: object) -> ast.AST:
    new = copy.deepcopy(node)
    for field, value in fields.items():
        setattr(new, field, value)
    return new


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)

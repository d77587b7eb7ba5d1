"""A model as text: what `print(model)` shows.

One line per module, indented below the one that holds it, and on the right how many parameters
it has and how many of them train. Neighbours in a list that are alike are shown once, as in
PyTorch: "0-11: 12 x Block". Plain ASCII, so that every console can show it.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

Row = tuple[str, int, int]  # text, parameters, trained ones


def tree(module: Any) -> str:
    """The table of a Module and all modules below it."""
    lines = [("", "parameters", "train")]
    lines += [(text, f"{total:,}", f"{trained:,}") for text, total, trained in _rows(module)]
    text, total, trained = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join(f"{a:{text}}  {b:>{total}}  {c:>{trained}}" for a, b, c in lines)


def _rows(module: Any) -> list[Row]:
    total = sum(p.size for p in module.parameters())
    trained = sum(p.size for p in module.trainable_parameters())
    rows = [(module.describe(), total, trained)]
    if module.one_line:
        return rows
    inside = [(name, _rows(child)) for name, child in module.named_children()]
    for (_, below), run in groupby(inside, _likeness):
        first, *others = [name for name, _ in run]
        more = f"-{others[-1].rpartition('.')[2]}: {1 + len(others)} x" if others else ":"
        text, total, trained = below[0]
        rows.append((f"  {first}{more} {text}", total, trained))
        rows += [(f"  {text}", total, trained) for text, total, trained in below[1:]]
    return rows


def _likeness(named: tuple[str, list[Row]]) -> tuple[str, list[Row]]:
    """What neighbours share that are shown as one: their list, and all that is printed of them."""
    name, rows = named
    owner, _, last = name.rpartition(".")
    return (owner if last.isdigit() else name), rows

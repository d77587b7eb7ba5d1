"""Rows: what an experiment returns, one flat dictionary of JSON-able values for each run.

The same words stand in results.json and in the rows of every study:

    task, metric          what was learned, and in what it is measured: "nats" or "exact"
    method, seed, lr, steps
    r, s                  of LoRA and its kin: the rank, and the factor of s A B; else None
    trainable, total      how many numbers train, and how many the base model has
    diverged              the loss stopped being finite; the qualities are None then
    val, test, old        quality after training: on the new task's two splits, and on the old task
    old_detached          the latter with the adapter switched off; None for other methods
    optimizer_bytes, disk_bytes, peak_memory_bytes, seconds_per_step
    losses                of every step
    curve                 [step, val, ...] along the way
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

from minilora.system.errors import UsageError
from minilora.system.files import write_atomically

Row = dict[str, Any]
Rows = list[Row]


def select(rows: Rows, **same: Any) -> Rows:
    """The rows that have these values."""
    return [row for row in rows if all(row[key] == value for key, value in same.items())]


def distinct(rows: Rows, key: str) -> list[Any]:
    """The values of `key` in the rows, ascending, without None."""
    return sorted({row[key] for row in rows} - {None})


def spread(rows: Rows, x: str, y: str) -> tuple[list[Any], list[float], list[float], list[float]]:
    """For each value of x, ascending: the mean, the lowest and the highest y of the rows there."""
    xs = distinct(rows, x)
    ys = [[row[y] for row in rows if row[x] == value] for value in xs]
    return xs, [mean(some) for some in ys], [min(some) for some in ys], [max(some) for some in ys]


def in_six_digits(value: Any) -> Any:
    """The same rows with six significant digits of every float: what was computed in float32 has
    seven, and the others make most of a file."""
    if isinstance(value, dict):
        return {key: in_six_digits(item) for key, item in value.items()}
    if isinstance(value, list):
        return [in_six_digits(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def save_json(value: Any, file: str | Path) -> None:
    """Write JSON for people too, whole or not at all: a line for each row of a list of rows.

    Raises ValueError for NaN and infinity, which JSON does not have.
    """
    try:
        text = _layout(value, 0) + "\n"
    except ValueError as error:
        raise UsageError(f"{file} would hold NaN or infinity, which JSON has not") from error
    write_atomically(Path(file), lambda path: path.write_text(text, "utf-8"))


def _layout(value: Any, depth: int) -> str:
    """JSON in which only the dictionaries that hold lists of rows, and these lists, are spread over
    lines; a row is one line."""
    pad, end = "  " * (depth + 1), "  " * depth
    if _is_rows(value):
        lines = [pad + _layout(row, depth + 1) for row in value]
        return "[\n" + ",\n".join(lines) + f"\n{end}]"
    if isinstance(value, dict) and any(_is_rows(item) for item in value.values()):
        lines = [
            f"{pad}{json.dumps(key)}: {_layout(item, depth + 1)}" for key, item in value.items()
        ]
        return "{\n" + ",\n".join(lines) + f"\n{end}" + "}"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)

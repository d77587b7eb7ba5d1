"""Rows: what an experiment returns, one flat dictionary of JSON-able values for each run.

The same words stand in results.json and in the rows of every study: those of Columns.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Literal, TypedDict

from minilora.system.errors import UsageError
from minilora.system.files import write_atomically
from minilora.system.readers import LARGEST_TABLE, read_json
from minilora.system.schemas import NOT_EMPTY, POSITIVE, Range

Row = dict[str, Any]
Rows = list[Row]
_Count = Annotated[int, Range(0)]


class Columns(TypedDict, total=False):
    """The words that all experiments share; many have columns of their own beside them."""

    task: str  # what was learned
    metric: Literal["nats", "exact", "nats_per_token"]  # in what it is measured
    method: str | None
    seed: _Count
    lr: Annotated[float, POSITIVE] | None
    steps: _Count | None
    r: Annotated[int, Range(1)] | None  # of LoRA and its kin: the rank,
    s: float | None  # and the factor of s A B
    trainable: _Count  # how many numbers train
    total: Annotated[int, Range(1)]  # how many the base model has
    diverged: bool  # the loss stopped being finite; the qualities are None then
    val: float | None  # quality after training, on the new task's two splits
    test: float | None
    old: float | None  # and on the old task,
    old_detached: float | None  # also with the adapter switched off; None for other methods
    optimizer_bytes: _Count | None
    disk_bytes: _Count | None
    peak_memory_bytes: _Count | None
    seconds_per_step: Annotated[float, Range(0)] | None
    losses: list[float] | None  # of every step
    curve: list[list[int | float | None]]  # [step, val, ...] along the way


class Results(TypedDict):
    """A file of a study's results."""

    rows: Annotated[list[Columns], NOT_EMPTY]


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


def read_rows(file: Path) -> Rows:
    """The rows in a file of a study's results. Raises OSError, and UsageError, which names the
    column, if they are none."""
    return read_json(file, Results, LARGEST_TABLE)["rows"]


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
    # In the locale C the letters of a file's name come as the bytes that they are in it.
    content = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").encode()
    write_atomically(Path(file), lambda path: path.write_bytes(content))


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

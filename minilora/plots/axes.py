"""What the figures of the studies have in common: colours of ranks, means with their range, axes.

Full fine-tuning is blue and LoRA orange; where there are several ranks, the higher is the darker,
and the same rank has the same colour in every figure. Imports compare.py, plots.py, recipes.py,
sweep.py.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from statistics import mean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from minilora.experiments.sweeps import Rows
from minilora.experiments.tasks import NATS
from minilora.methods.registry import LABELS
from minilora.plots.comparisons import COLORS

ABOUT = {"code": "Python code", "reverse": "Reverse a word", "sort": "Sort a word"}
EXACT_TASKS = ("reverse", "sort")  # every other task is a text, measured in nats
MARKERS = "osD^vP"
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1, 2)))
BEFORE = (0, (3, 2))
RING: Any = {"ls": "", "marker": "o", "ms": 13, "mfc": "none", "mew": 1.6}
SMALL = 9  # font size of notes
LINE = "line: their range"


def shade(color: str, tone: float) -> str:
    """The colour mixed with white (tone from -1 to 0) or with black (from 0 to 1)."""
    end = 1.0 if tone < 0 else 0.0
    red, green, blue = (c + abs(tone) * (end - c) for c in to_rgb(color))
    return to_hex((red, green, blue))


def rank_color(r: int) -> str:
    """LoRA's orange at r = 4, paler below and darker above."""
    steps = math.log2(r / 4) / 2
    return shade(COLORS["lora"], max(0.45 * steps, -0.6) if steps < 0 else min(0.35 * steps, 0.8))


def select(rows: Rows, **same: Any) -> Rows:
    """The rows that have these values."""
    return [row for row in rows if all(row[key] == value for key, value in same.items())]


def spread(rows: Rows, x: str, y: str) -> tuple[list[Any], list[float], list[float], list[float]]:
    """For each value of x, ascending: the mean, the lowest and the highest y of the rows there."""
    values: dict[Any, list[float]] = {}
    for row in rows:
        values.setdefault(row[x], []).append(row[y])
    xs = sorted(values)
    return (
        xs,
        [mean(values[key]) for key in xs],
        [min(values[key]) for key in xs],
        [max(values[key]) for key in xs],
    )


def plot_spread(rows: Rows, ax: Axes, x: str, y: str, *, color: str, **look: Any) -> None:
    """A line through the means over seeds, and a band from the lowest seed to the highest."""
    xs, means, lows, highs = spread(rows, x, y)
    ax.plot(xs, means, color=color, **look)
    ax.fill_between(xs, lows, highs, color=color, alpha=0.2, lw=0)


def figure_of(
    title: str, rows: Rows, lines: int, columns: Collection[Any], shown: str = "band: their range"
) -> tuple[Figure, list[Axes]]:
    """A figure with so many lines and columns of panels; beside its title, of how many seeds of the
    rows the mean is drawn, and what shows their range."""
    size = (8.5 if len(columns) == 1 else 11, 4.4 if lines == 1 else 0.4 + 3.7 * lines)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    seeds = len({row["seed"] for row in rows})
    if seeds > 1:
        note = f"mean of {seeds} seeds, {shown}"
        figure.text(0.99, 1 - 0.09 / size[1], note, ha="right", va="top", fontsize=SMALL)
    return figure, list(figure.subplots(lines, len(columns), squeeze=False).flat)


def legend_below(figure: Figure, ax: Axes, lines: int = 1) -> None:
    """Below the panels, where it covers nothing: what one of them draws, for all."""
    handles, labels = ax.get_legend_handles_labels()
    columns = math.ceil(len(labels) / lines)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def distinct(rows: Rows, key: str) -> list[Any]:
    return sorted({row[key] for row in rows} - {None})


def by_method(rows: Rows) -> Iterator[tuple[Rows, dict[str, Any]]]:
    """The rows of full fine-tuning, then those of each rank, and how their line looks."""
    if full := select(rows, method="full"):
        yield full, {"color": COLORS["full"], "marker": "o", "label": LABELS["full"]}
    lora = select(rows, method="lora")
    for i, r in enumerate(distinct(lora, "r")):
        look = {"color": rank_color(r), "ls": DASHES[i % 4], "marker": MARKERS[1 + i % 5]}
        yield select(lora, r=r), look | {"label": f"LoRA, r = {r}"}
    if unknown := select(lora, r=None):  # an adapter of the user's
        yield unknown, {"color": COLORS["lora"], "marker": "s", "label": LABELS["lora"]}


def task_title(task: str) -> str:
    return ABOUT.get(task, task)


def rank_axis(ax: Axes, ranks: list[int]) -> None:
    log2_axis(ax, ranks)
    ax.set_xlabel("rank r of LoRA")


def log2_axis(ax: Axes, values: Sequence[float]) -> None:
    ax.set_xscale("log", base=2)
    fixed_ticks(ax, values)


def fixed_ticks(ax: Axes, values: Sequence[float]) -> None:
    ax.xaxis.set_major_locator(FixedLocator(values))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def characters_axis(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.set_xlabel("characters to learn from")


def quality_axis(ax: Axes, task: str, split: str, about: str = "", axis: str = "y") -> None:
    """Names what is measured on a split of the task, with its unit, and the panel."""
    name = {"val": "validation", "test": "test"}[split]
    if task in EXACT_TASKS:
        label = f"{name}: answers exactly right"
        (ax.yaxis if axis == "y" else ax.xaxis).set_major_formatter(PercentFormatter(1))
        ax.set(**{f"{axis}lim": (-0.05, 1.05)})
    else:
        label = f"{name} loss ({NATS})"
    ax.set(**{f"{axis}label": label})
    ax.set_title(task_title(task) + (about and f": {about}"), parse_math=False)

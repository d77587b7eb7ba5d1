"""What the figures of the studies have in common: panels, means with their range, and axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from minilora.experiments.rows import Row, Rows, distinct, select, spread
from minilora.methods.registry import LABELS
from minilora.plots.house_style import COLORS, DASHES, MARKERS, NOTE_SIZE, rank_color
from minilora.system.errors import UsageError
from minilora.training.quality import EXACT, METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

TASK_TITLES = {"code": "Python code", "reverse": "Reverse a word", "sort": "Sort a word"}


def plot_spread(rows: Rows, ax: Axes, x: str, y: str, *, color: str, **look: Any) -> None:
    """A line through the means over seeds, and a band from the lowest seed to the highest."""
    xs, means, lows, highs = spread(rows, x, y)
    ax.plot(xs, means, color=color, **look)
    ax.fill_between(xs, lows, highs, color=color, alpha=0.2, lw=0)


def figure_with_panels(
    title: str, rows: Rows, lines: int, columns: int, shown: str = "band: their range", **axes: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with so many lines and columns of panels. Beside its title stands of how many seeds
    of the rows the mean is drawn, and what is `shown` beside it. axes: of Figure.subplots. Raises
    UsageError without rows."""
    from matplotlib.figure import Figure

    if not rows:
        raise UsageError("there are no rows to draw")
    size = (8.5 if columns == 1 else 10, 4.4 if lines == 1 else 0.4 + 3.7 * lines)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    seeds = len({row.get("seed") for row in rows})
    if seeds > 1:
        note = f"mean of {seeds} seeds, {shown}"
        figure.text(0.99, 1 - 0.09 / size[1], note, ha="right", va="top", fontsize=NOTE_SIZE)
    return figure, list(figure.subplots(lines, columns, squeeze=False, **axes).flat)


def panel_for_each(
    key: str, rows: Rows, plot: Callable[[Rows, Axes], Axes], title: str, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each value of `key`: `plot` draws there the rows that have it."""
    values = distinct(rows, key)
    figure, panels = figure_with_panels(title, rows, 1, len(values), **options)
    for value, ax in zip(values, panels, strict=True):
        plot(select(rows, **{key: value}), ax)
    return figure, panels


def legend_below(figure: Figure, ax: Axes, lines: int = 1) -> None:
    """Below the panels, where it covers nothing: what one of them draws, for all."""
    handles, labels = ax.get_legend_handles_labels()
    columns = math.ceil(len(labels) / lines)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def by_method(rows: Rows) -> Iterator[tuple[Rows, dict[str, Any]]]:
    """The rows of full fine-tuning, then those of each rank, and how their line looks. Raises
    UsageError for rows of another method."""
    if others := set(distinct(rows, "method")) - {"full", "lora"}:
        raise UsageError(f"only full fine-tuning and LoRA are drawn here, not {min(others)}")
    if full := select(rows, method="full"):
        yield full, {"color": COLORS["full"], "marker": "o", "label": LABELS["full"]}
    lora = select(rows, method="lora")
    for i, r in enumerate(distinct(lora, "r")):
        look = {"color": rank_color(r), "ls": DASHES[i % 4], "marker": MARKERS[1 + i % 5]}
        yield select(lora, r=r), look | {"label": f"LoRA, r = {r}"}
    if unknown := select(lora, r=None):  # an adapter of the user's
        yield unknown, {"color": COLORS["lora"], "marker": "s", "label": LABELS["lora"]}


def task_title(task: str) -> str:
    return TASK_TITLES.get(task, task)


def rank_axis(ax: Axes, ranks: list[int]) -> None:
    log2_axis(ax, ranks)
    ax.set_xlabel("rank r of LoRA")


def log2_axis(ax: Axes, values: Sequence[float]) -> None:
    ax.set_xscale("log", base=2)
    fixed_ticks(ax, values)


def fixed_ticks(ax: Axes, values: Collection[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ax.xaxis.set_major_locator(FixedLocator(list(values)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def per_cent(axis: Axis) -> None:
    """Shares of 1 are written in per cent."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1))


def quality_axis(ax: Axes, row: Row, split: str, about: str = "", axis: str = "y") -> None:
    """Names what is measured on a split of the row's task, with its unit, and the panel."""
    name, metric = {"val": "validation", "test": "test"}[split], METRICS[row["metric"]]
    if metric is EXACT:
        label = f"{name}: answers exactly right"
        per_cent(ax.yaxis if axis == "y" else ax.xaxis)
        ax.set(**{f"{axis}lim": (-0.05, 1.05)})
    else:
        label = f"{name} loss ({metric.unit})"
    ax.set(**{f"{axis}label": label})
    ax.set_title(task_title(row["task"]) + (about and f": {about}"), parse_math=False)

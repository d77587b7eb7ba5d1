"""The figure of a count: of how many numbers a method trains how few."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minilora.experiments.rows import Rows
from minilora.methods.registry import LABELS
from minilora.plots.axes import legend_below
from minilora.plots.house_style import COLORS, NOTE_SIZE, style
from minilora.system.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@style()
def counts_figure(rows: Rows, label: str) -> Figure:
    """What full fine-tuning and LoRA (`label`) train of each matrix of a model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 2.1 + 0.32 * len(rows)), layout="constrained")
    if not rows:
        raise UsageError("there are no matrices to draw")
    title = "Trainable parameters, matrix by matrix"
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    ax = plot_counts(rows, figure.subplots(), label)
    legend_below(figure, ax)
    return figure


def plot_counts(rows: Rows, ax: Axes, label: str) -> Axes:
    """A line for each row, named by "model": from "trainable" to "total", with the "share"."""
    for y, row in enumerate(rows):
        ax.plot([row["trainable"], row["total"]], [y, y], color="#BBBBBB", lw=1.5, zorder=1)
        percent = 100 * row["share"]
        share = f"{percent:.1f} %" if percent >= 10 else f"{percent:#.2g} %"
        ax.annotate(share, (row["trainable"], y), xytext=(-9, 0), textcoords="offset points",
                    ha="right", va="center", fontsize=NOTE_SIZE)  # fmt: skip
    ys = range(len(rows))
    full, lora = ([row[key] for row in rows] for key in ("total", "trainable"))
    ax.plot(full, ys, "o", color=COLORS["full"], ms=8, label=LABELS["full"])
    ax.plot(lora, ys, "s", color=COLORS["lora"], ms=8, label=label)
    ax.set_xscale("log")
    ax.set_yticks(ys, [row["model"] for row in rows], parse_math=False)
    ax.invert_yaxis()
    ax.xaxis.grid(True)
    ax.margins(x=0.12)
    ax.set_xlabel("trainable parameters (beside LoRA's: its share)")
    return ax

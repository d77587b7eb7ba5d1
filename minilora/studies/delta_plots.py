"""The figures about weights rather than quality: ΔW's singular values, what is left of a ΔW cut to
rank k, similar subspaces, and how many numbers train. Built as study_plots.py is.

Imports compare.py, panels.py, plots.py, sweep.py.
"""

from __future__ import annotations

from itertools import zip_longest
from statistics import mean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minilora.experiments.sweeps import Rows
from minilora.methods.registry import LABELS
from minilora.plots.axes import (
    BEFORE,
    MARKERS,
    SMALL,
    by_method,
    distinct,
    figure_of,
    fixed_ticks,
    legend_below,
    log2_axis,
    plot_spread,
    quality_axis,
    rank_color,
    select,
    spread,
    task_title,
)
from minilora.plots.comparisons import COLORS, style


@style()
def spectrum_figure(rows: Rows) -> Figure:
    tasks = distinct(rows, "task")
    title = "Singular values of ΔW, mean over the matrices"
    figure, panels = figure_of(title, rows, len(tasks), range(2))
    for i, task in enumerate(tasks):
        same = select(rows, task=task)
        plot_spectrum(same, panels[2 * i])
        plot_spectrum_table(same, panels[2 * i + 1])
    return figure


def plot_spectrum(rows: Rows, ax: Axes) -> Axes:
    """The singular values of one task's ΔW, each divided by the largest of its matrix, mean over
    the matrices, and the range of that over seeds. Rows leave out those that are zero but for
    rounding."""
    most = max(len(row["singular_values"]) for row in rows)
    for same, look in by_method(rows):
        means = _mean_spectrum(same)
        of_seeds = [_mean_spectrum(select(same, seed=seed)) for seed in distinct(same, "seed")]
        ranges = [(min(values), max(values)) for values in zip(*of_seeds, strict=False)]
        lows, highs = zip(*ranges, strict=True)
        indices = range(1, len(ranges) + 1)
        ax.fill_between(indices, lows, highs, color=look["color"], alpha=0.2, lw=0)
        marked = [2**n - 1 for n in range(9) if 2**n <= len(means)]
        ax.plot(range(1, len(means) + 1), means, markevery=marked, **look)
    ax.set_yscale("log")
    log2_axis(ax, [2**n for n in range(9) if 2**n <= most])
    ax.set_xlabel("index i of the singular value")
    ax.set_ylabel(r"$\sigma_i / \sigma_1$")
    ax.set_title(task_title(rows[0]["task"]), parse_math=False)
    return ax


def _mean_spectrum(rows: Rows) -> list[float]:
    relative = [[s / row["singular_values"][0] for s in row["singular_values"]] for row in rows]
    return [mean(values) for values in zip_longest(*relative, fillvalue=0.0)]


MEASURES = {  # of a row, how it is named in the table, and how many decimals it has there
    "effective_rank": ("effective\nrank", 1),
    "stable_rank": ("stable\nrank", 1),
    "k90": ("k90", 1),
    "relative_norm": ("‖ΔW‖\n/ ‖W‖", 2),
    "intruders": ("intruders\nof 10", 1),
}


def plot_spectrum_table(rows: Rows, ax: Axes) -> Axes:
    """The same ΔW in numbers, a line for full fine-tuning and for each rank."""
    methods = list(by_method(rows))
    middle: Any = {"ha": "center", "va": "center"}
    for x, (measure, (name, decimals)) in enumerate(MEASURES.items()):
        ax.text(x, -0.9, name, fontsize=SMALL, **middle)
        for y, (same, _) in enumerate(methods):
            ax.text(x, y, f"{mean(row[measure] for row in same):.{decimals}f}", **middle)
    for y, (_, look) in enumerate(methods):
        ax.plot([-3.1, -2.8, -2.5], [y, y, y], **look)
        ax.text(-2.3, y, look["label"], ha="left", va="center")
    ax.axhline(-0.45, color="black", lw=0.8)
    ax.set_xlim(-3.2, len(MEASURES) - 0.5)
    ax.set_ylim(len(methods) - 0.4, -1.5)
    ax.set_axis_off()
    return ax


@style()
def truncation_figure(truncated: Rows, trained: Rows) -> Figure:
    """trained: of rank_sweep."""
    tasks = distinct(truncated, "task")
    title = "Full fine-tuning cut to rank k, and LoRA trained at rank k"
    figure, panels = figure_of(title, truncated, 1, tasks)
    for task, ax in zip(tasks, panels, strict=True):
        plot_truncation(select(truncated, task=task), select(trained, task=task), ax)
    legend_below(figure, panels[0])
    return figure


def plot_truncation(truncated: Rows, trained: Rows, ax: Axes) -> Axes:
    """Quality of one task by k. The axis is linear up to 1, as k = 0 has no logarithm."""
    label = "full, every ΔW cut to rank k\n(embeddings, biases, norms stay tuned)"
    plot_spread(truncated, ax, "k", "test", color=COLORS["full"], marker="o", label=label)
    lora = select(trained, method="lora")
    label = "LoRA trained at r = k"
    plot_spread(lora, ax, "r", "test", color=COLORS["lora"], marker="s", label=label)
    ax.set_xscale("symlog", base=2, linthresh=1)
    fixed_ticks(ax, sorted({*distinct(truncated, "k"), *distinct(lora, "r")}))
    ax.set_xlabel("rank k")
    quality_axis(ax, truncated[0]["task"], "test")
    return ax


@style()
def subspace_similarity_figure(rows: Rows) -> Figure:
    pairs = sorted({(row["r"], row["r_other"]) for row in rows})
    tasks = distinct(rows, "task")
    title = "Similarity φ(i, j) of what two trainings of LoRA read"
    figure, panels = figure_of(title, rows, len(tasks), pairs)
    grid = [(task, pair) for task in tasks for pair in pairs]
    for (task, (r, r_other)), ax in zip(grid, panels, strict=True):
        plot_subspace_similarity(select(rows, task=task, r=r, r_other=r_other), ax)
    legend_below(figure, panels[0])
    return figure


def plot_subspace_similarity(rows: Rows, ax: Axes) -> Axes:
    """φ(i, j) by j for i = 1, 2, 4, 8, solid after training and dashed before."""
    for n, i in enumerate(i for i in (1, 2, 4, 8) if i in distinct(rows, "i")):
        same, color = select(rows, i=i), rank_color(i)
        plot_spread(same, ax, "j", "phi", color=color, marker=MARKERS[n], label=f"i = {i}")
        js, starts, _, _ = spread(same, "j", "phi_start")
        ax.plot(js, starts, color=color, ls=BEFORE, lw=1.2)
    ax.plot([], [], color=COLORS["lora"], ls=BEFORE, lw=1.2, label="before training (chance)")
    log2_axis(ax, distinct(rows, "j"))
    first = rows[0]
    ax.set_xlabel(f"top j directions of the A of rank {first['r_other']}")
    ax.set_ylabel(f"φ(i, j), top i of rank {first['r']}")
    ax.set_ylim(0, 1.04)
    ax.set_title(f"{task_title(first['task'])}: r = {first['r']} and {first['r_other']}")
    return ax


@style()
def parameter_counts_figure(rows: Rows) -> Figure:
    figure, panels = figure_of("Trainable parameters", [], 1, range(1))
    plot_parameter_counts(rows, panels[0])
    legend_below(figure, panels[0])
    return figure


def plot_parameter_counts(rows: Rows, ax: Axes) -> Axes:
    """Trainable parameters of full fine-tuning and of LoRA of rank 8, a line for each model."""
    same = sorted(select(rows, rank=8), key=lambda row: row["total"])
    return plot_counts(same, ax, "LoRA on q and v, r = 8")


@style()
def counts_figure(rows: Rows, label: str) -> Figure:
    """What full fine-tuning and LoRA (`label`) train of each matrix of a model."""
    figure = Figure(figsize=(8.5, 1.8 + 0.32 * len(rows)), layout="constrained")
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
                    ha="right", va="center", fontsize=SMALL)  # fmt: skip
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

"""The figure of a comparison: what each method learned, and what it cost.

A plot function takes an entry of results.json and draws on Axes; it computes nothing but means and
ranges over seeds, and ratios.
"""

from __future__ import annotations

import textwrap
from statistics import mean
from typing import TYPE_CHECKING, Any

from minilora.methods.registry import LABELS, METHODS
from minilora.plots.axes import per_cent
from minilora.plots.house_style import COLORS, FAMILY_COLORS, FAMILY_MARKERS, NOTE_SIZE, style
from minilora.system.errors import UsageError
from minilora.training.quality import EXACT, METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES = {"full": "-", "lora": "-", "scratch": ":"}
_MARKERS = {"full": "o", "lora": "s", "scratch": ""}
_COSTS = {
    "trainable": "trainable parameters",
    "optimizer_bytes": "optimizer state",
    "disk_bytes": "file to keep",
    "peak_memory_bytes": "peak memory of a step",
    "seconds_per_step": "time per step",
}


def compare_figure(entry: dict[str, Any]) -> Figure:
    """Two panels for one entry of results.json: what was learned, and what it cost. With other
    methods than full fine-tuning and LoRA: how much each trained for what it learned and lost."""
    methods = {run["method"] for run in entry["runs"]}
    if not methods:
        raise UsageError("there are no runs to draw")
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(10, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
        if {"full", "lora"} <= methods <= COLORS.keys():
            plot_learning_curves(entry, left)
            plot_costs(entry, right)
        else:
            plot_methods(entry, left, "test")
            plot_methods(entry, right, "old")
    return figure


def plot_methods(entry: dict[str, Any], ax: Axes, which: str) -> Axes:
    """A line for each method, with how many numbers it trained, the most first: its quality on the
    new task's "test" split or on the "old" task, mean and range of the seeds. Names are beside the
    new task, left."""
    base, metric = entry.get("base"), METRICS[entry["metric"]]
    trained = {run["method"]: run["trainable"] for run in entry["runs"]}
    methods = sorted(trained, key=lambda name: -trained[name])
    for row, name in enumerate(methods):
        values = [run[which] for run in entry["runs"] if run["method"] == name]
        family = METHODS[name].family if name in METHODS else "scratch"
        color, marker = FAMILY_COLORS[family], FAMILY_MARKERS.get(family, "x")
        ax.plot([min(values), max(values)], [row, row], color=color, lw=1.5)
        ax.plot(mean(values), row, marker, color=color, ms=7)
    if base:
        ax.axvline(base[which], color="black", lw=1, ls=":")
        ax.annotate("base model", (base[which], 0.5), xycoords=("data", "axes fraction"),
                    xytext=(3, 0), textcoords="offset points", fontsize=NOTE_SIZE, rotation=90,
                    va="center")  # fmt: skip
    names = [f"{LABELS[name]}: {trained[name]:,}" if which == "test" else "" for name in methods]
    ax.set_yticks(range(len(methods)), names)
    ax.set_ylim(len(methods) - 0.5, -0.5)
    ax.xaxis.grid(True)
    ax.set_ylabel("method: trainable parameters" if which == "test" else "")
    better = "higher" if metric.higher_is_better else "lower"
    ax.set_xlabel(f"test: {metric.unit}\n({better} is better)")
    if metric is EXACT:
        per_cent(ax.xaxis)
        ax.set_xlim(-0.03, 1.03)
    else:
        ax.locator_params(axis="x", nbins=6)
    about = {"test": f"New task: {entry['about']}", "old": "Old task, what the base could do"}
    ax.set_title(textwrap.fill(about[which], 40), parse_math=False)
    return ax


def plot_learning_curves(entry: dict[str, Any], ax: Axes) -> Axes:
    """Quality on the new task's validation split by step: mean of the seeds, and their range.
    Raises UsageError for runs of other methods than full, lora and scratch."""
    if others := {run["method"] for run in entry["runs"]} - COLORS.keys():
        raise UsageError(
            f"curves are of full, lora and scratch, not of {min(others)}: plot_methods"
        )
    for method, label in LABELS.items():
        runs = [run["curve"] for run in entry["runs"] if run["method"] == method]
        if not runs:
            continue
        steps = [step for step, _ in runs[0]]
        values = [[run[i][1] for run in runs] for i in range(len(steps))]
        middle = [mean(v) for v in values]
        color = COLORS[method]
        ax.plot(steps, middle, _LINES[method], color=color, marker=_MARKERS[method], label=label)
        ax.fill_between(
            steps, [min(v) for v in values], [max(v) for v in values], color=color, alpha=0.2, lw=0
        )
    seeds = len({run["seed"] for run in entry["runs"]})
    # A user's file may have a long name, or one with dollar signs, which is not a formula.
    ax.set_title(textwrap.fill(f"What is learned: {entry['about']}", 52), parse_math=False)
    note = f" (mean of {seeds} seeds, band: their range)" if seeds > 1 else ""
    ax.set_xlabel(f"training step{note}\non the validation split; tables are of the test split")
    if METRICS[entry["metric"]] is EXACT:
        per_cent(ax.yaxis)
        ax.set_ylabel("validation: answers exactly right")
        ax.set_ylim(-0.03, 1.03)
    else:
        ax.set_ylabel("validation loss (nats per character)")
    ax.set_xlim(left=0)
    ax.legend()
    return ax


def plot_costs(entry: dict[str, Any], ax: Axes) -> Axes:
    """What LoRA takes of each of full fine-tuning's costs, in per cent. Raises UsageError unless
    there are runs of both."""
    if not {"full", "lora"} <= {run["method"] for run in entry["runs"]}:
        raise UsageError("costs are LoRA's beside full fine-tuning's; there are not runs of both")
    average = {
        method: {
            key: mean(run[key] for run in entry["runs"] if run["method"] == method)
            for key in _COSTS
        }
        for method in ("full", "lora")
    }
    shares = [100 * average["lora"][key] / average["full"][key] for key in _COSTS]
    rows = range(len(_COSTS))
    ax.barh(rows, [100.0] * len(_COSTS), 0.62, color=COLORS["full"], alpha=0.22)
    ax.barh(rows, shares, 0.62, color=COLORS["lora"])
    for row, share in zip(rows, shares, strict=True):
        ax.text(share + 1.5, row, f"{share:.1f} %" if share < 10 else f"{share:.0f} %", va="center")
    ax.set_yticks(rows, list(_COSTS.values()))
    ax.invert_yaxis()
    ax.grid(False)
    ax.xaxis.grid(True)
    ax.set_axisbelow(True)
    ax.set_xlim(0, max(112, 1.2 * max(shares)))  # with room for the longest bar's label
    ax.set_xlabel("per cent of full fine-tuning's")
    ax.set_title("What LoRA costs (full: 100 %)")
    return ax

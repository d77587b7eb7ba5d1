"""The figures of the studies: what the rows of study.py say, drawn.

A `plot_...` function draws rows on Axes, a `..._figure` function sets several of them side by side.
They compute nothing but means over seeds, their ranges, and ratios of what is in the rows.
STUDY_FIGURES at the end lists them all, with those of delta_plots.py.
Imports compare.py, delta_plots.py, methods.py, panels.py, plots.py, recipes.py, study.py, sweep.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import mean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minilora.experiments.sweeps import Rows
from minilora.experiments.tasks import EXACT, NATS
from minilora.methods.registry import LABELS, METHODS
from minilora.plots.axes import (
    DASHES,
    EXACT_TASKS,
    LINE,
    MARKERS,
    RING,
    SMALL,
    by_method,
    characters_axis,
    distinct,
    figure_of,
    legend_below,
    log2_axis,
    plot_spread,
    quality_axis,
    rank_axis,
    select,
    shade,
    spread,
    task_title,
)
from minilora.plots.comparisons import COLORS, FAMILY_COLORS, FAMILY_MARKERS, plot_methods, style
from minilora.studies.delta_plots import (
    parameter_counts_figure,
    spectrum_figure,
    subspace_similarity_figure,
    truncation_figure,
)
from minilora.studies.study import PLACES


@style()
def known_rank_teacher_figure(rows: Rows) -> Figure:
    ks = distinct(rows, "k")
    figure, panels = figure_of("A change of known rank k, learned with LoRA of rank r", rows, 1, ks)
    for k, ax in zip(ks, panels, strict=True):
        plot_known_rank_teacher(select(rows, k=k), ax)
    legend_below(figure, panels[0])
    return figure


def plot_known_rank_teacher(rows: Rows, ax: Axes) -> Axes:
    """Loss on new samples by r, of the rows of one k, beside the least that each rank allows."""
    for i, spectrum in enumerate(distinct(rows, "spectrum")):
        same = select(rows, spectrum=spectrum)
        color = shade(COLORS["lora"], 0.45 * i)
        look = {"ls": DASHES[i], "marker": MARKERS[1 + i]}
        plot_spread(same, ax, "r", "loss", color=color, label=f"LoRA, {spectrum} spectrum", **look)
        xs, bounds, _, _ = spread([row for row in same if row["r"] < row["k"]], "r", "bound")
        ax.plot(xs, bounds, "_", color="black", ms=13, mew=1.2, zorder=4)
    ax.plot([], [], "_", color="black", ms=13, mew=1.2, label="least possible (Eckart & Young)")
    k = rows[0]["k"]
    ax.axvline(k, color="black", lw=1, ls=":")
    ax.annotate("r = k", (k, 1), xycoords=("data", "axes fraction"), xytext=(4, -10),
                textcoords="offset points", fontsize=SMALL)  # fmt: skip
    ax.set_yscale("symlog", linthresh=1e-6, linscale=0.5)  # what is below is 0 but for rounding
    ax.set_ylim(-1e-7, 1)
    rank_axis(ax, [1, 2, 4, 8, 16, 32, 64])
    ax.set_ylabel("mean squared error on new samples\n(log scale down to 1e-6, then linear)")
    ax.set_title(f"Δ of rank k = {k}")
    return ax


@style()
def rank_sweep_figure(rows: Rows) -> Figure:
    tasks = distinct(rows, "task")
    figure, panels = figure_of(
        "Quality by rank, at a fixed learning rate, s ∝ 1/√r", rows, 1, tasks
    )
    for task, ax in zip(tasks, panels, strict=True):
        plot_rank_sweep(select(rows, task=task), ax)
    legend_below(figure, panels[0])
    return figure


def plot_rank_sweep(rows: Rows, ax: Axes) -> Axes:
    """Quality of one task by the rank of LoRA; full fine-tuning, which has none, is a level."""
    if full := [row["test"] for row in select(rows, method="full")]:
        ax.axhspan(min(full), max(full), color=COLORS["full"], alpha=0.2, lw=0)
        ax.axhline(mean(full), color=COLORS["full"], label=LABELS["full"])
    lora = select(rows, method="lora")
    plot_spread(lora, ax, "r", "test", color=COLORS["lora"], marker="s", label=LABELS["lora"])
    rank_axis(ax, distinct(lora, "r"))
    quality_axis(ax, rows[0]["task"], "test")
    return ax


@style()
def learning_rate_sweep_figure(rows: Rows) -> Figure:
    tasks = distinct(rows, "task")
    figure, panels = figure_of("Quality by learning rate", rows, 1, tasks)
    for task, ax in zip(tasks, panels, strict=True):
        plot_learning_rate_sweep(select(rows, task=task), ax)
    legend_below(figure, panels[0])
    return figure


def plot_learning_rate_sweep(rows: Rows, ax: Axes) -> Axes:
    """Quality of one task on the validation split by rate, full and LoRA. A ring marks the best
    rate, or several that are equally good."""
    task = rows[0]["task"]
    best = max if task in EXACT_TASKS else min
    for method, marker in (("full", "o"), ("lora", "s")):
        same = select(rows, method=method)
        look = {"color": COLORS[method], "marker": marker, "label": LABELS[method]}
        plot_spread(same, ax, "lr", "val", **look)
        rates, means, _, _ = spread(same, "lr", "val")
        ringed = [
            (lr, value) for lr, value in zip(rates, means, strict=True) if value == best(means)
        ]
        ax.plot(*zip(*ringed, strict=True), color=COLORS[method], **RING)
    ax.plot([], [], color="black", **RING, label="best of each")
    ax.set_xscale("log")
    ax.set_xlabel("learning rate")
    quality_axis(ax, task, "val")
    return ax


@style()
def methods_figure(rows: Rows) -> Figure:
    tasks = distinct(rows, "task")
    title = "Every method of fine-tuning, each at its own learning rate"
    figure, panels = figure_of(title, rows, len(tasks), range(2), shown=LINE)
    for i, task in enumerate(tasks):
        entry = methods_entry(select(rows, task=task))
        plot_methods(entry, panels[2 * i], "new")
        plot_methods(entry, panels[2 * i + 1], "old")
    families = {METHODS[name].family for name in distinct(rows, "method")}
    for family in sorted(families, key=list(FAMILY_COLORS).index):
        look: dict[str, Any] = {"color": FAMILY_COLORS[family], "marker": FAMILY_MARKERS[family]}
        panels[0].plot([], [], ls="", ms=7, label=family, **look)
    legend_below(figure, panels[0])
    return figure


def methods_entry(rows: Rows) -> dict[str, Any]:
    """The rows of one task as plot_methods takes them."""
    runs = [
        {"method": row["method"], "seed": row["seed"], "trainable_params": row["trainable"]}
        | {"new_after": row["test"], "old_after": row["old"]}
        for row in rows
    ]
    exact = rows[0]["task"] in EXACT_TASKS
    about = {"about": task_title(rows[0]["task"]), "metric": EXACT if exact else NATS}
    return about | {"higher_is_better": exact, "runs": runs}


@style()
def alpha_sweep_figure(rows: Rows) -> Figure:
    tasks = distinct(rows, "task")
    rates = " or ".join(f"{lr:g}" for lr in distinct(rows, "lr"))
    figure, panels = figure_of(
        f"Quality by alpha, at the fixed learning rate {rates}", rows, len(tasks), range(2)
    )
    for i, task in enumerate(tasks):
        same = select(rows, task=task)
        plot_alpha_rules(same, panels[2 * i])
        plot_alphas(same, panels[2 * i + 1])
    legend_below(figure, panels[0])
    return figure


def plot_alpha_rules(rows: Rows, ax: Axes) -> Axes:
    """Quality of one task by r, with s = alpha/r and alpha = 8, and with s = alpha/√r (rsLoRA) and
    alpha = 4. At r = 4 the two are the same."""
    rules: list[tuple[str, Callable[[int], float], float, str]] = [
        ("s = alpha/r, alpha = 8", lambda r: 8 / r, 0.0, "s"),
        ("s = alpha/√r, alpha = 4", lambda r: 4 / math.sqrt(r), 0.5, "D"),
    ]
    for i, (label, scale, tone, marker) in enumerate(rules):
        same = [row for row in rows if math.isclose(row["scale"], scale(row["r"]))]
        color = shade(COLORS["lora"], tone)
        plot_spread(
            same, ax, "r", "test", color=color, ls=DASHES[i], marker=marker, label=f"LoRA, {label}"
        )
    rank_axis(ax, distinct(rows, "r"))
    quality_axis(ax, rows[0]["task"], "test", "by rank")
    return ax


def plot_alphas(rows: Rows, ax: Axes) -> Axes:
    """Quality of one task by alpha, with s = alpha/r and r = 4."""
    same = [row | {"alpha": row["scale"] * 4} for row in select(rows, r=4)]
    plot_spread(same, ax, "alpha", "test", color=COLORS["lora"], marker="s")
    log2_axis(ax, distinct(same, "alpha"))
    ax.set_xlabel("alpha, with s = alpha/r and r = 4")
    quality_axis(ax, rows[0]["task"], "test", "by alpha")
    return ax


@style()
def which_weights_figure(rows: Rows) -> Figure:
    tasks = distinct(rows, "task")
    title = "Where to adapt, with about as many trainable parameters everywhere"
    figure, panels = figure_of(title, rows, 1, tasks, shown=LINE)
    for task, ax in zip(tasks, panels, strict=True):
        plot_which_weights(select(rows, task=task), ax)
    return figure


def plot_which_weights(rows: Rows, ax: Axes) -> Axes:
    """Quality of one task by the matrices that are adapted: the mean, and a line from the lowest
    seed to the highest."""
    task, names = rows[0]["task"], []
    for i, place in enumerate(PLACES):
        same = select(rows, place=place)
        values = [row["test"] for row in same]
        ax.plot([min(values), max(values)], [i, i], color="black", lw=1.2, zorder=3)
        ax.plot(mean(values), i, "s", color=COLORS["lora"], ms=7, zorder=4)
        names.append(f"{place}  (r = {same[0]['r']})")
    ax.set_yticks(range(len(PLACES)), names)
    ax.set_ylim(len(PLACES) - 0.5, -0.5)
    ax.set_ylabel("adapted matrices")
    ax.xaxis.grid(True)
    trained = round(mean(row["trainable"] for row in rows), -2)
    quality_axis(ax, task, "test", f"≈ {trained:,.0f} parameters", axis="x")
    return ax


@style()
def forgetting_frontier_figure(rows: Rows) -> Figure:
    """The whole of each training, and larger, all but its first evaluation, at the base model."""
    title, shown = "What is forgotten for what is learned", "thin lines: each of them"
    figure, panels = figure_of(title, rows, 1, range(2), shown)
    plot_forgetting_frontier(rows, panels[0]).set_title("From the base model on")
    tails = [row | {"curve": row["curve"][1:]} for row in rows]
    plot_forgetting_frontier(tails, panels[1]).set_title(f"From step {tails[0]['curve'][0][0]} on")
    legend_below(figure, panels[0], lines=2)
    return figure


def plot_forgetting_frontier(rows: Rows, ax: Axes) -> Axes:
    """Loss on the old task against loss on the new one, along each training; an arrow at its end.
    The seeds are thin lines, their mean is a thick one."""
    for method, marker in (("full", "o"), ("lora", "s")):
        for i, lr in enumerate(distinct(select(rows, method=method), "lr")):
            same = select(rows, method=method, lr=lr)
            color = shade(COLORS[method], (-0.45, 0.0, 0.5)[i])
            for row in same:
                _, *seed = zip(*row["curve"], strict=True)
                ax.plot(*seed, color=color, lw=0.7, alpha=0.5)
            new, old = mean_curve(same)
            look: dict[str, Any] = {"color": color, "marker": marker, "ls": DASHES[i]}
            ax.plot(new, old, **look, label=f"{LABELS[method]}, rate {lr:g}")
            arrow = {"arrowstyle": "-|>", "color": color, "lw": 1.5, "mutation_scale": 18}
            ax.annotate("", (new[-1], old[-1]), xytext=(new[-3], old[-3]), arrowprops=arrow)
    step, new_start, old_start = rows[0]["curve"][0]
    if step == 0:
        ax.plot(new_start, old_start, "*", color="black", ms=13, zorder=5, label="base model")
    ax.set_xlabel(f"new task, validation loss ({NATS})")
    ax.set_ylabel(f"old task, test loss ({NATS})")
    return ax


def mean_curve(rows: Rows) -> tuple[list[float], list[float]]:
    """(new, old) at each evaluation, mean over the seeds."""
    points = list(zip(*(row["curve"] for row in rows), strict=True))
    new, old = ([mean(point[i] for point in same) for same in points] for i in (1, 2))
    return new, old


@style()
def small_data_figure(rows: Rows) -> Figure:
    figure, panels = figure_of("Quality by how much text there is to learn from", rows, 1, range(2))
    plot_small_data(rows, panels[0])
    plot_overfitting(rows, panels[1])
    legend_below(figure, panels[0])
    return figure


def plot_small_data(rows: Rows, ax: Axes) -> Axes:
    """Test loss at the end of training by the number of characters to learn from."""
    for same, look in by_method(rows):
        plot_spread(same, ax, "characters", "test", **look)
    characters_axis(ax)
    ax.set_ylabel(f"test loss ({NATS})")
    ax.set_title("Test loss at the end of training")
    return ax


def plot_overfitting(rows: Rows, ax: Axes) -> Axes:
    """How far the validation loss has risen, at the end, above its lowest along the way."""
    for same, look in by_method(rows):
        risen = [
            row | {"risen": row["curve"][-1][1] - min(value for _, value in row["curve"])}
            for row in same
        ]
        plot_spread(risen, ax, "characters", "risen", **look)
    characters_axis(ax)
    ax.set_ylabel(f"rise ({NATS})")
    ax.set_title("Validation loss: rise above its lowest")
    return ax


@dataclass(frozen=True)
class StudyFigure:
    """A figure, and the studies whose rows it is drawn from."""

    studies: tuple[str, ...]
    draw: Callable[..., Figure]

    def __call__(self, results: dict[str, Rows]) -> Figure:
        return self.draw(*(results[study] for study in self.studies))


STUDY_FIGURES: dict[str, StudyFigure] = {
    "known-rank-teacher": StudyFigure(("known_rank_teacher",), known_rank_teacher_figure),
    "rank-sweep": StudyFigure(("rank_sweep",), rank_sweep_figure),
    "learning-rate-sweep": StudyFigure(("learning_rate_sweep",), learning_rate_sweep_figure),
    "methods": StudyFigure(("methods",), methods_figure),
    "alpha-sweep": StudyFigure(("alpha_sweep",), alpha_sweep_figure),
    "which-weights": StudyFigure(("which_weights",), which_weights_figure),
    "forgetting-frontier": StudyFigure(("forgetting_frontier",), forgetting_frontier_figure),
    "small-data": StudyFigure(("small_data",), small_data_figure),
    "spectrum": StudyFigure(("spectrum",), spectrum_figure),
    "truncation": StudyFigure(("truncation", "rank_sweep"), truncation_figure),
    "subspace-similarity": StudyFigure(("subspace_similarity",), subspace_similarity_figure),
    "parameter-counts": StudyFigure(("parameter_counts",), parameter_counts_figure),
}


def study_figures(
    results: dict[str, Rows], only: Iterable[str] | None = None
) -> Iterator[tuple[str, Figure]]:
    """(name, figure) of each figure whose studies are all in `results`, rows by study. only: leave
    out figures that use none of these studies."""
    wanted = set(results if only is None else only)
    for name, figure in STUDY_FIGURES.items():
        if results.keys() >= set(figure.studies) and wanted & set(figure.studies):
            yield name, figure(results)

"""The figures of the studies: what the rows of study.py say, drawn.

A `plot_...` function draws rows on Axes, a `..._figure` function sets several of them side by side.
They compute nothing but means over seeds, their ranges, and ratios of what is in the rows. Full
fine-tuning is blue and LoRA orange; where there are several ranks, the higher is the darker, and
the same rank has the same colour in every figure. STUDY_FIGURES at the end lists them all.
Imports compare.py, methods.py, plots.py, recipes.py, study.py, sweep.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import mean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from minilora.compare import LABELS
from minilora.methods import METHODS
from minilora.plots import COLORS, FAMILY_COLORS, FAMILY_MARKERS, plot_methods, style
from minilora.recipes import EXACT, NATS
from minilora.study import PLACES
from minilora.sweep import Rows

ABOUT = {"code": "Python code", "reverse": "Reverse a word", "sort": "Sort a word"}
EXACT_TASKS = ("reverse", "sort")  # every other task is a text, measured in nats
_MARKERS = "osD^vP"
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1, 2)))
_BEFORE = (0, (3, 2))
_RING: Any = {"ls": "", "marker": "o", "ms": 13, "mfc": "none", "mew": 1.6}
_SMALL = 9  # font size of notes
_LINE = "line: their range"


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


@style()
def known_rank_teacher_figure(rows: Rows) -> Figure:
    ks = _distinct(rows, "k")
    figure, panels = _figure("A change of known rank k, learned with LoRA of rank r", rows, 1, ks)
    for k, ax in zip(ks, panels, strict=True):
        plot_known_rank_teacher(select(rows, k=k), ax)
    _legend(figure, panels[0])
    return figure


def plot_known_rank_teacher(rows: Rows, ax: Axes) -> Axes:
    """Loss on new samples by r, of the rows of one k, beside the least that each rank allows."""
    for i, spectrum in enumerate(_distinct(rows, "spectrum")):
        same = select(rows, spectrum=spectrum)
        color = shade(COLORS["lora"], 0.45 * i)
        look = {"ls": _DASHES[i], "marker": _MARKERS[1 + i]}
        plot_spread(same, ax, "r", "loss", color=color, label=f"LoRA, {spectrum} spectrum", **look)
        xs, bounds, _, _ = spread([row for row in same if row["r"] < row["k"]], "r", "bound")
        ax.plot(xs, bounds, "_", color="black", ms=13, mew=1.2, zorder=4)
    ax.plot([], [], "_", color="black", ms=13, mew=1.2, label="least possible (Eckart & Young)")
    k = rows[0]["k"]
    ax.axvline(k, color="black", lw=1, ls=":")
    ax.annotate("r = k", (k, 1), xycoords=("data", "axes fraction"), xytext=(4, -10),
                textcoords="offset points", fontsize=_SMALL)  # fmt: skip
    ax.set_yscale("symlog", linthresh=1e-6, linscale=0.5)  # what is below is 0 but for rounding
    ax.set_ylim(-1e-7, 1)
    _rank_axis(ax, [1, 2, 4, 8, 16, 32, 64])
    ax.set_ylabel("mean squared error on new samples\n(log scale down to 1e-6, then linear)")
    ax.set_title(f"Δ of rank k = {k}")
    return ax


@style()
def rank_sweep_figure(rows: Rows) -> Figure:
    tasks = _distinct(rows, "task")
    figure, panels = _figure("Quality by rank, at a fixed learning rate, s ∝ 1/√r", rows, 1, tasks)
    for task, ax in zip(tasks, panels, strict=True):
        plot_rank_sweep(select(rows, task=task), ax)
    _legend(figure, panels[0])
    return figure


def plot_rank_sweep(rows: Rows, ax: Axes) -> Axes:
    """Quality of one task by the rank of LoRA; full fine-tuning, which has none, is a level."""
    if full := [row["test"] for row in select(rows, method="full")]:
        ax.axhspan(min(full), max(full), color=COLORS["full"], alpha=0.2, lw=0)
        ax.axhline(mean(full), color=COLORS["full"], label=LABELS["full"])
    lora = select(rows, method="lora")
    plot_spread(lora, ax, "r", "test", color=COLORS["lora"], marker="s", label=LABELS["lora"])
    _rank_axis(ax, _distinct(lora, "r"))
    _quality_axis(ax, rows[0]["task"], "test")
    return ax


@style()
def learning_rate_sweep_figure(rows: Rows) -> Figure:
    tasks = _distinct(rows, "task")
    figure, panels = _figure("Quality by learning rate", rows, 1, tasks)
    for task, ax in zip(tasks, panels, strict=True):
        plot_learning_rate_sweep(select(rows, task=task), ax)
    _legend(figure, panels[0])
    return figure


def plot_learning_rate_sweep(rows: Rows, ax: Axes) -> Axes:
    """Quality of one task on the validation split by rate, full and LoRA. A ring marks the best
    rate, or several that are equally good."""
    task = rows[0]["task"]
    best = max if task in EXACT_TASKS else min
    for method, marker in (("full", "o"), ("lora", "s")):
        same = select(rows, method=method)
        label = LABELS[method] + (f", r = {same[0]['r']}" if method == "lora" else "")
        plot_spread(same, ax, "lr", "val", color=COLORS[method], marker=marker, label=label)
        rates, means, _, _ = spread(same, "lr", "val")
        ringed = [
            (lr, value) for lr, value in zip(rates, means, strict=True) if value == best(means)
        ]
        ax.plot(*zip(*ringed, strict=True), color=COLORS[method], **_RING)
    ax.plot([], [], color="black", **_RING, label="best of each")
    ax.set_xscale("log")
    ax.set_xlabel("learning rate")
    _quality_axis(ax, task, "val")
    return ax


@style()
def methods_figure(rows: Rows) -> Figure:
    tasks = _distinct(rows, "task")
    title = "Every method of fine-tuning, each at its own learning rate"
    figure, panels = _figure(title, rows, len(tasks), range(2), shown=_LINE)
    for i, task in enumerate(tasks):
        entry = methods_entry(select(rows, task=task))
        plot_methods(entry, panels[2 * i], "new")
        plot_methods(entry, panels[2 * i + 1], "old")
    families = {METHODS[name].family for name in _distinct(rows, "method")}
    for family in sorted(families, key=list(FAMILY_COLORS).index):
        look: dict[str, Any] = {"color": FAMILY_COLORS[family], "marker": FAMILY_MARKERS[family]}
        panels[0].plot([], [], ls="", ms=7, label=family, **look)
    _legend(figure, panels[0])
    return figure


def methods_entry(rows: Rows) -> dict[str, Any]:
    """The rows of one task as plot_methods takes them."""
    runs = [
        {"method": row["method"], "seed": row["seed"], "trainable_params": row["trainable"]}
        | {"new_after": row["test"], "old_after": row["old"]}
        for row in rows
    ]
    exact = rows[0]["task"] in EXACT_TASKS
    about = {"about": _about(rows[0]["task"]), "metric": EXACT if exact else NATS}
    return about | {"higher_is_better": exact, "runs": runs}


@style()
def alpha_sweep_figure(rows: Rows) -> Figure:
    tasks = _distinct(rows, "task")
    rates = " or ".join(f"{lr:g}" for lr in _distinct(rows, "lr"))
    figure, panels = _figure(
        f"Quality by alpha, at the fixed learning rate {rates}", rows, len(tasks), range(2)
    )
    for i, task in enumerate(tasks):
        same = select(rows, task=task)
        plot_alpha_rules(same, panels[2 * i])
        plot_alphas(same, panels[2 * i + 1])
    _legend(figure, panels[0])
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
            same, ax, "r", "test", color=color, ls=_DASHES[i], marker=marker, label=f"LoRA, {label}"
        )
    _rank_axis(ax, _distinct(rows, "r"))
    _quality_axis(ax, rows[0]["task"], "test", "by rank")
    return ax


def plot_alphas(rows: Rows, ax: Axes) -> Axes:
    """Quality of one task by alpha, with s = alpha/r and r = 4."""
    same = [row | {"alpha": row["scale"] * 4} for row in select(rows, r=4)]
    plot_spread(same, ax, "alpha", "test", color=COLORS["lora"], marker="s")
    _log2_axis(ax, _distinct(same, "alpha"))
    ax.set_xlabel("alpha, with s = alpha/r and r = 4")
    _quality_axis(ax, rows[0]["task"], "test", "by alpha")
    return ax


@style()
def which_weights_figure(rows: Rows) -> Figure:
    tasks = _distinct(rows, "task")
    title = "Where to adapt, with about as many trainable parameters everywhere"
    figure, panels = _figure(title, rows, 1, tasks, shown=_LINE)
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
    _quality_axis(ax, task, "test", f"≈ {trained:,.0f} parameters", axis="x")
    return ax


@style()
def forgetting_frontier_figure(rows: Rows) -> Figure:
    """The whole of each training, and larger, all but its first evaluation, at the base model."""
    title, shown = "What is forgotten for what is learned", "thin lines: each of them"
    figure, panels = _figure(title, rows, 1, range(2), shown)
    plot_forgetting_frontier(rows, panels[0]).set_title("From the base model on")
    tails = [row | {"curve": row["curve"][1:]} for row in rows]
    plot_forgetting_frontier(tails, panels[1]).set_title(f"From step {tails[0]['curve'][0][0]} on")
    _legend(figure, panels[0], lines=2)
    return figure


def plot_forgetting_frontier(rows: Rows, ax: Axes) -> Axes:
    """Loss on the old task against loss on the new one, along each training; an arrow at its end.
    The seeds are thin lines, their mean is a thick one."""
    for method, marker in (("full", "o"), ("lora", "s")):
        for i, lr in enumerate(_distinct(select(rows, method=method), "lr")):
            same = select(rows, method=method, lr=lr)
            color = shade(COLORS[method], (-0.45, 0.0, 0.5)[i])
            for row in same:
                _, *seed = zip(*row["curve"], strict=True)
                ax.plot(*seed, color=color, lw=0.7, alpha=0.5)
            new, old = mean_curve(same)
            look: dict[str, Any] = {"color": color, "marker": marker, "ls": _DASHES[i]}
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
    figure, panels = _figure("Quality by how much text there is to learn from", rows, 1, range(2))
    plot_small_data(rows, panels[0])
    plot_overfitting(rows, panels[1])
    _legend(figure, panels[0])
    return figure


def plot_small_data(rows: Rows, ax: Axes) -> Axes:
    """Test loss at the end of training by the number of characters to learn from."""
    for same, look in _by_method(rows):
        plot_spread(same, ax, "characters", "test", **look)
    _characters_axis(ax)
    ax.set_ylabel(f"test loss ({NATS})")
    ax.set_title("Test loss at the end of training")
    return ax


def plot_overfitting(rows: Rows, ax: Axes) -> Axes:
    """How far the validation loss has risen, at the end, above its lowest along the way."""
    for same, look in _by_method(rows):
        risen = [
            row | {"risen": row["curve"][-1][1] - min(value for _, value in row["curve"])}
            for row in same
        ]
        plot_spread(risen, ax, "characters", "risen", **look)
    _characters_axis(ax)
    ax.set_ylabel(f"rise ({NATS})")
    ax.set_title("Validation loss: rise above its lowest")
    return ax


@style()
def spectrum_figure(rows: Rows) -> Figure:
    tasks = _distinct(rows, "task")
    title = "Singular values of ΔW, mean over the matrices and seeds"
    figure, panels = _figure(title, [], len(tasks), range(2))
    for i, task in enumerate(tasks):
        same = select(rows, task=task)
        plot_spectrum(same, panels[2 * i])
        plot_spectrum_table(same, panels[2 * i + 1])
    return figure


def plot_spectrum(rows: Rows, ax: Axes) -> Axes:
    """The singular values of one task's ΔW, each divided by the largest of its matrix. Rows leave
    out those that are zero but for rounding."""
    most = max(len(row["singular_values"]) for row in rows)
    for same, look in _by_method(rows):
        relative = [[s / row["singular_values"][0] for s in row["singular_values"]] for row in same]
        means = [mean(values) for values in zip_longest(*relative, fillvalue=0.0)]
        marked = [2**n - 1 for n in range(9) if 2**n <= len(means)]
        ax.plot(range(1, len(means) + 1), means, markevery=marked, **look)
    ax.set_yscale("log")
    _log2_axis(ax, [2**n for n in range(9) if 2**n <= most])
    ax.set_xlabel("index i of the singular value")
    ax.set_ylabel(r"$\sigma_i / \sigma_1$")
    ax.set_title(_about(rows[0]["task"]), parse_math=False)
    return ax


MEASURES = {  # of a row, how it is named in the table, and how many decimals it has there
    "effective_rank": ("effective\nrank", 1),
    "stable_rank": ("stable\nrank", 1),
    "k90": ("k90", 1),
    "relative_norm": ("‖ΔW‖\n/ ‖W‖", 2),
    "intruders": ("intruders\nof 10", 1),
}


def plot_spectrum_table(rows: Rows, ax: Axes) -> Axes:
    """The same ΔW in numbers, a line for full fine-tuning and for each rank."""
    methods = list(_by_method(rows))
    middle: Any = {"ha": "center", "va": "center"}
    for x, (measure, (name, decimals)) in enumerate(MEASURES.items()):
        ax.text(x, -0.9, name, fontsize=_SMALL, **middle)
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
    tasks = _distinct(truncated, "task")
    title = "Full fine-tuning cut to rank k, and LoRA trained at rank k"
    figure, panels = _figure(title, truncated, 1, tasks)
    for task, ax in zip(tasks, panels, strict=True):
        plot_truncation(select(truncated, task=task), select(trained, task=task), ax)
    _legend(figure, panels[0])
    return figure


def plot_truncation(truncated: Rows, trained: Rows, ax: Axes) -> Axes:
    """Quality of one task by k. The axis is linear up to 1, as k = 0 has no logarithm."""
    label = "full, every ΔW cut to rank k\n(embeddings, biases, norms stay tuned)"
    plot_spread(truncated, ax, "k", "test", color=COLORS["full"], marker="o", label=label)
    lora = select(trained, method="lora")
    label = "LoRA trained at r = k"
    plot_spread(lora, ax, "r", "test", color=COLORS["lora"], marker="s", label=label)
    ax.set_xscale("symlog", base=2, linthresh=1)
    _ticks(ax, sorted({*_distinct(truncated, "k"), *_distinct(lora, "r")}))
    ax.set_xlabel("rank k")
    _quality_axis(ax, truncated[0]["task"], "test")
    return ax


@style()
def subspace_similarity_figure(rows: Rows) -> Figure:
    pairs = sorted({(row["r"], row["r_other"]) for row in rows})
    tasks = _distinct(rows, "task")
    title = "Similarity φ(i, j) of what two trainings of LoRA read"
    figure, panels = _figure(title, rows, len(tasks), pairs)
    grid = [(task, pair) for task in tasks for pair in pairs]
    for (task, (r, r_other)), ax in zip(grid, panels, strict=True):
        plot_subspace_similarity(select(rows, task=task, r=r, r_other=r_other), ax)
    _legend(figure, panels[0])
    return figure


def plot_subspace_similarity(rows: Rows, ax: Axes) -> Axes:
    """φ(i, j) by j for i = 1, 2, 4, 8, solid after training and dashed before."""
    for n, i in enumerate(i for i in (1, 2, 4, 8) if i in _distinct(rows, "i")):
        same, color = select(rows, i=i), rank_color(i)
        plot_spread(same, ax, "j", "phi", color=color, marker=_MARKERS[n], label=f"i = {i}")
        js, starts, _, _ = spread(same, "j", "phi_start")
        ax.plot(js, starts, color=color, ls=_BEFORE, lw=1.2)
    ax.plot([], [], color=COLORS["lora"], ls=_BEFORE, lw=1.2, label="before training (chance)")
    _log2_axis(ax, _distinct(rows, "j"))
    first = rows[0]
    ax.set_xlabel(f"top j directions of the A of rank {first['r_other']}")
    ax.set_ylabel(f"φ(i, j), top i of rank {first['r']}")
    ax.set_ylim(0, 1.04)
    ax.set_title(f"{_about(first['task'])}: r = {first['r']} and {first['r_other']}")
    return ax


@style()
def parameter_counts_figure(rows: Rows) -> Figure:
    figure, panels = _figure("Trainable parameters", [], 1, range(1))
    plot_parameter_counts(rows, panels[0])
    _legend(figure, panels[0])
    return figure


def plot_parameter_counts(rows: Rows, ax: Axes) -> Axes:
    """Trainable parameters of full fine-tuning and of LoRA of rank 8, a line for each model."""
    same = sorted(select(rows, rank=8), key=lambda row: row["total"])
    for y, row in enumerate(same):
        ax.plot([row["trainable"], row["total"]], [y, y], color="#BBBBBB", lw=1.5, zorder=1)
        share = f"{100 * row['share']:#.2g} %"
        ax.annotate(share, (row["trainable"], y), xytext=(-9, 0), textcoords="offset points",
                    ha="right", va="center", fontsize=_SMALL)  # fmt: skip
    ys = range(len(same))
    full, lora = ([row[key] for row in same] for key in ("total", "trainable"))
    ax.plot(full, ys, "o", color=COLORS["full"], ms=8, label=LABELS["full"])
    ax.plot(lora, ys, "s", color=COLORS["lora"], ms=8, label="LoRA on q and v, r = 8")
    ax.set_xscale("log")
    ax.set_yticks(ys, [row["model"] for row in same])
    ax.invert_yaxis()
    ax.xaxis.grid(True)
    ax.margins(x=0.12)
    ax.set_xlabel("trainable parameters (beside LoRA's: its share of the model)")
    return ax


def _figure(
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
        figure.text(0.99, 1 - 0.09 / size[1], note, ha="right", va="top", fontsize=_SMALL)
    return figure, list(figure.subplots(lines, len(columns), squeeze=False).flat)


def _legend(figure: Figure, ax: Axes, lines: int = 1) -> None:
    """Below the panels, where it covers nothing: what one of them draws, for all."""
    handles, labels = ax.get_legend_handles_labels()
    columns = math.ceil(len(labels) / lines)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _distinct(rows: Rows, key: str) -> list[Any]:
    return sorted({row[key] for row in rows} - {None})


def _by_method(rows: Rows) -> Iterator[tuple[Rows, dict[str, Any]]]:
    """The rows of full fine-tuning, then those of each rank, and how their line looks."""
    if full := select(rows, method="full"):
        yield full, {"color": COLORS["full"], "marker": "o", "label": LABELS["full"]}
    lora = select(rows, method="lora")
    for i, r in enumerate(_distinct(lora, "r")):
        look = {"color": rank_color(r), "ls": _DASHES[i % 4], "marker": _MARKERS[1 + i % 5]}
        yield select(lora, r=r), look | {"label": f"LoRA, r = {r}"}
    if unknown := select(lora, r=None):  # an adapter of the user's
        yield unknown, {"color": COLORS["lora"], "marker": "s", "label": LABELS["lora"]}


def _about(task: str) -> str:
    return ABOUT.get(task, task)


def _rank_axis(ax: Axes, ranks: list[int]) -> None:
    _log2_axis(ax, ranks)
    ax.set_xlabel("rank r of LoRA")


def _log2_axis(ax: Axes, values: Sequence[float]) -> None:
    ax.set_xscale("log", base=2)
    _ticks(ax, values)


def _ticks(ax: Axes, values: Sequence[float]) -> None:
    ax.xaxis.set_major_locator(FixedLocator(values))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _characters_axis(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.set_xlabel("characters to learn from")


def _quality_axis(ax: Axes, task: str, split: str, about: str = "", axis: str = "y") -> None:
    """Names what is measured on a split of the task, with its unit, and the panel."""
    name = {"val": "validation", "test": "test"}[split]
    if task in EXACT_TASKS:
        label = f"{name}: answers exactly right"
        (ax.yaxis if axis == "y" else ax.xaxis).set_major_formatter(PercentFormatter(1))
        ax.set(**{f"{axis}lim": (-0.05, 1.05)})
    else:
        label = f"{name} loss ({NATS})"
    ax.set(**{f"{axis}label": label})
    ax.set_title(_about(task) + (about and f": {about}"), parse_math=False)


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

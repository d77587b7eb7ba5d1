"""Which singular values does ΔW have?

ΔW = W_after - W, matrix by matrix, after full fine-tuning and after LoRA of several ranks.
"Intruders" are strong directions that W did not have (Shuttleworth et al. 2024).
"""

from __future__ import annotations

from itertools import zip_longest
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np

from minilora.analysis import spectrum, subspaces
from minilora.analysis.deltas import delta_weights, weight_matrices
from minilora.experiments.rows import Rows, distinct, select
from minilora.experiments.tuning import tune
from minilora.plots.axes import by_method, figure_with_panels, log2_axis, task_title
from minilora.plots.house_style import NOTE_SIZE, style
from minilora.studies.study import Settings, Study, each

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MEASURES = {  # of a row, how it is named in the table, and how many decimals it has there
    "effective_rank": ("effective\nrank", 1),
    "stable_rank": ("stable\nrank", 1),
    "k90": ("k90", 1),
    "relative_norm": ("‖ΔW‖\n/ ‖W‖", 2),
    "intruders": ("intruders\nof 10", 1),
}


def settings(seeds: range) -> list[Settings]:
    ranks = (1, 4, 16, 64)
    methods: list[Settings] = [{"method": "full"}, *({"method": "lora", "r": r} for r in ranks)]
    return each(methods, ("code", "reverse"), seeds)


def spectrum_run(**settings: Any) -> Rows:
    """What ΔW looks like, matrix by matrix; one row without that if the training diverged."""
    t = tune(**settings)
    if t.row["diverged"]:
        return [t.row]
    W, delta = weight_matrices(t.base), delta_weights(t.base, t.model)
    return [t.row | describe_delta(path, W[path], D) for path, D in delta.items()]


def describe_delta(path: str, W: np.ndarray, delta: np.ndarray) -> dict[str, Any]:
    """The numbers that analysis/ has for one ΔW, in a row."""
    rng, sigma = np.random.default_rng(0), spectrum.singular_values(delta)
    rank = np.linalg.matrix_rank(delta, rtol=max(delta.shape) * 2.0**-23)  # of float32 factors
    top = subspaces.amplification(W, delta, min(4, int(rank)), rng=rng)
    return {
        "path": path,
        "effective_rank": spectrum.effective_rank(delta),
        "stable_rank": spectrum.stable_rank(delta),
        "k90": spectrum.k90(delta),
        "relative_norm": spectrum.relative_norm(delta, W),
        "intruders": spectrum.intruder_dimensions(W, W + delta, k=min(10, *W.shape)),
        "amplification": top.factor,
        "singular_values": [float(f"{s:.4g}") for s in sigma if s > 1e-6 * sigma[0]],
    }


@style()
def spectrum_figure(rows: Rows) -> Figure:
    tasks = distinct(rows, "task")
    title = "Singular values of ΔW, mean over the matrices"
    figure, panels = figure_with_panels(title, rows, len(tasks), 2)
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
        marked = [2**n - 1 for n in range(len(means).bit_length())]
        ax.plot(range(1, len(means) + 1), means, markevery=marked, **look)
    ax.set_yscale("log")
    log2_axis(ax, [2**n for n in range(most.bit_length())])
    ax.set_xlabel("index i of the singular value")
    ax.set_ylabel(r"$\sigma_i / \sigma_1$")
    ax.set_title(task_title(rows[0]["task"]), parse_math=False)
    return ax


def _mean_spectrum(rows: Rows) -> list[float]:
    relative = [[s / row["singular_values"][0] for s in row["singular_values"]] for row in rows]
    return [mean(values) for values in zip_longest(*relative, fillvalue=0.0)]


def plot_spectrum_table(rows: Rows, ax: Axes) -> Axes:
    """The same ΔW in numbers, a line for full fine-tuning and for each rank."""
    methods = list(by_method(rows))
    middle: Any = {"ha": "center", "va": "center"}
    for x, (measure, (name, decimals)) in enumerate(MEASURES.items()):
        ax.text(x, -0.9, name, fontsize=NOTE_SIZE, **middle)
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


STUDY = Study(
    "Which singular values does ΔW have?",
    settings,
    spectrum_run,
    by=("task", "method", "r"),
    shows=tuple(MEASURES),
    figure=spectrum_figure,
    at_scale=(
        "As to ranks, yes: full fine-tuning of Llama-2-7B changes its matrices by a ΔW of 10 to "
        "100 times the rank that LoRA usually has (Biderman et al. 2024). For the norm there is "
        "one number: on GPT-3 175B, LoRA of r = 4 changes a W_q of norm 61.95 by 6.91 (Hu et "
        "al. 2021, Table 7), a share of .11 where it is .37 here."
    ),
)

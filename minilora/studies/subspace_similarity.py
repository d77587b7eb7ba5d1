"""Do two ranks find the same space?

Two trainings of LoRA from different random starts, compared by φ(i, j) of Hu et al. (2021, section
7.2), beside the same of their starts, which is chance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from minilora.analysis.subspaces import subspace_similarities
from minilora.experiments.rows import Rows, distinct, select, spread
from minilora.experiments.tuning import Tuned, set_up, tune
from minilora.lora import lora_layers
from minilora.plots.axes import figure_with_panels, legend_below, log2_axis, plot_spread, task_title
from minilora.plots.house_style import COLORS, shade, style
from minilora.studies.study import Settings, Study, each

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def settings(seeds: range) -> list[Settings]:
    return each([{"r": r, "r_other": 64} for r in (8, 64)], ("code", "reverse"), seeds)


def subspace_run(task: str, seed: int, r: int, r_other: int) -> Rows:
    """Do two ranks, from different random starts, find the same directions? φ(i, j) of Hu et al.,
    mean over the matrices that read the stream, beside the same of their starts (chance)."""
    runs = ((seed, r), (seed + 100, r_other))
    after = [_read_directions(tune(task, "lora", one, r=rank)) for one, rank in runs]
    before = [_read_directions(set_up(task, "lora", one, r=rank)) for one, rank in runs]
    phi, chance = (_mean_similarity(*pair) for pair in (after, before))
    about = {"task": task, "seed": seed, "r": r, "r_other": r_other, "d": len(after[0][0])}
    return [
        about | {"i": i + 1, "j": j + 1, "phi": float(phi[i, j]), "phi_start": float(chance[i, j])}
        for i in range(phi.shape[0])
        for j in range(phi.shape[1])
        if (j + 1) & j == 0  # 1, 2, 4, 8, ...
    ]


def _read_directions(t: Tuned) -> list[np.ndarray]:
    """The A of every matrix that reads the stream; down_proj reads a space of another size, where
    chance is lower."""
    factors = [layer.adapters["default"].A.data for layer in lora_layers(t.model).values()]
    return [A for A in factors if len(A) == t.model.config.n_embd]


def _mean_similarity(first: list[np.ndarray], other: list[np.ndarray]) -> np.ndarray:
    pairs = zip(first, other, strict=True)
    return np.mean([subspace_similarities(a, b)[:8] for a, b in pairs], axis=0)


@style()
def subspace_similarity_figure(rows: Rows) -> Figure:
    pairs = sorted({(row["r"], row["r_other"]) for row in rows})
    tasks = distinct(rows, "task")
    title = "Similarity φ(i, j) of what two trainings of LoRA read"
    figure, panels = figure_with_panels(title, rows, len(tasks), len(pairs))
    grid = [(task, pair) for task in tasks for pair in pairs]
    for (task, (r, r_other)), ax in zip(grid, panels, strict=True):
        plot_subspace_similarity(select(rows, task=task, r=r, r_other=r_other), ax)
    legend_below(figure, panels[0])
    return figure


def plot_subspace_similarity(rows: Rows, ax: Axes) -> Axes:
    """φ(i, j) by j for the least and the largest i, after training and, grey, before it."""
    shown = distinct(rows, "i")
    for i, tone, marker in zip(sorted({shown[0], shown[-1]}), (0.0, 0.55), "o^", strict=False):
        same, color = select(rows, i=i), shade(COLORS["lora"], tone)
        plot_spread(same, ax, "j", "phi", color=color, marker=marker, ms=6, label=f"i = {i}")
        js, starts, _, _ = spread(same, "j", "phi_start")
        label = f"i = {i} before training (chance)"
        ax.plot(js, starts, color="0.5", ls="--", lw=1.2, marker=marker, mfc="white", label=label)
    log2_axis(ax, distinct(rows, "j"))
    first = rows[0]
    ax.set_xlabel(f"top j directions of the A of rank {first['r_other']}")
    ax.set_ylabel(f"φ(i, j), top i of rank {first['r']}")
    ax.set_ylim(0, 1.04)
    ax.set_title(f"{task_title(first['task'])}: r = {first['r']} and {first['r_other']}")
    return ax


STUDY = Study(
    "Do two ranks find the same space?",
    settings,
    subspace_run,
    by=("task", "r", "r_other", "i", "j"),
    shows=("phi", "phi_start"),
    figure=subspace_similarity_figure,
    at_scale=(
        "We know of the picture, not of a table: Hu et al. (2021, section 7.2) draw φ for GPT-3 "
        "175B, and there too the first directions agree most. Chance is lower there, 64/12,288 "
        "= .005 for r = 8 and 64, where it is .5 here."
    ),
)

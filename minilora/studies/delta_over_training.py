"""How does ΔW grow during training?

Its norm, its ranks and its direction after 1, 2, 5, ... 300 steps, of full fine-tuning with AdamW
and with SGD and of LoRA, beside the ranks that a random matrix of the same size has.
"""

from __future__ import annotations

from functools import cache
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np

from minilora.analysis import spectrum
from minilora.analysis.deltas import delta_weights, weight_matrices
from minilora.experiments.rows import Rows, distinct, select
from minilora.experiments.tuning import Tuned, pause_at, set_up
from minilora.optim import SGD
from minilora.plots.axes import figure_with_panels, fixed_ticks, legend_below, plot_spread
from minilora.plots.house_style import COLORS, DASHES, NOTE_SIZE, style
from minilora.studies.study import Settings, Study, each

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


STOPS = (1, 2, 5, 10, 20, 50, 100, 200, 300)
KEPT = 16  # so many singular values
LOOKS: dict[tuple[str, str], dict[str, Any]] = {
    ("full", "AdamW"): {
        "color": COLORS["full"], "marker": "o", "ls": DASHES[0],
        "label": "full fine-tuning, AdamW",
    },
    ("full", "SGD"): {
        "color": "#73B1D7", "marker": "D", "ls": DASHES[1],
        "label": "full fine-tuning, SGD",
    },
    ("lora", "AdamW"): {
        "color": COLORS["lora"], "marker": "s", "ls": DASHES[0],
        "label": "LoRA, r = 4, AdamW",
    },
}  # fmt: skip


def settings(seeds: range) -> list[Settings]:
    ways: list[Settings] = [
        {"method": "full", "optimizer": "AdamW"},
        {"method": "full", "optimizer": "SGD", "lr": 0.1},
        {"method": "lora", "optimizer": "AdamW"},
    ]
    return each(ways, ("code",), seeds)


def delta_run(optimizer: str, **settings: Any) -> Rows:
    """What ΔW is like at each stop; one row without that if the training diverged."""
    t = set_up(**settings)
    if optimizer == "SGD":
        t.training.optimizer = SGD(t.training.params, settings["lr"], momentum=0.9)  # type: ignore[assignment]
    steps = t.training.config.steps
    stops = [stop for stop in STOPS if stop < steps] + [steps]
    seen = [(stop, _square_deltas(t)) for stop in pause_at(t, stops)]
    row = t.row | {"optimizer": optimizer}
    if t.diverged:
        return [row]
    W, end, losses = weight_matrices(t.base), seen[-1][1], t.training.history.losses
    return [
        row | {"step": step, "loss": losses[step - 1]} | describe_deltas(W, delta, end)
        for step, delta in seen
    ]


def _square_deltas(t: Tuned) -> dict[str, np.ndarray]:
    """ΔW of attention's matrices, which are all of one size."""
    deltas = delta_weights(t.base, t.model)
    return {path: D for path, D in deltas.items() if D.shape[0] == D.shape[1]}


def describe_deltas(
    W: dict[str, np.ndarray], deltas: dict[str, np.ndarray], end: dict[str, np.ndarray]
) -> dict[str, Any]:
    """The numbers that analysis/ has for a ΔW, mean over the matrices; "cosine" is that between ΔW
    and ΔW at the end."""
    measures: dict[str, list[float]] = {
        "effective_rank": [spectrum.effective_rank(D) for D in deltas.values()],
        "stable_rank": [spectrum.stable_rank(D) for D in deltas.values()],
        "k90": [spectrum.k90(D) for D in deltas.values()],
        "relative_norm": [spectrum.relative_norm(D, W[path]) for path, D in deltas.items()],
        "cosine": [_cosine(D, end[path]) for path, D in deltas.items()],
    }
    sigma = np.mean([spectrum.singular_values(D)[:KEPT] for D in deltas.values()], axis=0)
    means = {name: mean(values) for name, values in measures.items()}
    return means | {"singular_values": [float(f"{s:.4g}") for s in sigma]}


def _cosine(M: np.ndarray, N: np.ndarray) -> float:
    return float(np.sum(M * N) / (np.linalg.norm(M) * np.linalg.norm(N)))


@cache
def chance(d: int = 128) -> dict[str, float]:
    """The ranks of a random d x d matrix of independent normal numbers: what no structure is."""
    M = np.random.default_rng(0).standard_normal((d, d))
    return {
        "effective_rank": spectrum.effective_rank(M),
        "stable_rank": spectrum.stable_rank(M),
        "k90": spectrum.k90(M),
    }


@style()
def delta_over_training_figure(rows: Rows) -> Figure:
    title = "ΔW over training, mean over the 128 x 128 matrices: Python code"
    figure, panels = figure_with_panels(title, rows, 2, 2)
    plot_along(rows, panels[0], "relative_norm", "‖ΔW‖ / ‖W‖").set_title("Norm")
    plot_along(rows, panels[1], "effective_rank", "effective rank").set_title("How many directions")
    plot_along(rows, panels[2], "cosine", "cosine with ΔW at the end").set_title(
        "Towards where it ends"
    )
    plot_singular_values(rows, panels[3])
    legend_below(figure, panels[0])
    return figure


def plot_along(rows: Rows, ax: Axes, key: str, name: str) -> Axes:
    """One measure of ΔW by step, a line for each way of training; dotted, that of chance."""
    for (method, optimizer), look in LOOKS.items():
        plot_spread(select(rows, method=method, optimizer=optimizer), ax, "step", key, **look)
    if key in chance():
        level = chance()[key]
        ax.axhline(level, color="black", lw=1, ls=":")
        ax.annotate(f"random matrix: {level:.0f}", (1, level), xytext=(0, 4), fontsize=NOTE_SIZE,
                    textcoords="offset points")  # fmt: skip
        ax.set_ylim(0, 118)
    _step_axis(ax)
    ax.set_ylabel(name)
    return ax


def plot_singular_values(rows: Rows, ax: Axes) -> Axes:
    """The four largest singular values of ΔW by step: full fine-tuning and LoRA, AdamW."""
    for method in ("full", "lora"):
        look = LOOKS[method, "AdamW"]
        same = select(rows, method=method, optimizer="AdamW")
        steps = distinct(same, "step")
        for i in range(4):
            values = [np.mean([row["singular_values"][i] for row in select(same, step=step)])
                      for step in steps]  # fmt: skip
            ax.plot(steps, values, color=look["color"], ls=DASHES[i], marker=look["marker"])
    ax.set_yscale("log")
    _step_axis(ax)
    ax.set_ylabel("singular values of ΔW")
    ax.set_title("The four largest singular values, AdamW")
    return ax


def _step_axis(ax: Axes) -> None:
    ax.set_xscale("log")
    fixed_ticks(ax, [stop for stop in STOPS if stop != 200])
    ax.set_xlabel("step")


STUDY = Study(
    "How does ΔW grow during training?",
    settings,
    delta_run,
    by=("method", "optimizer", "step"),
    shows=("loss", "relative_norm", "effective_rank", "stable_rank", "k90", "cosine"),
    figure=delta_over_training_figure,
    at_scale=(
        "We know of no measurement along the way. At the end, full fine-tuning of Llama-2-7B "
        "left a ΔW of 10 to 100 times the rank that LoRA usually has (Biderman et al. 2024)."
    ),
)

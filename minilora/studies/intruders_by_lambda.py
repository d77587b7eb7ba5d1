"""Do intruders carry what was learned, or what was forgotten?

The whole change of a training is scaled by λ after it, or only its intruders: strong directions of
the new W that the old one did not have (Shuttleworth et al. 2024).
"""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np

from minilora.analysis.deltas import weight_matrices
from minilora.analysis.spectrum import intruder_dimensions, intruder_part
from minilora.experiments.rows import Rows, distinct, select
from minilora.experiments.tuning import Tuned, tune
from minilora.lora import merge_and_unload
from minilora.plots.axes import figure_with_panels, fixed_ticks, legend_below, plot_spread
from minilora.plots.house_style import COLORS, DASHES, NOTE_SIZE, style
from minilora.studies.study import Settings, Study, each
from minilora.training.quality import NATS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
LOOKS: dict[tuple[str, str], dict[str, Any]] = {
    ("full", "change"): {
        "color": COLORS["full"], "marker": "o", "ls": DASHES[0],
        "label": "full fine-tuning: λ times the whole change",
    },
    ("lora", "change"): {
        "color": COLORS["lora"], "marker": "s", "ls": DASHES[0],
        "label": "LoRA, r = 4: λ times ΔW",
    },
    ("lora", "intruders"): {
        "color": COLORS["lora"], "marker": "^", "ls": DASHES[2], "mfc": "white",
        "label": "LoRA, r = 4: λ times its intruders",
    },
}  # fmt: skip


def settings(seeds: range) -> list[Settings]:
    return each([{"method": "full"}, {"method": "lora"}], ("code",), seeds)


def lambda_run(**settings: Any) -> Rows:
    """Intruders of the top 10 directions, mean over the matrices, and quality on both tasks, with
    the change of the model scaled by λ, and with its intruders alone scaled by λ. One row without
    quality if it diverged."""
    t = tune(**settings)
    nothing = {"scaled": "change", "factor": 1.0, "intruders": None, "test": None, "old": None}
    if t.diverged:
        return [t.row | nothing]
    row = t.row  # before the adapter becomes a part of W
    if settings["method"] == "lora":
        merge_and_unload(t.model)
    end = {name: p.data.copy() for name, p in t.model.named_parameters()}
    start = t.base.state_dict()
    W, after = weight_matrices(t.base), weight_matrices(t.model)
    intruders = {f"{path}.weight": intruder_part(W[path], after[path]) for path in W}
    rows = []
    for scaled in ("change", "intruders"):
        for factor in LAMBDAS:
            for name, p in t.model.named_parameters():
                if scaled == "change":
                    p.data[...] = start[name] + factor * (end[name] - start[name])
                else:
                    p.data[...] = end[name] + (factor - 1) * intruders.get(name, 0)
            rows.append(row | {"scaled": scaled, "factor": factor} | _measured(t))
    return rows


def _measured(t: Tuned) -> dict[str, float]:
    """Of the model as it is now."""
    W, after = weight_matrices(t.base), weight_matrices(t.model)
    intruders = float(np.mean([intruder_dimensions(W[path], after[path]) for path in W]))
    return {"intruders": intruders, "test": t.task.test(t.model), "old": t.task.old(t.model)}


@style()
def intruders_by_lambda_figure(rows: Rows) -> Figure:
    title = "A change scaled by λ after training, or only its intruders: Python code"
    figure, panels = figure_with_panels(title, rows, 1, 2)
    plot_intruders(rows, panels[0])
    plot_trade(rows, panels[1])
    legend_below(figure, panels[0], lines=2)
    return figure


def plot_intruders(rows: Rows, ax: Axes) -> Axes:
    """Intruders by λ."""
    for (method, scaled), look in LOOKS.items():
        same = select(rows, method=method, scaled=scaled)
        plot_spread(same, ax, "factor", "intruders", **look)
    fixed_ticks(ax, LAMBDAS)
    ax.set_xlabel("λ")
    ax.set_ylabel("intruders among the top 10 directions")
    ax.set_title("Intruders by λ")
    return ax


def plot_trade(rows: Rows, ax: Axes) -> Axes:
    """Loss on the old task against loss on the new one, mean over the seeds, from λ = 0 to 1.5; a
    large mark is λ = 1, the model as trained."""
    for (method, scaled), look in LOOKS.items():
        same = select(rows, method=method, scaled=scaled)
        points = [
            [mean(row[key] for row in select(same, factor=factor)) for key in ("test", "old")]
            for factor in distinct(same, "factor")
        ]
        new, old = zip(*points, strict=True)
        ax.plot(new, old, **look)
        ax.plot(*points[LAMBDAS.index(1.0)], marker=look["marker"], ms=10, color=look["color"])
    lora = select(rows, method="lora", scaled="change")
    for factor, name in ((0.0, "λ = 0"), (1.0, "λ = 1"), (1.5, "λ = 1.5")):
        at = [mean(row[key] for row in select(lora, factor=factor)) for key in ("test", "old")]
        ax.annotate(
            name, (at[0], at[1]), xytext=(10, 2), textcoords="offset points", fontsize=NOTE_SIZE
        )
    ax.set_xlabel(f"new task, test loss ({NATS.unit})")
    ax.set_ylabel(f"old task, test loss ({NATS.unit})")
    ax.set_title("What is learned and what is forgotten")
    return ax


STUDY = Study(
    "Do intruders carry what was learned, or what was forgotten?",
    settings,
    lambda_run,
    by=("method", "scaled", "factor"),
    shows=("intruders", "test", "old"),
    figure=intruders_by_lambda_figure,
    at_scale=(
        "It is reported to: in the models of Shuttleworth et al. (2024) LoRA has intruders and "
        "full fine-tuning has none, and scaling them down wins back much of what was forgotten "
        "for little of what was learned. We know the statement, not a table of numbers."
    ),
)

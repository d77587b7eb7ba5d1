"""Where should A and B start, each start at its own best rate?

LoRA's random start beside five that are computed: from W (PiSSA and MiCA by an SVD, OLoRA by QR),
from what the layers read (EVA) or from the gradient (LoRA-GA), both by an SVD. They promise to
learn faster or better.
"""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np

from minilora.experiments.rows import Rows, select, spread
from minilora.experiments.tasks import load_task
from minilora.experiments.tuning import measure, pause_at, set_up
from minilora.methods import starts
from minilora.plots.axes import figure_with_panels, fixed_ticks, legend_below, plot_spread
from minilora.plots.house_style import COLORS, DASHES, style
from minilora.studies.study import QUALITY, Settings, Study, each
from minilora.training.quality import NATS
from minilora.transformer import Transformer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


STOPS = (10, 20, 50, 100, 200, 300)
RATES = {
    "LoRA": (3e-3, 1e-2, 2e-2),
    "OLoRA": (1e-3, 3e-3, 1e-2),
    "PiSSA": (3e-3, 1e-2, 2e-2),
    "EVA": (3e-3, 1e-2, 2e-2),
    "LoRA-GA": (1e-3, 3e-3, 1e-2, 2e-2),
    "MiCA": (1e-2, 2e-2, 4e-2, 8e-2),
}
BEST = {"LoRA": 1e-2, "OLoRA": 3e-3, "PiSSA": 1e-2, "EVA": 1e-2, "LoRA-GA": 1e-2, "MiCA": 4e-2}
LOOKS: dict[str, dict[str, Any]] = {
    "LoRA": {"color": COLORS["lora"], "marker": "s", "ls": DASHES[0]},
    "OLoRA": {"color": "#CC79A7", "marker": "D", "ls": DASHES[1]},
    "PiSSA": {"color": "#D55E00", "marker": "^", "ls": DASHES[2]},
    "EVA": {"color": "#009E73", "marker": "v", "ls": DASHES[0]},
    "LoRA-GA": {"color": "black", "marker": "P", "ls": DASHES[3]},
    "MiCA": {"color": "#56B4E9", "marker": "o", "ls": DASHES[1]},
}


def settings(seeds: range) -> list[Settings]:
    """Rates are sought with the first seed; the others repeat what was best."""
    tried: list[Settings] = [{"start": s, "lr": lr} for s, rates in RATES.items() for lr in rates]
    best: list[Settings] = [{"start": start, "lr": lr} for start, lr in BEST.items()]
    return each(tried, ("code",), seeds[:1]) + each(best, ("code",), seeds[1:])


def start_run(task: str, start: str, seed: int, **settings: Any) -> Rows:
    """Quality at the end, and the validation loss along the way. EVA and LoRA-GA look at the batch
    with which training begins."""
    found = load_task(task)
    ids, targets = found.batch(np.random.default_rng((seed, 0)))

    def begin(model: Transformer) -> None:
        if start == "EVA":
            starts.eva(model, ids)
        elif start == "LoRA-GA":
            starts.lora_ga(model, ids, targets)
        elif start == "MiCA":
            starts.mica(model)

    method = start.lower() if start in ("OLoRA", "PiSSA") else "lora"
    t = set_up(found, method, seed, **settings, start=begin)
    steps = t.training.config.steps
    stops = [stop for stop in STOPS if stop < steps] + [steps]
    curve = [[step, found.val(t.model)] for step in pause_at(t, stops)]
    return [measure(t) | {"start": start, "curve": curve}]


@style()
def svd_starts_figure(rows: Rows) -> Figure:
    title = "Where A and B start, each at its own best rate: Python code"
    figure, panels = figure_with_panels(title, rows, 2, 2)
    plot_rates(select(rows, seed=rows[0]["seed"]), panels[0])
    plot_along(at_best_rate(rows), panels[1])
    plot_qualities(at_best_rate(rows), panels[2], "test", "new task, test loss")
    plot_qualities(at_best_rate(rows), panels[3], "old", "old task, test loss")
    legend_below(figure, panels[0])
    return figure


def best_rate(rows: Rows) -> float:
    """The rate that is best on the validation split."""
    rates, means, _, _ = spread(rows, "lr", "val")
    return rates[means.index(min(means))]


def at_best_rate(rows: Rows) -> Rows:
    """The rows of every start at the rate that was best with the first seed."""
    best: Rows = []
    for start in LOOKS:
        same = select(rows, start=start)
        best += select(same, lr=best_rate(select(same, seed=rows[0]["seed"])))
    return best


def plot_rates(rows: Rows, ax: Axes) -> Axes:
    """Validation loss by rate, a line for each start. A ring marks the best rate of each."""
    for start, look in LOOKS.items():
        rates, values, _, _ = spread(select(rows, start=start), "lr", "val")
        ax.plot(rates, values, **look, label=start)
        best = values.index(min(values))
        ring: dict[str, Any] = {"ls": "", "marker": "o", "ms": 13, "mfc": "none", "mew": 1.6}
        ax.plot(rates[best], values[best], color=look["color"], **ring)
    ax.set_xscale("log")
    ax.set_xlabel("learning rate (ring: best)")
    ax.set_ylabel(f"validation loss ({NATS.unit})")
    ax.set_title("Rates, first seed")
    return ax


def plot_along(rows: Rows, ax: Axes) -> Axes:
    """Validation loss along the training, a line for each start at its best rate."""
    for start, look in LOOKS.items():
        same = select(rows, start=start)
        along = [{"step": step, "val": val} for row in same for step, val in row["curve"]]
        plot_spread(along, ax, "step", "val", **look)
    ax.set_xscale("log")
    fixed_ticks(ax, [stop for stop in STOPS if stop != 200])
    ax.set_xlabel("step")
    ax.set_ylabel(f"validation loss ({NATS.unit})")
    ax.set_title("Along the training")
    return ax


def plot_qualities(rows: Rows, ax: Axes, key: str, title: str) -> Axes:
    """One measure of every start: the mean, and a line from the lowest seed to the highest."""
    names = []
    for i, (start, look) in enumerate(LOOKS.items()):
        same = select(rows, start=start)
        values = [row[key] for row in same]
        ax.plot([min(values), max(values)], [i, i], color="0.5", lw=1.5, zorder=3)
        ax.plot(mean(values), i, color=look["color"], marker=look["marker"], ms=7, zorder=4)
        names.append(f"{start}, rate {same[0]['lr']:g}")
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.xaxis.grid(True)
    ax.set_xlabel(NATS.unit)
    ax.set_title(title.capitalize())
    return ax


STUDY = Study(
    "Where should A and B start, each start at its own best rate?",
    settings,
    start_run,
    by=("start", "lr", "trainable"),
    shows=QUALITY,
    figure=svd_starts_figure,
    at_scale=(
        "That starts matter little once each has its own rate, yes: nine variants of LoRA are "
        "then within 1 to 2 per cent of each other (arXiv 2602.04998). The papers of the starts "
        "report gains on large models, in part at one rate for all: of MiCA up to 5.9 times "
        "LoRA's gain in knowledge (Rüdiger & Raschka 2026, abstract). Of a comparison of all "
        "six we know no measurement."
    ),
)

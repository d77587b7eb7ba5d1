"""Which learning rate does each method need?

Rates are chosen on the validation split. The figure draws full fine-tuning and LoRA; the rates of
eleven other methods, which experiments/tasks.py uses, were found with these rows too, and those of
the last four with how_few_numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minilora.experiments.rows import Rows, select, spread
from minilora.experiments.tuning import quality_run
from minilora.methods.registry import LABELS
from minilora.plots.axes import legend_below, panel_for_each, plot_spread, quality_axis
from minilora.plots.house_style import COLORS, style
from minilora.studies.study import QUALITY, Settings, Study, each
from minilora.training.quality import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LOW_RANK_RATES = (1e-3, 3e-3, 1e-2, 2e-2, 4e-2)
RATES = {
    "full": (1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 1e-2),
    "head": (1e-3, 3e-3, 1e-2, 3e-2),
    "last-block": (1e-3, 3e-3, 1e-2, 3e-2),
    "bitfit": (3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
    "adapter": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "prompt": (1e-2, 3e-2, 1e-1, 3e-1, 1.0),
    "prefix": (1e-2, 3e-2, 1e-1, 3e-1, 1.0),
    "lora": LOW_RANK_RATES,
    "rslora": LOW_RANK_RATES,
    "lora+": (3e-4, 1e-3, 3e-3, 1e-2),
    "dora": LOW_RANK_RATES,
    "pissa": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "olora": (3e-4, 1e-3, 3e-3, 1e-2),
}
_RING: Any = {"ls": "", "marker": "o", "ms": 13, "mfc": "none", "mew": 1.6}


def settings(seeds: range) -> list[Settings]:
    """All rates of full fine-tuning and LoRA with all seeds; those of the other methods, which the
    figure does not draw, with the first seed only."""
    pairs = [{"method": m, "lr": lr} for m, rates in RATES.items() for lr in rates]
    main = [pair for pair in pairs if pair["method"] in ("full", "lora")]
    others = [pair for pair in pairs if pair not in main]
    tasks = ("code", "reverse")
    return each(main, tasks, seeds) + each(others, tasks, seeds[:1])


@style()
def learning_rate_sweep_figure(rows: Rows) -> Figure:
    title = "Quality by learning rate"
    figure, panels = panel_for_each("task", rows, plot_learning_rate_sweep, title)
    legend_below(figure, panels[0])
    return figure


def plot_learning_rate_sweep(rows: Rows, ax: Axes) -> Axes:
    """Quality of one task on the validation split by rate, full and LoRA. A ring marks the best
    rate, or several that are equally good."""
    best = max if METRICS[rows[0]["metric"]].higher_is_better else min
    for method, marker in (("full", "o"), ("lora", "s")):
        same = select(rows, method=method)
        look = {"color": COLORS[method], "marker": marker, "label": LABELS[method]}
        plot_spread(same, ax, "lr", "val", **look)
        rates, means, _, _ = spread(same, "lr", "val")
        values = dict(zip(rates, means, strict=True))
        ringed = [lr for lr in rates if values[lr] == best(means)]
        ax.plot(ringed, [best(means)] * len(ringed), color=COLORS[method], **_RING)
    ax.plot([], [], color="black", **_RING, label="best of each")
    ax.set_xscale("log")
    ax.set_xlabel("learning rate")
    quality_axis(ax, rows[0], "val")
    return ax


STUDY = Study(
    "Which learning rate does each method need?",
    settings,
    quality_run,
    by=("task", "method", "lr"),
    shows=QUALITY,
    figure=learning_rate_sweep_figure,
    at_scale=(
        "Yes, and more so: the best rate was about 10 times that of full fine-tuning for "
        'Llama-2-7B (Biderman et al. 2024), and 9.8 times, nearly whatever the rank, in "LoRA '
        'Without Regret" (Schulman et al. 2025).'
    ),
)

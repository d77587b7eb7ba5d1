"""How large must r be?

One learning rate serves all ranks of a task; s goes with 1/√r.
"""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING

from minilora.experiments.rows import Rows, distinct, select
from minilora.experiments.tuning import quality_run
from minilora.methods.registry import LABELS
from minilora.plots.axes import legend_below, panel_for_each, plot_spread, quality_axis, rank_axis
from minilora.plots.house_style import COLORS, style
from minilora.studies.study import QUALITY, Settings, Study, each

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


RANKS = (1, 2, 4, 8, 16, 64)


def settings(seeds: range) -> list[Settings]:
    methods: list[Settings] = [{"method": "full"}, *({"method": "lora", "r": r} for r in RANKS)]
    return each(methods, ("code", "reverse", "sort"), seeds)


@style()
def rank_sweep_figure(rows: Rows) -> Figure:
    title = "Quality by rank, at a fixed learning rate, s ∝ 1/√r"
    figure, panels = panel_for_each("task", rows, plot_rank_sweep, title)
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
    quality_axis(ax, rows[0], "test")
    return ax


STUDY = Study(
    "How large must r be?",
    settings,
    quality_run,
    by=("task", "method", "r"),
    shows=QUALITY,
    figure=rank_sweep_figure,
    at_scale=(
        "That the task decides, yes. On GPT-3 175B, r = 1 on q and v is as good as r = 64 "
        "(WikiSQL 73.4 and 73.5, MNLI 91.3 and 91.4; Hu et al. 2021, Table 6), while on code "
        "even r = 256 stays below full fine-tuning of Llama-2-7B after continued pretraining "
        "(HumanEval .224 and .263), though not after instruction tuning (.498 and .497; "
        "Biderman et al. 2024)."
    ),
)

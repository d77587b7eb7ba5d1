"""What does alpha do, divided by r or by √r?

s = alpha/r is LoRA's rule, s = alpha/√r rsLoRA's (Kalajdzievski 2023); the learning rate is fixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from minilora.experiments.rows import Rows, distinct, select
from minilora.experiments.tuning import quality_run
from minilora.plots.axes import (
    figure_with_panels,
    legend_below,
    log2_axis,
    plot_spread,
    quality_axis,
    rank_axis,
)
from minilora.plots.house_style import COLORS, DASHES, shade, style
from minilora.studies.study import QUALITY, Settings, Study, each

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def settings(seeds: range) -> list[Settings]:
    rules = [{"lora_alpha": 8, "use_rslora": False}, {"lora_alpha": 4, "use_rslora": True}]
    changes = [rule | {"r": r} for rule in rules for r in (1, 4, 16, 64)]
    changes += [{"lora_alpha": a, "use_rslora": False, "r": 4} for a in (2, 32)]
    return each([{"method": "lora"} | c for c in changes], ("code", "reverse"), seeds)


@style()
def alpha_sweep_figure(rows: Rows) -> Figure:
    tasks = distinct(rows, "task")
    rates = " or ".join(f"{lr:g}" for lr in distinct(rows, "lr"))
    figure, panels = figure_with_panels(
        f"Quality by alpha, at the fixed learning rate {rates}", rows, len(tasks), 2, sharey="row"
    )
    for i, task in enumerate(tasks):
        same = select(rows, task=task)
        plot_alpha_rules(same, panels[2 * i])
        plot_alphas(same, panels[2 * i + 1]).set_ylabel("")  # the same as on its left
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
        same = [row for row in rows if math.isclose(row["s"], scale(row["r"]))]
        color = shade(COLORS["lora"], tone)
        plot_spread(
            same, ax, "r", "test", color=color, ls=DASHES[i], marker=marker, label=f"LoRA, {label}"
        )
    rank_axis(ax, distinct(rows, "r"))
    quality_axis(ax, rows[0], "test", "by rank")
    return ax


def plot_alphas(rows: Rows, ax: Axes) -> Axes:
    """Quality of one task by alpha, with s = alpha/r and r = 4."""
    same = [row | {"alpha": row["s"] * 4} for row in select(rows, r=4)]
    plot_spread(same, ax, "alpha", "test", color=COLORS["lora"], marker="s")
    log2_axis(ax, distinct(same, "alpha"))
    ax.set_xlabel("alpha, with s = alpha/r and r = 4")
    quality_axis(ax, rows[0], "test", "by alpha")
    return ax


STUDY = Study(
    "What does alpha do, divided by r or by √r?",
    settings,
    quality_run,
    by=("task", "r", "s"),
    shows=QUALITY,
    figure=alpha_sweep_figure,
    at_scale=(
        "More than here, once: on Llama-3.2-3B at r = 64 on q and v, rsLoRA (s = 8) reaches "
        ".513 on GSM8K where LoRA reaches .474, and forgets more (the loss on Wikipedia rises "
        "by .111 and .059; PEFT's MetaMathQA benchmark, one seed, standard error 1.4 points)."
    ),
)

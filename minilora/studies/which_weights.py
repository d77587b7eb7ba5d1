"""Where to adapt, at equal budget?

The same number of trainable parameters is spent on different matrices, so that the ranks differ.
"""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING, Any

from minilora.experiments.rows import Rows, select
from minilora.experiments.tuning import quality_run
from minilora.plots.axes import panel_for_each, quality_axis
from minilora.plots.house_style import COLORS, style
from minilora.studies.study import QUALITY, Settings, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PLACES = {
    "q": ("q_proj",),
    "v": ("v_proj",),
    "q,v": ("q_proj", "v_proj"),
    "q,k,v,o": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "MLP": ("up_proj", "down_proj"),
    "all": "all-linear",
}
BUDGETS = {  # ranks that train about as many numbers everywhere: 18,000 of code's, 9,700 of sort's
    "code": {"q": 36, "v": 36, "q,v": 18, "q,k,v,o": 9, "MLP": 7, "all": 4},
    "sort": {"q": 19, "v": 19, "q,v": 9, "q,k,v,o": 5, "MLP": 4, "all": 2},
}


def settings(seeds: range) -> list[Settings]:
    return [
        {"task": task, "method": "lora", "seed": seed, "target_modules": targets, "place": place}
        | {"r": BUDGETS[task][place]}
        for task in BUDGETS
        for place, targets in PLACES.items()
        for seed in seeds
    ]


def place_run(place: str, **settings: Any) -> Rows:
    """quality_run, with the name of the place in its row."""
    return [row | {"place": place} for row in quality_run(**settings)]


@style()
def which_weights_figure(rows: Rows) -> Figure:
    title = "Where to adapt, with about as many trainable parameters everywhere"
    return panel_for_each("task", rows, plot_which_weights, title, shown="line: their range")[0]


def plot_which_weights(rows: Rows, ax: Axes) -> Axes:
    """Quality of one task by the matrices that are adapted: the mean, and a line from the lowest
    seed to the highest."""
    names = []
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
    quality_axis(ax, rows[0], "test", f"≈ {trained:,.0f} parameters", axis="x")
    return ax


STUDY = Study(
    "Where to adapt, at equal budget?",
    settings,
    place_run,
    by=("task", "place", "r", "trainable"),
    shows=QUALITY,
    figure=which_weights_figure,
    at_scale=(
        "Yes as to q alone, and the rest is close: on GPT-3 175B with 18M parameters, WikiSQL "
        "is 70.4 with q, 73.0 with v, 73.7 with q and v and also with all four (Hu et al. 2021, "
        "Table 5). On Llama-3.2-3B the MLP at r = 10 reaches .494 on GSM8K, and q and v with as "
        "many parameters .478 (PEFT's MetaMathQA benchmark, one seed, standard error 1.4 "
        "points)."
    ),
)

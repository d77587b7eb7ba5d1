"""How many numbers train?

Computed from the sizes of the matrices of known models, without training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minilora.analysis.counting import count_rows
from minilora.experiments.rows import Rows, select
from minilora.plots.axes import figure_with_panels, legend_below
from minilora.plots.counts import plot_counts
from minilora.plots.house_style import style
from minilora.studies.study import Settings, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def settings(seeds: range) -> list[Settings]:
    return [{"rank": r} for r in (1, 4, 8, 64)]


def counts_run(rank: int) -> Rows:
    return [{"rank": rank} | row for row in count_rows(rank, ["q_proj", "v_proj"])]


@style()
def parameter_counts_figure(rows: Rows) -> Figure:
    title = "Trainable parameters of models known by name"
    figure, panels = figure_with_panels(title, rows, 1, 1)
    plot_parameter_counts(rows, panels[0])
    legend_below(figure, panels[0])
    return figure


def plot_parameter_counts(rows: Rows, ax: Axes) -> Axes:
    """Trainable parameters of full fine-tuning and of LoRA of rank 8, a line for each model."""
    same = sorted(select(rows, rank=8), key=lambda row: row["total"])
    return plot_counts(same, ax, "LoRA on q and v, r = 8")


STUDY = Study(
    "How many numbers train?",
    settings,
    counts_run,
    by=("model", "rank"),
    shows=("total", "trainable", "share"),
    figure=parameter_counts_figure,
    at_scale=(
        "It is computed for models at scale. The counts for GPT-3 175B are those that its "
        "authors state: 18.9M of 175,255.8M numbers for r = 4 on q and v, 37.7M for r = 8 (Hu "
        "et al. 2021, Table 4)."
    ),
)

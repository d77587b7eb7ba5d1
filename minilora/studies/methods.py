"""How do all methods compare?

Each at a learning rate of its own, on the new task and on the old one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minilora.experiments.rows import Rows, distinct, select
from minilora.experiments.tuning import quality_run
from minilora.methods.registry import METHODS
from minilora.plots.axes import (
    figure_with_panels,
    legend_below,
    task_title,
)
from minilora.plots.comparisons import plot_methods
from minilora.plots.house_style import FAMILY_COLORS, FAMILY_MARKERS, style
from minilora.studies.study import QUALITY, Settings, Study, each

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def settings(seeds: range) -> list[Settings]:
    return each([{"method": name} for name in METHODS], ("code", "reverse"), seeds)


@style()
def methods_figure(rows: Rows) -> Figure:
    tasks = distinct(rows, "task")
    title = "Every method of fine-tuning, each at its own learning rate"
    figure, panels = figure_with_panels(title, rows, len(tasks), 2, "line: their range")
    for i, task in enumerate(tasks):
        entry = methods_entry(select(rows, task=task))
        plot_methods(entry, panels[2 * i], "test")
        plot_methods(entry, panels[2 * i + 1], "old")
    families = {METHODS[name].family for name in distinct(rows, "method")}
    for family in sorted(families, key=list(FAMILY_COLORS).index):
        look: dict[str, Any] = {"color": FAMILY_COLORS[family], "marker": FAMILY_MARKERS[family]}
        panels[0].plot([], [], ls="", ms=7, label=family, **look)
    legend_below(figure, panels[0])
    return figure


def methods_entry(rows: Rows) -> dict[str, Any]:
    """The rows of one task as plot_methods takes them."""
    return {"about": task_title(rows[0]["task"]), "metric": rows[0]["metric"], "runs": rows}


STUDY = Study(
    "How do all methods compare?",
    settings,
    quality_run,
    by=("task", "method", "lr", "trainable"),
    shows=QUALITY,
    figure=methods_figure,
)

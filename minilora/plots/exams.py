"""The figure of an exam on LoRA: what each course has right, in each part of the exam."""

from __future__ import annotations

from functools import cache
from statistics import mean
from typing import TYPE_CHECKING, Any

from minilora.experiments.exam import CHANCE, COURSES, MARKED, at_chosen_rate, wilson
from minilora.experiments.rows import Rows, select
from minilora.plots.axes import figure_with_panels, fixed_ticks, per_cent
from minilora.plots.house_style import COLORS, NOTE_SIZE, rank_color, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {
    "reworded": "taught, in other words",
    "test": "not taught",
    "statements": "statements, not taught",
    "controls": "general facts",
}


@cache
def looks() -> dict[str, dict[str, Any]]:
    """The colour and the marker of each course."""
    return {
        "base": {"color": COLORS["scratch"], "marker": "o"},
        "placebo": {"color": "#555555", "marker": "X"},
        "lora-r1": {"color": rank_color(1), "marker": "v"},
        "lora-qv": {"color": COLORS["lora"], "marker": "D"},
        "lora": {"color": rank_color(8), "marker": "s"},
        "full": {"color": COLORS["full"], "marker": "P"},
    }


@style()
def exam_figure(rows: Rows) -> Figure:
    """rows: of exam_run. Those at other rates than the chosen ones are left out."""
    figure, panels = figure_with_panels(
        "SmolLM2-135M sits an exam on LoRA",
        rows,
        1,
        len(MARKED),
        shown="small marks: each seed",
        sharey=True,
    )
    note = "lines: 95 % intervals, from the number of questions alone"
    figure.supxlabel(note, x=0.99, ha="right", fontsize=NOTE_SIZE)
    for part, ax in zip(MARKED, panels, strict=True):
        plot_exam(rows, ax, part)
    return figure


def plot_exam(rows: Rows, ax: Axes, part: str) -> Axes:
    """What each course has right in one part, at the rate that was chosen for it."""
    chosen = at_chosen_rate(rows)
    courses = [name for name in looks() if select(chosen, course=name)]
    for y, name in enumerate(courses):
        same = select(chosen, course=name)
        shares, look = [row[part] for row in same], looks()[name]
        ax.plot(wilson(mean(shares), len(same[0]["marks"][part])), [y, y], color=look["color"])
        ax.plot(mean(shares), y, ls="", ms=8, mec="black", mew=0.6, **look)
        if len(shares) > 1:
            ax.plot(shares, [y - 0.22] * len(shares), ls="", ms=3.5, **look)
    ax.axvline(CHANCE[part], color="black", lw=1, ls=":")
    ax.annotate("chance", (CHANCE[part] + 0.02, len(courses) - 0.55), fontsize=9)
    ax.set_yticks(range(len(courses)), [COURSES[name].label for name in courses])
    ax.set(xlim=(0, 1), ylim=(-0.6, len(courses) - 0.3), title=TITLES[part].replace(", ", ",\n"))
    ax.set_xlabel(f"right, of {len(rows[0]['marks'][part])}")
    ax.grid(axis="x", alpha=0.35)
    fixed_ticks(ax, (0, 0.25, 0.5, 0.75))
    per_cent(ax.xaxis)
    return ax

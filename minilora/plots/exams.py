"""The figures of an exam on LoRA: what each course has right, and what other rates would do."""

from __future__ import annotations

from functools import cache
from statistics import mean
from typing import TYPE_CHECKING, Any

from minilora.experiments.exam import CHANCE, COURSES, MARKED, at_recipe_rate, wilson
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
    """rows: of exam_run. Those at other rates than the recipe's are left out."""
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
    """What each course has right in one part, at the recipe's rate."""
    own = at_recipe_rate(rows)
    courses = [name for name in looks() if select(own, course=name)]
    for y, name in enumerate(courses):
        same = select(own, course=name)
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


@style()
def exam_rates_figure(rows: Rows) -> Figure:
    """rows: of exam_run, those at other rates among them; drawn is the first seed."""
    by_rate = {name: _by_rate(rows, name) for name, course in COURSES.items() if course.rates}
    compared = {name: same for name, same in by_rate.items() if len(same) > 1}
    figure, (right, nats) = figure_with_panels(
        "Half the learning rate, and twice", select(rows, seed=0), 1, 2
    )
    for name, same in compared.items():
        rates, look = [row["lr"] for row in same], looks()[name] | {"label": COURSES[name].label}
        right.plot(rates, [row["reworded"] for row in same], **look)
        nats.plot(rates, [row["nats_validation"] for row in same], **look)
        recipe = next(row for row in same if row["lr"] == COURSES[name].rates[0])
        for ax, key in ((right, "reworded"), (nats, "nats_validation")):
            ax.plot(recipe["lr"], recipe[key], ls="", marker="o", ms=15, mfc="none", mec="black")
    (base,) = select(rows, course="base")
    for ax, key in ((right, "reworded"), (nats, "nats_validation")):
        ax.axhline(base[key], color=looks()["base"]["color"], lw=1.5)
        _note(ax, "base model", base[key])
        ax.set(xscale="log", xlabel="learning rate (ring: the recipe's)")
        ax.grid(alpha=0.35)
    right.axhline(CHANCE["reworded"], color="black", lw=1, ls=":")
    _note(right, "chance", CHANCE["reworded"])
    right.set(title="right, taught, in other words", ylim=(0, 0.75))
    per_cent(right.yaxis)
    nats.set(title="nats a token, right answers on\ncards neither taught nor tested")
    nats.margins(y=0.15)
    right.legend(loc="upper left")
    return figure


def _note(ax: Axes, text: str, y: float) -> None:
    """A word above the right end of a line at this height."""
    ax.annotate(
        text, (0.99, y), (0, 4), ha="right",
        xycoords=("axes fraction", "data"), textcoords="offset points",
    )  # fmt: skip


def _by_rate(rows: Rows, course: str) -> Rows:
    """The rows of a course and the first seed, by their rates."""
    return sorted(select(rows, course=course, seed=0), key=lambda row: row["lr"])

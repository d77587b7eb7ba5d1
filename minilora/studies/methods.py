"""How do all methods compare?

Thirteen of them, each at a learning rate of its own, on the new task and on the old one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minilora.experiments.rows import Rows, distinct, select
from minilora.experiments.tuning import measure, tune
from minilora.methods.registry import METHODS
from minilora.plots.axes import figure_with_panels, legend_below, task_title
from minilora.plots.comparisons import plot_methods
from minilora.plots.house_style import FAMILY_COLORS, FAMILY_MARKERS, style
from minilora.studies.study import QUALITY, Settings, Study, each

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# The others, ia3, lora-fa, vera and lora-xs, train fewer numbers: see how_few_numbers.
THIRTEEN = (
    "full", "head", "last-block", "bitfit", "adapter", "prompt", "prefix", "lora", "rslora",
    "lora+", "dora", "pissa", "olora",
)  # fmt: skip


def settings(seeds: range) -> list[Settings]:
    return each([{"method": name} for name in THIRTEEN], ("code", "reverse"), seeds)


def methods_run(**settings: Any) -> Rows:
    """How well a method does, and how well the base model did."""
    t = tune(**settings)
    base = {"base_test": t.task.test(t.base), "base_old": t.task.old(t.base)}
    return [measure(t) | base]


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
    first = rows[0]
    base = {"test": first["base_test"], "old": first["base_old"]}
    about = {"about": task_title(first["task"]), "metric": first["metric"]}
    return about | {"base": base, "runs": rows}


STUDY = Study(
    "How do all methods compare?",
    settings,
    methods_run,
    by=("task", "method", "lr", "trainable"),
    shows=QUALITY,
    figure=methods_figure,
    at_scale=(
        "Largely. On Llama-3.2-3B, LoRA of r = 32 reaches .478 on GSM8K, full fine-tuning .472, "
        "DoRA .469, prefix tuning .416, IA³ .398 and VeRA .354 (PEFT's MetaMathQA benchmark, "
        "one seed, standard error 1.4 points); once their rates are tuned, nine variants of "
        "LoRA are within 1 to 2 per cent of each other (arXiv 2602.04998)."
    ),
)

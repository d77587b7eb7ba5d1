"""How few numbers are enough?

From a dozen trained numbers to all of them: LoRA, and the methods that freeze its factors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minilora.experiments.rows import Row, Rows, select
from minilora.experiments.tuning import quality_run
from minilora.methods.registry import LABELS
from minilora.plots.axes import (
    figure_with_panels,
    legend_below,
    per_cent,
    plot_spread,
    quality_axis,
)
from minilora.plots.house_style import COLORS, DASHES, FAMILY_COLORS, style
from minilora.studies.study import QUALITY, Settings, Study, each

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAST_BLOCK = {"code": 1, "reverse": 3}
ALL = "all matrices"
RATES: dict[tuple[str, int | None, str], dict[str, tuple[float, ...]]] = {
    # method, r, what it adapts: the rates tried; the first was best on validation, or within 0.01
    ("ia3", None, ALL): {"code": (1e-1, 3e-2, 3e-1), "reverse": (1e-1, 3e-2, 3e-1)},
    ("vera", 64, ALL): {"code": (1e-1, 1e-2, 3e-2, 3e-1), "reverse": (1e-1, 1e-2, 3e-2)},
    ("lora-xs", 1, ALL): {"code": (1e-2, 3e-2, 1e-1)},
    ("lora-xs", 4, ALL): {"code": (1e-2, 3e-2, 1e-1), "reverse": (3e-2, 1e-2)},
    ("lora-xs", 16, ALL): {"code": (3e-2, 1e-2, 3e-3), "reverse": (1e-2, 3e-2)},
    ("lora-fa", 2, ALL): {"reverse": (3e-2, 1e-2)},
    ("lora-fa", 4, ALL): {"code": (3e-2, 1e-2, 1e-1)},
    ("lora", 1, "v_proj"): {"code": (3e-2, 1e-2, 1e-1)},
    ("lora", 4, "down_proj"): {"code": (3e-2, 1e-2, 3e-3)},
}

_PURPLE, _RED, _BROWN = "#CC79A7", "#D55E00", "#7E5700"
LOOKS: dict[tuple[str, str], dict[str, Any]] = {
    ("full", ALL): {"color": COLORS["full"], "marker": "o", "label": LABELS["full"]},
    ("lora", ALL): {"color": COLORS["lora"], "marker": "s", "label": "LoRA, r = 1 to 64"},
    ("lora", "one"): {
        "color": COLORS["lora"], "marker": "s", "mfc": "white", "ls": ":",
        "label": "LoRA of one matrix",
    },
    ("lora-fa", ALL): {
        "color": _BROWN, "marker": "^", "ls": DASHES[1], "label": "LoRA-FA",
    },
    ("lora-xs", ALL): {"color": _PURPLE, "marker": "v", "ls": DASHES[2], "label": "LoRA-XS"},
    ("vera", ALL): {"color": _RED, "marker": "D", "label": "VeRA, r = 64"},
    ("ia3", ALL): {"color": FAMILY_COLORS["additive"], "marker": "P", "label": LABELS["ia3"]},
    ("bitfit", ALL): {"color": FAMILY_COLORS["selective"], "marker": "X", "label": "BitFit"},
}  # fmt: skip
# Numbers that train, and accuracy: PEFT's MetaMathQA benchmark, run July 2026, one seed.
AT_3B = {
    "full": [(3.21e9, 0.472)],
    "lora": [(9.2e6, 0.478), (18.4e6, 0.474)],
    "lora-fa": [(3.7e6, 0.404)],
    "vera": [(0.13e6, 0.354)],
    "ia3": [(0.29e6, 0.398)],
}
TINY_LORA = (3_584, 0.012)  # of the same benchmark


def settings(seeds: range) -> list[Settings]:
    """The best rate of each with all seeds, the others that were tried with the first seed."""
    found = []
    for (method, r, place), rates in RATES.items():
        for task, (best, *others) in rates.items():
            what: Settings = {"method": method, "place": place}
            what |= {} if r is None else {"r": r}
            found += each([what | {"lr": best}], (task,), seeds)
            found += each([what | {"lr": lr} for lr in others], (task,), seeds[:1])
    return found


def few_run(task: str, place: str, **settings: Any) -> Rows:
    """quality_run, of an adapter of all matrices, or of one of the last block's alone."""
    if place != ALL:
        settings["target_modules"] = rf"layers\.{LAST_BLOCK[task]}\..*\.{place}"
    return [row | {"place": place} for row in quality_run(task=task, **settings)]


@style()
def how_few_numbers_figure(rows: Rows, swept: Rows, methods: Rows) -> Figure:
    """swept: of rank_sweep, for LoRA of all matrices and full fine-tuning; methods: for BitFit."""
    figure, panels = figure_with_panels("Quality by how many numbers train", rows, 1, 3)
    for task, ax in zip(("code", "reverse"), panels, strict=False):
        known = select(swept, task=task) + select(methods, task=task, method="bitfit")
        best = [row for row in select(rows, task=task) if row["lr"] == _best_rate(row)]
        plot_how_few_numbers([row | {"place": ALL} for row in known] + best, ax)
    plot_at_3b(panels[2])
    legend_below(figure, panels[0], lines=2)
    return figure


def _best_rate(row: Row) -> float:
    return RATES[row["method"], row["r"], row["place"]][row["task"]][0]


def plot_how_few_numbers(rows: Rows, ax: Axes) -> Axes:
    """Quality of one task on the test split by how many numbers train, a line for each method."""
    for (method, place), look in LOOKS.items():
        same = select(rows, method=method)
        same = [row for row in same if (row["place"] == ALL) == (place == ALL)]
        plot_spread(same, ax, "trainable", "test", **look)
    _numbers_axis(ax)
    quality_axis(ax, rows[0], "test")
    return ax


def plot_at_3b(ax: Axes) -> Axes:
    """PEFT's benchmark of a model of 3.2 billion numbers, in the same marks."""
    for method, points in AT_3B.items():
        ax.plot(*zip(*points, strict=True), **LOOKS[method, ALL])
    ax.plot(*TINY_LORA, "k*", ms=7)
    ax.annotate("TinyLoRA", TINY_LORA, xytext=(7, 3), textcoords="offset points")
    _numbers_axis(ax)
    ax.set_ylim(-0.02, 0.55)
    per_cent(ax.yaxis)
    ax.set_ylabel("test: answers right")
    ax.set_title("Llama-3.2-3B on GSM8K")
    return ax


def _numbers_axis(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.set_xlabel("numbers that train")


STUDY = Study(
    "How few numbers are enough?",
    settings,
    few_run,
    by=("task", "method", "r", "place", "lr", "trainable"),
    shows=QUALITY,
    figure=how_few_numbers_figure,
    at_scale=(
        "That fewer numbers learn less, yes. On Llama-3.2-3B, LoRA with 9.2M numbers reaches .478 "
        "on GSM8K, LoRA-FA with 3.7M .404, IA³ with .29M .398, VeRA with .13M .354 and TinyLoRA "
        "with 3,584 .012 (PEFT's MetaMathQA benchmark, one seed, standard error 1.4 points). With "
        "rewards instead of examples, 13 numbers bring a Qwen2.5 model to 91 per cent on GSM8K "
        "(Morris et al. 2026)."
    ),
    beside=("rank_sweep", "methods"),
)

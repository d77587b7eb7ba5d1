"""Is full fine-tuning's ΔW of low rank?

Full fine-tuning cut to rank k after training, beside LoRA that was trained at rank k.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minilora.analysis.deltas import delta_weights, weight_matrices
from minilora.analysis.spectrum import truncate
from minilora.experiments.rows import Rows, distinct, select
from minilora.experiments.tuning import tune
from minilora.nn import Linear
from minilora.plots.axes import (
    figure_with_panels,
    fixed_ticks,
    legend_below,
    plot_spread,
    quality_axis,
)
from minilora.plots.house_style import COLORS, style
from minilora.studies.study import Settings, Study, each
from minilora.system.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def settings(seeds: range) -> list[Settings]:
    return each([{"method": "full"}], ("code", "reverse"), seeds)


def truncation_run(**settings: Any) -> Rows:
    """Full fine-tuning, of whose every ΔW only the k strongest directions are kept. What else it
    has changed (embeddings, biases, norms) stays changed. One row without quality if it
    diverged."""
    if settings.get("method") != "full":
        raise UsageError('only full fine-tuning is cut: give method="full"')
    t = tune(**settings)
    if t.diverged:
        return [t.row | {"k": None, "test": None}]
    W = weight_matrices(t.base)
    delta = delta_weights(t.base, t.model)
    rows = []
    for k in (0, 1, 2, 4, 8, 16, 32, 64, 128):
        if k > min(min(D.shape) for D in delta.values()):
            break
        for path, D in delta.items():
            layer = t.model.get_submodule(path)
            assert isinstance(layer, Linear)
            layer.weight.data[...] = W[path] + truncate(D, k)
        rows.append(t.row | {"k": k, "test": t.task.test(t.model)})
    return rows


@style()
def truncation_figure(truncated: Rows, trained: Rows) -> Figure:
    """trained: of rank_sweep."""
    tasks = distinct(truncated, "task")
    title = "Full fine-tuning cut to rank k, and LoRA trained at rank k"
    figure, panels = figure_with_panels(title, truncated, 1, len(tasks))
    for task, ax in zip(tasks, panels, strict=True):
        plot_truncation(select(truncated, task=task), select(trained, task=task), ax)
    legend_below(figure, panels[0])
    return figure


def plot_truncation(truncated: Rows, trained: Rows, ax: Axes) -> Axes:
    """Quality of one task by k. The axis is linear up to 1, as k = 0 has no logarithm."""
    label = "full, every ΔW cut to rank k\n(embeddings, biases, norms stay tuned)"
    plot_spread(truncated, ax, "k", "test", color=COLORS["full"], marker="o", label=label)
    lora = select(trained, method="lora")
    label = "LoRA trained at r = k"
    plot_spread(lora, ax, "r", "test", color=COLORS["lora"], marker="s", label=label)
    ax.set_xscale("symlog", base=2, linthresh=1)
    fixed_ticks(ax, sorted({*distinct(truncated, "k"), *distinct(lora, "r")}))
    ax.set_xlabel("rank k")
    quality_axis(ax, truncated[0], "test")
    return ax


STUDY = Study(
    "Is full fine-tuning's ΔW of low rank?",
    settings,
    truncation_run,
    by=("task", "k"),
    shows=("test",),
    figure=truncation_figure,
    at_scale=(
        "We know of no cut like this at scale. It would have to be deep to be of LoRA's size: "
        "full fine-tuning's ΔW had 10 to 100 times the rank of a usual LoRA on Llama-2-7B "
        "(Biderman et al. 2024)."
    ),
    beside=("rank_sweep",),
)

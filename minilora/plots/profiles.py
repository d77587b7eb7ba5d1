"""The figure of a profile: where the time of a training step goes, op by op."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minilora.methods.registry import LABELS
from minilora.plots.house_style import COLORS, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def profile_figure(result: dict[str, Any]) -> Figure:
    """Where the time of a training step goes (profiler.profile_methods), both methods by op."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(8.5, 5), layout="constrained")
        plot_profile(result, figure.subplots())
    return figure


def plot_profile(result: dict[str, Any], ax: Axes) -> Axes:
    """A bar for each op and method, forward and, paler, backward. Ops that take less than 1 % of
    either step are one bar; so is the time between ops."""
    small = {"full": [0.0, 0.0], "lora": [0.0, 0.0]}
    bars: list[tuple[str, dict[str, list[float]]]] = []
    for row in result["rows"]:
        spent = {
            m: [
                1e3 * row[m][f"{way}_seconds"] if row[m] else 0.0 for way in ("forward", "backward")
            ]
            for m in small
        }
        if any(row[m] and row[m]["share"] >= 0.01 for m in small):
            bars.append((row["op"], spent))
        else:
            small = {m: [a + b for a, b in zip(small[m], spent[m], strict=True)] for m in small}
    between = {m: [1e3 * result["methods"][m]["seconds_between_ops"], 0.0] for m in small}
    bars += [("other ops", small), ("between ops", between)]
    for method, offset in (("full", -0.2), ("lora", 0.2)):
        rows = [i + offset for i in range(len(bars))]
        forward, backward = zip(*(spent[method] for _, spent in bars), strict=True)
        name, color = LABELS[method], COLORS[method]
        ax.barh(rows, forward, 0.38, color=color, label=f"{name}: forward")
        ax.barh(rows, backward, 0.38, forward, color=color, alpha=0.45, label=f"{name}: backward")
    ax.set_yticks(range(len(bars)), [name for name, _ in bars])
    ax.invert_yaxis()
    ax.grid(False)
    ax.xaxis.grid(True)
    ax.set_axisbelow(True)
    ax.set_xlabel(f"milliseconds per step (mean of {result['steps']} steps)")
    ax.set_title(
        f"Where a step's time goes: {result['model']}, {result['batch']} x {result['length']}",
        parse_math=False,
    )
    ax.legend(loc="lower right")
    return ax

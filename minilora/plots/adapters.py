"""The figure of an inspected adapter: how much each module changed, and in how many directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from minilora.analysis.inspection import Inspected, Inspection
from minilora.plots.house_style import COLORS, DASHES, MARKERS, rank_color, shade, style
from minilora.system.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@style()
def inspection_figure(found: Inspection) -> Figure:
    """Left ‖ΔW‖ of every module, right the singular values of every ΔW. Raises UsageError where no
    ΔW is other than zero."""
    from matplotlib.figure import Figure

    kinds = {
        kind: [one for one in modules if one.singular_values and one.norm > 0]
        for kind, modules in found.by_kind().items()
    }
    kinds = {kind: modules for kind, modules in kinds.items() if modules}
    if not kinds:
        raise UsageError(f"the adapter in {found.folder} has no ΔW to draw: it is zero, or NaN")
    figure = Figure(figsize=(10, max(3.6, 1.6 + 0.34 * len(kinds))), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _plot_norms(kinds, left)
    _plot_spectra([one for modules in kinds.values() for one in modules], right)
    return figure


def _plot_norms(kinds: dict[str, list[Inspected]], ax: Axes) -> None:
    for y, modules in enumerate(kinds.values()):
        norms = [one.norm for one in modules]
        ax.barh(y, np.mean(norms), height=0.62, color=shade(COLORS["lora"], -0.45))
        if len(norms) > 1:
            ax.plot(norms, np.full(len(norms), y), "|", ms=11, mew=1.1, alpha=0.8,
                    color=shade(COLORS["lora"], 0.45))  # fmt: skip
    ax.set_yticks(range(len(kinds)), list(kinds), parse_math=False)
    ax.invert_yaxis()
    ax.yaxis.grid(False)
    ax.xaxis.grid(True)
    ax.set(xlabel="‖ΔW‖ (bar: the mean; ticks: each module)", xlim=(0, None))
    ax.set_title("How much changed")


def _plot_spectra(modules: list[Inspected], ax: Axes) -> None:
    """The singular values of each ΔW as parts of its largest, and for each of the most common ranks
    their median."""
    from matplotlib.ticker import MaxNLocator

    by_rank: dict[int, list[np.ndarray]] = {}
    for one in modules:
        S = np.array(one.singular_values) / one.singular_values[0]
        by_rank.setdefault(len(S), []).append(S)
        label = "each module" if one is modules[0] else None
        ax.plot(range(1, len(S) + 1), S, color="0.45", lw=0.7, alpha=0.4, label=label)
    common = sorted(by_rank, key=lambda n: -len(by_rank[n]))[:4]
    for i, n in enumerate(sorted(common)):
        look = {"color": rank_color(n), "ls": DASHES[i], "marker": MARKERS[i]}
        ax.plot(range(1, n + 1), np.median(by_rank[n], axis=0), **look, label=f"median, r = {n}")
    ax.set(xlabel="direction i of ΔW", ylabel="$\\sigma_i\\; /\\; \\sigma_1$")
    ax.set(ylim=(0, 1.04), xlim=(0.5, max(by_rank) + 0.5))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_title("In how many directions")
    ax.legend(loc="best")

"""Who overfits when there is little text?

The same number of steps, with fewer characters to learn from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minilora.experiments.rows import Rows
from minilora.experiments.tuning import tune
from minilora.plots.axes import by_method, figure_with_panels, legend_below, plot_spread
from minilora.plots.house_style import style
from minilora.studies.study import Settings, Study, each
from minilora.training.quality import NATS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def settings(seeds: range) -> list[Settings]:
    sizes = [{"characters": n} for n in (5_000, 20_000, 100_000, 600_000)]
    methods: list[Settings] = [{"method": "full"}, *({"method": "lora", "r": r} for r in (1, 4))]
    return each([m | size for m in methods for size in sizes], ("code",), seeds)


def small_data_run(**settings: Any) -> Rows:
    """Quality along the way, where there is little to learn from; test is None if it diverged."""
    t = tune(**settings, evaluate_every=50)
    curve = t.training.history.evaluations
    test = None if t.diverged else t.task.test(t.model)
    return [t.row | {"characters": settings["characters"], "curve": curve, "test": test}]


@style()
def small_data_figure(rows: Rows) -> Figure:
    title = "Quality by how much text there is to learn from"
    figure, panels = figure_with_panels(title, rows, 1, 2)
    plot_small_data(rows, panels[0])
    plot_overfitting(rows, panels[1])
    legend_below(figure, panels[0])
    return figure


def plot_small_data(rows: Rows, ax: Axes) -> Axes:
    """Test loss at the end of training by the number of characters to learn from."""
    for same, look in by_method(rows):
        plot_spread(same, ax, "characters", "test", **look)
    _characters_axis(ax)
    ax.set_ylabel(f"test loss ({NATS.unit})")
    ax.set_title("Test loss at the end of training")
    return ax


def plot_overfitting(rows: Rows, ax: Axes) -> Axes:
    """How far the validation loss has risen, at the end, above its lowest along the way."""
    for same, look in by_method(rows):
        risen = [row | {"risen": _rise(row["curve"])} for row in same]
        plot_spread(risen, ax, "characters", "risen", **look)
    _characters_axis(ax)
    ax.set_ylabel(f"rise ({NATS.unit})")
    ax.set_title("Validation loss: rise above its lowest")
    return ax


def _rise(curve: list[tuple[int, float]]) -> float:
    return curve[-1][1] - min(value for _, value in curve)


def _characters_axis(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.set_xlabel("characters to learn from")


STUDY = Study(
    "Who overfits when there is little text?",
    settings,
    small_data_run,
    by=("method", "r", "characters"),
    shows=("test",),
    figure=small_data_figure,
    at_scale=(
        "We know of no measurement at scale that varies the amount of text with rank and full "
        "fine-tuning side by side."
    ),
)

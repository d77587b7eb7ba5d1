"""What is forgotten for what is learned?

Loss on the old task beside loss on the new one, all along each training (Biderman et al. 2024).
"""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING, Any

from minilora.experiments.sweeps import Rows
from minilora.experiments.tasks import NATS, Task
from minilora.experiments.tuning import tune
from minilora.methods.registry import LABELS
from minilora.plots.axes import distinct, figure_with_panels, legend_below, select
from minilora.plots.house_style import COLORS, DASHES, shade, style
from minilora.studies.study import Settings, Study, each
from minilora.transformer import Transformer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def settings(seeds: range) -> list[Settings]:
    rates = {"full": (3e-4, 1e-3, 2e-3), "lora": (2e-3, 1e-2)}
    runs: list[Settings] = [
        {"method": method, "lr": lr, "steps": 600} for method in rates for lr in rates[method]
    ]
    return each(runs, ("code",), seeds)


def frontier_run(**settings: Any) -> Rows:
    """New and old quality (on val and on test) together, along the way."""
    olds = []

    def both(task: Task, model: Transformer) -> float:
        olds.append(task.old(model))
        return task.val(model)

    t = tune(**settings, evaluate_every=50, evaluate=both)
    evaluations = zip(t.training.history.evaluations, olds, strict=True)
    curve = [(step, new, old) for (step, new), old in evaluations]
    return [t.row | {"val": curve[-1][1], "old": curve[-1][2], "curve": curve}]


@style()
def forgetting_frontier_figure(rows: Rows) -> Figure:
    """The whole of each training, and larger, all but its first evaluation, at the base model."""
    title = "What is forgotten for what is learned"
    figure, panels = figure_with_panels(title, rows, 1, 2, "thin lines: each of them")
    plot_forgetting_frontier(rows, panels[0]).set_title("From the base model on")
    tails = [row | {"curve": row["curve"][1:]} for row in rows]
    plot_forgetting_frontier(tails, panels[1]).set_title(f"From step {tails[0]['curve'][0][0]} on")
    legend_below(figure, panels[0], lines=2)
    return figure


def plot_forgetting_frontier(rows: Rows, ax: Axes) -> Axes:
    """Loss on the old task against loss on the new one, along each training; an arrow at its end.
    The seeds are thin lines, their mean is a thick one."""
    for method, marker in (("full", "o"), ("lora", "s")):
        for i, lr in enumerate(distinct(select(rows, method=method), "lr")):
            same = select(rows, method=method, lr=lr)
            color = shade(COLORS[method], (-0.45, 0.0, 0.5)[i])
            for row in same:
                _, *seed = zip(*row["curve"], strict=True)
                ax.plot(*seed, color=color, lw=0.7, alpha=0.5)
            new, old = mean_curve(same)
            look: dict[str, Any] = {"color": color, "marker": marker, "ls": DASHES[i]}
            ax.plot(new, old, **look, label=f"{LABELS[method]}, rate {lr:g}")
            arrow = {"arrowstyle": "-|>", "color": color, "lw": 1.5, "mutation_scale": 18}
            ax.annotate("", (new[-1], old[-1]), xytext=(new[-3], old[-3]), arrowprops=arrow)
    step, new_start, old_start = rows[0]["curve"][0]
    if step == 0:
        ax.plot(new_start, old_start, "*", color="black", ms=13, zorder=5, label="base model")
    ax.set_xlabel(f"new task, validation loss ({NATS})")
    ax.set_ylabel(f"old task, test loss ({NATS})")
    return ax


def mean_curve(rows: Rows) -> tuple[list[float], list[float]]:
    """(new, old) at each evaluation, mean over the seeds."""
    points = list(zip(*(row["curve"] for row in rows), strict=True))
    new, old = ([mean(point[i] for point in same) for same in points] for i in (1, 2))
    return new, old


STUDY = Study(
    "What is forgotten for what is learned?",
    settings,
    frontier_run,
    by=("method", "lr"),
    shows=("val", "old"),
    figure=forgetting_frontier_figure,
)

"""What is forgotten for what is learned?

Loss on the old task beside loss on the new one, all along each training (Biderman et al. 2024).
"""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING, Any

from minilora.experiments.rows import Rows, distinct, select
from minilora.experiments.tasks import load_task
from minilora.experiments.tuning import tune
from minilora.methods.registry import LABELS
from minilora.plots.axes import figure_with_panels, legend_below
from minilora.plots.house_style import COLORS, DASHES, NOTE_SIZE, shade, style
from minilora.studies.study import Settings, Study, each
from minilora.training.quality import NATS
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


def frontier_run(task: str, **settings: Any) -> Rows:
    """Quality on the new task's validation split and on the old task's test split together, along
    the way; at the end None if it diverged."""
    olds, measured = [], load_task(task)

    def both(model: Transformer) -> float:
        olds.append(measured.old(model))
        return measured.val(model)

    t = tune(measured, **settings, evaluate_every=50, evaluate=both)
    evaluations = zip(t.training.history.evaluations, olds, strict=True)
    curve = [[step, new, old] for (step, new), old in evaluations]
    _, val, old = [None] * 3 if t.diverged else curve[-1]
    return [t.row | {"val": val, "old": old, "curve": curve}]


@style()
def forgetting_frontier_figure(rows: Rows) -> Figure:
    title = "What is forgotten for what is learned"
    figure, (ax,) = figure_with_panels(title, rows, 1, 1, "large mark: its end, small: theirs")
    plot_forgetting_frontier(rows, ax)
    legend_below(figure, ax, lines=2)
    return figure


def plot_forgetting_frontier(rows: Rows, ax: Axes) -> Axes:
    """Loss on the old task against loss on the new one, mean over the seeds, from the first
    evaluation after the base model, whose old loss is a level, to the end, which is marked."""
    for method, marker in (("full", "o"), ("lora", "s")):
        for i, lr in enumerate(distinct(select(rows, method=method), "lr")):
            same = select(rows, method=method, lr=lr)
            new, old = mean_curve(same)
            color = shade(COLORS[method], (-0.45, 0.0, 0.5)[i])
            label = f"{LABELS[method]}, rate {lr:g}"
            look: dict[str, Any] = {"color": color, "marker": marker}
            ax.plot(new[1:], old[1:], ls=DASHES[i], ms=8, markevery=[-1], label=label, **look)
            _, *ends = zip(*(row["curve"][-1] for row in same), strict=True)
            ax.plot(*ends, ls="", ms=4, mfc="white", zorder=4, **look)
    _, new_start, old_start = rows[0]["curve"][0]
    ax.axhline(old_start, color="black", lw=1, ls=":")
    base = f"base model: {old_start:.2f} on the old task, {new_start:.2f} on the new"
    ax.annotate(base, (1, old_start), xycoords=("axes fraction", "data"), xytext=(0, 4),
                textcoords="offset points", ha="right", fontsize=NOTE_SIZE)  # fmt: skip
    ax.annotate("better", (0.02, 0.2), xytext=(0.1, 0.32), xycoords="axes fraction", ha="center",
                va="center", arrowprops={"arrowstyle": "-|>", "color": "black"})  # fmt: skip
    ax.set_xlabel(f"new task, validation loss ({NATS.unit}), from step {rows[0]['curve'][1][0]} on")
    ax.set_ylabel(f"old task, test loss ({NATS.unit})")
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
    at_scale=(
        "It is disputed. On Llama-2-7B LoRA of r = 256 kept more than full fine-tuning after "
        "continued pretraining on code (.617 and .545 on the old tasks; Biderman et al. 2024); "
        "on Llama-3.2-3B full fine-tuning at its gentle rate, 1e-5, lost less (the loss on "
        "Wikipedia rises by .030) than LoRA of r = 32 on q and v (.050) and no more than LoRA "
        "on the MLP (.032; PEFT's MetaMathQA benchmark)."
    ),
)

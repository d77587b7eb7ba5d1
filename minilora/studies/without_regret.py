"""When does LoRA equal full fine-tuning?

"LoRA Without Regret" (Schulman et al. 2025) in miniature, on Python code: the best rate by rank,
the loss along a longer training, batches of several sizes, and attention or MLP at equal budget.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import mean
from typing import TYPE_CHECKING, Any

from minilora.experiments.rows import Rows, distinct, select, spread
from minilora.experiments.tasks import load_task
from minilora.experiments.tuning import pause_at, set_up
from minilora.plots.axes import (
    by_method,
    figure_with_panels,
    fixed_ticks,
    legend_below,
    log2_axis,
    plot_spread,
)
from minilora.plots.house_style import COLORS, style
from minilora.studies.learning_rate_sweep import LOW_RANK_RATES
from minilora.studies.study import Settings, Study, each
from minilora.studies.which_weights import BUDGETS, PLACES
from minilora.training.quality import NATS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


RANKS = (1, 4, 16, 64)
STOPS = (10, 20, 50, 100, 200, 400, 600)  # of the longer training
BATCHES = {4: 960, 16: 240, 64: 60}  # so many steps see 3,840 examples
BATCH_RATES = {  # a batch four times as large needs about twice the rate
    4: {"full": (5e-4, 1e-3, 2e-3), "lora": (5e-3, 1e-2, 2e-2)},
    16: {"full": (1e-3, 2e-3, 4e-3), "lora": (1e-2, 2e-2, 4e-2)},
    64: {"full": (2e-3, 4e-3, 8e-3), "lora": (2e-2, 4e-2, 8e-2)},
}
PLACE_RATES = (3e-3, 1e-2, 2e-2)


def settings(seeds: range) -> list[Settings]:
    """Rates are sought with the first seed; the other seeds repeat the best for each batch and each
    place. The rates of full fine-tuning and of r = 4 on all matrices are in
    learning_rate_sweep."""
    tried = [_rate(r, lr) for r in RANKS if r != 4 for lr in LOW_RANK_RATES]
    tried += [
        _batch(method, size, lr)
        for size, rates in BATCH_RATES.items() for method, some in rates.items() for lr in some
    ]  # fmt: skip
    tried += [_place(place, lr) for place in ("q,k,v,o", "MLP") for lr in PLACE_RATES]
    longer = [{"method": "full", "lr": 2e-3}, *(_lora(r, 1e-2) for r in RANKS)]
    every = [{"part": "longer", "steps": STOPS[-1]} | how for how in longer]
    code = ("code",)
    return each(every, code, seeds) + each(tried, code, seeds[:1]) + each(BEST, code, seeds[1:])


def _lora(r: int, lr: float) -> Settings:
    return {"method": "lora", "r": r, "lr": lr}


def _batch(method: str, size: int, lr: float) -> Settings:
    how = {"method": method, "lr": lr, "steps": BATCHES[size]}
    return {"part": "batches", "batch": size} | how


def _place(place: str, lr: float) -> Settings:
    return {"part": "places", "place": place} | _lora(BUDGETS["code"][place], lr)


def _rate(r: int, lr: float) -> Settings:
    return {"part": "rates"} | _lora(r, lr)


BEST = [
    *(_batch("full", size, lr) for size, lr in ((4, 1e-3), (16, 2e-3), (64, 4e-3))),
    *(_batch("lora", size, lr) for size, lr in ((4, 5e-3), (16, 1e-2), (64, 4e-2))),
    _place("q,k,v,o", 1e-2),
    _place("MLP", 2e-2),
]


def regret_run(task: str, part: str, batch: int = 12, place: str = "all", **settings: Any) -> Rows:
    """Quality at the end, and of part "longer" also the validation loss along the way."""
    found = load_task(task)
    found = replace(found, data=replace(found.data, batch_size=batch))
    if settings["method"] == "lora":
        settings["target_modules"] = PLACES[place]
    t = set_up(found, **settings)
    steps = t.training.config.steps
    stops = [stop for stop in STOPS if part == "longer" and stop < steps] + [steps]
    curve = [[step, found.val(t.model)] for step in pause_at(t, stops)]
    val, test = (None, None) if t.diverged else (curve[-1][1], found.test(t.model))
    about = {"part": part, "batch": batch, "place": place}
    return [t.row | about | {"val": val, "test": test, "curve": curve}]


@style()
def without_regret_figure(rows: Rows, swept: Rows) -> Figure:
    """swept: of learning_rate_sweep."""
    title = "LoRA Without Regret, in miniature: Python code"
    figure, panels = figure_with_panels(title, rows, 2, 2)
    first = rows[0]["seed"]
    plot_rates(select(rates_by_rank(rows, swept), seed=first), panels[0])
    plot_longer(select(rows, part="longer"), panels[1])
    plot_batches(select(rows, part="batches"), panels[2])
    plot_places([*select(rows, part="places"), *all_at_rank_4(swept)], panels[3])
    legend_below(figure, panels[0])
    return figure


def rates_by_rank(rows: Rows, swept: Rows) -> Rows:
    """Full fine-tuning and LoRA of every rank, at every rate that was tried."""
    full = select(swept, task="code", method="full")
    return [*full, *all_at_rank_4(swept), *select(rows, part="rates")]


def all_at_rank_4(swept: Rows) -> Rows:
    """LoRA on all matrices, at every rate that was tried."""
    lora = select(swept, task="code", method="lora")
    return [row | {"place": "all", "r": 4} for row in lora]


def _looks() -> dict[int | None, dict[str, Any]]:
    """How the lines of full fine-tuning (None) and of each rank look in all panels."""
    known: Rows = [{"method": "full", "r": None}, *({"method": "lora", "r": r} for r in RANKS)]
    return {same[0]["r"]: look for same, look in by_method(known)}


def best_rate(rows: Rows) -> float:
    """The rate that is best on the validation split, mean over the seeds that tried it."""
    rates, means, _, _ = spread(rows, "lr", "val")
    return rates[means.index(min(means))]


def plot_rates(rows: Rows, ax: Axes) -> Axes:
    """Validation loss by rate, a line for each rank. A ring marks the best rate of each."""
    for r, look in _looks().items():
        rates, losses, _, _ = spread(select(rows, r=r), "lr", "val")
        ax.plot(rates, losses, **look)
        best = losses.index(min(losses))
        ring: dict[str, Any] = {"marker": "o", "ms": 13, "mfc": "none", "mew": 1.6}
        ax.plot(rates[best], losses[best], color=look["color"], **ring)
    ax.set_xscale("log")
    least = min(row["val"] for row in rows)
    ax.set_ylim(least - 0.02, least + 0.32)  # a rate that is far too high would hide the others
    ax.set_xlabel("learning rate (ring: best)")
    ax.set_ylabel(f"validation loss ({NATS.unit})")
    ax.set_title("Rates by rank, first seed")
    return ax


def plot_longer(rows: Rows, ax: Axes) -> Axes:
    """Validation loss along a training of 600 steps, a line for each rank."""
    for r, look in _looks().items():
        along = [
            {"step": step, "val": val} for row in select(rows, r=r) for step, val in row["curve"]
        ]
        plot_spread(along, ax, "step", "val", **look)
    ax.set_xscale("log")
    fixed_ticks(ax, STOPS)
    ax.set_xlabel("step")
    ax.set_ylabel(f"validation loss ({NATS.unit})")
    ax.set_title(f"Along {STOPS[-1]} steps")
    return ax


def plot_batches(rows: Rows, ax: Axes) -> Axes:
    """Test loss by the size of a batch, with as many examples seen, each at its best rate."""
    looks = _looks()
    for r in (None, 4):
        at_best = []
        for batch in distinct(rows, "batch"):
            same = select(rows, r=r, batch=batch)
            at_best += select(same, lr=best_rate(select(same, seed=0)))
        plot_spread(at_best, ax, "batch", "test", **looks[r])
    log2_axis(ax, list(BATCHES))
    ax.set_xlabel("examples in a batch, each at its best rate")
    ax.set_ylabel(f"test loss ({NATS.unit})")
    ax.set_title("3,840 examples in batches")
    return ax


def plot_places(rows: Rows, ax: Axes) -> Axes:
    """Test loss by the place of LoRA, with as many trained numbers, each at its best rate: the
    mean, and a line from the lowest seed to the highest."""
    names = []
    for i, place in enumerate(("q,k,v,o", "MLP", "all")):
        same = select(rows, place=place)
        lr = best_rate(select(same, seed=0))
        values = [row["test"] for row in select(same, lr=lr)]
        ax.plot([min(values), max(values)], [i, i], color="black", lw=1.2, zorder=3)
        ax.plot(mean(values), i, "s", color=COLORS["lora"], ms=7, zorder=4)
        names.append(f"{place}\nr = {same[0]['r']}, rate {lr:g}")
    ax.set_yticks(range(3), names)
    ax.set_ylim(2.5, -0.5)
    ax.xaxis.grid(True)
    ax.set_xlabel(f"test loss ({NATS.unit})")
    ax.set_ylabel("adapted matrices")
    ax.set_title("Attention or MLP, ≈ 18,000 parameters")
    return ax


STUDY = Study(
    "When does LoRA equal full fine-tuning?",
    settings,
    regret_run,
    by=("part", "method", "r", "place", "batch", "lr"),
    shows=("val", "test"),
    figure=without_regret_figure,
    at_scale=(
        "The claims are made there (Schulman et al. 2025, Llama-3 and Qwen3 models): the best "
        "rate is 9.8 times full fine-tuning's and nearly the same for ranks 4 to 512, LoRA "
        "falls behind where its rank is too small for the data or the batch is large, attention "
        "alone is worse than the MLP, and a matrix of N x N costs 2N² + 6Nr operations a step "
        "instead of 3N², two thirds where r is small."
    ),
    beside=("learning_rate_sweep",),
)

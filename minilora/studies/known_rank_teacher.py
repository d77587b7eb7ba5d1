"""Does LoRA find a change of known rank?

A linear layer W0 must become W0 + Δ, where Δ has rank k. LoRA of rank r learns it from samples; its
loss on new ones stands beside the least that any change of rank r allows (Eckart & Young 1936).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from minilora.analysis.spectrum import eckart_young_tail
from minilora.experiments.rows import Rows, distinct, select, spread
from minilora.lora import LoraLinear, LowRank
from minilora.lora_init import initial_factors
from minilora.nn import Linear
from minilora.optim import AdamW, warmup_cosine
from minilora.plots.axes import legend_below, panel_for_each, plot_spread, rank_axis
from minilora.plots.house_style import COLORS, DASHES, MARKERS, NOTE_SIZE, shade, style
from minilora.studies.study import Settings, Study
from minilora.system.checks import require_between, require_whole
from minilora.system.cores import one_blas_thread
from minilora.system.errors import UsageError
from minilora.tensor import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def settings(seeds: range) -> list[Settings]:
    ranks = {4: (1, 2, 3, 4, 5, 6, 8, 16, 32, 64), 16: (1, 2, 4, 8, 12, 15, 16, 17, 20, 32, 64)}
    return [
        {"k": k, "spectrum": spectrum, "r": r, "seed": seed}
        for k in ranks for spectrum in ("flat", "geometric") for r in ranks[k] for seed in seeds
    ]  # fmt: skip


@one_blas_thread()
def teacher_run(k: int, spectrum: str, r: int, seed: int) -> Rows:
    """The loss of LoRA of rank r on new samples, after it has learned from 1,024, and the least
    that rank r allows: Σ σ_i² / d over the singular values of Δ beyond the r largest.

    spectrum: of Δ, "flat" (all σ are 1) or "geometric" (from 2 down to 0.2). Raises UsageError for
    another, and for ranks that are not from 1 to d = 64.
    """
    d, samples = 64, 1024
    require_whole(1, k=k, r=r)
    require_between(1, d, k=k, r=r)
    if spectrum not in ("flat", "geometric"):
        raise UsageError(f'spectrum must be "flat" or "geometric", got {spectrum!r}')
    rng = np.random.default_rng(seed)
    base = Linear(d, d, bias=False, rng=rng).to(np.float64)
    U, V = (np.linalg.qr(rng.standard_normal((d, d)))[0][:, :k] for _ in range(2))
    sigma = {"flat": np.ones(k), "geometric": np.geomspace(2, 0.2, k)}[spectrum]
    delta = (U * sigma) @ V.T
    target = base.weight.data + delta
    x, x_test = rng.standard_normal((samples, d)), rng.standard_normal((4096, d))
    layer = LoraLinear(base)
    layer.adapters["default"] = LowRank(*initial_factors(base.weight.data, r, 1.0, True, rng), 1.0)
    layer.active = "default"
    base.requires_grad_(False)
    _fit(layer, x, x @ target)
    missing = target - base.weight.data - layer.delta_weight("default")
    loss = float(np.mean((x_test @ missing) ** 2))
    bound = eckart_young_tail(delta, r) / d if r < k else 0.0
    return [{"k": k, "spectrum": spectrum, "r": r, "seed": seed, "loss": loss, "bound": bound}]


def _fit(layer: LoraLinear, x: np.ndarray, y: np.ndarray, steps: int = 400) -> None:
    """Least squares, all samples in every step; the rate falls from 0.02 along a cosine."""
    optimizer = AdamW(layer.trainable_parameters(), betas=(0.9, 0.999), weight_decay=0)
    inputs, answers = Tensor(x), Tensor(y)
    for i in range(steps):
        error = layer(inputs) - answers
        (error * error).mean().backward()
        optimizer.lr = 2e-2 * warmup_cosine(i, steps, warmup=1, final=0)
        optimizer.step()
        optimizer.zero_grad()


@style()
def known_rank_teacher_figure(rows: Rows) -> Figure:
    title = "A change of known rank k, learned with LoRA of rank r"
    figure, panels = panel_for_each("k", rows, plot_known_rank_teacher, title)
    legend_below(figure, panels[0])
    return figure


def plot_known_rank_teacher(rows: Rows, ax: Axes) -> Axes:
    """Loss on new samples by r, of the rows of one k, beside the least that each rank allows."""
    for i, spectrum in enumerate(distinct(rows, "spectrum")):
        same = select(rows, spectrum=spectrum)
        color = shade(COLORS["lora"], 0.45 * i)
        look = {"ls": DASHES[i], "marker": MARKERS[1 + i]}
        plot_spread(same, ax, "r", "loss", color=color, label=f"LoRA, {spectrum} spectrum", **look)
        xs, bounds, _, _ = spread([row for row in same if row["r"] < row["k"]], "r", "bound")
        ax.plot(xs, bounds, "_", color="black", ms=13, mew=1.2, zorder=4)
    ax.plot([], [], "_", color="black", ms=13, mew=1.2, label="least possible (Eckart & Young)")
    k = rows[0]["k"]
    ax.axvline(k, color="black", lw=1, ls=":")
    ax.annotate("r = k", (k, 1), xycoords=("data", "axes fraction"), xytext=(4, -10),
                textcoords="offset points", fontsize=NOTE_SIZE)  # fmt: skip
    ax.set_yscale("symlog", linthresh=1e-6, linscale=0.5)  # what is below is 0 but for rounding
    ax.set_ylim(-1e-7, 1)
    rank_axis(ax, [1, 2, 4, 8, 16, 32, 64])
    ax.set_ylabel("mean squared error on new samples\n(log scale down to 1e-6, then linear)")
    ax.set_title(f"Δ of rank k = {k}")
    return ax


STUDY = Study(
    "Does LoRA find a change of known rank?",
    settings,
    teacher_run,
    by=("k", "spectrum", "r"),
    shows=("loss", "bound"),
    figure=known_rank_teacher_figure,
    at_scale=(
        "It cannot be asked there, as no k is known of a real task. The nearest to it shows no "
        "knee: on GPT-3 175B, r = 1 on q and v reaches 73.4 on WikiSQL and r = 64 reaches 73.5 "
        "(Hu et al. 2021, Table 6)."
    ),
)

"""What LoRA is, drawn: x goes through the frozen W and, beside it, through A and B; both are added.

The matrices are drawn to scale, with as many rows as they read numbers and as many columns as they
write (Hu et al. 2021, figure 1, which draws no sizes). In `counts_picture` an area is a count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minilora.plots.house_style import COLORS, NOTE_SIZE, style
from minilora.system.checks import require_whole
from minilora.system.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float]
FROZEN = "#D9D9D9"
_SIDE = 3.0  # of the longer side of W, in the units of the axes
_LEFT = 1.5  # where matrices begin; x stands at 0
_LANE = 0.6 + _SIDE / 2  # how far above x stands the middle of W, and below it that of A and B
_BOTTOM = _LANE + _SIDE / 2 + 1.0


@style()
def lora_picture(d_in: int = 128, d_out: int = 128, r: int = 4) -> Figure:
    """Full fine-tuning and LoRA of one matrix, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.1), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.3])
    draw_full(left, d_in, d_out)
    draw_lora(right, d_in, d_out, r)
    return figure


@style()
def counts_picture(sizes: Sequence[tuple[int, int]], r: int) -> Figure:
    """W (d_in, d_out) of each of these sizes in blue, A (d_in, r) on its left and B (r, d_out)
    above it in orange, all to one scale. Raises UsageError (a ValueError) for a size below 1."""
    from matplotlib.figure import Figure

    if not sizes:
        raise UsageError("there is nothing to draw: give sizes, such as [(128, 128)]")
    figure = Figure(figsize=(8, 4), layout="constrained")
    ax = figure.subplots()
    tallest, widest = (max(sides) for sides in zip(*sizes, strict=True))
    gap, left = widest / 40, 0.0
    for d_in, d_out in sizes:
        require_whole(1, d_in=d_in, d_out=d_out, r=r)
        _box(ax, (left, 0), d_in, r, COLORS["lora"])
        _box(ax, (left + r + gap, 0), d_in, d_out, COLORS["full"])
        _box(ax, (left + r + gap, d_in + gap), r, d_out, COLORS["lora"])
        W, both = d_in * d_out, r * (d_in + d_out)
        count = f"W  {d_in:,} × {d_out:,}\n{W:,}\nA and B  {both:,}\n{100 * both / W:.4g} % of W's"
        ax.text(left + r + gap, -gap, count, ha="left", va="top")
        for x, y, name in ((-gap, d_in / 2, "A"), (r + gap + d_out / 2, d_in + 2 * gap + r, "B")):
            ax.text(left + x, y, name, ha="center", va="center")
        ax.text(left + r + gap + d_out / 2, d_in / 2, "W", color="white", ha="center", va="center")
        left += r + gap + max(d_out, 0.32 * widest) + 4 * gap
    ax.set_title(f"An area is a count: W in blue, A and B of rank {r} in orange")
    ax.set_xlim(-2 * gap, left)
    ax.set_ylim(-0.36 * tallest, tallest + r + 3 * gap)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return figure


def draw_full(ax: Axes, d_in: int = 128, d_out: int = 128) -> Axes:
    """x (d_in numbers) → W (d_in, d_out) → y (d_out numbers), where all of W trains."""
    height, width, _ = _sizes(d_in, d_out, 1)
    _matrix(ax, (_LEFT, 0), height, width, COLORS["full"], "W trains", f"{d_in} × {d_out}")
    _from_x(ax, (_LEFT, 0))
    _to_y(ax, (_LEFT + width, 0))
    note = f"{d_in * d_out:,} numbers train"
    ax.text(_LEFT + width / 2, -_BOTTOM, note, ha="center", va="bottom")
    ax.set_title("Full fine-tuning:  y = x W")
    return _finish(ax, _LEFT + width + 1.6)


def draw_lora(ax: Axes, d_in: int = 128, d_out: int = 128, r: int = 4) -> Axes:
    """x (d_in numbers) → the frozen W (d_in, d_out), and x → A (d_in, r) → B (r, d_out), times s;
    their sum is y (d_out numbers). Raises UsageError (a ValueError) for a size below 1."""
    height, width, thin = _sizes(d_in, d_out, r)
    b_left = _LEFT + thin + 1.2
    plus = b_left + width + 0.9
    _matrix(ax, (_LEFT, _LANE), height, width, FROZEN, "W frozen", f"{d_in} × {d_out}")
    _matrix(ax, (_LEFT, -_LANE), height, thin, COLORS["lora"], "A", f"{d_in} × {r}")
    _matrix(ax, (b_left, -_LANE), thin, width, COLORS["lora"], "B, zero at first", f"{r} × {d_out}")
    _from_x(ax, (_LEFT, _LANE), (_LEFT, -_LANE))
    _arrow(ax, (_LEFT + thin, -_LANE), (b_left, -_LANE))
    _arrow(ax, (_LEFT + width, _LANE), (plus - 0.2, 0.25))
    _arrow(ax, (b_left + width, -_LANE), (plus - 0.1, -0.25))
    ax.text(plus - 0.25, -_LANE / 2 - 0.25, "times s", ha="left", va="center", fontsize=NOTE_SIZE)
    ax.text(plus, 0, "+", ha="center", va="center", fontsize=16)
    _to_y(ax, (plus + 0.2, 0))
    trained = r * (d_in + d_out)
    note = f"{trained:,} numbers train, {100 * trained / (d_in * d_out):.3g} % of W's"
    ax.text(b_left + width / 2, -_BOTTOM, note, ha="center", va="bottom")
    ax.set_title("LoRA:  y = x W + s (x A) B")
    return _finish(ax, plus + 1.7)


def _matrix(
    ax: Axes, left: Point, height: float, width: float, color: str, name: str, size: str
) -> None:
    """left: the middle of its left side."""
    x, y = left
    _box(ax, (x, y - height / 2), height, width, color)
    ax.text(x + width / 2, y + height / 2 + 0.1, name, ha="center", va="bottom", weight="bold")
    ax.text(x + width / 2, y - height / 2 - 0.1, size, ha="center", va="top", fontsize=NOTE_SIZE)


def _box(ax: Axes, corner: Point, height: float, width: float, color: str) -> None:
    """corner: the lower left one."""
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle(corner, width, height, color=color, lw=0))


def _sizes(d_in: int, d_out: int, r: int) -> tuple[float, float, float]:
    """Height and width of W and thickness of A and B. Thinner than 0.06 cannot be seen."""
    require_whole(1, d_in=d_in, d_out=d_out, r=r)
    unit = _SIDE / max(d_in, d_out)
    return d_in * unit, d_out * unit, max(r * unit, 0.06)


def _arrow(ax: Axes, start: Point, end: Point) -> None:
    look = {"arrowstyle": "-|>", "color": "0.25", "shrinkA": 2, "shrinkB": 1}
    ax.annotate("", end, start, arrowprops=look)


def _from_x(ax: Axes, *ends: Point) -> None:
    ax.text(0, 0, "x", ha="center", va="center", fontsize=13)
    for x, y in ends:
        _arrow(ax, (0.25, math.copysign(0.15, y) if y else 0), (x, y))


def _to_y(ax: Axes, start: Point) -> None:
    _arrow(ax, start, (start[0] + 1.0, 0))
    ax.text(start[0] + 1.2, 0, "y", ha="center", va="center", fontsize=13)


def _finish(ax: Axes, right: float) -> Axes:
    ax.set_xlim(-0.3, right)
    ax.set_ylim(-_BOTTOM, _LANE + _SIDE / 2 + 0.6)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax

"""Diagrams of lessons 01 and 02: gradients that flow back through a graph, and a transformer block.

Both are drawn from boxes and arrows on axes without a frame. What flows back is purple; matrices
that LoRA adapts are orange, as LoRA is everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minilora.plots.house_style import COLORS, NOTE_SIZE, shade, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float]
BACK = "#8E3B76"  # what flows back: the purple of Okabe and Ito, darker, so that text can be read
_PLAIN = "#EDEDED"


@style()
def graph_picture(a: float = 2, b: float = -3, c: float = 10) -> Figure:
    """The graph of L = (a b + c) a with its values and, below them, the gradients dL/d(value)."""
    from matplotlib.figure import Figure

    e, d = a * b, a * b + c
    figure = Figure(figsize=(8.5, 3.5), layout="constrained")
    ax = figure.subplots()
    places = {
        "a": (0, 2.5), "b": (0, 1.25), "c": (0, 0), "e = a b": (2.3, 1.45),
        "d = e + c": (4.6, 0.75), "L = d a": (6.9, 1.45),
    }  # fmt: skip
    values = dict(zip(places, (a, b, c, e, d, d * a), strict=True))
    grads = dict(zip(places, (d + a * b, a * a, a, a, a, 1), strict=True))
    sent = {
        ("a", "e = a b"): a * b, ("b", "e = a b"): a * a, ("e = a b", "d = e + c"): a,
        ("c", "d = e + c"): a, ("d = e + c", "L = d a"): a, ("a", "L = d a"): d,
    }  # fmt: skip
    for (start, end), gradient in sent.items():
        (x0, y0), (x1, y1) = places[start], places[end]
        _arrow(ax, (x0 + 0.62, y0), (x1 - 0.62, y1 + (0.2 if y0 > y1 else -0.2)))
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        ax.text(x, y, f"← {_signed(gradient)}", ha="center", va="center", color=BACK,
                bbox={"fc": "white", "ec": "none", "pad": 2})  # fmt: skip
    for name, (x, y) in places.items():
        _box(ax, (x, y), 1.24, 0.86, _PLAIN)
        ax.text(x, y + 0.19, f"{name} = {_signed(values[name])}", ha="center", va="center")
        ax.text(x, y - 0.2, f"gradient {_signed(grads[name])}", ha="center", va="center",
                color=BACK, weight="bold")  # fmt: skip
    ax.set_title("Forward from left to right, and back again")
    return _finish(figure, ax, (-0.75, 7.65), (-0.55, 3.05))


@style()
def block_picture() -> Figure:
    """One block: the residual stream, and what attention and the MLP read from and add to it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.7), layout="constrained")
    ax = figure.subplots()
    orange = shade(COLORS["lora"], -0.35)
    _arrow(ax, (0.5, 0), (12.6, 0), width=3)
    ax.text(0.4, 0, "x", ha="right", va="center", fontsize=13)
    ax.text(12.7, 0, "to the\nnext block", ha="left", va="center")
    ax.text(6.45, -0.3, "residual stream (T, C): attention and MLP only add to it",
            ha="center", va="top", fontsize=NOTE_SIZE + 0.5)  # fmt: skip
    columns = [
        (1.2, [("norm", _PLAIN, 1.3)]),
        (2.7, [("q", orange, 2.5), ("k", orange, 1.75), ("v", orange, 1.0)]),
        (4.4, [("attention", _PLAIN, 1.75)]),
        (5.9, [("o", orange, 1.3)]),
        (7.3, [("norm", _PLAIN, 1.3)]),
        (8.7, [("up", orange, 1.3)]),
        (10.1, [("GELU", _PLAIN, 1.3)]),
        (11.5, [("down", orange, 1.3)]),
    ]
    for x, boxes in columns:
        for name, color, y in boxes:
            _box(ax, (x, y), 1.3 if name == "attention" else 0.9, 0.56, color)
            ax.text(x, y, name, ha="center", va="center")
    for x in (1.2, 7.3):
        _arrow(ax, (x, 0), (x, 1.0))
    for x in (5.9, 11.5):
        _arrow(ax, (x, 1.0), (x, 0.2))
        ax.text(x, 0, "+", ha="center", va="center", fontsize=15,
                bbox={"boxstyle": "circle,pad=0.1", "fc": "white", "ec": "0.25"})  # fmt: skip
    for y in (2.5, 1.75, 1.0):
        _arrow(ax, (1.66, 1.3), (2.24, y))
        _arrow(ax, (3.16, y), (3.74, 1.75))
    _arrow(ax, (5.06, 1.75), (5.44, 1.4))
    for x0, x1 in ((7.76, 8.24), (9.16, 9.64), (10.56, 11.04)):
        _arrow(ax, (x0, 1.3), (x1, 1.3))
    for x, text in ((3.6, "moves between positions"), (9.4, "each position alone")):
        ax.text(x, 3.0, text, ha="center", va="bottom", fontsize=NOTE_SIZE + 0.5)
    ax.set_title("A block of docs-tiny; the orange boxes are matrices that LoRA adapts")
    return _finish(figure, ax, (0.0, 14.0), (-0.8, 3.4))


def _signed(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _box(ax: Axes, centre: Point, width: float, height: float, color: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    corner = (centre[0] - width / 2, centre[1] - height / 2)
    round_box = "round,pad=0,rounding_size=0.1"
    ax.add_patch(FancyBboxPatch(corner, width, height, round_box, fc=color, ec="0.35", lw=0.8))


def _arrow(ax: Axes, start: Point, end: Point, width: float = 1.2) -> None:
    look = {"arrowstyle": "-|>", "color": "0.35", "lw": width, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=look, zorder=0)


def _finish(figure: Figure, ax: Axes, x: Point, y: Point) -> Figure:
    ax.set(xlim=x, ylim=y)
    ax.set_axis_off()
    return figure

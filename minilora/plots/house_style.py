"""The look of every figure: colours, markers, one style, one way to save.

Full fine-tuning is blue and LoRA orange everywhere; where there are several ranks, the higher is
the darker. The colours are Okabe and Ito's (2008), told apart by colour-blind readers and, being of
different lightness, line and marker, in grey. matplotlib is imported where something is drawn, and
none of its settings is left changed.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilora.system.checks import require_between, require_whole
from minilora.system.errors import UsageError
from minilora.system.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = {"full": "#0072B2", "lora": "#E69F00", "scratch": "#999999"}
FAMILY_COLORS = {
    "full": COLORS["full"],
    "selective": "#56B4E9",
    "additive": "#009E73",
    "reparameterized": COLORS["lora"],
    "scratch": COLORS["scratch"],
}
FAMILY_MARKERS = {"full": "o", "selective": "^", "additive": "D", "reparameterized": "s"}
MARKERS = "osD^vP"
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1, 2)))
NOTE_SIZE = 9  # of the font of notes
_STYLE: Any = {
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "figure.dpi": 100,
    "font.size": 10.5,
    "grid.alpha": 0.35,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.markersize": 4.5,
    "svg.hashsalt": "minilora",  # ids within an SVG are the same in every run
}


@contextmanager
def style() -> Iterator[None]:
    """`with style():` around what draws, or `@style()` above it; undone at the end."""
    try:
        import matplotlib
    except ValueError as error:
        backend = os.environ.get("MPLBACKEND")
        raise UsageError(f"matplotlib knows no MPLBACKEND={backend}; unset it") from error

    with matplotlib.rc_context(_STYLE):
        yield


def shade(color: str, tone: float) -> str:
    """The colour mixed with white (tone from -1 to 0) or with black (from 0 to 1)."""
    from matplotlib.colors import to_hex, to_rgb

    require_between(-1, 1, tone=tone)
    end = 1.0 if tone < 0 else 0.0
    red, green, blue = (c + abs(tone) * (end - c) for c in to_rgb(color))
    return to_hex((red, green, blue))


def rank_color(r: int) -> str:
    """LoRA's orange at r = 4, paler below and darker above. Raises UsageError unless r >= 1."""
    require_whole(1, r=r)
    steps = math.log2(r / 4) / 2
    return shade(COLORS["lora"], max(0.45 * steps, -0.6) if steps < 0 else min(0.35 * steps, 0.8))


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a PNG or, for slides, an SVG, whole or not at all, with nothing in it that changes from
    run to run. Raises UsageError if the name says another format."""
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        name = path.with_suffix(".png").name
        raise UsageError(f"figures are written as PNG or SVG; name it {name}")
    _spell_file_names(figure)
    undated: dict[str, dict[str, str | None]] = {"png": {"Software": None}, "svg": {"Date": None}}
    options: Any = {"dpi": 150, "metadata": undated[kind], "format": kind}
    picture = io.BytesIO()  # as Pillow's errors do not say that the disk is full
    with style():  # some ticks are made only now
        figure.savefig(picture, **options)
    write_atomically(path, lambda file: file.write_bytes(picture.getbuffer()))


def _spell_file_names(figure: Figure) -> None:
    """In the locale C the letters of a file's name come as bytes, which no font has."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        words = text.get_text()
        if not words.isascii():
            name = words.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            text.set_text(name)


def show(figure: Figure, alt: str) -> None:
    """Show a figure below a notebook's cell, with a text for those who cannot see it.

    alt: what the figure shows, in a sentence or two. Outside a notebook matplotlib opens a window.
    Raises UsageError without such a text.
    """
    if not isinstance(alt, str) or len(alt.split()) < 4:
        raise UsageError(f"alt should say in words what the figure shows, got {alt!r}")
    from matplotlib import pyplot as plt

    try:
        from IPython import get_ipython
        from IPython.display import Image, display
    except ImportError:
        get_ipython = None
    if get_ipython is None or get_ipython() is None:
        plt.show()
    else:
        png, width, height = _png_of_double_resolution(figure)
        display(Image(png, format="png", width=width, height=height, alt=alt))
    plt.close(figure)


def _png_of_double_resolution(figure: Figure) -> tuple[bytes, int, int]:
    """(PNG, width, height at single resolution). It has at most 256 colours, which nobody sees in
    our figures and which makes it a third of its size: a notebook of several stays readable on a
    web page."""
    from PIL import Image

    file, small = io.BytesIO(), io.BytesIO()
    figure.savefig(file, format="png", dpi=2 * figure.dpi, bbox_inches="tight", facecolor="white")
    picture = Image.open(file).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(small, "png", optimize=True)
    return small.getvalue(), picture.width // 2, picture.height // 2

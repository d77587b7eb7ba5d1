"""Claims about the diagrams of lessons 01 and 02: their numbers are right, their texts apart."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Annotation

from minilora import Tensor
from minilora.plots import COLORS, block_picture, graph_picture, shade


def texts(figure):
    figure.draw_without_rendering()
    return [t for t in figure.axes[0].texts if not isinstance(t, Annotation) and t.get_text()]


@pytest.mark.parametrize("values", [(2, -3, 10), (-1.5, 4, 0.5)])
def test_the_gradients_in_the_graph_are_those_of_the_engine(values):
    a, b, c = (Tensor(np.float64(v), requires_grad=True) for v in values)
    ((a * b + c) * a).backward()
    shown = [t.get_text().replace("−", "-") for t in texts(graph_picture(*values))]
    gradients = [text.split()[1] for text in shown if text.startswith("gradient")]
    assert gradients[:3] == [f"{x.grad:g}" for x in (a, b, c)]
    assert f"L = d a = {(values[0] * values[1] + values[2]) * values[0]:g}" in shown


@pytest.mark.parametrize("draw", [graph_picture, block_picture])
def test_no_text_covers_another_or_leaves_the_diagram(draw):
    figure = draw()
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts(figure)]
    assert len(boxes) > 10
    for (first, a), (second, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), f"{first!r} covers {second!r}"
    for text, box in boxes:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text


def test_the_boxes_of_a_block_that_lora_adapts_are_orange():
    figure = block_picture()
    orange = to_hex(shade(COLORS["lora"], -0.35))
    places = [p.get_bbox() for p in figure.axes[0].patches if to_hex(p.get_facecolor()) == orange]
    names = [
        t.get_text()
        for t in texts(figure)
        if any(box.contains(*t.get_position()) for box in places)
    ]
    assert sorted(names) == ["down", "k", "o", "q", "up", "v"]

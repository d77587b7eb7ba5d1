"""Claims about the picture of LoRA: it is to scale, in the project's colours, and can be read."""

import itertools

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from minilora.plots import COLORS, counts_picture, draw_full, draw_lora, lora_picture
from minilora.plots.pictures import FROZEN


def sizes(ax):
    return [(box.get_height(), box.get_width()) for box in ax.patches]


@pytest.mark.parametrize(("d_in", "d_out", "r"), [(128, 128, 4), (64, 256, 8), (300, 100, 100)])
def test_matrices_are_drawn_to_scale(d_in, d_out, r):
    W, A, B = sizes(draw_lora(Figure().subplots(), d_in, d_out, r))
    unit = 3 / max(d_in, d_out)
    assert pytest.approx((d_in * unit, d_out * unit)) == W
    assert pytest.approx((d_in * unit, r * unit)) == A
    assert pytest.approx((r * unit, d_out * unit)) == B
    assert sizes(draw_full(Figure().subplots(), d_in, d_out)) == [pytest.approx(W)]


def test_frozen_w_is_grey_a_and_b_are_loras_orange_and_what_full_trains_is_blue():
    full, lora = lora_picture().axes
    colors = [to_hex(box.get_facecolor()) for box in lora.patches]
    assert colors == [to_hex(FROZEN), to_hex(COLORS["lora"]), to_hex(COLORS["lora"])]
    assert [to_hex(box.get_facecolor()) for box in full.patches] == [to_hex(COLORS["full"])]
    assert "W frozen" in [text.get_text() for text in lora.texts]


def test_numbers_that_train_are_counted():
    full, lora = ([t.get_text() for t in ax.texts] for ax in lora_picture(768, 3072, 8).axes)
    assert "2,359,296 numbers train" in full
    assert "30,720 numbers train, 1.3 % of W's" in lora
    assert {"768 × 3072", "768 × 8", "8 × 3072"} <= set(lora)


@pytest.mark.parametrize(
    ("d_in", "d_out", "r"),
    [(128, 128, 4), (1, 1, 1), (64, 256, 8), (4096, 1024, 64), (128, 128, 128), (12288, 12288, 1),
     (768, 50257, 16), (50257, 768, 16)],
)  # fmt: skip
def test_no_text_covers_another_or_leaves_the_picture(d_in, d_out, r):
    figure = lora_picture(d_in, d_out, r)
    figure.draw_without_rendering()
    for ax in figure.axes:
        texts = [t for t in ax.texts if not isinstance(t, Annotation)]
        boxes = [(t.get_text(), t.get_window_extent()) for t in texts]
        assert len(boxes) >= 5
        for (first, a), (second, b) in itertools.combinations(boxes, 2):
            assert not a.overlaps(b), f"{first!r} covers {second!r}"
        for text, box in boxes:
            assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
            assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text


def test_areas_of_the_picture_of_counts_are_counts_to_one_scale_over_all_matrices():
    boxes = counts_picture([(128, 128), (128, 512), (512, 512)], 8).axes[0].patches
    areas = [box.get_height() * box.get_width() for box in boxes]
    assert areas == [1024, 128 * 128, 1024, 1024, 128 * 512, 4096, 4096, 512 * 512, 4096]
    blue, orange = COLORS["full"].lower(), COLORS["lora"].lower()
    assert [to_hex(box.get_facecolor()) for box in boxes] == [orange, blue, orange] * 3


def test_the_picture_of_counts_says_them_below_each_matrix():
    texts = [t.get_text() for t in counts_picture([(768, 3072)], 8).axes[0].texts]
    assert "W  768 × 3,072\n2,359,296\nA and B  30,720\n1.302 % of W's" in texts


@pytest.mark.parametrize(
    ("sizes", "r", "sentence"),
    [([], 4, "there is nothing to draw"), ([(128, 0)], 4, "d_out"), ([(128, 128)], 0, "r must")],
)
def test_a_picture_of_no_counts_is_refused(sizes, r, sentence):
    with pytest.raises(ValueError, match=sentence):
        counts_picture(sizes, r)


@pytest.mark.parametrize("draw", [draw_full, draw_lora])
def test_a_notebooks_own_axes_are_returned(draw):
    ax = Figure().subplots()
    assert draw(ax) is ax

"""Claims about slowed rotary positions."""

import numpy as np
import pytest

from minilora.rope_scaling import RopeScaling

FREQUENCIES = 100.0 ** (-np.arange(8) / 8)


def test_linear_scaling_is_the_same_as_dividing_every_position():
    scaled = RopeScaling("linear", 4.0).scaled(FREQUENCIES)
    np.testing.assert_allclose(12 * scaled, 3 * FREQUENCIES)


def test_llama3_keeps_quick_pairs_divides_slow_ones_and_mixes_between():
    scaling = RopeScaling("llama3", 8.0, 1.0, 4.0, original_block_size=40)
    turns = 40 * FREQUENCIES / (2 * np.pi)
    ratio = FREQUENCIES / scaling.scaled(FREQUENCIES)
    assert (turns > 4).any() and (turns < 1).any() and ((turns > 1) & (turns < 4)).any()
    np.testing.assert_allclose(ratio[turns > 4], 1)
    np.testing.assert_allclose(ratio[turns < 1], 8)
    assert (np.diff(ratio) >= 0).all()  # the slower the pair, the more it is slowed


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (dict(kind="yarn", factor=2.0), '"linear" or "llama3", got \'yarn\''),
        (dict(kind="linear", factor=0.0), "factor must be a number from 0.001 to 1e.06, got 0.0"),
        (dict(kind="linear", factor="2"), "factor must be a number from 0.001 to 1e.06, got '2'"),
        (dict(kind="llama3", factor=2.0, low_freq_factor=4.0), "must be below high_freq_factor"),
        (dict(kind="llama3", factor=2.0, original_block_size=0), "original_block_size must be"),
    ],
)
def test_scaling_that_cannot_be_meant_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        RopeScaling(**options)

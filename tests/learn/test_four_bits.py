"""The 4-bit weights that the cards on QLoRA measure are those of the paper."""

import numpy as np
import pytest

from minilora.learn.demos.memory import BLOCK, dequantize, nf4_levels, packed, quantize

# Dettmers et al. 2023 (QLoRA), appendix E
PRINTED = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
           -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
           0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
           0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]  # fmt: skip


def test_the_levels_are_those_that_the_paper_prints():
    assert nf4_levels() == pytest.approx(PRINTED, abs=1e-6)


def test_every_weight_gets_the_nearest_level_of_its_block():
    W = np.random.default_rng(0).standard_normal((8, BLOCK)).astype(np.float32)
    levels = nf4_levels()
    codes, scales = quantize(W, levels)
    nearest = np.abs(W[..., None] - levels * scales[..., None]).min(-1)
    assert np.abs(dequantize(codes, scales, levels) - W) == pytest.approx(nearest, abs=1e-6)


def test_two_codes_share_a_byte():
    codes = np.arange(16, dtype=np.uint8)
    both = packed(codes)
    assert both.nbytes == 8
    assert np.stack([both >> 4, both & 15], 1).ravel().tolist() == codes.tolist()

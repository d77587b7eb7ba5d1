"""Claims that lesson 10 makes in its prose and that no committed cell shows."""

import numpy as np
import pytest

import minilora as ml
from minilora.learn.demos.memory import nf4_levels


def drift(swaps: int) -> tuple[float, float]:
    """The share of entries that subtracting did not give back, and the largest error."""
    rng = np.random.default_rng(1)
    W = rng.standard_normal((64, 64)).astype(np.float32)
    drifted = W
    for _ in range(swaps):
        delta = rng.standard_normal((64, 64)).astype(np.float32)
        drifted = (drifted + delta) - delta
    return (drifted != W).mean(), np.abs(drifted - W).max()


def test_swapping_by_subtraction_spoils_more_entries_and_more_of_each():
    shares, errors = zip(*(drift(swaps) for swaps in (1, 10, 1000)), strict=True)
    assert shares == pytest.approx([0.35, 0.75, 0.98], abs=0.04)
    assert errors[0] < errors[1] < errors[2] < 1e-4


def test_a_larger_block_has_the_larger_error():
    W = ml.load_model("docs-tiny").layers[0].mlp.up_proj.weight.data
    levels, errors = nf4_levels(), []
    for size in (16, 64, 1024, 65536):
        blocks = W.reshape(-1, size)
        scales = np.abs(blocks).max(axis=1, keepdims=True)
        codes = np.searchsorted((levels[1:] + levels[:-1]) / 2, blocks / scales)
        errors.append(np.linalg.norm(levels[codes] * scales - blocks) / np.linalg.norm(W))
    assert errors == sorted(errors)


def test_factors_that_have_nothing_in_common_are_off_by_071_averaged_and_by_1_added():
    rng = np.random.default_rng(0)
    A1, A2 = rng.standard_normal((2, 400, 4))
    B1, B2 = rng.standard_normal((2, 4, 400))
    right = A1 @ B1 + A2 @ B2
    both = (A1 + A2) @ (B1 + B2)
    off = [np.linalg.norm(wrong - right) / np.linalg.norm(right) for wrong in (both / 2, both)]
    assert off == pytest.approx([2**-0.5, 1], abs=0.05)

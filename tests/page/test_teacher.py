"""What the playground draws at random, in its Python half; test_playground.py compares the two."""

import numpy as np
import pytest

from minilora.learn.page.playground.teacher import SAMPLES, draw_task, uniform


def test_the_uniform_numbers_are_uniform():
    drawn = uniform(3, 100_000)
    counts, _ = np.histogram(drawn, bins=10, range=(0, 1))
    assert counts.sum() == 100_000  # none outside
    assert np.sum((counts - 10_000) ** 2 / 10_000) < 27.9  # chi-square of 9 degrees, p = 0.001


@pytest.mark.parametrize(
    ("spectrum", "sigma"), [("flat", [1, 1, 1]), ("geometric", [2, 0.4**0.5, 0.2])]
)
def test_delta_has_rank_k_and_the_singular_values_asked_for(spectrum, sigma):
    task = draw_task(20, 30, 3, spectrum, 2, seed=1)
    found = np.linalg.svd(task.delta, compute_uv=False)
    np.testing.assert_allclose(found[:3], sigma, rtol=1e-12)
    assert found[3] < 1e-14


def test_the_task_is_the_same_for_every_r():
    sizes = (20, 30, 3, "flat")
    one, other = draw_task(*sizes, r=1, seed=0), draw_task(*sizes, r=9, seed=0)
    np.testing.assert_array_equal(one.x, other.x)
    np.testing.assert_array_equal(one.delta, other.delta)


def test_inputs_are_standard_normal_and_a_starts_as_lora_does():
    task = draw_task(40, 40, 4, "flat", 16, seed=2)
    assert task.x.shape == (SAMPLES, 40) and task.A.shape == (40, 16)
    assert abs(task.x.mean()) < 0.04 and abs(task.x.std() - 1) < 0.03
    assert np.abs(task.A).max() < 1 / np.sqrt(40)
    assert abs(task.A.std() - 1 / np.sqrt(3 * 40)) < 0.01


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"spectrum": "steep"}, "spectrum must be"),
        ({"k": 21}, "k must"),
        ({"r": 0}, "r must"),
        ({"d_in": 2.5}, "d_in must"),
        ({"seed": -1}, "seed must"),
    ],
    ids=str,
)
def test_sizes_that_cannot_be_are_named(wrong, says):
    right = {"d_in": 20, "d_out": 30, "k": 3, "spectrum": "flat", "r": 2, "seed": 0}
    with pytest.raises(ValueError, match=says):
        draw_task(**(right | wrong))

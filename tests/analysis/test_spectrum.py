"""Claims about singular values, on matrices whose answers are known without computing them.

`matrix` builds one from its singular values and from directions that are axes turned at random, so
that a claim that holds for a diagonal matrix is tested for one that does not look like it.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from matrices import matrix, orthonormal
from strategies import few, seeds

from minilora.analysis.spectrum import (
    chance_best_cosine,
    eckart_young_tail,
    effective_rank,
    intruder_dimensions,
    intruder_part,
    k90,
    relative_norm,
    singular_values,
    stable_rank,
    truncate,
)


def test_singular_values_of_a_diagonal_matrix_are_its_magnitudes_in_descending_order():
    M = np.zeros((3, 5))
    M[[0, 1, 2], [0, 1, 2]] = [1, -7, 3]
    np.testing.assert_array_equal(singular_values(M), [7, 3, 1])
    np.testing.assert_array_equal(singular_values(M.T), [7, 3, 1])


@pytest.mark.parametrize("n", [1, 2, 7, 10])
def test_n_equal_singular_values_have_rank_n_by_every_measure(n):
    M = matrix([0.3] * n, 12, 15, seed=n)
    assert effective_rank(M) == pytest.approx(n, rel=1e-12)
    assert stable_rank(M) == pytest.approx(n, rel=1e-12)
    assert k90(M) == math.ceil(9 * n / 10)


def test_measures_of_rank_differ_for_unequal_singular_values():
    M = matrix([2, 1, 1], 6, 9)  # σ / Σσ = 1/2, 1/4, 1/4; σ² = 4, 1, 1
    assert effective_rank(M) == pytest.approx(2**1.5, rel=1e-13)
    assert stable_rank(M) == pytest.approx(1.5, rel=1e-13)
    assert k90(M) == 3  # two hold 5/6 of the squares
    assert k90(matrix([3, 1, 1], 6, 9)) == 2  # one holds 9/11


def test_an_outer_product_has_rank_1_by_every_measure():
    M = np.outer([1, 2, 3], [4.0, -5, 6, 7])
    assert effective_rank(M) == pytest.approx(1, abs=1e-12)
    assert stable_rank(M) == pytest.approx(1, abs=1e-12)
    assert k90(M) == 1


def test_a_zero_matrix_has_rank_0_by_every_measure():
    M = np.zeros((3, 4))
    assert (effective_rank(M), stable_rank(M), k90(M)) == (0, 0, 0)


@given(seeds)
@few
def test_measures_of_rank_do_not_see_rotation_scale_or_transposition(seed):
    rng = np.random.default_rng(seed)
    M = rng.standard_normal((5, 7))
    turned = orthonormal(5, 5, seed) @ M @ orthonormal(7, 7, seed + 1)
    for same in (turned, M * 1e-200, M * -3e180, M.T):
        assert effective_rank(same) == pytest.approx(effective_rank(M), rel=1e-12)
        assert stable_rank(same) == pytest.approx(stable_rank(M), rel=1e-12)
        assert k90(same) == k90(M)


def test_rounding_does_not_add_to_the_directions_that_hold_a_share():
    for seed in range(12):  # for some, 18 of 20 equal ones hold less than 0.9, by rounding
        assert k90(matrix([0.3] * 20, 22, 25, seed)) == 18


@given(seeds)
@few
def test_measures_of_rank_lie_between_1_and_the_rank(seed):
    rng = np.random.default_rng(seed)
    M = rng.standard_normal((6, 3)) @ rng.standard_normal((3, 8))
    for measure in (effective_rank, stable_rank, k90):
        assert 1 <= measure(M) <= 3 * (1 + 1e-12)


def test_relative_norm_is_the_ratio_of_frobenius_norms():
    assert relative_norm(np.array([[3, 4], [0, 0]]), np.array([[6, 0], [0, 8]])) == 0.5
    assert relative_norm(np.zeros((2, 2)), np.eye(2)) == 0
    with pytest.raises(ValueError, match="W is all zeros"):
        relative_norm(np.eye(2), np.zeros((2, 2)))


def test_truncation_keeps_the_largest_singular_values():
    M = np.diag([1.0, 3, -2])
    np.testing.assert_array_equal(truncate(M, 0), np.zeros((3, 3)))
    np.testing.assert_allclose(truncate(M, 1), np.diag([0, 3, 0]), rtol=0, atol=1e-15)
    np.testing.assert_allclose(truncate(M, 2), np.diag([0, 3, -2]), rtol=0, atol=1e-15)
    np.testing.assert_allclose(truncate(M, 3), M, rtol=0, atol=1e-15)
    assert [eckart_young_tail(M, k) for k in range(4)] == [14, 5, 1, 0]


@given(seeds)
@few
def test_the_tail_is_the_squared_error_of_truncation(seed):
    M = np.random.default_rng(seed).standard_normal((6, 4))
    for k in range(5):
        cut = truncate(M, k)
        assert np.linalg.matrix_rank(cut) == k
        error = np.sum((M - cut) ** 2)
        assert eckart_young_tail(M, k) == pytest.approx(error, rel=1e-12, abs=1e-26)


@given(seeds)
@few
def test_no_other_matrix_of_rank_k_is_nearer_than_the_truncation(seed):
    rng = np.random.default_rng(seed)
    M, k = rng.standard_normal((6, 5)), 2
    least = np.sum((M - truncate(M, k)) ** 2)
    Q = orthonormal(6, k, seed)
    assert np.sum((M - Q @ (Q.T @ M)) ** 2) > least  # M seen in k random directions
    near = np.linalg.svd(M)[0][:, :k] + 0.01 * rng.standard_normal((6, k))
    nearby = near @ np.linalg.lstsq(near, M, rcond=None)[0]
    assert np.sum((M - nearby) ** 2) > least


@pytest.mark.parametrize("count", [1, 3])
def test_planted_intruders_are_counted_exactly(count):
    U, V = orthonormal(20, 15, 0), orthonormal(24, 15, 1)
    W = (U[:, :12] * np.linspace(5, 1, 12)) @ V[:, :12].T
    planted = (U[:, 12 : 12 + count] * [50, 40, 30][:count]) @ V[:, 12 : 12 + count].T
    assert intruder_dimensions(W, W + planted) == count
    assert intruder_dimensions(W, planted + W, k=1) == 1


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_part_of_planted_intruders_is_what_was_planted(count):
    U, V = orthonormal(20, 15, 0), orthonormal(24, 15, 1)
    W = (U[:, :12] * np.linspace(5, 1, 12)) @ V[:, :12].T
    planted = (U[:, 12 : 12 + count] * [50, 40, 30][:count]) @ V[:, 12 : 12 + count].T
    np.testing.assert_allclose(intruder_part(W, W + planted), planted, atol=1e-10)
    assert intruder_dimensions(W, W + planted - intruder_part(W, W + planted)) == 0


def test_an_intruders_part_is_all_that_the_new_W_does_along_it():
    W = np.diag([3.0, 2, 1, 0.5])
    W_after = W + 8 * np.outer([1, 0, 0, 0], [1, 1, 1, 1])  # mixes with what W does along its input
    U, sigma, Vt = np.linalg.svd(W_after)
    part = intruder_part(W, W_after, k=1, epsilon=0.7)
    np.testing.assert_allclose(part, sigma[0] * np.outer(U[:, 0], Vt[0]), atol=1e-12)
    assert not intruder_part(W, W_after, k=1, epsilon=0.1).any()


def test_an_intruder_may_be_a_mixture_of_all_of_w_s_directions():
    d = 16
    W = matrix([2.0**-i for i in range(d)], d, d)
    V = np.linalg.svd(W)[2].T
    mixture = V.sum(axis=1) / math.sqrt(d)  # |cosine| 1/4 with each
    u = orthonormal(d, 1, 7)[:, 0]
    assert intruder_dimensions(W, W + 50 * np.outer(u, mixture)) == 1


def test_intruders_are_sought_on_the_output_side():
    U, V = orthonormal(10, 5, 0), orthonormal(12, 4, 1)
    W = (U[:, :4] * [4, 3, 2, 1]) @ V.T
    W_after = W + 50 * np.outer(U[:, 4], V[:, 0])  # a new input direction, an old output direction
    assert intruder_dimensions(W, W_after) == 0
    assert intruder_dimensions(W.T, W_after.T) == 1


def test_only_the_top_k_directions_can_be_intruders():
    U, V = orthonormal(10, 5, 0), orthonormal(10, 5, 1)
    W = (U[:, :4] * [9, 8, 7, 6]) @ V[:, :4].T
    W_after = W + 6.5 * np.outer(U[:, 4], V[:, 4])  # the fourth of five
    assert [intruder_dimensions(W, W_after, k) for k in (1, 3, 4, 10)] == [0, 0, 1, 1]


def test_a_weak_direction_of_w_that_grew_is_no_intruder():
    U, V = orthonormal(10, 4, 0), orthonormal(10, 4, 1)
    W, W_after = (U * [4, 3, 2, 1]) @ V.T, (U * [4, 3, 2, 100]) @ V.T
    assert intruder_dimensions(W, W_after, k=1) == 0


def test_epsilon_is_the_cosine_below_which_a_direction_is_new():
    W = np.diag([3.0, 2, 0, 0])
    between = np.outer([1, 0, 0, 0], [1, -1, 0, 0])  # |cosine| 0.707 with two directions of W
    assert intruder_dimensions(W, between, k=1) == 0
    assert intruder_dimensions(W, between, k=1, epsilon=0.7) == 0
    assert intruder_dimensions(W, between, k=1, epsilon=0.71) == 1


@given(seeds)
@few
def test_a_small_change_brings_no_intruders(seed):
    W = matrix([2.0**-i for i in range(12)], 12, 14, seed)
    noise = np.random.default_rng(seed + 9).standard_normal((12, 14))
    assert intruder_dimensions(W, W) == 0
    assert intruder_dimensions(W, -3 * W) == 0
    assert intruder_dimensions(W, W + 1e-6 * noise) == 0


def exact_best_cosine(d: int) -> float:
    """E max|x_k| / E ‖x‖ for normal x: its direction and its length are independent."""
    t = (np.arange(20_000) + 0.5) * 5e-4
    largest = sum(1 - math.erf(v / math.sqrt(2)) ** d for v in t) * 5e-4
    return largest / (math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2)))


@pytest.mark.parametrize(("d", "rounded"), [(2, 0.90), (16, 0.53), (64, 0.33), (768, 0.12)])
def test_chance_best_cosine_is_what_probability_theory_says(d, rounded):
    found = chance_best_cosine(d, np.random.default_rng(6), draws=4000)
    exact = exact_best_cosine(d)
    assert round(exact, 2) == rounded
    assert found == pytest.approx(exact, abs=0.1 * exact / math.sqrt(4000) * 3)


def test_chance_best_cosine_in_one_and_two_dimensions():
    assert chance_best_cosine(1, np.random.default_rng(0)) == 1
    assert exact_best_cosine(2) == pytest.approx(2 * math.sqrt(2) / math.pi, abs=1e-6)

"""Claims about directions of ΔW: of two runs, and beside those of W."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from matrices import amplify, axes, matrix, orthonormal
from strategies import few, seeds

from minilora.analysis.subspaces import (
    chance_similarity,
    subspace_similarities,
    subspace_similarity,
)
from minilora.system.cores import one_blas_thread


@given(seeds)
@few
def test_a_space_is_wholly_similar_to_itself_and_to_what_holds_it(seed):
    X = np.random.default_rng(seed).standard_normal((8, 3))
    np.testing.assert_allclose(subspace_similarities(X, X), np.ones((3, 3)), rtol=0, atol=1e-12)
    wider = np.hstack([X, np.random.default_rng(seed + 1).standard_normal((8, 2))])
    assert subspace_similarity(X, wider) == pytest.approx(1, abs=1e-12)


def test_similarity_of_orthogonal_spaces_is_0():
    X, Y = axes(0, 1) * [3, 2], axes(2, 3, 4) * [5, 4, 3]
    np.testing.assert_array_equal(subspace_similarities(X, Y), np.zeros((2, 3)))


def test_similarity_of_partly_overlapping_spaces_follows_the_order_of_directions():
    X = axes(0, 1) * [3, 2]
    shared_first, shared_last = axes(0, 2) * [3, 2], axes(2, 0) * [3, 2]
    np.testing.assert_allclose(subspace_similarities(X, shared_first), [[1, 1], [1, 1 / 2]])
    np.testing.assert_allclose(subspace_similarities(X, shared_last), [[0, 1], [0, 1 / 2]])
    np.testing.assert_allclose(subspace_similarities(shared_last, X), [[0, 0], [1, 1 / 2]])
    assert subspace_similarity(X, shared_last) == subspace_similarities(X, shared_last)[1, 1]


def test_similarity_is_that_of_the_input_side():
    X, Y = np.outer(np.eye(4)[0], np.eye(5)[1]), np.outer(np.eye(4)[0], np.eye(5)[2])
    assert subspace_similarity(X, Y) == 1
    assert subspace_similarity(X.T, Y.T) == 0


@given(seeds)
@few
def test_delta_w_has_the_input_space_of_its_own_factor_a(seed):
    rng = np.random.default_rng(seed)
    factor_A, B = rng.standard_normal((9, 3)), rng.standard_normal((3, 7))
    delta = (factor_A @ B).astype(np.float32)
    phi = subspace_similarities(factor_A, delta)
    assert phi.shape == (3, 3)  # what rounding added to ΔW's rank is no direction
    assert phi[2, 2] == pytest.approx(1, abs=1e-6)


@given(seeds)
@few
def test_similarity_is_the_mean_squared_cosine_of_the_principal_angles(seed):
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((9, 4)), rng.standard_normal((9, 3))
    U, V = np.linalg.svd(X)[0][:, :2], np.linalg.svd(Y)[0][:, :3]
    cosines = np.linalg.svd(U.T @ V, compute_uv=False)  # of the angles (Björck & Golub 1973)
    expected = np.mean(cosines**2)
    assert subspace_similarities(X, Y)[1, 2] == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(("i", "j"), [(1, 1), (2, 5), (5, 2), (4, 4)])
def test_random_subspaces_are_as_similar_as_chance_similarity_says(i, j):
    rng, d = np.random.default_rng(5), 16
    with one_blas_thread():
        draws = [
            subspace_similarity(rng.standard_normal((d, i)), rng.standard_normal((d, j)))
            for _ in range(2000)
        ]
    error = np.std(draws) / math.sqrt(len(draws))
    assert chance_similarity(i, j, d) == max(i, j) / d
    assert abs(np.mean(draws) - chance_similarity(i, j, d)) < 3 * error


def test_a_weak_direction_is_a_direction_and_a_rounding_error_is_none():
    X = matrix([1, 1e-4, 1e-9], 6, 6)
    assert subspace_similarities(X, X).shape == (2, 2)


def test_a_whole_space_is_similar_to_everything():
    assert chance_similarity(3, 8, 8) == 1
    X, everything = axes(2, 4) * [2, 1], np.eye(6)
    assert subspace_similarity(X, everything) == pytest.approx(1, abs=1e-15)


def test_amplification_of_a_direction_that_w_has_but_does_not_stress():
    W, delta = np.diag([8.0, 4, 2, 1]), np.diag([0.0, 0, 6, 0])
    found = amplify(W, delta, 1)
    assert (found.delta_norm, found.projected, found.own, found.factor) == (6, 2, 8, 3)
    two = amplify(W, np.diag([0.0, 0, 4, 3]), 2)
    assert two.delta_norm == 5
    assert two.projected == pytest.approx(math.sqrt(5), rel=1e-14)
    assert two.own == pytest.approx(math.sqrt(80), rel=1e-14)
    assert two.factor == pytest.approx(math.sqrt(5), rel=1e-14)


def test_amplification_projects_on_the_top_r_directions_but_measures_all_of_delta():
    found = amplify(np.diag([8.0, 4, 2, 1]), np.diag([0.0, 0, 4, 3]), 1)
    assert (found.delta_norm, found.projected, found.factor) == (5, 2, 2.5)


def test_amplification_of_something_new_to_w_is_infinite():
    delta = np.zeros((4, 4))
    delta[0, 1] = 3  # W maps input 0 to output 0 alone
    found = amplify(np.diag([8.0, 4, 2, 1]), delta, 1)
    assert (found.projected, found.factor) == (0, math.inf)


@given(seeds)
@few
def test_a_delta_that_is_a_multiple_of_w_amplifies_by_that_multiple(seed):
    W = np.random.default_rng(seed).standard_normal((4, 6))
    found = amplify(W, -2.5 * W, 4, seed)
    assert found.factor == pytest.approx(2.5, rel=1e-12)
    assert found.projected == pytest.approx(found.own, rel=1e-12)
    assert found.random < found.own


@given(seeds)
@few
def test_amplification_does_not_see_rotation_or_transposition(seed):
    rng = np.random.default_rng(seed)
    W, delta = rng.standard_normal((5, 7)), matrix([3, 2, 1], 5, 7, seed)
    left, right = orthonormal(5, 5, seed + 2), orthonormal(7, 7, seed + 3)
    found = dataclasses.astuple(amplify(W, delta, 2))
    for same in (
        amplify(left @ W @ right, left @ delta @ right, 2),
        amplify(W.T, delta.T, 2),  # the layout of the paper
    ):
        for name, value in zip(("delta_norm", "projected", "own"), found, strict=False):
            assert getattr(same, name) == pytest.approx(value, rel=1e-11)
        assert same.factor == pytest.approx(found[-1], rel=1e-11)


def test_random_directions_find_the_share_of_w_that_chance_gives():
    W = matrix([9, 3, 1], 6, 10)
    found = [amplify(W, W, 3, seed).random for seed in range(100)]
    rng, r = np.random.default_rng(9), 3
    squares = []
    for _ in range(4000):  # E ‖Uᵀ W V‖² is r² ‖W‖² / (d_in d_out), and `random` the mean of roots
        U, V = (np.linalg.qr(rng.standard_normal((d, r)))[0] for d in W.shape)
        squares.append(np.sum((U.T @ W @ V) ** 2))
    assert np.mean(squares) == pytest.approx(r * r * 91 / (6 * 10), rel=0.05)
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found) - np.mean(np.sqrt(squares))) < 4 * error


def test_random_directions_that_fill_the_space_find_all_of_w():
    W = np.diag([3.0, 4])
    assert amplify(W, W, 2).random == pytest.approx(5, rel=1e-14)


def test_random_repeats_with_its_seed():
    W = matrix([9, 3, 1], 6, 10)
    assert amplify(W, W, 2, seed=8) == amplify(W, W, 2, seed=8)

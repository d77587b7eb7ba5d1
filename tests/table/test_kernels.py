"""Claims about the plain-NumPy pieces: values by hand, float32 stays, constants stay constant."""

import math

import numpy as np
import pytest

from minilora import kernels

X = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
F32 = X.dtype


def test_centred_and_inverse_rms_standardise_rows():
    x = kernels.centred(X)
    np.testing.assert_allclose(x, X - X.mean(axis=1, keepdims=True), rtol=1e-4, atol=1e-6)
    expected = 1 / np.sqrt((x * x).mean(axis=1, keepdims=True) + 0.3)
    np.testing.assert_allclose(kernels.inverse_rms(x, 0.3), expected, rtol=1e-6)


def test_gates_are_a_tanh_and_a_sigmoid_and_leave_x_alone():
    before = X.copy()
    inner = math.sqrt(2 / math.pi) * (X + 0.044715 * X * X * X)
    np.testing.assert_allclose(kernels.gelu_gate(X, X * X), (1 + np.tanh(inner)) / 2, rtol=1e-5)
    np.testing.assert_allclose(kernels.silu_gate(X), 1 / (1 + np.exp(-X)), rtol=1e-5)
    np.testing.assert_array_equal(X, before)


def test_rotating_there_and_back_leaves_x():
    cos, sin = kernels.rope_angles(5, 3, 8, 100.0, F32)  # (T, 1, D/2) each
    turned = kernels.rotate(X[:, None], cos, sin)  # (T, D) -> (T, 1, D)
    assert np.abs(turned - X[:, None]).max() > 0.1
    np.testing.assert_allclose(kernels.rotate(turned, cos, -sin)[:, 0], X, rtol=1e-5, atol=1e-6)


def test_one_position_of_many_has_the_angles_it_has_alone():
    whole, alone = (kernels.rope_angles(*places, 8, 1e4, F32) for places in ((0, 9), (7, 1)))
    np.testing.assert_array_equal(whole[0][7:8], alone[0])
    np.testing.assert_array_equal(whole[1][7:8], alone[1])


def test_numpy_scalars_let_no_float64_in():
    norms = kernels.inverse_rms(X, np.float64(1e-5)), kernels.centred(X)
    gates = kernels.gelu_gate(X, X * X), kernels.silu_gate(X)
    assert {result.dtype for result in (*norms, *gates)} == {F32}


@pytest.mark.parametrize(("d_in", "d_out"), [(5, 64), (300, 128), (2000, 192), (9, 7), (30, 131)])
@pytest.mark.parametrize("B", [1, 2, 8, 40])
def test_a_few_rows_times_a_matrix_is_their_product_whichever_way_it_is_made(B, d_in, d_out):
    """(9, 7) has no piece, (30, 131) two and a rest; where 64 columns are more than 100³
    multiplications, it is made in one go."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((B, d_in), dtype=np.float32)
    W = rng.standard_normal((d_out, d_in), dtype=np.float32).T
    y = kernels.few_rows_times(x, W)
    assert y.dtype == F32 and y.flags.c_contiguous and y.flags.writeable
    np.testing.assert_allclose(y, x @ W, rtol=1e-4, atol=1e-3)


def test_cached_constants_cannot_be_changed_by_accident():
    for constant in (kernels.ones(3, F32), *kernels.rope_angles(0, 2, 4, 10.0, F32)):
        with pytest.raises(ValueError, match="read-only"):
            constant[0] = 2

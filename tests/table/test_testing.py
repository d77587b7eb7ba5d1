"""Claims about the checker of gradients: it finds every kind of error, says where, harms nothing.

The wrong operations stand at the top of the file, each wrong in one way only.
"""

import numpy as np
import pytest
from strategies import leaf, leaves

from minilora.tensor import Tensor, grad, record
from minilora.testing import gradcheck


def double_with_a_wrong_factor(x):
    return record(x.data * 2, (x, lambda g: g * 2.001))


def negate_with_a_wrong_sign(x):
    return record(-x.data, (x, lambda g: g))


def softmax_with_zero_gradient(x):
    p = np.exp(x.data)
    p /= p.sum(axis=-1, keepdims=True)
    return record(p, (x, lambda g: np.zeros_like(g)))


def pick_with_a_wrong_index(x):
    def dx(g):
        out = np.zeros(x.shape)
        out[1] = g
        return out

    return record(x.data[0], (x, dx))


def rows_that_lose_repeats(x):
    def dx(g):
        out = np.zeros(x.shape)
        out[[0, 2, 2]] += g
        return out

    return record(x.data[[0, 2, 2]], (x, dx))


def centre_without_the_mean(x):
    return record(x.data - x.data.mean(axis=-1, keepdims=True), (x, lambda g: g))


def square_of_nan(x):
    return record(x.data * x.data, (x, lambda g: np.full_like(g, np.nan)))


def transpose_that_forgets(x):
    return record(x.data.T, (x, lambda g: g))


def add_with_one_wrong_entry(a, b):
    def db(g):
        g = g.copy()
        g[1, 2] += 0.5
        return g

    return record(a.data + b.data, (a, lambda g: g), (b, db))


WRONG = [
    double_with_a_wrong_factor,
    negate_with_a_wrong_sign,
    softmax_with_zero_gradient,
    pick_with_a_wrong_index,
    rows_that_lose_repeats,
    centre_without_the_mean,
    square_of_nan,
    transpose_that_forgets,
]


@pytest.mark.parametrize("op", WRONG)
@pytest.mark.parametrize("seed", range(3))
def test_a_wrong_gradient_is_found_and_the_op_is_named(op, seed):
    with pytest.raises(AssertionError, match=f"^{op.__name__}: gradient of input 0 at index "):
        gradcheck(op, leaf((3, 3), seed), seed=seed)


def test_input_index_and_both_numbers_are_named():
    a, b = leaves((2, 3), (2, 3))
    with pytest.raises(AssertionError) as error:
        gradcheck(add_with_one_wrong_entry, a, b)
    c = np.random.default_rng(0).standard_normal((2, 3))[1, 2]
    assert "add_with_one_wrong_entry: gradient of input 1 at index (1, 2) is" in str(error.value)
    assert f"is {c + 0.5:.6g}" in str(error.value)
    assert f"central differences give {c:.6g}" in str(error.value)


def test_inputs_are_counted_with_the_frozen_ones():
    frozen, b = leaf((2, 3), train=False), leaf((2, 3))
    with pytest.raises(AssertionError, match=r"input 1 at index \(1, 2\)"):
        gradcheck(add_with_one_wrong_entry, frozen, b)


def test_an_error_in_a_frozen_input_is_none_of_its_business():
    gradcheck(add_with_one_wrong_entry, leaf((2, 3)), leaf((2, 3), train=False))


def test_with_ones_for_a_cotangent_the_zero_gradient_of_softmax_would_pass():
    def weighted_with_ones(x):
        return softmax_with_zero_gradient(x).sum()

    x = leaf((2, 3))
    assert not grad(weighted_with_ones(x), [x])[0].any()
    h = np.zeros((2, 3))
    h[0, 1] = 1e-6
    above, below = (weighted_with_ones(Tensor(x.data + s * h)).item() for s in (1, -1))
    assert above == pytest.approx(below, abs=1e-12)
    with pytest.raises(AssertionError, match="softmax_with_zero_gradient"):
        gradcheck(softmax_with_zero_gradient, x)


def test_a_callable_without_a_name_is_named_by_its_type():
    class Halve:
        def __call__(self, x):
            return double_with_a_wrong_factor(x)

    with pytest.raises(AssertionError, match="^Halve: gradient"):
        gradcheck(Halve(), leaf(3))


def test_float32_is_refused_and_the_input_named():
    a, b = leaf(3), leaf(3, dtype=np.float32)
    with pytest.raises(ValueError, match="input 1 is float32; pass float64 arrays to gradcheck"):
        gradcheck(lambda a, b: a * b, a, b)


def test_nothing_trainable_is_refused():
    with pytest.raises(ValueError, match="no input has requires_grad=True"):
        gradcheck(lambda x: x * 2, leaf(3, train=False))
    with pytest.raises(ValueError, match="nothing to check"):
        gradcheck(lambda: leaf(3))


def test_an_output_cut_off_from_its_input_is_an_error():
    with pytest.raises(RuntimeError, match="nothing to differentiate"):
        gradcheck(lambda x: Tensor(x.data * 2), leaf(3))


def test_inputs_and_their_grad_are_left_as_they_were():
    a, b = leaf((2, 3)), leaf((2, 3), layout="stepped")
    a.grad = np.full((2, 3), 7.0)
    a.data[0, 1] = b.data[1, 2] = 1e-20  # lost if eps were only added and subtracted again
    before = a.data.copy(), b.data.copy()
    gradcheck(lambda a, b: a * b, a, b)
    np.testing.assert_array_equal(a.data, before[0])
    np.testing.assert_array_equal(b.data, before[1])
    assert (a.grad == 7).all() and b.grad is None


def test_every_entry_is_checked_and_one_graph_is_recorded():
    calls = []

    def f(x):
        out = x * x
        calls.append(out.requires_grad)
        return out

    gradcheck(f, leaf((2, 3)))
    assert calls == [True] + 12 * [False]


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0), (2, 1, 2)])
def test_right_gradients_pass_at_any_shape(shape):
    gradcheck(lambda x: x * x, leaf(shape))


def test_the_tolerance_grows_with_the_gradient_and_can_be_set():
    def f(x):
        return record(x.data * 1e6, (x, lambda g: g * (1e6 + 1e-2)))

    gradcheck(f, leaf(3), tol=1e-7)
    with pytest.raises(AssertionError, match="central differences"):
        gradcheck(f, leaf(3), tol=1e-9)
    with pytest.raises(AssertionError, match="central differences"):
        gradcheck(double_with_a_wrong_factor, leaf(3), tol=1e-5)
    gradcheck(double_with_a_wrong_factor, leaf(3), tol=1e-2)


def test_eps_is_the_step_taken():
    seen = []

    def f(x):
        seen.append(x.data.item())
        return x * 1

    gradcheck(f, Tensor(np.array(1.0), requires_grad=True), eps=0.25)
    assert seen == [1.0, 1.25, 0.75]


def test_the_seed_decides_the_cotangent():
    def message(seed):
        with pytest.raises(AssertionError) as error:
            gradcheck(negate_with_a_wrong_sign, leaf(2), seed=seed)
        return str(error.value)

    assert message(0) == message(0) != message(1)

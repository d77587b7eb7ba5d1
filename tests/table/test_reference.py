"""Claims about the textbook's layers: short, the same to call as the fused ones, and by hand right.

That both agree in value and in every gradient is claimed op by op in test_functional.py.
"""

import inspect
import math

import numpy as np
import pytest
from strategies import leaf, leaves

from minilora import functional, reference


def functions(module):
    found = inspect.getmembers(module, inspect.isfunction)
    return {
        name: f for name, f in found if f.__module__ == module.__name__ and not name.startswith("_")
    }


LAYERS = functions(reference)


def test_every_fused_op_has_a_textbook_version_that_is_called_alike():
    fused = functions(functional)
    assert len(fused) > 10
    for name, f in fused.items():
        assert inspect.signature(LAYERS[name]) == inspect.signature(f), name


@pytest.mark.parametrize("name", LAYERS)
def test_a_textbook_version_is_at_most_15_lines_long(name):
    source, doc = inspect.getsource(LAYERS[name]), LAYERS[name].__doc__
    assert len(source.splitlines()) - len(doc.splitlines()) - 1 <= 15


def test_activations_are_those_of_the_papers():
    x = np.linspace(-4, 4, 33)
    normal = np.array([x_i * (1 + math.erf(x_i / math.sqrt(2))) / 2 for x_i in x])
    t = leaf(x.shape)
    t.data[...] = x
    np.testing.assert_allclose(reference.gelu(t).data, normal, atol=1e-3)  # tanh stands for erf
    np.testing.assert_allclose(reference.silu(t).data, x / (1 + np.exp(-x)))


def test_layer_norm_leaves_mean_b_and_deviation_w():
    x = leaf((3, 50))
    y = reference.layer_norm(x, *leaves((), ())).data
    w, b = (t.data for t in leaves((), ()))
    np.testing.assert_allclose(y.mean(-1), b)
    np.testing.assert_allclose(y.std(-1), abs(w), rtol=1e-4)


def test_rope_multiplies_complex_numbers_of_length_1():
    x, half, start, theta = leaf((1, 4, 6)), 3, 5, 100.0
    number = x.data[..., :half] + 1j * x.data[..., half:]
    for t in range(4):
        number[:, t] *= np.exp(1j * (start + t) * theta ** (-2 * np.arange(half) / (2 * half)))
    expected = np.concatenate([number.real, number.imag], axis=-1)
    np.testing.assert_allclose(reference.rope(x, 1, start, theta).data, expected)


@pytest.mark.parametrize(("H", "J"), [(1, 1), (4, 4), (4, 2), (3, 1)])
def test_attention_is_a_weighted_mean_of_the_values_up_to_now(H, J):
    T, S, D = 3, 5, 2
    q, k, v = leaves((1, T, H * D), (1, S, J * D), (1, S, J * D))
    found = reference.attention(q, k, v, H, J).data
    for h in range(H):
        own, served = (slice(i * D, (i + 1) * D) for i in (h, h * J // H))
        for t in range(T):
            keys, values = (x.data[0, : S - T + t + 1, served] for x in (k, v))
            weights = [math.exp(q.data[0, t, own] @ key / math.sqrt(D)) for key in keys]
            np.testing.assert_allclose(found[0, t, own], np.average(values, 0, weights))

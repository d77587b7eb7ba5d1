"""Claims about the fused operations: each equals the same thing composed from ops.py.

The compositions are those of reference.py. What every op must do (dtypes, layouts, memory) is
claimed in test_ops.py.
"""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import few, layouts, leaf, leaves, lora_linear, seeds, shapes, value_and_grads

from minilora import functional as F
from minilora import reference
from minilora.tensor import Tensor, grad, no_grad
from minilora.testing import gradcheck

lead = hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3)  # the "..." of a shape
sizes = st.integers(1, 4)


def assert_same(fused, composed, *inputs):
    """Equal in value and in every gradient, and the gradient is the true one."""
    value, grads = value_and_grads(fused, *inputs)
    other_value, other_grads = value_and_grads(composed, *inputs)
    np.testing.assert_allclose(value, other_value, rtol=1e-10, atol=1e-10)
    for g, other in zip(grads, other_grads, strict=True):
        np.testing.assert_allclose(g, other, rtol=1e-10, atol=1e-10)
    gradcheck(fused, *inputs)


@pytest.mark.parametrize("bias", [True, False])
@few
@given(lead, st.tuples(st.integers(0, 3), st.integers(0, 3)), layouts, seeds)
@example((), (3, 2), "contiguous", 0)
@example((2, 0), (3, 2), "contiguous", 0)
@example((2, 3), (3, 2), "transposed", 0)
def test_linear_equals_its_composition_at_any_rank(bias, shape, io, layout, seed):
    inputs = leaves((*shape, io[0]), io, io[1:], seed=seed, layout=layout)
    assert_same(F.linear, reference.linear, *inputs[: 2 + bias])


@pytest.mark.parametrize("bias", [True, False])
@few
@given(lead, sizes, sizes, st.integers(1, 3), layouts, seeds)
@example((), 3, 2, 1, "contiguous", 0)
@example((0,), 3, 2, 1, "contiguous", 0)
@example((2, 2), 3, 4, 2, "reversed", 0)
def test_lora_linear_equals_its_composition_at_any_rank(bias, shape, d_in, d_out, r, layout, seed):
    W = leaf((d_in, d_out), seed + 9, layout=layout, train=False)
    x, b, A, B = leaves((*shape, d_in), (d_out,), (d_in, r), (r, d_out), seed=seed, layout=layout)
    if bias:
        assert_same(
            lambda x, b, A, B: F.lora_linear(x, W, b, A, B, 2.5),
            lambda x, b, A, B: reference.lora_linear(x, W, b, A, B, 2.5),
            *(x, b, A, B),
        )
    else:
        assert_same(
            lambda x, A, B: F.lora_linear(x, W, None, A, B, 2.5),
            lambda x, A, B: reference.lora_linear(x, W, None, A, B, 2.5),
            *(x, A, B),
        )


def test_lora_linear_with_b_at_zero_is_the_frozen_layer_bit_for_bit():
    x, b, A = leaves((4, 3), (2,), (3, 1), dtype=np.float32)
    W, B = leaf((3, 2), 5, dtype=np.float32, train=False), Tensor(np.zeros((1, 2), np.float32))
    np.testing.assert_array_equal(F.lora_linear(x, W, b, A, B, 2.0).data, F.linear(x, W, b).data)


def test_lora_linear_never_forms_the_gradient_of_the_frozen_weight():
    x, b, A, B = leaves((2, 3), (4,), (3, 2), (2, 4))
    out = lora_linear(x, b, A, B)
    assert [parent for parent, _ in out.node.edges] == [x, A, B, b]


ids_of_4 = hnp.arrays(
    st.sampled_from([np.int64, np.int32, np.uint8]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    elements=st.integers(0, 3),
)


@few
@given(ids_of_4, st.integers(0, 3), layouts)
@example(np.array([2, 2, 0, 2]), 3, "contiguous")
@example(np.array(1), 3, "contiguous")
@example(np.zeros((2, 0), int), 3, "contiguous")
@example(np.array([[0, 1], [2, 3], [0, 1]])[::-1, ::-1].T, 2, "transposed")
def test_embedding_equals_getitem(ids, C, layout):
    assert_same(
        lambda W: F.embedding(W, ids),
        lambda W: reference.embedding(W, ids),
        leaf((4, C), layout=layout),
    )


def test_repeated_token_ids_collect_every_gradient():
    W = leaf((4, 2))
    F.embedding(W, np.array([[1, 1, 3], [1, 0, 3]])).sum().backward()
    assert W.grad.tolist() == [[1, 1], [3, 3], [0, 0], [2, 2]]


def test_ids_overwritten_by_the_next_batch_change_no_gradient():
    W, ids = leaf((4, 2)), np.array([1, 1, 3])
    out = F.embedding(W, ids).sum()
    ids[...] = 0
    out.backward()
    assert W.grad.tolist() == [[0, 0], [2, 2], [0, 0], [1, 1]]


def test_targets_overwritten_by_the_next_batch_change_no_gradient():
    x, targets = leaf((2, 3)), np.array([1, 2])
    (expected,) = grad(F.cross_entropy(x, targets), [x])
    loss = F.cross_entropy(x, targets)
    targets[...] = 0
    np.testing.assert_array_equal(grad(loss, [x])[0], expected)


@few
@given(lead, sizes, layouts, seeds, st.sampled_from([1e-5, 0.3]))
@example((), 1, "contiguous", 0, 1e-5)
@example((0,), 3, "contiguous", 0, 1e-5)
@example((2, 2), 4, "stepped", 0, 0.3)
def test_norms_equal_their_compositions(shape, C, layout, seed, eps):
    x, w, b = leaves((*shape, C), (C,), (C,), seed=seed, layout=layout)
    spread = Tensor(x.data + np.arange(C), requires_grad=True)  # away from a variance of zero
    assert_same(
        lambda x, w, b: F.layer_norm(x, w, b, eps),
        lambda x, w, b: reference.layer_norm(x, w, b, eps),
        *(spread if C > 1 else x, w, b),
    )
    assert_same(
        lambda x, w: F.rms_norm(x, w, eps), lambda x, w: reference.rms_norm(x, w, eps), x, w
    )


def test_norms_use_an_eps_of_1e_minus_5():
    x, w, b = leaves((2, 3), (3,), (3,))
    x.data *= 1e-3
    np.testing.assert_allclose(F.layer_norm(x, w, b).data, reference.layer_norm(x, w, b).data)
    np.testing.assert_allclose(F.rms_norm(x, w).data, reference.rms_norm(x, w).data)


def test_layer_norm_of_equal_entries_is_the_bias():
    x = Tensor(np.full((2, 4), 7.0), requires_grad=True)
    w, b = leaves((4,), (4,))
    np.testing.assert_array_equal(F.layer_norm(x, w, b).data, np.tile(b.data, (2, 1)))
    gradcheck(F.layer_norm, x, w, b, eps=1e-7, tol=1e-5)


@pytest.mark.parametrize(
    ("fused", "composed"),
    [(F.gelu, reference.gelu), (F.silu, reference.silu)],
    ids=["gelu", "silu"],
)
@few
@given(shape=shapes, layout=layouts, seed=seeds)
@example(shape=(), layout="contiguous", seed=0)
def test_activations_equal_their_compositions(fused, composed, shape, layout, seed):
    assert_same(fused, composed, leaf(shape, seed, layout=layout))
    wide = Tensor(np.linspace(-9, 9, 19), requires_grad=True)
    assert_same(fused, composed, wide)


@few
@given(
    shape=hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=3),
    data=st.data(),
    layout=layouts,
    seed=seeds,
)
def test_softmax_equals_its_composition_on_every_axis(shape, data, layout, seed):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = leaf(shape, seed, layout=layout)
    assert_same(lambda x: F.softmax(x, axis), lambda x: reference.softmax(x, axis), x)


def test_softmax_acts_on_the_last_axis_unless_told():
    assert_same(F.softmax, reference.softmax, leaf((2, 3, 4)))
    assert_same(F.softmax, reference.softmax, leaf((0, 3)))


def test_softmax_sums_to_one():
    np.testing.assert_allclose(F.softmax(leaf((3, 4)), 0).data.sum(axis=0), 1)


@few
@given(hnp.array_shapes(min_dims=0, max_dims=2, max_side=3), st.integers(1, 4), st.data(), layouts)
@example((), 3, None, "contiguous")
@example((2, 3), 4, None, "transposed")
def test_cross_entropy_equals_its_composition(shape, V, data, layout):
    targets = np.arange(math.prod(shape)).reshape(shape) % V
    if data is not None:
        targets = data.draw(
            hnp.arrays(int, shape, elements=st.sampled_from([-100, *range(V)])).filter(
                lambda t: (t != -100).any()
            )
        )
    assert_same(
        lambda x: F.cross_entropy(x, targets),
        lambda x: reference.cross_entropy(x, targets),
        leaf((*shape, V), layout=layout),
    )


@pytest.mark.parametrize("ignored", [-100, 0, 2])
def test_ignored_positions_get_no_gradient_and_do_not_count(ignored):
    logits = leaf((2, 3, 4))
    targets = np.array([[1, ignored, 3], [ignored, 1, 1]])
    loss = F.cross_entropy(logits, targets, ignore_index=ignored)
    kept = targets != ignored
    assert loss.item() == pytest.approx(F.cross_entropy(logits[kept], targets[kept]).item())
    (g,) = grad(loss, [logits])
    assert not g[~kept].any() and g[kept].all()
    gradcheck(lambda x: F.cross_entropy(x, targets, ignored), logits)


@pytest.mark.parametrize(
    "kind", [list, lambda t: np.array(t, np.uint8), lambda t: np.array(t, np.int32)]
)
def test_targets_may_be_a_list_or_any_integer_array(kind):
    logits = leaf((3, 4))
    expected = F.cross_entropy(logits, np.array([3, 0, 1])).item()
    assert F.cross_entropy(logits, kind([3, 0, 1])).item() == expected


def test_cross_entropy_of_equal_logits_is_the_logarithm_of_the_vocabulary():
    logits = Tensor(np.full((2, 5), 3.0), requires_grad=True)
    assert F.cross_entropy(logits, np.array([0, 4])).item() == pytest.approx(math.log(5))


@few
@given(shapes.filter(len), st.sampled_from([0.1, 0.5, 0.9]), layouts, seeds)
def test_dropout_equals_its_composition_under_the_same_generator(shape, p, layout, seed):
    assert_same(
        lambda x: F.dropout(x, p, np.random.default_rng(seed)),
        lambda x: reference.dropout(x, p, np.random.default_rng(seed)),
        leaf(shape, layout=layout),
    )


def test_dropout_happens_only_with_a_generator_and_a_probability():
    x, rng = leaf((3, 4)), np.random.default_rng(0)
    assert F.dropout(x, 0.5, None) is x
    assert F.dropout(x, 0.0, rng) is x
    assert rng.random() == np.random.default_rng(0).random()


def test_dropout_drops_a_share_p_and_keeps_the_mean():
    x = Tensor(np.ones(100_000), requires_grad=True)
    out = F.dropout(x, 0.3, np.random.default_rng(0)).data
    assert (out == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert out.mean() == pytest.approx(1, abs=0.01)
    assert np.unique(out).tolist() == [0, pytest.approx(1 / 0.7)]


def test_dropout_draws_anew_each_time():
    x, rng = leaf((5, 5)), np.random.default_rng(0)
    assert (F.dropout(x, 0.5, rng).data != F.dropout(x, 0.5, rng).data).any()


@few
@given(
    st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(1, 3), st.integers(1, 2)),
    st.integers(0, 50),
    st.sampled_from([10000.0, 500.0]),
    layouts,
)
@example((2, 3, 2, 2), 5, 10000.0, "contiguous")
def test_rope_equals_its_composition(drawn, start, theta, layout):
    B, T, H, half = drawn
    assert_same(
        lambda x: F.rope(x, H, start, theta),
        lambda x: reference.rope(x, H, start, theta),
        leaf((B, T, H * 2 * half), layout=layout),
    )


def test_rope_leaves_position_zero_and_every_length_alone():
    x = leaf((2, 5, 8))
    turned = F.rope(x, 2).data
    np.testing.assert_array_equal(turned[:, 0], x.data[:, 0])
    pairs = (2, 5, 2, 2, 2)  # (B, T, H*D) -> (B, T, H, 2, D/2)
    np.testing.assert_allclose(
        np.hypot(*np.moveaxis(turned.reshape(pairs), 3, 0)),
        np.hypot(*np.moveaxis(x.data.reshape(pairs), 3, 0)),
    )
    assert np.abs(turned[:, 1:] - x.data[:, 1:]).max() > 0.1


def test_rope_continues_where_start_says():
    x = leaf((1, 6, 4))
    np.testing.assert_array_equal(F.rope(x[:, 4:], 1, start=4).data, F.rope(x, 1).data[:, 4:])


def test_scores_of_roped_vectors_depend_on_their_distance_only():
    q, k = leaves((1, 1, 4), (1, 1, 4))

    def score(i, j):
        return (F.rope(q, 1, start=i).data * F.rope(k, 1, start=j).data).sum()

    assert score(7, 3) == pytest.approx(score(104, 100))
    assert score(7, 3) != pytest.approx(score(7, 4))


HEADS = [(1, 1), (2, 2), (2, 1), (4, 2), (6, 3)]


@pytest.mark.parametrize(("H", "K"), HEADS)
@few
@given(st.integers(0, 2), st.integers(0, 3), st.integers(0, 2), st.integers(1, 2), layouts, seeds)
@example(1, 3, 0, 2, "contiguous", 0)
@example(1, 1, 2, 2, "contiguous", 0)
@example(2, 2, 2, 2, "reversed", 0)
def test_attention_equals_its_composition(H, K, B, T, past, D, layout, seed):
    S = max(T + past, 1)
    q, k, v = leaves((B, T, H * D), (B, S, K * D), (B, S, K * D), seed=seed, layout=layout)
    assert_same(
        lambda q, k, v: F.attention(q, k, v, H, K),
        lambda q, k, v: reference.attention(q, k, v, H, K),
        *(q, k, v),
    )


def test_attention_has_as_many_key_heads_as_heads_unless_told():
    q, k, v = leaves((1, 3, 4), (1, 3, 4), (1, 3, 4))
    np.testing.assert_array_equal(
        F.attention(q, k, v, 2).data, F.attention(q, k, v, 2, n_kv_head=2).data
    )


@pytest.mark.parametrize(("H", "K"), HEADS)
def test_attention_of_one_value_as_query_key_and_value(H, K):
    if H == K:
        gradcheck(lambda x: F.attention(x, x, x, H), leaf((1, 3, 2 * H)))
    gradcheck(lambda q, x: F.attention(q, x, x, H, K), *leaves((1, 2, 2 * H), (1, 3, 2 * K)))


@pytest.mark.parametrize(("T", "S"), [(4, 4), (2, 4), (1, 4)])
def test_no_query_sees_its_future(T, S):
    q, k, v = leaves((1, T, 4), (1, S, 4), (1, S, 4))
    for t in range(T):
        place = S - T + t
        for g in grad(F.attention(q, k, v, 2)[:, t].sum(), [k, v]):
            assert not g[:, place + 1 :].any()
        assert grad(F.attention(q, k, v, 2)[:, t].sum(), [v])[0][:, : place + 1].all()


def test_the_first_query_of_a_whole_sequence_copies_the_first_value():
    q, k, v = leaves((2, 3, 4), (2, 3, 4), (2, 3, 4))
    np.testing.assert_allclose(F.attention(q, k, v, 2).data[:, 0], v.data[:, 0], rtol=1e-14)


def test_late_queries_alone_see_what_they_saw_in_the_whole_sequence():
    q, k, v = leaves((2, 5, 8), (2, 5, 4), (2, 5, 4))
    whole = F.attention(q, k, v, 4, 2).data
    for T in (1, 2, 4):
        alone = F.attention(q[:, 5 - T :], k, v, 4, 2).data
        np.testing.assert_allclose(alone, whole[:, 5 - T :], rtol=1e-12)


EXTREME = [
    [1e4, -1e4, 0, 1],
    [-1e4, -1e4, -1e4, -1e4],
    [1e4, 1e4, 1e4, 1e4],
    [0, 0, 0, 0],
    [-1e4, 1e4, 1e4, -1e4],
]
EXPECTED_SOFTMAX = [[1, 0, 0, 0], [0.25] * 4, [0.25] * 4, [0.25] * 4, [0, 0.5, 0.5, 0]]
EXPECTED_SLOPE = [[0] * 4, [1] * 4, [0.5] * 4, [0, 1, 1, 0]]  # of silu and gelu, from row 1 on


@pytest.mark.parametrize(
    "f",
    [
        F.softmax,
        F.silu,
        F.gelu,
        lambda x: F.cross_entropy(x, np.array([1, 0, 3, 2, 0])),
        lambda x: F.attention(x[None], x[None], x[None], 2),
        lambda x: F.layer_norm(x, Tensor([1] * 4), Tensor([0] * 4)),
        lambda x: F.rms_norm(x, Tensor([1] * 4)),
    ],
    ids="softmax silu gelu cross_entropy attention layer_norm rms_norm".split(),
)
def test_extreme_values_stay_finite_in_float32(f):
    x = Tensor(EXTREME, requires_grad=True)
    out = f(x)
    (g,) = grad(out.sum(), [x])
    assert out.dtype == g.dtype == np.float32
    assert np.isfinite(out.data).all() and np.isfinite(g).all()


def test_extreme_values_are_right():
    x = Tensor(EXTREME, requires_grad=True)
    for f in (F.silu, F.gelu):
        np.testing.assert_array_equal(f(x).data[1:], np.maximum(x.data, 0)[1:])
        np.testing.assert_array_equal(grad(f(x).sum(), [x])[0][1:], EXPECTED_SLOPE)
    np.testing.assert_array_equal(F.softmax(x).data, EXPECTED_SOFTMAX)
    for target, loss in ((0, 0), (1, 2e4), (3, 9999)):
        assert F.cross_entropy(x[:1], np.array([target])).item() == loss


@few
@given(seeds, st.floats(-1e4, 1e4))
def test_softmax_does_not_change_when_a_number_is_added_to_all_logits(seed, shift):
    x = leaf((2, 4), seed)
    moved = Tensor(x.data + shift)
    np.testing.assert_allclose(F.softmax(moved).data, F.softmax(x).data, rtol=1e-9, atol=1e-9)


f64 = np.float64


@pytest.mark.parametrize(
    "f",
    [
        lambda x, w: F.layer_norm(x, w, w, f64(1e-5)),
        lambda x, w: F.rms_norm(x, w, f64(1e-5)),
        lambda x, w: F.dropout(x, f64(0.5), np.random.default_rng(0)),
        lambda x, w: F.dropout(w[0], f64(0.5), np.random.default_rng(0)),
        lambda x, w: F.rope(x.reshape(1, 3, 4), 2, np.int64(2), f64(500)),
        lambda x, w: F.lora_linear(x, Tensor(x.data.T), None, x.reshape(4, 3), x[:, :3], f64(2)),
        lambda x, w: F.gelu(w[0]) + F.silu(w[1]) + F.softmax(w)[0],
        lambda x, w: F.cross_entropy(x, np.array([0, -100, 1])) + F.cross_entropy(w, np.array(1)),
    ],
    ids="layer_norm rms_norm dropout dropout_0d rope lora_linear scalars cross_entropy".split(),
)
def test_numpy_scalars_as_options_let_no_float64_in(f):
    x, w = leaves((3, 4), (4,), dtype=np.float32)
    out = f(x, w)
    assert out.dtype == np.float32
    assert {g.dtype for g in grad(out.sum(), [x, w])} == {np.dtype(np.float32)}
    with no_grad():
        assert f(x, w).dtype == np.float32


def test_what_several_vjps_share_is_computed_once():
    calls = []

    @F._once
    def double(g):
        calls.append(g)
        return 2 * g

    assert double(3) == double(3) == 6
    assert calls == [3]
    assert double(4) == 8  # of another gradient, not what was kept

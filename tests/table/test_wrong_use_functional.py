"""Claims about wrong use of the fused ops: each call raises one sentence with the true cause."""

import numpy as np
import pytest
from strategies import leaf

from minilora import functional as F
from minilora.system.errors import UsageError
from minilora.tensor import Tensor, no_grad

RNG = np.random.default_rng(0)
X, W, b = leaf((2, 3)), leaf((3, 4)), leaf((4,))
FROZEN, A, B = leaf((3, 4), train=False), leaf((3, 2)), leaf((2, 4))
LOGITS, TABLE, SCALE = leaf((2, 3, 5)), leaf((4, 2)), leaf((3,))
Q, K = leaf((1, 3, 8)), leaf((1, 3, 4))
NAN = float("nan")

WRONG_SIZES = [
    (lambda: F.linear(leaf((5, 2)), W), r"x has 2 features, the weight \(3, 4\) takes 3"),
    (lambda: F.linear(leaf((5, 2)), W, b), r"x has 2 features, the weight \(3, 4\) takes 3"),
    (lambda: F.linear(leaf(()), W), r"x must be \(\.\.\., d_in\), got \(\)"),
    (lambda: F.linear(X, SCALE), r"W \(d_in, d_out\), \(3,\)"),
    (lambda: F.linear(X, W, leaf((1,))), r"weight \(3, 4\) needs a bias \(4,\), got \(1,\)"),
    (lambda: F.linear(X, W, leaf((2, 4))), r"needs a bias \(4,\), got \(2, 4\)"),
    (lambda: F.lora_linear(X, FROZEN, None, B, A, 2.0), r"A \(2, 4\) and B \(3, 2\) do not fit"),
    (lambda: F.lora_linear(X, FROZEN, None, A, leaf((1, 4)), 2.0), r"be \(3, r\) and \(r, 4\)"),
    (lambda: F.lora_linear(X, FROZEN, leaf((3,)), A, B, 2.0), r"needs a bias \(4,\), got \(3,\)"),
    (lambda: F.lora_linear(leaf((2, 4)), FROZEN, None, A, B, 2.0), "lora_linear: x has 4 features"),
    (lambda: F.embedding(leaf((4, 2, 1)), [0]), r"a table of \(4, 2, 1\)"),
    (lambda: F.layer_norm(X, leaf((2,)), SCALE), r"weight and bias \(C,\), got \(2, 3\), \(2,\)"),
    (lambda: F.layer_norm(X, SCALE, leaf(())), r"got \(2, 3\), \(3,\), \(\)"),
    (lambda: F.layer_norm(X, SCALE, X), r"got \(2, 3\), \(3,\), \(2, 3\)"),
    (lambda: F.layer_norm(leaf((2, 0)), leaf((0,)), leaf((0,))), "C >= 1"),
    (lambda: F.rms_norm(leaf(()), leaf(())), "rms_norm: x must be"),
    (lambda: F.rms_norm(X, leaf((1,))), r"C >= 1, weight \(C,\), got \(2, 3\), \(1,\)"),
    (lambda: F.softmax(leaf((3, 0))), r"axis -1 of a value of shape \(3, 0\) has no entries"),
    (lambda: F.softmax(leaf((0, 3)), 0), r"axis 0 of a value of shape \(0, 3\) has no entries"),
    (lambda: F.cross_entropy(leaf(()), 0), "logits must be .*, got a single number"),
    (lambda: F.cross_entropy(LOGITS, np.zeros((3, 2), int)), r"numbers of shape \(2, 3\)"),
    (lambda: F.cross_entropy(LOGITS, np.zeros(6, int)), r"\(6,\) do not match logits \(2, 3, 5\)"),
    (lambda: F.cross_entropy(LOGITS, 0), r"targets \(\) do not match logits \(2, 3, 5\)"),
    (lambda: F.cross_entropy(X, np.eye(3)[:2]), r"for one-hot rows pass targets\.argmax\(-1\)"),
    (lambda: F.cross_entropy(leaf((0, 3)), np.zeros(0, int)), "the batch is empty"),
    (lambda: F.cross_entropy(leaf((0, 3)), [], 7), "the batch is empty"),
    (lambda: F.rope(Q[0], 2), r"must be \(B, T, H\*D\) with D even, got \(3, 8\) and 2 heads"),
    (lambda: F.rope(leaf((1, 2, 6)), 2), r"with D even, got \(1, 2, 6\) and 2 heads"),
    (lambda: F.rope(Q, 3), "and 3 heads"),
    (lambda: F.attention(Q, Q, Q, 3), "q of 8 channels in 3 heads does not fit k of 8 in 3"),
    (lambda: F.attention(Q, K, K, 4), "q of 8 channels in 4 heads does not fit k of 4 in 4"),
    (lambda: F.attention(Q, Q, Q, 4, 2), "q of 8 channels in 4 heads does not fit k of 8 in 2"),
    (lambda: F.attention(Q, K, K, 4, 3), "n_kv_head=3 must divide n_head=4"),
    (lambda: F.attention(Q, K, Q, 4, 2), r"k and v both \(B, S, J\*D\), got \(1, 3, 8\)"),
    (lambda: F.attention(Q, leaf((2, 3, 8)), leaf((2, 3, 8)), 2), r"got \(1, 3, 8\), \(2, 3, 8\)"),
    (lambda: F.attention(Q[0], Q[0], Q[0], 2), r"q must be \(B, T, H\*D\)"),
    (lambda: F.attention(Q, Q[:, :2], Q[:, :2], 2), "3 queries .* of only 2 keys"),
    (lambda: F.attention(*[leaf((1, 3, 0))] * 3, 2), "all heads must have the same size"),
]  # fmt: skip

WRONG_VALUES = [
    (lambda: F.lora_linear(X, W, None, A, B, 2.0), "gives its weight no gradient: freeze it"),
    (lambda: F.cross_entropy(LOGITS[0], np.full(3, -100)), r"every target is ignore_index \(-100"),
    (lambda: F.cross_entropy(LOGITS[0], [1.0, 2.0, 0.0]), "targets must be integers, got float64"),
    (lambda: F.cross_entropy(LOGITS[0], [True, False, True]), "targets must be integers, got bool"),
    (lambda: F.embedding(TABLE, [0.0, 1.0]), r"integers in a table \(V, C\), got float64"),
    (lambda: F.embedding(TABLE, [True, False]), "got bool"),
    (lambda: F.embedding(TABLE, None), "got object"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "sentence"), WRONG_SIZES + WRONG_VALUES)
def test_what_does_not_fit_is_refused_in_one_sentence(call, sentence):
    with pytest.raises(UsageError, match=sentence) as raised:
        call()
    assert "\n" not in str(raised.value)


NOT_POSITIVE = [0, -1e-5, NAN, float("inf"), None, True, "1e-5", [1e-5], np.ones(1), 1j]
NOT_WHOLE = [2.0, NAN, True, "2", [2], np.array(2), np.float64(2)]


@pytest.mark.parametrize("value", NOT_POSITIVE)
def test_eps_and_theta_must_be_positive_numbers(value):
    for call in (
        lambda: F.layer_norm(X, SCALE, SCALE, value),
        lambda: F.rms_norm(X, SCALE, value),
        lambda: F.rope(Q, 2, 0, value),
    ):
        with pytest.raises(UsageError, match=r"(eps|theta) must be a positive number, got"):
            call()


@pytest.mark.parametrize("value", [*NOT_WHOLE, 0, -2, None])
def test_numbers_of_heads_must_be_whole_and_at_least_1(value):
    for call in (lambda: F.rope(Q, value), lambda: F.attention(Q, Q, Q, value)):
        with pytest.raises(UsageError, match="n_head must be a whole number of at least 1, got"):
            call()
    if value is not None:  # as many as heads
        with pytest.raises(UsageError, match="n_kv_head must be a whole number of at least 1, got"):
            F.attention(Q, Q, Q, 2, value)


@pytest.mark.parametrize("value", [*NOT_WHOLE, None])
def test_a_position_and_an_index_to_ignore_must_be_whole(value):
    with pytest.raises(UsageError, match="start must be a whole number of at least 0, got"):
        F.rope(Q, 2, value)
    with pytest.raises(UsageError, match="ignore_index must be a whole number, got"):
        F.cross_entropy(X, [0, 1], value)


@pytest.mark.parametrize("p", [1.5, 1, 1.0, -0.1, NAN, float("inf"), None, True, "0.1", [0.1]])
def test_dropout_drops_a_share_between_0_and_1_also_where_it_would_not_happen(p):
    for rng in (RNG, None):
        with pytest.raises(UsageError, match=r"share of entries to drop, in \[0, 1\), got"):
            F.dropout(X, p, rng)


@pytest.mark.parametrize("rng", [0, 1.5, True, "seed", np.random, np.random.RandomState(0)])
def test_dropout_draws_from_a_generator_only(rng):
    with pytest.raises(UsageError, match=r"rng must be np\.random\.default_rng\(seed\), got"):
        F.dropout(X, 0.5, rng)


@pytest.mark.parametrize("scale", [NAN, float("inf"), None, True, "2", np.ones(2)])
def test_the_scale_of_an_adapter_is_a_finite_number(scale):
    with pytest.raises(UsageError, match="scale must be a finite number, got"):
        F.lora_linear(X, FROZEN, None, A, B, scale)


@pytest.mark.parametrize("ids", [[0, 4], [-1, 2], [[7], [-3]]])
def test_a_token_id_outside_the_table_is_named(ids):
    expected = rf"in 0\.\.3, got {np.min(ids)}\.\.{np.max(ids)}; was the text encoded with"
    with pytest.raises(IndexError, match=expected):
        F.embedding(TABLE, np.array(ids))


@pytest.mark.parametrize("target", [-1, 3, -100])
def test_cross_entropy_refuses_a_target_outside_the_vocabulary(target):
    with pytest.raises(IndexError, match=r"targets must lie in 0\.\.2 or be -7, got"):
        F.cross_entropy(X, np.array([0, target]), ignore_index=-7)


@pytest.mark.parametrize("value", [None, 1.5, [1.0], np.ones((2, 3)), "x", (x for x in [1.0])])
def test_only_tensors_are_taken_and_what_came_instead_is_named(value):
    calls = {
        "linear": lambda: F.linear(value, W),
        "lora_linear": lambda: F.lora_linear(X, FROZEN, None, value, B, 2.0),
        "embedding": lambda: F.embedding(value, [0]),
        "layer_norm": lambda: F.layer_norm(X, SCALE, value),
        "rms_norm": lambda: F.rms_norm(X, value),
        "gelu": lambda: F.gelu(value),
        "silu": lambda: F.silu(value),
        "softmax": lambda: F.softmax(value),
        "cross_entropy": lambda: F.cross_entropy(value, [0]),
        "dropout": lambda: F.dropout(value, 0.5, None),
        "rope": lambda: F.rope(value, 1),
        "attention": lambda: F.attention(Q, Q, value, 2),
    }
    for name, call in calls.items():
        with pytest.raises(
            TypeError, match=f"^{name} computes with Tensors, got {type(value).__name__}"
        ):
            call()


def test_ids_and_targets_are_arrays_and_a_tensor_is_told_so():
    for call in (lambda: F.embedding(TABLE, Tensor([1])), lambda: F.cross_entropy(X, X)):
        with pytest.raises(TypeError, match=r"NumPy was given a Tensor.*: use \.data"):
            call()


def test_a_frozen_weight_of_another_dtype_is_named_too():
    weight = leaf((3, 4), dtype=np.float32, train=False)
    with pytest.raises(TypeError, match="lora_linear: operands mix float32 and float64"):
        F.lora_linear(X, weight, None, A, B, 2.0)


def test_a_weight_that_could_train_is_fine_where_nothing_is_recorded():
    with no_grad():
        expected = F.lora_linear(X, FROZEN, None, A, B, 2.0).data
        np.testing.assert_array_equal(
            F.lora_linear(X, leaf((3, 4)), None, A, B, 2.0).data, expected
        )


def test_ids_may_be_a_list_a_number_or_none_at_all():
    np.testing.assert_array_equal(F.embedding(TABLE, [3, 0]).data, TABLE.data[[3, 0]])
    np.testing.assert_array_equal(F.embedding(TABLE, 2).data, TABLE.data[2])
    assert F.embedding(TABLE, np.zeros((2, 0), int)).shape == (2, 0, 2)

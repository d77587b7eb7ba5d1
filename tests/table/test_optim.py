"""Claims about the optimizers: the papers' formulas, number by number; state; schedule; clipping.

The reference updates one parameter at a time, in float64, as the formulas are printed; the package
updates all of them in one flat array.
"""

import math
import re

import numpy as np
import pytest
from builders import tiny

from minilora.lora import LoraConfig, add_adapter, merge_and_unload
from minilora.methods.trainable import count_parameters
from minilora.optim import SGD, AdamW, clip_grad_norm, warmup_cosine
from minilora.system.errors import StateError, UsageError
from minilora.tensor import Tensor
from minilora.transformer import Transformer, TransformerConfig

# Vectors and matrices in turn, so that sorting them for the decay moves every one.
SHAPES = [(3,), (2, 3), (), (4, 1), (5,), (2, 2, 2)]


def parameters(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [Tensor(np.asarray(rng.standard_normal(s), dtype), requires_grad=True) for s in SHAPES]


def set_gradients(params, step):
    """Gradients of very different sizes, another one at every step."""
    rng = np.random.default_rng((1, step))
    for i, p in enumerate(params):
        p.grad = np.asarray(rng.standard_normal(p.shape) * 10.0 ** (i - 3), p.dtype)


def run(optimizer, params, steps, first=0):
    for step in range(first, first + steps):
        set_gradients(params, step)
        optimizer.step()


def arrays(params):
    return [p.data.copy() for p in params]


def assert_all_equal(found, expected):
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        np.testing.assert_array_equal(a, b, err_msg=f"parameter {i} of shape {SHAPES[i]}")


def assert_all_close(found, expected, rtol):
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        np.testing.assert_allclose(a, b, rtol, 1e-12, err_msg=f"parameter {i} of {SHAPES[i]}")


def sgd_by_the_formula(params, steps, lr, momentum):
    values = arrays(params)
    v = [np.zeros_like(x) for x in values]
    for step in range(steps):
        set_gradients(params, step)
        for i, p in enumerate(params):
            v[i] = momentum * v[i] + p.grad
            values[i] = values[i] - lr * v[i]
    return values


def adamw_by_the_formula(params, steps, lr, beta1, beta2, eps, decay, factors=(1, 1, 1, 1, 1, 1)):
    """The factors multiply the rate of the gradient's step, not that of the decay."""
    values = arrays(params)
    m = [np.zeros_like(x) for x in values]
    v = [np.zeros_like(x) for x in values]
    for t in range(1, steps + 1):
        set_gradients(params, t - 1)
        for i, p in enumerate(params):
            m[i] = beta1 * m[i] + (1 - beta1) * p.grad
            v[i] = beta2 * v[i] + (1 - beta2) * p.grad**2
            m_hat, v_hat = m[i] / (1 - beta1**t), v[i] / (1 - beta2**t)
            shrink = 1 - lr * decay if p.ndim >= 2 else 1
            values[i] = shrink * values[i] - factors[i] * lr * m_hat / (np.sqrt(v_hat) + eps)
    return values


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_follows_its_formula_for_many_steps(momentum):
    params = parameters()
    expected = sgd_by_the_formula(parameters(), 50, 0.03, momentum)
    run(SGD(params, 0.03, momentum), params, 50)
    assert_all_close(arrays(params), expected, 1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adamw_follows_its_formula_for_many_steps(decay):
    params = parameters()
    expected = adamw_by_the_formula(parameters(), 200, 0.02, 0.8, 0.97, 1e-3, decay)
    run(AdamW(params, 0.02, (0.8, 0.97), 1e-3, decay), params, 200)
    assert_all_close(arrays(params), expected, 1e-10)


FACTORS = (16, 1, 0.5, 2, 1, 8)  # a different one for vectors and matrices in their order


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_factors_multiply_the_rate_of_their_own_parameters(decay):
    """Also when matrices are sorted before vectors, as all but one are here."""
    params, options = parameters(), (0.02, 0.8, 0.97, 1e-3, decay)
    expected = adamw_by_the_formula(parameters(), 50, *options, FACTORS)
    optimizer = AdamW(params, 0.02, (0.8, 0.97), 1e-3, decay, lr_factors=FACTORS)
    assert [p.ndim >= 2 for p in optimizer.params] == sorted(
        (len(shape) >= 2 for shape in SHAPES), reverse=True
    )
    run(optimizer, params, 50)
    assert_all_close(arrays(params), expected, 1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_factors_of_one_are_no_factors_bit_for_bit(dtype):
    without, with_ones = parameters(dtype), parameters(dtype)
    run(AdamW(without), without, 20)
    run(AdamW(with_ones, lr_factors=[1.0] * len(SHAPES)), with_ones, 20)
    assert_all_equal(arrays(with_ones), arrays(without))
    assert all(p.dtype == dtype for p in with_ones)


def test_factors_obey_a_learning_rate_changed_between_steps():
    twice, once = parameters(), parameters()
    a = AdamW(twice, lr=0.01, weight_decay=0.0, lr_factors=[2.0] * len(SHAPES))
    b = AdamW(once, lr=0.02, weight_decay=0.0)
    for step, lr in enumerate([0.01, 0.003, 0.0]):
        a.lr, b.lr = lr, 2 * lr
        run(a, twice, 1, first=step)
        run(b, once, 1, first=step)
    assert_all_close(arrays(twice), arrays(once), 1e-12)


def test_factors_are_no_state_and_a_restored_run_keeps_them():
    whole, first, second = parameters(), parameters(), parameters()
    run(AdamW(whole, lr_factors=FACTORS), whole, 30)
    optimizer = AdamW(first, lr_factors=FACTORS)
    run(optimizer, first, 13)
    restored = AdamW(second, lr_factors=FACTORS)
    assert set(optimizer.state()) == {"flat", "m", "v", "t"}
    restored.load_state(optimizer.state())
    assert restored.state_bytes == AdamW(parameters()).state_bytes
    run(restored, second, 17, first=13)
    assert_all_equal(arrays(second), arrays(whole))


def test_adamws_defaults_are_the_papers():
    params = parameters()
    expected = adamw_by_the_formula(parameters(), 20, 1e-3, 0.9, 0.999, 1e-8, 0.01)
    run(AdamW(params), params, 20)
    assert_all_close(arrays(params), expected, 1e-12)


def test_adamws_first_step_has_length_lr_whatever_the_size_of_the_gradient():
    params = parameters()
    before = arrays(params)
    run(AdamW(params, lr=0.1, weight_decay=0.0), params, 1)
    for p, old in zip(params, before, strict=True):
        np.testing.assert_allclose(p.data, old - 0.1 * np.sign(p.grad), atol=1e-4)


def test_without_gradient_matrices_decay_and_vectors_stay_bit_for_bit():
    params = parameters()
    before = arrays(params)
    optimizer = AdamW(params, lr=0.5, weight_decay=0.2)
    for _ in range(3):
        for p in params:
            p.grad = np.zeros_like(p.data)
        optimizer.step()
    for p, old in zip(params, before, strict=True):
        if p.ndim >= 2:
            np.testing.assert_allclose(p.data, old * 0.9**3, rtol=1e-14)
        else:
            np.testing.assert_array_equal(p.data, old)


def test_decay_does_not_enter_the_moments():
    with_decay, without = parameters(), parameters()
    a, b = AdamW(with_decay, weight_decay=0.5), AdamW(without, weight_decay=0.0)
    run(a, with_decay, 10)
    run(b, without, 10)
    np.testing.assert_array_equal(a.m, b.m)
    np.testing.assert_array_equal(a.v, b.v)


def test_adamw_obeys_a_learning_rate_changed_between_steps():
    params, twins = parameters(), parameters()
    optimizer, twin = AdamW(params, lr=0.1), AdamW(twins, lr=0.1)
    run(optimizer, params, 1)
    run(twin, twins, 1)
    optimizer.lr = 0.0
    before = arrays(params)
    run(optimizer, params, 1, first=1)
    run(twin, twins, 1, first=1)
    assert_all_equal(arrays(params), before)
    assert not np.array_equal(twin.flat, optimizer.flat)


def test_adamw_keeps_values_and_objects_and_makes_all_parameters_views_of_one_buffer():
    params = parameters()
    before, objects = arrays(params), [id(p) for p in params]
    optimizer = AdamW(params)
    assert_all_equal(arrays(params), before)
    assert sorted(map(id, optimizer.params)) == sorted(objects)
    assert all(np.shares_memory(p.data, optimizer.flat) for p in params)
    assert optimizer.flat.size == sum(p.size for p in params)
    buffers = [p.data for p in params]
    run(optimizer, params, 3)
    assert all(p.data is buffer for p, buffer in zip(params, buffers, strict=True))
    optimizer.flat[:] = 7
    assert all((p.data == 7).all() for p in params)


def test_a_trained_model_computes_with_the_updated_buffer():
    model = Transformer(TransformerConfig(5, 4, 1, 1, 2), rng=np.random.default_rng(0))
    ids = np.array([[1, 2, 3]])
    before = model(ids).data
    optimizer = AdamW(model.trainable_parameters(), lr=0.1)
    np.testing.assert_array_equal(model(ids).data, before)
    (model(ids) * model(ids)).sum().backward()
    optimizer.step()
    assert not np.allclose(model(ids).data, before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [SGD, AdamW], ids=["sgd", "adamw"])
def test_the_parameters_and_the_state_keep_their_dtype(make, dtype):
    params = parameters(dtype)
    optimizer = make(params, 0.1, momentum=0.9) if make is SGD else make(params, 0.1)
    run(optimizer, params, 2)
    clip_grad_norm(params, 1e-3)
    state = optimizer.velocity if make is SGD else [optimizer.flat, optimizer.m, optimizer.v]
    assert {p.data.dtype for p in params} == {p.grad.dtype for p in params} == {np.dtype(dtype)}
    assert {part.dtype for part in state} == {np.dtype(dtype)}


def test_float32_stays_within_rounding_of_float64():
    narrow, wide = parameters(np.float32), parameters(np.float32)
    for p in wide:
        p.data = p.data.astype(np.float64)
    run(AdamW(narrow, 0.01), narrow, 100)
    run(AdamW(wide, 0.01), wide, 100)
    for a, b in zip(narrow, wide, strict=True):
        np.testing.assert_allclose(a.data, b.data, rtol=1e-3, atol=1e-5)


def test_restored_state_continues_bit_for_bit():
    params = parameters(np.float32)
    optimizer = AdamW(params, 0.05, weight_decay=0.1)
    run(optimizer, params, 7)
    saved = {key: np.array(value) for key, value in optimizer.state().items()}
    run(optimizer, params, 5, first=7)

    others = parameters(np.float32, seed=9)
    restored = AdamW(others, 0.05, weight_decay=0.1)
    buffer = restored.flat
    restored.load_state(saved)
    assert restored.flat is buffer and restored.t == 7
    assert all(np.shares_memory(p.data, buffer) for p in others)
    run(restored, others, 5, first=7)
    assert_all_equal(arrays(others), arrays(params))
    for key, value in optimizer.state().items():
        np.testing.assert_array_equal(restored.state()[key], value, err_msg=key)


def test_loaded_state_is_copied_not_shared():
    first, second = AdamW(parameters()), AdamW(parameters(seed=1))
    second.load_state(first.state())
    run(second, second.params, 1)
    assert not np.array_equal(first.flat, second.flat) and not first.m.any()


def test_state_bytes_are_two_moments_for_adamw_one_for_momentum_and_none_for_sgd():
    numbers = sum(p.size for p in parameters())
    assert AdamW(parameters(np.float32)).state_bytes == 2 * 4 * numbers
    assert AdamW(parameters(np.float64)).state_bytes == 2 * 8 * numbers
    assert SGD(parameters(np.float32), 0.1, momentum=0.9).state_bytes == 4 * numbers
    assert SGD(parameters(np.float32), 0.1).state_bytes == 0


def test_frozen_parameters_have_no_optimizer_state():
    rng = np.random.default_rng(0)
    model = Transformer(TransformerConfig(96, 8, 1, 2, 8), rng=rng)
    add_adapter(model, LoraConfig(r=2), rng=rng)
    trainable, total = count_parameters(model)
    optimizer = AdamW(model.trainable_parameters())
    assert optimizer.m.size == optimizer.v.size == optimizer.flat.size == trainable < total / 10
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert frozen and not any(np.shares_memory(p.data, optimizer.flat) for p in frozen)


@pytest.mark.parametrize("make", [SGD, AdamW], ids=["sgd", "adamw"])
def test_a_missing_gradient_is_an_error_with_the_shape(make):
    params = parameters()
    optimizer = make(params, 0.1)
    set_gradients(params, 0)
    params[3].grad = None
    with pytest.raises(RuntimeError, match=r"\(4, 1\) has no gradient: call loss.backward\(\)"):
        optimizer.step()


def test_adamw_changes_nothing_when_a_gradient_is_missing():
    params = parameters()
    optimizer = AdamW(params)
    before = arrays(params)
    set_gradients(params, 0)
    params[-1].grad = None
    with pytest.raises(RuntimeError):
        optimizer.step()
    assert_all_equal(arrays(params), before)
    assert optimizer.t == 0 and not optimizer.m.any() and not optimizer.v.any()


@pytest.mark.parametrize("make", [SGD, AdamW], ids=["sgd", "adamw"])
def test_zero_grad_forgets_every_gradient(make):
    params = parameters()
    optimizer = make(params, 0.1)
    set_gradients(params, 0)
    optimizer.zero_grad()
    assert [p.grad for p in params] == [None] * len(params)


@pytest.mark.parametrize("make", [SGD, AdamW], ids=["sgd", "adamw"])
def test_a_step_leaves_the_gradients_as_they_are(make):
    params = parameters()
    optimizer = make(params, 0.1, momentum=0.9) if make is SGD else make(params, 0.1)
    run(optimizer, params, 2)
    grads = [p.grad.copy() for p in params]
    optimizer.step()
    assert_all_equal([p.grad for p in params], grads)


def test_read_only_broadcast_gradients_are_welcome_to_both_optimizers():
    for make in (SGD, AdamW):
        p = Tensor(np.ones((2, 3)), requires_grad=True)
        p.grad = np.broadcast_to(np.array(2.0), (2, 3))
        make([p], 0.25).step()
        assert (p.data < 1).all() and len(np.unique(p.data)) == 1


def joint_norm(params):
    return math.sqrt(sum((p.grad.astype(np.float64) ** 2).sum() for p in params))


def test_clipping_scales_all_gradients_together_and_returns_the_length_before():
    params = parameters()
    set_gradients(params, 0)
    before, grads = joint_norm(params), [p.grad.copy() for p in params]
    assert before > 0.5
    assert clip_grad_norm(params, 0.5) == pytest.approx(before, rel=1e-12)
    assert joint_norm(params) == pytest.approx(0.5, rel=1e-5) and joint_norm(params) <= 0.5
    ratios = [p.grad / g for p, g in zip(params, grads, strict=True)]
    np.testing.assert_allclose(np.concatenate([r.ravel() for r in ratios]), ratios[2], rtol=1e-12)


def test_clipping_changes_nothing_below_the_limit():
    params = parameters()
    set_gradients(params, 0)
    objects, grads = [p.grad for p in params], [p.grad.copy() for p in params]
    norm = joint_norm(params)
    assert clip_grad_norm(params, norm * 1.001) == pytest.approx(norm)
    assert all(p.grad is one for p, one in zip(params, objects, strict=True))
    assert_all_equal([p.grad for p in params], grads)


def test_clipping_passes_over_parameters_without_gradient():
    params = parameters()
    params[1].grad = np.full((2, 3), 2.0)
    assert clip_grad_norm(params, 1.0) == pytest.approx(2 * math.sqrt(6))
    np.testing.assert_allclose(params[1].grad, 1 / math.sqrt(6), rtol=1e-5)
    assert params[0].grad is None
    assert clip_grad_norm(parameters(), 1.0) == 0.0


def test_clipping_scales_an_array_that_two_parameters_share_once_for_each():
    shared = np.full((3,), 4.0)
    a, b = (Tensor(np.zeros(3), requires_grad=True) for _ in range(2))
    a.grad = b.grad = shared
    clip_grad_norm([a, b], 1.0)
    np.testing.assert_allclose([a.grad, b.grad], 1 / math.sqrt(6), rtol=1e-5)
    np.testing.assert_array_equal(shared, 4.0)


def test_clipping_takes_read_only_broadcast_gradients():
    p = Tensor(np.zeros((2, 8)), requires_grad=True)
    p.grad = np.broadcast_to(np.array([[3.0], [4.0]]), (2, 8))
    assert not p.grad.flags.writeable
    assert clip_grad_norm([p], 1.0) == pytest.approx(5 * math.sqrt(8))
    assert joint_norm([p]) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_length_of_a_gradient_that_is_not_finite_is_not_finite(bad):
    params = parameters()
    set_gradients(params, 0)
    params[4].grad[2] = bad
    with np.errstate(invalid="ignore"):
        assert not math.isfinite(clip_grad_norm(params, 1.0))


def test_the_schedule_rises_in_equal_parts_and_falls_to_a_tenth():
    factors = [warmup_cosine(i, 1000, warmup=20) for i in range(1001)]
    assert factors[0] == pytest.approx(1 / 20)
    assert factors[9] == pytest.approx(10 / 20, abs=1e-3)
    assert max(factors) == factors[19] == pytest.approx(1, abs=2e-3)
    assert factors[500] == pytest.approx(0.55)  # half-way between 1 and 0.1
    assert factors[250] == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert factors[1000] == pytest.approx(0.1) and factors[999] == pytest.approx(0.1, abs=1e-4)
    assert all(np.diff(factors[:20]) > 0) and all(np.diff(factors[19:]) < 0)


def test_the_schedule_takes_any_warm_up_and_any_end():
    assert warmup_cosine(0, 10, warmup=0) == warmup_cosine(0, 10, warmup=1) == 1
    assert warmup_cosine(10, 10, warmup=0, final=0.0) == pytest.approx(0)
    assert [warmup_cosine(i, 10, 0, final=1.0) for i in range(11)] == pytest.approx([1] * 11)


NAN, INF = math.nan, math.inf
OPTIMIZERS = pytest.mark.parametrize("make", [SGD, AdamW], ids=["sgd", "adamw"])


def some_frozen():
    params = parameters()
    params[1].requires_grad = params[3].requires_grad = False
    return params


@OPTIMIZERS
@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        (list, "no parameters: is everything frozen"),
        (lambda: iter(()), "no parameters: is everything frozen"),
        (some_frozen, "2 of the optimizer's 6 parameters are frozen; pass model.trainable_param"),
        (lambda: parameters()[1], "such as model.trainable_parameters(), got one Tensor"),
        (tiny, "such as model.trainable_parameters(), got one Transformer"),
        (lambda: None, "such as model.trainable_parameters(), got one NoneType"),
        (lambda: "abc", "got a str among them"),
        (lambda: [p.data for p in parameters()], "got a ndarray among them"),
        (lambda: tiny().named_parameters(), "got a tuple among them"),
        (lambda: [p * 2 for p in parameters()], "a Tensor of shape (3,) is computed from others"),
    ],
)
def test_what_is_no_list_of_trainable_parameters_is_refused(make, params, sentence):
    with pytest.raises(UsageError, match=re.escape(sentence)):
        make(params(), 0.1)


@pytest.mark.parametrize(
    ("make", "options", "sentence"),
    [
        *((SGD, dict(lr=v), "lr must be a positive number") for v in (-1, 0, NAN, INF, True, None)),
        *((AdamW, dict(lr=v), "lr must be a positive number") for v in (-1, 0, NAN, INF, True)),
        *((SGD, dict(lr=1, momentum=v), "momentum must be a") for v in (-0.1, 1, NAN, True, None)),
        *((AdamW, dict(betas=(0.9, v)), "betas[1] must be") for v in (-0.1, 1, NAN, True, None)),
        *((AdamW, dict(betas=v), "betas must be two numbers") for v in (0.9, (0.9,), None)),
        *((AdamW, dict(eps=v), "eps must be a positive number") for v in (-1e-8, 0, NAN, INF)),
        *((AdamW, dict(weight_decay=v), "weight_decay must be") for v in (-0.1, NAN, True, None)),
        *((AdamW, dict(lr_factors=[1.0] * n), f"lr_factors are {n} for 6") for n in (0, 5, 7)),
        (AdamW, dict(lr_factors=[1, 1, NAN, 1, 1, 1]), "lr_factors[2] must be a positive number"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make, options, sentence):
    with pytest.raises(UsageError, match=re.escape(sentence)):
        make(parameters(), **options)


@OPTIMIZERS
@pytest.mark.parametrize("lr", [NAN, INF, -1])
def test_a_rate_set_to_no_number_is_refused_at_the_step(make, lr):
    params = parameters()
    optimizer, before = make(params, 0.1), arrays(params)
    set_gradients(params, 0)
    optimizer.lr = lr
    with pytest.raises(UsageError, match=f"lr was set to {lr}"):
        optimizer.step()
    assert_all_equal(arrays(params), before)


@OPTIMIZERS
def test_a_generator_and_a_parameter_given_twice_count_each_parameter_once(make):
    params, twice = parameters(), parameters()
    run(make(params, 0.1), params, 3)
    optimizer = make((p for p in twice + twice[::-1]), 0.1)
    assert len(optimizer.params) == len(SHAPES)
    run(optimizer, twice, 3)
    assert_all_equal(arrays(twice), arrays(params))


def test_parameters_of_two_dtypes_are_refused_by_adamw_and_stay_as_they_are():
    params = parameters(np.float32) + parameters(np.float64)
    with pytest.raises(UsageError, match="mix float32 and float64; use model.to"):
        AdamW(params)
    assert {p.dtype for p in params} == {np.dtype("f4"), np.dtype("f8")}


def merged(model):
    add_adapter(model, LoraConfig(r=2), rng=np.random.default_rng(0))
    for p in model.trainable_parameters():
        p.data += 1
    merge_and_unload(model)
    model.requires_grad_(True)


@pytest.mark.parametrize(
    "rebind",
    [
        lambda model: AdamW(model.parameters()),
        lambda model: model.to(np.float64),
        lambda model: setattr(model.norm.weight, "data", model.norm.weight.data.copy()),
        merged,
    ],
    ids=["second AdamW", "model.to", "p.data", "merge_and_unload"],
)
def test_an_optimizer_whose_parameters_got_new_arrays_says_so_and_changes_nothing(rebind):
    """Its step would write into arrays that nobody reads."""
    model = tiny()
    optimizer = AdamW(model.parameters(), 0.1)
    rebind(model)
    before = model.state_dict()
    for p in model.parameters():
        p.grad = np.ones_like(p.data)
    with pytest.raises(StateError, match="given a new array after .* make the optimizer, or the"):
        optimizer.step()
    assert optimizer.t == 0 and not optimizer.m.any()
    assert all(np.array_equal(value, before[k]) for k, value in model.state_dict().items())


@OPTIMIZERS
def test_a_gradient_of_another_shape_is_an_error_that_names_both(make):
    params = parameters()
    optimizer, before = make(params, 0.1), arrays(params)
    set_gradients(params, 0)
    params[1].grad = np.ones((3, 2))
    with pytest.raises(StateError, match=re.escape("(2, 3) was given a gradient of shape (3, 2)")):
        optimizer.step()
    assert_all_equal(arrays(params), before)


@OPTIMIZERS
def test_a_parameter_frozen_since_is_named_as_frozen(make):
    params = parameters()
    optimizer = make(params, 0.1)
    set_gradients(params, 0)
    params[2].requires_grad, params[2].grad = False, None
    with pytest.raises(StateError, match="it was frozen after the optimizer was made"):
        optimizer.step()


@OPTIMIZERS
def test_a_backward_pass_through_a_loss_of_before_the_step_is_an_error(make):
    """Its gradient would be that of neither the old weights nor the new ones."""
    w = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    optimizer = make([w], 0.5)
    first, second = (w * w).sum(), (w * w * w).sum()
    first.backward()
    optimizer.step()
    with pytest.raises(StateError, match="was changed after it was used"):
        second.backward()


@pytest.mark.parametrize("change", [dict(flat=None), dict(m=np.zeros(3)), dict(v=-1.0), dict(t=-1)])
@pytest.mark.parametrize("bad", [False, True])
def test_a_state_that_does_not_fit_changes_nothing(change, bad):
    optimizer, other = AdamW(parameters()), AdamW(parameters(seed=1))
    run(other, other.params, 3)
    state = dict(other.state())
    for key, value in change.items():
        if bad:
            state[key] = np.full_like(state[key], np.nan if key != "t" else -1)
        elif value is None:
            del state[key]
        else:
            state[key] = np.full_like(state[key], value) if np.ndim(value) == 0 else value
    before = {key: np.array(value) for key, value in optimizer.state().items()}
    with pytest.raises(UsageError, match="no state of AdamW|where these parameters|no step leaves"):
        optimizer.load_state(state)
    for key, value in optimizer.state().items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)


@pytest.mark.parametrize("limit", [0, -1, NAN, True, None, "1"])
def test_a_limit_that_is_no_length_is_refused_and_no_gradient_changes(limit):
    params = parameters()
    set_gradients(params, 0)
    before = [p.grad for p in params]
    with pytest.raises(UsageError, match="max_norm must be a positive number"):
        clip_grad_norm(params, limit)
    assert all(p.grad is g for p, g in zip(params, before, strict=True))


def test_clipping_takes_a_generator_one_tensor_and_a_parameter_given_twice():
    for given in (lambda p: (q for q in [p]), lambda p: p, lambda p: [p, p]):
        p = Tensor(np.zeros(4, np.float32), requires_grad=True)
        p.grad = np.full(4, 10, np.float32)
        assert clip_grad_norm(given(p), 1.0) == pytest.approx(20)
        np.testing.assert_allclose(p.grad, 0.5, rtol=1e-5)


def test_clipping_without_a_limit_only_measures():
    params = parameters()
    set_gradients(params, 0)
    before = [p.grad for p in params]
    assert clip_grad_norm(params, INF) == pytest.approx(joint_norm(params))
    assert all(p.grad is g for p, g in zip(params, before, strict=True))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (dict(step=-1), "step must be a whole number of at least 0, got -1"),
        (dict(step=1.5), "step must be a whole number of at least 0, got 1.5"),
        (dict(step=11), "steps must be a whole number of at least 11, got 10"),
        (dict(steps=0, step=0), "steps must be a whole number of at least 1, got 0"),
        (dict(steps=10.0), "steps must be a whole number of at least 5, got 10.0"),
        (dict(warmup=-1), "warmup must be a whole number of at least 0, got -1"),
        (dict(warmup=2.5), "warmup must be a whole number of at least 0, got 2.5"),
        *((dict(final=v), "final must be a number from 0 to 1") for v in (-0.1, 1.1, NAN, None)),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(arguments, sentence):
    with pytest.raises(UsageError, match=re.escape(sentence)):
        warmup_cosine(**dict(step=5, steps=10) | arguments)

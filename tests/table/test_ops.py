"""Claims about the primitive operations: values are NumPy's, gradients are the true ones.

Gradients are compared with central differences in float64 under a random cotangent (gradcheck);
shapes and memory layouts are drawn by hypothesis, always the same ones. The claims about every op
at once take their calls from strategies.CASES, which includes those of functional.py.
"""

import gc
import inspect
import operator
import weakref

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import (
    CASES,
    HALF,
    broadcastable,
    few,
    layouts,
    leaf,
    leaves,
    seeds,
    shapes,
    value_and_grads,
)

from minilora import functional as F
from minilora import ops
from minilora.tensor import Tensor, grad, no_grad
from minilora.testing import gradcheck

every_op = pytest.mark.parametrize("name", CASES)
BINARY = {
    "add": (ops.add, operator.add),
    "sub": (ops.sub, operator.sub),
    "mul": (ops.mul, operator.mul),
    "div": (ops.div, operator.truediv),
}
UNARY = {
    "neg": (ops.neg, np.negative),
    "exp": (ops.exp, np.exp),
    "tanh": (ops.tanh, np.tanh),
    "square": (lambda x: x**2, np.square),
    "cube": (lambda x: x**3, lambda x: x * x * x),
    "reciprocal": (lambda x: x**-1, lambda x: 1 / x),
    "itself": (lambda x: x**1, np.positive),
}
OF_POSITIVE = {
    "log": (ops.log, np.log),
    "sqrt": (ops.sqrt, np.sqrt),
    "power_half": (lambda x: x**0.5, np.sqrt),
    "power_minus_1.5": (lambda x: x**-1.5, lambda x: 1 / (x * np.sqrt(x))),
}


def test_every_public_op_is_among_the_cases():
    functions = [
        name
        for module in (ops, F)
        for name, f in inspect.getmembers(module, inspect.isfunction)
        if f.__module__ == module.__name__ and not name.startswith("_") and name != "as_tensor"
    ]
    assert sorted(functions) == sorted(CASES)


@every_op
@few
@given(layout=layouts, seed=seeds)
def test_gradient_is_right_in_every_memory_layout(name, layout, seed):
    case = CASES[name]
    gradcheck(case.f, *case.inputs(seed=seed, layout=layout), seed=seed)


@every_op
@pytest.mark.parametrize("layout", ["transposed", "stepped", "reversed"])
def test_memory_layout_changes_neither_value_nor_gradient(name, layout):
    case = CASES[name]
    value, grads = value_and_grads(case.f, *case.inputs())
    other_value, other_grads = value_and_grads(case.f, *case.inputs(layout=layout))
    np.testing.assert_allclose(other_value, value, rtol=1e-12, atol=1e-12)
    for other, expected in zip(other_grads, grads, strict=True):
        np.testing.assert_allclose(other, expected, rtol=1e-12, atol=1e-12)


@every_op
def test_gradient_is_right_for_an_interior_value_used_twice(name):
    case = CASES[name]

    def twice(*inputs):
        interior = [x * x for x in inputs]
        total = interior[0].sum()
        for h in interior[1:]:
            total = total + h.sum()
        return case.f(*interior) * total

    gradcheck(twice, *case.inputs(), tol=1e-5)


@every_op
def test_the_gradient_of_one_input_does_not_depend_on_which_others_train(name):
    case = CASES[name]
    _, expected = value_and_grads(case.f, *case.inputs())
    for i in range(len(case.shapes)):
        inputs = case.inputs(train=False)
        inputs[i].requires_grad = True
        out = case.f(*inputs)
        cotangent = np.random.default_rng(7).standard_normal(out.shape)
        (out * cotangent).sum().backward()
        np.testing.assert_array_equal(inputs[i].grad, expected[i])
        assert [j for j, x in enumerate(inputs) if x.grad is not None] == [i]


@every_op
def test_float32_in_gives_float32_out_and_float32_gradients(name):
    case = CASES[name]
    inputs = case.inputs(dtype=np.float32)
    out = case.f(*inputs)
    with no_grad():
        assert case.f(*inputs).dtype == np.float32
    assert out.dtype == np.float32
    out.backward(np.ones_like(out.data))
    assert {x.grad.dtype for x in inputs} == {np.dtype(np.float32)}
    value, _ = value_and_grads(case.f, *case.inputs())
    np.testing.assert_allclose(out.data, value, rtol=2e-5, atol=2e-6)


@every_op
def test_nothing_is_recorded_when_nothing_trains(name):
    case = CASES[name]
    with no_grad():
        in_no_grad = case.f(*case.inputs())
    frozen = case.f(*case.inputs(train=False))
    recorded = case.f(*case.inputs())
    assert recorded.requires_grad and recorded.node is not None
    for out in (in_no_grad, frozen):
        assert not out.requires_grad and out.node is None
        np.testing.assert_array_equal(out.data, recorded.data)


@every_op
def test_a_vjp_leaves_its_incoming_gradient_alone(name):
    case = CASES[name]
    inputs = case.inputs()
    out = case.f(*inputs)
    g = np.random.default_rng(0).standard_normal(out.shape)
    before = g.copy()
    g.flags.writeable = False  # writing into it would raise
    out.backward(g)
    np.testing.assert_array_equal(g, before)
    assert all(x.grad is not None for x in inputs)


@every_op
def test_an_op_changes_none_of_its_inputs(name):
    case = CASES[name]
    inputs = case.inputs()
    for x in inputs:
        x.data.flags.writeable = False
    out = case.f(*inputs)
    out.backward(np.ones_like(out.data))


@every_op
def test_an_output_is_freed_without_the_garbage_collector(name):
    case = CASES[name]
    inputs = case.inputs()
    gc.disable()
    try:
        ref = weakref.ref(case.f(*inputs))
        assert ref() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if len(case.shapes) > 1])
def test_mixed_dtypes_are_refused_and_the_op_is_named(name, train):
    case = CASES[name]
    for i in range(len(case.shapes)):
        inputs = case.inputs(dtype=np.float32, train=train)
        inputs[i] = case.inputs(train=train)[i]
        with pytest.raises(
            TypeError, match=rf"^{name}: operands mix float\d\d and float\d\d; .*to\("
        ):
            case.f(*inputs)


@pytest.mark.parametrize("name", BINARY)
@few
@given(pair=broadcastable(2), kinds=st.tuples(layouts, layouts), seed=seeds)
@example(pair=((2, 3), (3,)), kinds=("contiguous",) * 2, seed=0)
@example(pair=((3,), (2, 3)), kinds=("contiguous",) * 2, seed=0)
@example(pair=((1, 3), (2, 1)), kinds=("contiguous",) * 2, seed=0)
@example(pair=((), (2, 3)), kinds=("contiguous",) * 2, seed=0)
@example(pair=((), ()), kinds=("contiguous",) * 2, seed=0)
@example(pair=((2, 0), (1, 1)), kinds=("contiguous",) * 2, seed=0)
def test_arithmetic_is_numpys_and_undoes_broadcasting_in_the_gradient(name, pair, kinds, seed):
    op, of_numpy = BINARY[name]
    a, b = leaf(pair[0], seed, layout=kinds[0]), leaf(pair[1], seed + 1, layout=kinds[1])
    out = op(a, b)
    np.testing.assert_array_equal(out.data, of_numpy(a.data, b.data))
    gradcheck(op, a, b)


@pytest.mark.parametrize("name", [*UNARY, *OF_POSITIVE])
@few
@given(shape=shapes, layout=layouts, seed=seeds)
@example(shape=(), layout="contiguous", seed=0)
@example(shape=(2, 0), layout="contiguous", seed=0)
def test_functions_of_one_value_are_numpys_and_have_the_right_slope(name, shape, layout, seed):
    op, of_numpy = (UNARY | OF_POSITIVE)[name]
    x = leaf(shape, seed, layout=layout, positive=name in OF_POSITIVE)
    np.testing.assert_allclose(op(x).data, of_numpy(x.data), rtol=1e-14)
    gradcheck(op, x)


@few
@given(
    hnp.mutually_broadcastable_shapes(signature=np.matmul.signature, max_dims=2, max_side=3), seeds
)
def test_matmul_is_numpys_for_batches_matrices_and_vectors(drawn, seed):
    a, b = leaves(*drawn.input_shapes, seed=seed)
    np.testing.assert_allclose((a @ b).data, a.data @ b.data, rtol=1e-12, atol=1e-12)
    assert (a @ b).shape == drawn.result_shape
    gradcheck(ops.matmul, a, b)


MATMULS = [
    ((3,), (3,)),
    ((3,), (3, 2)),
    ((2, 3), (3,)),
    ((3,), (2, 3, 2)),
    ((2, 2, 3), (3,)),
    ((2, 2, 3), (3, 2)),
    ((2, 3), (2, 3, 2)),
    ((1, 2, 3), (2, 3, 1)),
    ((2, 1, 2, 3), (3, 3, 1)),
    ((2, 0), (0, 3)),
    ((0, 3), (3, 2)),
    ((0, 2, 3), (3, 2)),
    ((0,), (0,)),
    ((1, 1), (1, 1)),
]


@pytest.mark.parametrize(("left", "right"), MATMULS)
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "stepped", "reversed"])
def test_matmul_of_these_shapes_has_the_right_gradient(left, right, layout):
    a, b = leaves(left, right, layout=layout)
    np.testing.assert_allclose((a @ b).data, a.data @ b.data, rtol=1e-12, atol=1e-12)
    gradcheck(ops.matmul, a, b)


@pytest.mark.parametrize(
    ("left", "right"), [((3,), (1,)), ((1,), (3,)), ((2, 3), (2, 3)), ((), (3,))]
)
def test_matmul_refuses_what_numpy_refuses(left, right):
    with pytest.raises(ValueError, match="matmul"):
        ops.matmul(leaf(left), leaf(right))


@st.composite
def reductions(draw):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3))
    axis = draw(
        st.one_of(
            st.none(),
            st.integers(-len(shape), len(shape) - 1),
            hnp.valid_tuple_axes(len(shape)),
        )
    )
    return shape, axis, draw(st.booleans())


@pytest.mark.parametrize("op", [ops.tensor_sum, ops.mean])
@few
@given(drawn=reductions(), layout=layouts)
@example(drawn=((2, 3), (0, -1), True), layout="contiguous")
@example(drawn=((2, 3), (-1,), False), layout="contiguous")
@example(drawn=((2, 3), (), False), layout="contiguous")
@example(drawn=((2, 0), 1, True), layout="contiguous")
@example(drawn=((2, 0), 0, False), layout="contiguous")
def test_sum_and_mean_take_any_axes(op, drawn, layout):
    shape, axis, keepdims = drawn
    x = leaf(shape, layout=layout)
    if op is ops.mean and not x.size and np.sum(x.data, axis=axis).size:
        with pytest.raises(ValueError, match="mean over an empty axis"):
            op(x, axis, keepdims)
        return
    out = op(x, axis, keepdims)
    expected = np.sum(x.data, axis=axis, keepdims=keepdims)
    if op is ops.mean and x.size:
        expected = np.mean(x.data, axis=axis, keepdims=keepdims)
    np.testing.assert_allclose(out.data, expected, rtol=1e-12, atol=1e-14)
    gradcheck(lambda x: op(x, axis, keepdims), x)


@pytest.mark.parametrize("op", [ops.tensor_sum, ops.mean, ops.tensor_max])
@pytest.mark.parametrize("axis", [None, 0, -1])
@pytest.mark.parametrize("keepdims", [False, True])
def test_a_number_has_one_axis_for_numpy_and_is_its_own_sum(op, axis, keepdims):
    x = leaf(())
    out = op(x, axis, keepdims)
    assert out.shape == () and out.item() == x.item()
    gradcheck(lambda x: op(x, axis, keepdims), x)


def test_the_sum_of_nothing_is_zero_and_it_has_no_mean():
    x = leaf((0, 3))
    assert x.sum().item() == 0
    with pytest.raises(ValueError, match=r"mean over an empty axis of shape \(0, 3\)"):
        x.mean()
    assert x.mean(axis=1).shape == (0,)


@few
@given(drawn=reductions(), layout=layouts)
@example(drawn=((2, 3), (0, -1), True), layout="contiguous")
@example(drawn=((2, 3), (), False), layout="contiguous")
def test_max_takes_any_axes(drawn, layout):
    shape, axis, keepdims = drawn
    x = leaf(shape, layout=layout)
    try:
        expected = x.data.max(axis, keepdims=keepdims)
    except ValueError:  # of nothing; of no rows of nothing too in some versions of NumPy
        with pytest.raises(ValueError, match="zero-size array"):
            x.max(axis, keepdims)
        return
    np.testing.assert_array_equal(x.max(axis, keepdims).data, expected)
    gradcheck(lambda x: x.max(axis, keepdims), x)


def test_equal_largest_entries_share_the_gradient():
    x = Tensor(np.array([[1.0, 3, 3, 3], [2, 0, 0, 1]]), requires_grad=True)
    x.max(axis=1).backward(np.array([6.0, 5]))
    np.testing.assert_array_equal(x.grad, [[0, 2, 2, 2], [5, 0, 0, 0]])


def test_x_to_the_0_has_slope_0_everywhere_also_at_0():
    x = Tensor(np.array([0.0, 1, -2]), requires_grad=True)
    out = x**0
    assert out.data.tolist() == [1, 1, 1]
    assert grad(out.sum(), [x])[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("op", [ops.tensor_sum, ops.mean, ops.tensor_max])
def test_an_axis_may_be_a_numpy_integer(op):
    x = leaf((2, 3))
    np.testing.assert_array_equal(op(x, np.int64(1)).data, op(x, 1).data)


@pytest.mark.parametrize(
    ("shape", "new"),
    [
        ((2, 3), ((3, 2),)),
        ((2, 3), (3, 2)),
        ((2, 3), (-1,)),
        ((2, 3), (1, -1, 2)),
        ((), (1, 1)),
        ((1,), ((),)),
        ((2, 0), (0, 5)),
    ],
)
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "stepped", "reversed"])
def test_reshape_takes_a_shape_or_numbers(shape, new, layout):
    x = leaf(shape, layout=layout)
    np.testing.assert_array_equal(x.reshape(*new).data, x.data.reshape(*new))
    gradcheck(lambda x: x.reshape(*new), x)


@few
@given(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=3), st.data(), layouts)
def test_swapaxes_is_numpys(shape, data, layout):
    i, j = (data.draw(st.integers(-len(shape), len(shape) - 1)) for _ in range(2))
    x = leaf(shape, layout=layout)
    np.testing.assert_array_equal(x.swapaxes(i, j).data, x.data.swapaxes(i, j))
    gradcheck(lambda x: x.swapaxes(i, j), x)


INDICES = [
    0,
    -1,
    np.int64(1),
    slice(None, None, -1),
    slice(1, None, 2),
    slice(0, 0),
    ...,
    (),
    None,
    (..., -1),
    (0, ..., 0),
    (slice(None), None, 1),
    [0, 0, -1, 2],
    np.array([[1, 1], [1, -2]]),
    (slice(None), [1, 1, 0]),
    ([0, 0, 2], [1, 1, -1]),
    (np.array([[0], [2]]), np.array([1, 1])),
    (..., [0, 1, 1]),
    ([0, 0], slice(None), [1, 1]),
    np.array([], int),
    np.array([True, False, True]),
    (np.array([True, True, False]), [0, 0]),
    (slice(1), np.array([True, False, True, True])),
    (Ellipsis, np.array([True, False])),
]


@pytest.mark.parametrize("index", INDICES, ids=repr)
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "stepped"])
def test_getitem_takes_every_index_numpy_takes(index, layout):
    x = leaf((3, 4, 2), layout=layout)
    np.testing.assert_array_equal(x[index].data, x.data[index])
    gradcheck(lambda x: x[index], x)


@few
@given(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), st.data())
def test_getitem_with_basic_indices(shape, data):
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True))
    x = leaf(shape)
    np.testing.assert_array_equal(x[index].data, x.data[index])
    gradcheck(lambda x: x[index], x)


@few
@given(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=3), st.data())
def test_getitem_with_integer_arrays(shape, data):
    result = hnp.array_shapes(min_dims=0, max_dims=2, max_side=4)
    index = data.draw(hnp.integer_array_indices(shape, result_shape=result))
    x = leaf(shape)
    np.testing.assert_array_equal(x[index].data, x.data[index])
    gradcheck(lambda x: x[index], x)


@few
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)))
def test_getitem_with_a_boolean_mask(mask):
    x = leaf(mask.shape)
    np.testing.assert_array_equal(x[mask].data, x.data[mask])
    gradcheck(lambda x: x[mask], x)


def test_an_entry_picked_three_times_collects_three_gradients():
    x = leaf((3,))
    x[[1, 1, 0, 1]].sum().backward()
    assert x.grad.tolist() == [1, 3, 0]


def test_a_tensor_can_be_unpacked():
    x = leaf((2, 3))
    first, second = x
    (second * 2 + first).sum().backward()
    np.testing.assert_array_equal(x.grad, [[1] * 3, [2] * 3])


@few
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(-2, 1), layouts)
@example([0], 0, "contiguous")
@example([2, 0, 1], -1, "contiguous")
def test_concatenate_is_numpys_and_gives_each_part_its_own_gradient(sizes, axis, layout):
    parts = [(n, 2) if axis in (0, -2) else (2, n) for n in sizes]
    tensors = leaves(*parts, layout=layout)
    out = ops.concatenate(tensors, axis)
    np.testing.assert_array_equal(out.data, np.concatenate([t.data for t in tensors], axis))
    gradcheck(lambda *parts: ops.concatenate(parts, axis), *tensors)


def test_concatenate_takes_arrays_between_tensors_and_any_iterable():
    x, y = leaf((2, 3), dtype=np.float32), np.ones((1, 3))
    out = ops.concatenate(part for part in (y, x, y))
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out.data, np.concatenate([y, x.data, y]).astype(np.float32))


@pytest.mark.parametrize("parts", [[], [np.ones(2), np.ones(2)]])
def test_concatenate_without_a_tensor_says_so(parts):
    with pytest.raises(TypeError, match="expected at least one Tensor"):
        ops.concatenate(parts)


@few
@given(broadcastable(3), seeds)
@example(((2, 3), (), ()), 0)
@example(((), (2, 1), (3,)), 0)
def test_where_chooses_and_sends_each_gradient_to_its_source(drawn, seed):
    condition = np.random.default_rng(seed).random(drawn[0]) < 0.5
    a, b = leaves(*drawn[1:], seed=seed)
    np.testing.assert_array_equal(
        ops.where(condition, a, b).data, np.where(condition, a.data, b.data)
    )
    gradcheck(lambda a, b: ops.where(condition, a, b), a, b)


def test_where_takes_numbers_on_either_side():
    x = leaf((2, 3), dtype=np.float32)
    for out in (ops.where(HALF, x, -1e9), ops.where(HALF, np.float64(2.5), x)):
        assert out.dtype == np.float32
    np.testing.assert_array_equal(
        ops.where(HALF, x, -1e9).data, np.where(HALF, x.data, np.float32(-1e9))
    )


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x + x,
        lambda x: x - x * 2,
        lambda x: x * x,
        lambda x: x / (x * x),
        lambda x: x @ x,
        lambda x: x @ x.swapaxes(0, 1),
        lambda x: ops.concatenate([x, x, x]),
        lambda x: ops.where(np.eye(3, dtype=bool), x, x * x),
        lambda x: x + x[0],
        lambda x: x[0] @ x + x.sum(),
    ],
)
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "reversed"])
def test_a_value_used_more_than_once_collects_all_its_gradients(f, layout):
    gradcheck(f, leaf((3, 3), layout=layout))
    gradcheck(lambda x: f(x * x), leaf((3, 3), layout=layout), tol=1e-5)


SYMBOLS = [operator.add, operator.sub, operator.mul, operator.truediv]
CONSTANTS = [
    2,
    2.5,
    True,
    np.float64(2.5),
    np.float32(2.5),
    np.int64(2),
    np.array(2.5),
    np.array([1.5, 2.5, 3.5]),
    np.array([[1, 2, 3], [4, 5, 6]]),
    np.array([[1.5], [2.5]], np.float32),
    [1.5, 2.5, 3.5],
]


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("constant", CONSTANTS, ids=lambda c: f"{type(c).__name__}{np.shape(c)}")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_and_arrays_take_part_on_both_sides_in_the_tensors_dtype(symbol, constant, dtype):
    x = leaf((2, 3), dtype=dtype)
    c = np.asarray(constant, dtype)
    for out, expected in (
        (symbol(x, constant), symbol(x.data, c)),
        (symbol(constant, x), symbol(c, x.data)),
    ):
        assert type(out) is Tensor and out.dtype == dtype
        np.testing.assert_array_equal(out.data, expected)
        assert grad(out.sum(), [x])[0].dtype == dtype


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_a_constant_on_the_left_has_the_right_gradient(symbol):
    gradcheck(lambda x: symbol(2.5, x), leaf((2, 3)))
    gradcheck(lambda x: symbol(np.array([1.5, -2, 3]), x), leaf((2, 1)))


def test_an_array_can_be_multiplied_from_either_side():
    a, x = np.arange(6.0).reshape(2, 3), leaf((3, 2), dtype=np.float32)
    assert type(a @ x) is type(x @ a) is Tensor
    assert (a @ x).dtype == (x @ a).dtype == np.float32
    np.testing.assert_allclose((a @ x).data, a @ x.data, rtol=1e-6)
    np.testing.assert_allclose((x @ a).data, x.data @ a, rtol=1e-6)
    gradcheck(lambda x: a @ x, leaf((3, 2)))
    gradcheck(lambda x: x @ a, leaf((3, 2)))


@pytest.mark.parametrize("exponent", [2, 2.0, 3, -1, np.float64(0.5), np.float64(2), np.int64(3)])
def test_a_power_keeps_float32(exponent):
    x = leaf((2, 3), dtype=np.float32, positive=True)
    out = x**exponent
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.data, x.data ** float(exponent), rtol=1e-6)
    assert grad(out.sum(), [x])[0].dtype == np.float32


def test_an_exponent_is_a_number_not_a_tensor():
    with pytest.raises(TypeError, match="not 'Tensor'"):
        leaf(3) ** leaf(3)
    with pytest.raises(TypeError, match="unsupported operand"):
        2 ** leaf(3)


@pytest.mark.parametrize("op", [ops.add, ops.sub, ops.mul, ops.div, ops.matmul])
def test_two_plain_values_are_refused(op):
    with pytest.raises(TypeError, match=r"expected a Tensor, got ndarray; wrap it: Tensor\(x\)"):
        op(np.ones(3), np.ones(3))


def test_where_needs_a_tensor_too():
    with pytest.raises(TypeError, match="expected a Tensor, got float"):
        ops.where(HALF, 1.0, 2.0)


def test_as_tensor_passes_tensors_through_and_converts_the_rest():
    x = leaf(3, dtype=np.float32)
    assert ops.as_tensor(x, leaf(3)) is x
    constant = ops.as_tensor([1, 2], x)
    assert constant.dtype == np.float32 and not constant.requires_grad

"""Claims about the engine: what a graph keeps, how the walk goes, who owns a gradient.

Small operations made with `record` stand at the top: broken ones, and ones that report their turn.
"""

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import few, leaf, leaves, lora_linear, seeds

from minilora import functional as F
from minilora import ops
from minilora.tensor import Tensor, grad, needs_grad, no_grad, record, unbroadcast


def probe(x, report):
    """x itself; calls `report` when the walk comes by."""

    def dx(g):
        report()
        return g

    return record(x.data * 1, (x, dx))


def too_long(x):
    return record(x.data * 1, (x, lambda g: np.concatenate([g, g])))


def too_few_axes(x):
    return record(x.data * 1, (x, lambda g: g[0]))


def too_short(x):
    return record(x.data * 1, (x, lambda g: g[:1]))


def too_precise(x):
    return record(x.data * 1, (x, lambda g: g.astype(np.float64)))


def a_plain_number(x):
    return record(np.asarray(x.data.sum()), (x, lambda g: 1.0))


def upcasting_scale(x):
    return record(x.data * np.float64(2), (x, lambda g: g))


@contextmanager
def no_garbage_collector():
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "data", [1, 2.5, True, [1, 2], [[1.5]], np.arange(3), np.ones(2, np.float16)]
)
def test_a_tensor_is_float32_unless_float64_was_asked_for(data):
    assert Tensor(data).dtype == np.float32
    np.testing.assert_array_equal(Tensor(data).data, np.asarray(data, np.float32))


@pytest.mark.parametrize("data", [np.ones(2), np.ones(()), np.float64(1), np.ones(2, np.float32)])
def test_float32_and_float64_arrays_keep_their_dtype(data):
    assert Tensor(data).dtype == data.dtype
    assert isinstance(Tensor(data).data, np.ndarray)


def test_an_array_is_wrapped_not_copied():
    x = np.ones((2, 3), np.float32)
    assert Tensor(x).data is x


def test_a_fresh_tensor_is_a_constant_without_gradient():
    x = Tensor([1, 2])
    assert not x.requires_grad and x.grad is None and x.node is None


def test_shape_ndim_size_and_dtype_are_the_arrays():
    x = Tensor(np.ones((2, 0, 3)))
    assert (x.shape, x.ndim, x.size, x.dtype) == ((2, 0, 3), 3, 0, np.float64)


def test_repr_shows_the_values_and_whether_it_trains():
    class Weight(Tensor):
        pass

    assert repr(Tensor([1, 2.5])) == "Tensor(array([1. , 2.5], dtype=float32))"
    assert repr(Weight([1], requires_grad=True)) == (
        "Weight(array([1.], dtype=float32), requires_grad=True)"
    )


@pytest.mark.parametrize("data", [2.5, [2.5], [[2.5]]])
def test_item_is_a_python_float(data):
    assert type(Tensor(data).item()) is float
    assert Tensor(data).item() == 2.5


def test_item_of_several_values_is_an_error():
    with pytest.raises(ValueError, match="size 1"):
        Tensor([1, 2]).item()


def test_record_keeps_only_the_edges_whose_parent_needs_a_gradient():
    x, w, frozen = leaf(3), leaf(3), leaf(3, train=False)
    out = record(
        x.data * 1, (x, np.negative), (frozen, np.positive), (None, np.positive), (w, np.abs)
    )
    assert out.node.edges == ((x, np.negative), (w, np.abs))
    interior = record(out.data, (out, np.negative))
    assert interior.node.edges == ((out.node, np.negative),)


def test_a_result_of_frozen_parents_is_a_constant():
    out = leaf(3, train=False) * leaf(3, train=False)
    assert not out.requires_grad and out.node is None and not needs_grad(out)


def test_a_result_of_a_trainable_parent_needs_a_gradient():
    assert needs_grad(leaf(3)) and needs_grad(leaf(3, train=False), leaf(3) * 2)
    assert not needs_grad()


@pytest.mark.parametrize("apply", [ops.matmul, F.linear], ids=["matmul", "linear"])
@pytest.mark.parametrize("train", [True, False], ids=["trainable", "frozen"])
def test_the_input_of_a_frozen_weight_is_not_kept_alive(apply, train):
    x, W = leaf((2, 3)), leaf((3, 4), train=train)
    with no_garbage_collector():
        h = x * 2
        alive = weakref.ref(h.data)
        out = apply(h, W)
        del h
        assert (alive() is not None) == train
    out.sum().backward()
    assert (W.grad is not None) == train and x.grad is not None


def test_with_a_frozen_weight_neither_its_gradient_nor_its_vjp_exists():
    x, W, b = leaf((2, 3)), leaf((3, 4), train=False), leaf((4,), train=False)
    assert [parent for parent, _ in F.linear(x, W, b).node.edges] == [x]
    assert [parent for parent, _ in (x @ W).node.edges] == [x]
    F.linear(x, W, b).sum().backward()
    assert W.grad is None and b.grad is None


def test_lora_keeps_its_input_only_for_its_own_two_matrices():
    x, b, A, B = leaves((2, 3), (4,), (3, 2), (2, 4), train=False)
    for train, expected in ((A, True), (B, True), (b, False)):
        train.requires_grad = True
        with no_garbage_collector():
            h = x * 2
            alive = weakref.ref(h.data)
            out = lora_linear(h, b, A, B)
            del h
            assert (alive() is not None) == expected
        del out
        train.requires_grad = False


def train_step(x, W, watched):
    """A step of a small network, noting in `watched` the arrays that should not outlive it."""
    h = F.linear(x, W)
    y = ops.tanh(h)
    loss = (y * y).mean()
    watched += [weakref.ref(t.data) for t in (h, y)] + [weakref.ref(t) for t in (h, y, loss)]
    loss.backward()


def test_an_activation_dies_after_its_step_without_the_garbage_collector():
    x, W, watched = leaf((2, 3), train=False), leaf((3, 3)), []
    with no_garbage_collector():
        train_step(x, W, watched)
        assert [ref() for ref in watched] == [None] * 5


def test_backward_frees_what_only_the_graph_kept_alive():
    x = leaf((2, 3))
    with no_garbage_collector():
        y = ops.exp(x)
        alive = weakref.ref(y.data)
        loss = y.sum()
        del y
        assert alive() is not None
        loss.backward()
        assert alive() is None
        assert loss.item() > 0


def test_memory_falls_while_the_walk_goes_on():
    x, seen = leaf((2, 3)), []
    with no_garbage_collector():
        early = probe(x, lambda: seen.append(late()))
        y = ops.exp(early)
        late = weakref.ref(y.data)
        loss = y.sum()
        del y, early
        assert late() is not None
        loss.backward()
    assert seen == [None]


def test_an_interior_gradient_dies_once_passed_on():
    x, alive, seen = leaf((2, 3)), [], []

    def watched(y):
        def dy(g):
            alive.append(weakref.ref(g))
            return g * 1

        return record(y.data * 1, (y, dy))

    with no_garbage_collector():
        early = probe(x, lambda: seen.append(alive[0]()))
        (watched(early * 2) * 3).sum().backward()
    assert seen == [None]


def test_a_graph_of_5000_operations_in_a_row_works():
    x = leaf(())
    y = x
    for _ in range(5000):
        y = y + 1
    y.backward()
    assert x.grad == 1
    assert y.item() == pytest.approx(x.item() + 5000)


def test_a_deep_graph_can_be_dropped_unused():
    y = leaf(())
    for _ in range(50_000):
        y = -y
    del y


def test_a_graph_with_more_paths_than_atoms_is_walked_once():
    x = leaf(())
    y = x
    for _ in range(300):
        y = (y + y) * 0.5
    y.backward()
    assert x.grad == 1


def test_a_second_backward_says_what_to_do():
    x = leaf(3)
    loss = (x * x).sum()
    loss.backward()
    before = x.grad
    with pytest.raises(RuntimeError, match="already used by a backward.*compute the loss again"):
        loss.backward()
    with pytest.raises(RuntimeError, match="already used"):
        grad(loss, [x])
    assert x.grad is before


def test_a_loss_that_shares_a_used_part_says_so_and_changes_nothing():
    x, w = leaf(3), leaf(3)
    shared = x * x
    first, second = shared.sum(), (w * shared).sum()
    first.backward()
    x.grad = None
    with pytest.raises(RuntimeError, match="already used by a backward pass"):
        second.backward()
    assert x.grad is None and w.grad is None


@pytest.mark.parametrize("shape", [(2,), (1, 2), (0,)])
def test_backward_starts_from_a_single_number(shape):
    x = leaf(shape)
    expected = rf"single number, but this tensor has shape \({shape[0]},.*\.sum\(\) or \.mean\(\)"
    with pytest.raises(ValueError, match=expected):
        (x * 2).backward()
    with pytest.raises(ValueError, match="pass gradient="):
        grad(x * 2, [x])


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_element_of_any_shape_is_a_single_number(shape):
    x = leaf(shape)
    (x * 3).backward()
    assert x.grad.shape == shape and x.grad.item() == 3


def test_gradient_seeds_the_walk():
    x = leaf((2, 3))
    g = leaf((2, 3), 5).data
    (x * 2).backward(gradient=g)
    np.testing.assert_array_equal(x.grad, g * 2)


@pytest.mark.parametrize("shape", [(2,), (3, 2), (2, 2), (), (5, 2, 3), (1, 3)])
def test_a_seed_of_another_shape_is_refused(shape):
    x = leaf((2, 3))
    with pytest.raises(ValueError, match=r"gradient of \(.*for a value of \(2, 3\)"):
        (x * 2).backward(np.ones(shape))
    assert x.grad is None


@pytest.mark.parametrize("seed", [2, 2.0, np.float64(2), np.array(2)])
def test_a_seed_takes_the_dtype_of_the_tensor(seed):
    x = leaf((), dtype=np.float32)
    (x * 3).backward(seed)
    assert x.grad == 6 and x.grad.dtype == np.float32


def test_backward_on_a_leaf_is_the_seed_itself():
    x = leaf(())
    x.backward()
    assert x.grad == 1 and isinstance(x.grad, np.ndarray)


def in_no_grad(x):
    with no_grad():
        return (x * 2).sum()


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: Tensor(1.0),
        lambda x: (Tensor(x.data) * 2).sum(),
        lambda x: leaf((), train=False) * 2,
        in_no_grad,
    ],
    ids=["constant", "from .data", "frozen", "no_grad"],
)
def test_nothing_to_differentiate_says_why_that_may_be(loss):
    x = leaf(3)
    with pytest.raises(
        RuntimeError, match=r"nothing to differentiate.*frozen.*merged.*no_grad\(\)"
    ):
        loss(x).backward()
    with pytest.raises(RuntimeError, match="nothing to differentiate"):
        grad(loss(x), [x])


def test_grad_adds_up_over_two_graphs():
    x = leaf((2, 3))
    (x * 2).sum().backward()
    first = x.grad
    (x * 3).sum().backward()
    assert (x.grad == 5).all() and (first == 2).all()


@pytest.mark.parametrize("uses", range(1, 5))
def test_the_gradient_of_a_scalar_is_an_array(uses):
    x = leaf(())
    for total in range(1, 3):
        y = x * 1
        for _ in range(uses - 1):
            y = y + x
        y.backward()
        assert isinstance(x.grad, np.ndarray) and x.grad == total * uses
    assert all(isinstance(g, np.ndarray) for g in grad(x + x + x, [x]))


def test_only_leaves_get_a_grad():
    x = leaf(3)
    h = x * 2
    loss = h.sum()
    loss.backward()
    assert x.grad is not None and h.grad is None and loss.grad is None


def test_frozen_leaves_get_no_grad():
    x, w = leaf(3), leaf(3, train=False)
    (x * w).sum().backward()
    assert w.grad is None


def test_grad_returns_in_order_what_backward_would_add_and_touches_nothing():
    x, w, unrelated = leaf((2, 3)), leaf((3,)), leaf((4, 1), dtype=np.float32)
    x.grad = kept = np.full((2, 3), 7.0)
    dw, none, dx = grad((x * w * w).sum(), [w, unrelated, x])
    assert x.grad is kept and (kept == 7).all()
    assert w.grad is None and unrelated.grad is None
    assert none.shape == (4, 1) and none.dtype == np.float32 and not none.any()
    x.grad = None
    (x * w * w).sum().backward()
    np.testing.assert_array_equal(x.grad, dx)
    np.testing.assert_array_equal(w.grad, dw)


def test_two_parents_given_the_same_gradient_do_not_disturb_each_other():
    a, b = leaf(3), leaf(3)
    loss = (a + b).sum() + (a * 2).sum() + (a * 3).sum() + (a * 4).sum()
    loss.backward()
    assert a.grad.tolist() == [10] * 3 and b.grad.tolist() == [1] * 3


def test_interior_parents_given_the_same_gradient_do_not_disturb_each_other():
    x, y = leaf(3), leaf(3)
    a, b = x * 1, y * 1
    (a + b + a * 2 + a * 3 + (b + a)).sum().backward()
    assert x.grad.tolist() == [7] * 3 and y.grad.tolist() == [2] * 3


def test_the_seed_is_not_changed_when_others_are_added_to_it():
    x = leaf(3)
    g = np.ones(3)
    (x + x + x + x).backward(g)
    assert g.tolist() == [1] * 3 and x.grad.tolist() == [4] * 3


def test_a_gradient_that_nobody_else_has_is_adopted_not_copied():
    x, made = leaf(3), []

    def dx(g):
        made.append(g * 2)
        return made[0]

    record(x.data * 2, (x, dx)).sum().backward()
    assert x.grad is made[0]


@pytest.mark.parametrize(
    "f",
    [
        lambda a, b: (a + b).sum(),
        lambda a, b: ((a + b) * Tensor(np.array([1.0, 2.0]))).sum(),
        lambda a, b: (a - b.reshape(1, 2)).reshape(2).mean(),
        lambda a, b: ops.concatenate([a, b]).sum(),
        lambda a, b: (a.reshape(1, 2) + b.reshape(2, 1).swapaxes(0, 1)).sum(),
    ],
)
@pytest.mark.parametrize("how", ["backward", "grad"])
def test_every_leaf_owns_its_gradient_and_may_change_it(f, how):
    a, b = leaf(2, 1), leaf(2, 2)
    da, db = grad(f(a, b), [a, b])
    expected = da.copy(), db.copy()
    if how == "backward":
        f(a, b).backward()
        da, db = a.grad, b.grad
    da /= 2
    db *= 3
    np.testing.assert_array_equal(da, expected[0] / 2)
    np.testing.assert_array_equal(db, expected[1] * 3)


def test_the_callers_seed_is_not_handed_out():
    x, g = leaf(3), np.ones(3)
    (x + 1).backward(g)
    x.grad *= 5
    assert g.tolist() == [1] * 3


def test_adding_to_grad_changes_no_other_parameters_grad():
    a, b = leaf(3), leaf(3)
    (a + b).sum().backward()
    (a * 2).sum().backward()
    assert a.grad.tolist() == [3] * 3 and b.grad.tolist() == [1] * 3


@pytest.mark.parametrize(
    ("op", "found"),
    [(too_long, "(6,)"), (too_short, "(1,)"), (too_few_axes, "()"), (a_plain_number, "()")],
)
def test_a_gradient_of_the_wrong_shape_names_the_op(op, found):
    expected = rf"^{op.__name__}: gradient of shape \{found[:-1]}\) for a value of \(3,\)$"
    with pytest.raises(AssertionError, match=expected):
        op(leaf(3)).sum().backward()


def test_a_gradient_of_the_wrong_dtype_names_the_op():
    with pytest.raises(
        AssertionError, match="^too_precise: gradient is float64, the value is float32"
    ):
        too_precise(leaf(3, dtype=np.float32)).sum().backward()


def test_an_op_that_upcasts_its_result_is_named():
    with pytest.raises(
        TypeError, match=r"^upcasting_scale: operands mix float32 and float64; conv"
    ):
        upcasting_scale(leaf(3, dtype=np.float32))
    with no_grad(), pytest.raises(TypeError, match="^upcasting_scale"):
        upcasting_scale(leaf(3, dtype=np.float32, train=False))


@few
@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=3), seeds)
@example(hnp.BroadcastableShapes(((2, 3), (3,)), (2, 3)), 0)
@example(hnp.BroadcastableShapes(((2, 0), (1, 1)), (2, 0)), 0)
def test_unbroadcast_is_the_transpose_of_broadcasting(drawn, seed):
    x, g = leaf(drawn.input_shapes[0], seed), leaf(drawn.result_shape, seed + 1).data
    back = unbroadcast(g, x, np.add.reduce)
    assert back.shape == x.shape
    forward = (np.broadcast_to(x.data, g.shape) * g).sum()
    assert (x.data * back).sum() == pytest.approx(forward, abs=1e-9)


def test_unbroadcast_passes_a_fitting_gradient_through_uncopied():
    g = np.ones((2, 3))
    assert unbroadcast(g, leaf((2, 3)), np.add.reduce) is g


def test_no_grad_records_nothing_and_ends_with_its_block():
    x = leaf(3)
    with no_grad():
        assert not (x * 2).requires_grad and not needs_grad(x)
        with no_grad():
            pass
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad and needs_grad(x)


def test_no_grad_ends_when_its_block_fails():
    x = leaf(3)
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert (x * 2).requires_grad


def test_no_grad_holds_in_its_own_thread_only():
    x, entered, leave = leaf(3), threading.Event(), threading.Event()

    def evaluate():
        with no_grad():
            entered.set()
            assert leave.wait(10)
            return (x * 2).requires_grad

    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(evaluate)
        assert entered.wait(10)
        try:
            assert (x * 2).requires_grad
            with no_grad():
                pass
        finally:
            leave.set()
        assert result.result(10) is False
        with no_grad():
            assert pool.submit(lambda: (x * 2).requires_grad).result(10)


def test_the_walk_visits_nodes_in_the_same_order_every_time():
    def order():
        seen, x = [], leaf(())
        branches = [probe(x, lambda i=i: seen.append(i)) for i in range(6)]
        left = probe(branches[4] + branches[1], lambda: seen.append("left"))
        right = probe(branches[0] * branches[5], lambda: seen.append("right"))
        (left + branches[3] * right + branches[2] + left).backward()
        return seen

    ballast, orders = [], []
    for i in range(20):
        orders.append(order())
        ballast.append([object() for _ in range(i)])  # so that later nodes lie elsewhere in memory
    assert orders == [[3, "right", 0, 5, 2, "left", 4, 1]] * 20


def network(x, W, A):
    """A loss whose gradients are sums of many float32 terms: their order shows in the last bits."""
    h = x
    for _ in range(4):
        h = ops.tanh(F.linear(h, W) + (h @ A) @ A.swapaxes(0, 1)) + h
    return (h * h).mean() + (W * W).sum() + F.softmax(h @ W).mean()


def test_gradients_are_bit_identical_from_run_to_run():
    x, W, A = leaves((8, 5), (5, 5), (5, 2), dtype=np.float32)
    runs = {b"".join(g.tobytes() for g in grad(network(x, W, A), [W, A])) for _ in range(10)}
    assert len(runs) == 1


def test_threads_sharing_weights_find_what_one_after_the_other_finds():
    W, A = leaves((40, 40), (40, 3), dtype=np.float32)
    shards = [leaf((16, 40), seed, dtype=np.float32, train=False) for seed in range(8)]

    def work(x):
        return grad(network(x, W, A), [W, A])

    expected = [work(x) for x in shards]
    barrier = threading.Barrier(2, timeout=10)

    def both(half):
        barrier.wait()
        return [work(x) for x in half]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(both, (shards[:4], shards[4:]))
    for found, wanted in zip([*first, *second], expected, strict=True):
        for g, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(g, other)
    assert W.grad is None and A.grad is None


NUMBERS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b / 4}
SLOPES = {
    "+": lambda a, da, b, db: da + db,
    "-": lambda a, da, b, db: da - db,
    "*": lambda a, da, b, db: (a * db + b * da) / 4,
}
places = st.integers(0, 50)


@few
@given(st.lists(st.tuples(places, places, st.sampled_from("+-*")), max_size=12), seeds)
def test_any_graph_of_sums_and_products_has_the_gradient_that_forward_mode_finds(steps, seed):
    tensors = leaves((), (), (), seed=seed)
    pairs = [(x.item(), slope) for x, slope in zip(tensors, np.eye(3), strict=True)]
    for i, j, symbol in steps:
        i, j = i % len(tensors), j % len(tensors)
        (a, da), (b, db) = pairs[i], pairs[j]
        tensors.append(NUMBERS[symbol](tensors[i], tensors[j]))
        pairs.append((NUMBERS[symbol](a, b), SLOPES[symbol](a, da, b, db)))
    found = grad(tensors[-1], tensors[:3])
    np.testing.assert_allclose(found, pairs[-1][1], rtol=1e-9, atol=1e-12)

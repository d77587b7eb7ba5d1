"""Claims about wrong use of the engine, the primitive ops and the layers: one sentence, at once.

Each row is a call and what its error says. Where a fault was found by a user, the test has a name
of its own below the table.
"""

import numpy as np
import pytest
from builders import tiny
from strategies import leaf

import minilora as ml
from minilora import ops
from minilora.module import Module, ModuleList, Parameter
from minilora.nn import Embedding, LayerNorm, Linear, RMSNorm
from minilora.tensor import Tensor, grad, record
from minilora.testing import gradcheck

NAN, INF = float("nan"), float("inf")


def x():
    return leaf((2, 3))


def rng():
    return np.random.default_rng(0)


def layer():
    return Linear(2, 3, rng=rng())


class Holder(Module):
    def __init__(self, **held):
        vars(self).update(held)


NO_NUMBERS = [None, "1", b"1", 1j, object(), {}, iter([1]), np.array(["1"]), [None], ["1"]]
NO_BOOL = [None, 1, 0, "yes", np.float32, NAN]

TYPE_ERRORS = [
    *[(lambda v=v: Tensor(v), "a Tensor holds real numbers, not") for v in NO_NUMBERS],
    *[(lambda v=v: x() + v, "a Tensor holds real numbers, not") for v in NO_NUMBERS],
    *[(lambda v=v: v * x(), "a Tensor holds real numbers, not") for v in [None, "1", 1j, {}]],
    *[(lambda v=v: Tensor(1.0, v), "requires_grad is True or False") for v in NO_BOOL],
    *[(lambda v=v: layer().requires_grad_(v), "takes True or False") for v in NO_BOOL],
    *[(lambda v=v: x() ** v, "an exponent is a number, not") for v in [None, "2", [2], 1j]],
    (lambda: x() ** x(), r"not 'Tensor'; a \*\* b is exp\(b \* log\(a\)\)"),
    (lambda: Tensor(x()), "use .data"),
    (lambda: Tensor([x(), x()]), "use .data"),
    (lambda: np.asarray(x()), "use .data"),
    (lambda: np.array([x(), x()]), "use .data"),
    (lambda: np.dot(np.ones((2, 2)), x()), "use .data"),
    (lambda: np.ones(3)[x()], "use .data"),
    (lambda: np.exp(x()), "Tensor"),
    (lambda: x()[x()], "use .data"),
    (lambda: bool(Tensor(0.0)), "neither true nor false"),
    (lambda: not x(), "neither true nor false"),
    (lambda: x() == x(), "compare the arrays"),
    (lambda: x() != 1, "compare the arrays"),
    (lambda: x() > 0, "'>' not supported"),
    (lambda: len(Tensor(1.0)), "a single number has no length"),
    (lambda: sum(Tensor(3.0)), "a single number has no length"),
    (lambda: list(Tensor(3.0)), "a single number has no length"),
    *[
        (lambda op=op: op(np.ones(3)), "expected a Tensor, got ndarray; wrap it")
        for op in [
            ops.neg, ops.exp, ops.log, ops.sqrt, ops.tanh, ops.tensor_sum, ops.mean,
            ops.tensor_max, ops.reshape,
        ]
    ],
    (lambda: ops.power(2.0, 2), "expected a Tensor, got float"),
    (lambda: ops.swapaxes(None, 0, 1), "expected a Tensor, got NoneType"),
    (lambda: ops.getitem([1], 0), "expected a Tensor, got list"),
    (lambda: ops.concatenate([]), "at least one Tensor"),
    (lambda: ops.where([1, 0, 1], x(), 0), "condition of True and False"),
    (lambda: ops.where(None, x(), 0), "condition of True and False"),
    (lambda: x().sum(axis=1.0), "integer"),
    (lambda: x().mean(axis="0"), "integer"),
    (lambda: x().max(axis=True), "integer"),
    (lambda: ModuleList([1]), "a ModuleList holds modules, not 1"),
    (lambda: ModuleList([None]), "a ModuleList holds modules, not None"),
    (lambda: gradcheck(lambda a: a * 2, np.ones(3)), "input 0 is no Tensor but ndarray"),
    (lambda: gradcheck(lambda a: a.data, x()), "returned ndarray"),
    (lambda: gradcheck(lambda a: None, x()), "returned NoneType"),
]  # fmt: skip

VALUE_ERRORS = [
    (lambda: float(x()), "size 1"),
    (lambda: f"{x():.3f}", "size 1"),
    (lambda: leaf((3,)).T, r"\.T is for matrices, not for shape \(3,\)"),
    (lambda: leaf((2, 3, 4)).T, "use swapaxes"),
    (lambda: x() + np.ones(4), "broadcast"),
    (lambda: x() @ 2, "matmul"),
    (lambda: x().max(axis=2), "out of bounds"),
    (lambda: leaf((0, 3)).mean(axis=0), "mean over an empty axis"),
    (lambda: leaf((0, 3)).max(), "zero-size"),
    (lambda: setattr(x(), "data", np.ones(3)), r"of shape \(2, 3\) cannot become data of \(3,\)"),
    (lambda: setattr(x(), "data", 0), "cannot become"),
    *[
        (lambda v=v: (x() * 1).backward(v), r"for a value of \(2, 3\)")
        for v in [1, NAN, [], np.ones((5, 2, 3)), np.ones(3)]
    ],
    (lambda: grad(x().sum(), x()), r"grad\(loss, \[x\]\)"),
    (lambda: grad(x().sum(), [np.ones(3)]), "no Tensor at all"),
    (lambda: grad(x().sum(), "ab"), "no Tensor at all"),
    (lambda: grad(x().sum(), [leaf(3, train=False)]), "frozen, computed"),
    (lambda: grad(None, []), "only a Tensor can be differentiated, not NoneType"),
    *[
        (lambda v=v: Linear(v, 2, rng=rng()), "d_in must be a whole number of at least 1")
        for v in [0, -1, 2.0, True, None, "2", NAN]
    ],
    (lambda: Linear(2, 0, rng=rng()), "d_out must be"),
    (lambda: Embedding(0, 2, rng=rng()), "n must be"),
    (lambda: Embedding(2, 2.0, rng=rng()), "C must be"),
    (lambda: LayerNorm(0), "C must be"),
    *[(lambda v=v: RMSNorm(2, v), "eps must be a positive") for v in [0, -1, NAN, INF, None]],
    *[(lambda v=v: Linear(2, 2, rng=rng(), std=v), "std must be 0 or") for v in [-1, NAN, INF]],
    *[
        (lambda v=v: Linear(2, 3, rng=v), r"rng must be np\.random\.default_rng\(seed\), got")
        for v in [None, 0, np.random, np.random.RandomState(0)]
    ],
    (lambda: Linear(2, 3), "rng must be"),
    (lambda: Embedding(2, 3), "rng must be"),
    *[(lambda v=v: layer().to(v), "float32 or np.float64") for v in [None, np.float16, int, "U3"]],
    *[(lambda v=v: layer().load_state_dict(v), "dict of arrays") for v in [None, "a.npz", [1], 3]],
    (lambda: Holder(a=layer()).set_submodule("a", None), "cannot put a NoneType"),
    (lambda: Holder(a=layer()).set_submodule("", layer()), "cannot put"),
    (lambda: Holder(a=(layer(),)).set_submodule("a.0", layer()), "keep them in a list"),
    (lambda: Holder(a={layer()}).parameters(), "a is a set of modules, which has no order"),
    *[(lambda v=v: gradcheck(lambda a: a * 2, x(), eps=v), "eps must") for v in [0, -1, NAN]],
    *[(lambda v=v: gradcheck(lambda a: a * 2, x(), tol=v), "tol must") for v in [0, -1, NAN]],
]  # fmt: skip


@pytest.mark.parametrize(("call", "sentence"), TYPE_ERRORS)
def test_what_is_of_the_wrong_kind_is_a_type_error(call, sentence):
    with pytest.raises(TypeError, match=sentence) as raised:
        call()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("call", "sentence"), VALUE_ERRORS)
def test_what_does_not_fit_is_a_value_error(call, sentence):
    with pytest.raises(ValueError, match=sentence) as raised:
        call()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("path", ["b", "a.weight", "a.0", None, 0, {}, "a.b.c"])
def test_a_path_where_no_module_is_is_a_key_error(path):
    with pytest.raises(KeyError, match="no module named"):
        Holder(a=layer()).get_submodule(path)


# What a user found


def test_layers_in_a_list_a_tuple_or_a_dict_are_trained():
    held = Holder(
        rest=[layer(), [layer()]], pair=(layer(),), table={"a": [layer()], 3: layer()}, n=[1, "a"]
    )
    assert [name for name, _ in held.named_parameters() if name.endswith("weight")] == [
        "rest.0.weight", "rest.1.0.weight", "pair.0.weight", "table.a.0.weight", "table.3.weight",
    ]  # fmt: skip
    assert len(held.trainable_parameters()) == 10
    assert held.get_submodule("rest.1.0") is held.rest[1][0]
    assert held.get_submodule("table.3") is held.table[3]
    new = layer()
    held.set_submodule("rest.1.0", new)
    held.set_submodule("table.3", new)
    assert held.rest[1][0] is new and held.table[3] is new
    held.load_state_dict({k: v + 1 for k, v in held.state_dict().items()})
    assert new.bias.data.tolist() == [1, 1, 1]


def test_a_parameter_in_a_list_is_trained():
    held = Holder(scales=[Parameter(np.ones(2)), 3.0])
    assert [name for name, _ in held.named_parameters()] == ["scales.0"]


def test_one_parameter_under_two_names_counts_once_is_stepped_once_and_saved_once():
    a, b = Linear(3, 3, False, rng=rng()), Linear(3, 3, False, rng=rng())
    b.weight = a.weight
    held = Holder(a=a, b=b)
    assert [name for name, _ in held.named_parameters()] == ["a.weight"]
    assert ml.count_parameters(held)[1] == 9
    before = a.weight.data.copy()
    b(a(np.ones((1, 3)))).sum().backward()
    g = a.weight.grad
    ml.SGD(held.parameters(), lr=0.5).step()
    np.testing.assert_allclose(a.weight.data, before - 0.5 * g, rtol=1e-6)
    held.load_state_dict({"a.weight": before})
    assert b.weight is a.weight and np.array_equal(b.weight.data, before)


def test_one_module_in_two_places_is_one_module_and_is_replaced_in_both():
    shared = layer()
    held = Holder(a=shared, b=[shared], c={"d": shared})
    assert [path for path, _ in held.named_modules()] == ["", "a"]
    assert len(held.parameters()) == 2
    assert held.get_submodule("c.d") is shared
    new = layer()
    held.set_submodule("b.0", new)
    assert held.a is held.b[0] is held.c["d"] is new


def test_a_module_that_knows_its_owner_is_walked_once():
    inner = layer()
    held = Holder(inner=inner)
    inner.owner = held
    assert [path for path, _ in held.named_modules()] == ["", "inner"]
    assert held.to(np.float64).inner.weight.dtype == np.float64


def sgd(w):
    ml.SGD([w], lr=0.5).step()


def adamw(w):
    ml.AdamW([w], lr=0.5).step()


def by_hand(w):
    w.data -= 0.5 * w.grad


def load(w):
    Holder(w=w).load_state_dict({"w": w.data + 1})


def another_dtype(w):
    Holder(w=w).to(np.float32)


@pytest.mark.parametrize("change", [sgd, adamw, by_hand, load, another_dtype])
def test_weights_changed_between_forward_and_backward_are_an_error_that_names_the_op(change):
    w = Parameter(np.array([1.0, 2.0]))
    optimizer = ml.AdamW([w], lr=0.5) if change is adamw else None
    first, second = (w * w).sum(), (w * w * w).sum()
    first.backward()
    if optimizer:
        optimizer.step()
    else:
        change(w)
    kept = w.grad
    with pytest.raises(RuntimeError, match="^mul: .* was changed after it was used.*loss again"):
        second.backward()
    with pytest.raises(RuntimeError, match="was changed after it was used"):
        grad(second, [w])
    assert w.grad is kept
    (w * w * w).sum().backward()


def test_a_frozen_weight_or_an_input_may_change_after_the_backward_pass():
    w, frozen = leaf(3), leaf(3, train=False)
    loss = (w * frozen).sum()
    loss.backward()
    frozen.data -= 1
    w.data -= 1
    assert w.version == 1
    (w * frozen).sum().backward()


@pytest.mark.parametrize(
    "rebind",
    [
        lambda w: setattr(w, "data", w.data * 100),
        lambda w: ml.AdamW([w], lr=0.5),
        lambda w: Holder(w=w).to(np.float64),
    ],
    ids=["data =", "AdamW", "to the same dtype"],
)
def test_a_new_array_does_no_harm_to_a_loss_computed_before(rebind):
    w = Parameter(np.array([1.0, 2.0]))
    loss = (w * w * w).sum()
    rebind(w)
    loss.backward()
    assert w.grad.tolist() == [3, 12]


def test_a_computed_value_cannot_be_given_other_numbers():
    y = x() * 2
    for change in (lambda: setattr(y, "data", y.data * 1), lambda: setattr(y, "data", y.data)):
        with pytest.raises(RuntimeError, match=r"a computed value cannot be changed"):
            change()
    y.detach().data = np.ones((2, 3))


def test_gradients_of_gradients_are_refused_with_the_reason():
    w = leaf(3)
    (g,) = grad((w * w).sum(), [w])
    with pytest.raises(ValueError, match="gradients are plain arrays.*no second derivatives"):
        grad(g.sum(), [w])


def test_numbers_of_another_byte_order_are_converted():
    for kind, native in ((">f8", np.float64), (">f4", np.float32), (">i4", np.float32)):
        t = Tensor(np.array([1.0, 2.0]).astype(kind), requires_grad=True)
        assert t.dtype == np.dtype(native) and t.dtype.isnative and t.data.tolist() == [1, 2]
        (t * 2).sum().backward()
    model = tiny()
    state = model.state_dict()
    model.load_state_dict({k: v.astype(">f4") for k, v in state.items()})
    assert all(p.dtype.isnative for p in model.parameters())


def test_to_converts_all_that_a_module_holds():
    inner = layer()
    inner.weight.grad = np.ones((2, 3), np.float32)
    held = Holder(
        inner=inner, constant=Tensor(np.ones(2, np.float32)), kept=np.ones(2, np.float32),
        pair=(np.ones(1, np.float32), [inner]), ids=np.arange(3), deep={"a": [np.ones(1)]}, n=None,
    )  # fmt: skip
    assert held.to(np.float64) is held
    arrays = [held.constant.data, held.kept, held.pair[0], held.deep["a"][0]]
    assert {a.dtype for a in arrays} == {np.dtype(np.float64)}
    assert inner.weight.grad.dtype == np.float64 and held.pair[1][0] is inner
    assert held.ids.dtype == np.arange(3).dtype


@pytest.mark.parametrize("options", [{}, {"init_lora_weights": "pissa"}, {"use_dora": True}])
def test_an_adapted_model_works_in_another_dtype_merged_or_not(options):
    model = tiny()
    config = ml.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["norm"], **options)
    ml.add_adapter(model, config, rng=rng())
    ids = np.arange(8)[None] % 11
    with ml.no_grad():
        before = model(ids).data
        ml.merge_adapter(model)
        model.to(np.float64)
        ml.unmerge_adapter(model)
        assert {p.dtype for p in model.parameters()} == {np.dtype(np.float64)}
        for part in (ids, ids[:, :1]):  # many rows and few take different ways
            assert model(part).dtype == np.float64
        np.testing.assert_allclose(model(ids).data, before, rtol=1e-3, atol=1e-4)
        with ml.disable_adapter(model):
            assert model(ids).dtype == np.float64


def test_loading_is_all_or_nothing_also_for_what_holds_no_numbers():
    held = Holder(a=layer(), b=layer())
    before = held.state_dict()
    for bad in ("text", None, [["x"] * 3] * 2, np.ones((2, 3)) * 1j):
        with pytest.raises(TypeError, match="real numbers"):
            held.load_state_dict(before | {"a.weight": before["a.weight"] + 1, "b.weight": bad})
    for name, p in held.named_parameters():
        np.testing.assert_array_equal(p.data, before[name])


def test_a_message_about_many_wrong_keys_stays_short():
    with pytest.raises(ValueError, match=r"and \d\d more$") as raised:
        tiny().load_state_dict({})
    assert len(str(raised.value)) < 400


def test_gradcheck_puts_its_input_back_when_the_function_fails():
    calls = []

    def f(a):
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return a * 2

    a = x()
    before = a.data.copy()
    with pytest.raises(KeyboardInterrupt):
        gradcheck(f, a)
    np.testing.assert_array_equal(a.data, before)


def test_a_record_with_parents_that_are_missing_is_a_constant():
    assert not record(np.ones(2), (None, np.negative)).requires_grad
    assert not record(np.ones(2)).requires_grad


def test_what_is_safe_works():
    t = Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    assert len(t) == 2 and [row.data.tolist() for row in t] == [[1, 2], [3, 4]]
    assert t.T.data.tolist() == [[1, 3], [2, 4]]
    loss = t.exp().log().max()
    assert float(loss) == pytest.approx(4) and f"{loss:.2f}" == "4.00"
    assert f"{t}" == str(t) == repr(t)
    assert t in [t] and {t: 1}[t] == 1
    assert not t.detach().requires_grad and t.detach().data is t.data
    loss.backward()
    np.testing.assert_allclose(t.grad, [[0, 0], [0, 1]], atol=1e-6)
    assert sum([t, t]).data.tolist() == [[2, 4], [6, 8]]


def test_zero_grad_and_the_methods_that_return_the_module():
    a = layer()
    assert a.requires_grad_(False) is a and a.to(np.float32) is a
    a.requires_grad_()
    a(np.ones((1, 2))).sum().backward()
    a.zero_grad()
    assert [p.grad for p in a.parameters()] == [None, None]

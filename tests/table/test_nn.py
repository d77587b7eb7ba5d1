"""Claims about modules: how parameters are found, named, saved and loaded, and what layers compute.

The formulas of the layers are written out here once more with plain NumPy in float64.
"""

import math
import re

import numpy as np
import pytest

from minilora.module import ModuleList
from minilora.nn import Embedding, LayerNorm, Linear, Module, Parameter, RMSNorm
from minilora.tensor import Tensor


class Leaf(Module):
    def __init__(self, start: float) -> None:
        self.scale = Parameter(np.full(3, start, np.float32))
        self.note = "not a parameter"
        self.constant = Tensor(np.ones(3, np.float32))


class Tree(Module):
    """A module of every kind: children first, a list, a dict, and parameters of its own."""

    def __init__(self) -> None:
        self.first = Leaf(1)
        self.items = ModuleList([Leaf(2), Leaf(3)])
        self.table = {"b": Parameter(np.zeros((2, 2), np.float32)), "a": Leaf(4), "n": 7}
        self.own = Parameter(np.zeros((), np.float32))
        self.missing = None


TREE_NAMES = ["table.b", "own", "first.scale", "items.0.scale", "items.1.scale", "table.a.scale"]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def tree():
    return Tree()


def arrays_of(model: Module) -> dict[str, np.ndarray]:
    return {name: p.data for name, p in model.named_parameters()}


def test_parameters_have_their_path_as_name_in_the_order_they_were_made(tree):
    names = [name for name, _ in tree.named_parameters()]
    assert names == TREE_NAMES
    assert dict(tree.named_parameters())["items.1.scale"] is tree.items[1].scale
    assert [id(p) for p in tree.parameters()] == [id(p) for _, p in tree.named_parameters()]


def test_only_parameters_count_not_tensors_numbers_or_none(tree):
    assert all(isinstance(p, Parameter) for p in tree.parameters())
    assert not any("constant" in name or "note" in name for name, _ in tree.named_parameters())


def test_named_modules_lists_every_module_once_beginning_with_itself(tree):
    paths = [path for path, _ in tree.named_modules()]
    assert paths == ["", "first", "items", "items.0", "items.1", "table.a"]
    assert next(tree.named_modules())[1] is tree


def test_named_modules_can_start_from_a_prefix(tree):
    assert [path for path, _ in tree.items.named_modules("x")] == ["x", "x.0", "x.1"]


def test_a_module_list_has_a_length_an_order_and_indices():
    leaves = [Leaf(i) for i in range(12)]
    modules = ModuleList(leaves)
    assert len(modules) == 12
    assert list(modules) == leaves
    assert modules[2] is leaves[2] and modules[-1] is leaves[11]
    assert [name for name, _ in modules.named_parameters()] == [f"{i}.scale" for i in range(12)]
    with pytest.raises(IndexError):
        modules[12]


def test_get_submodule_follows_a_dotted_path(tree):
    assert tree.get_submodule("items.1") is tree.items[1]
    assert tree.get_submodule("table.a") is tree.table["a"]
    assert tree.get_submodule("") is tree


def test_get_submodule_names_the_path_it_did_not_find(tree):
    with pytest.raises(KeyError, match=r"items\.7.*named_modules"):
        tree.get_submodule("items.7")


def test_set_submodule_replaces_one_module_and_keeps_the_order(tree):
    new = Leaf(9)
    tree.set_submodule("items.0", new)
    assert tree.items[0] is new and len(tree.items) == 2
    assert [name for name, _ in tree.named_parameters()] == TREE_NAMES
    tree.set_submodule("first", other := Leaf(8))
    assert tree.first is other
    assert [name for name, _ in tree.named_parameters()] == TREE_NAMES


def test_set_submodule_refuses_a_path_where_nothing_is(tree):
    before = [id(m) for _, m in tree.named_modules()]
    with pytest.raises(KeyError, match="firts"):
        tree.set_submodule("firts", Leaf(9))
    assert [id(m) for _, m in tree.named_modules()] == before and not hasattr(tree, "firts")


def test_requires_grad_freezes_and_thaws_everything_below(tree):
    assert len(tree.trainable_parameters()) == len(TREE_NAMES)
    tree.items.requires_grad_(False)
    frozen = [name for name, p in tree.named_parameters() if not p.requires_grad]
    assert frozen == ["items.0.scale", "items.1.scale"]
    kept = [p for name, p in tree.named_parameters() if not name.startswith("items")]
    assert [id(p) for p in tree.trainable_parameters()] == [id(p) for p in kept]
    tree.requires_grad_()
    assert len(tree.trainable_parameters()) == len(TREE_NAMES)


def test_a_frozen_parameter_gets_no_gradient(rng):
    layer = Linear(3, 2, rng=rng)
    layer.weight.requires_grad = False
    layer(np.ones((4, 3), np.float32)).sum().backward()
    assert layer.weight.grad is None
    np.testing.assert_array_equal(layer.bias.grad, [4, 4])


def test_gradients_of_two_backward_passes_add_up(rng):
    layer = Linear(3, 2, rng=rng)
    for _ in range(2):
        layer(np.ones((4, 3), np.float32)).sum().backward()
    np.testing.assert_array_equal(layer.bias.grad, [8, 8])


def test_to_float64_converts_every_parameter_in_place_and_keeps_the_values(tree):
    tree.own.data[...] = 0.1
    before, parameters = tree.state_dict(), tree.parameters()
    assert tree.to(np.float64) is tree
    assert [id(p) for p in tree.parameters()] == [id(p) for p in parameters]
    for name, p in tree.named_parameters():
        assert p.dtype == np.float64
        np.testing.assert_array_equal(p.data, before[name].astype(np.float64))
    tree.to(np.float32)
    assert {p.dtype for p in tree.parameters()} == {np.dtype(np.float32)}


def test_state_dict_is_a_copy(tree):
    state = tree.state_dict()
    assert list(state) == TREE_NAMES
    state["own"][...] = 5
    state["first.scale"] += 5
    assert tree.own.item() == 0 and tree.first.scale.data[0] == 1


def test_load_state_dict_copies_every_array_and_the_caller_keeps_his(tree):
    other = Tree()
    for p in other.parameters():
        p.data += 10
    state = other.state_dict()
    tree.load_state_dict(state)
    for name, data in arrays_of(tree).items():
        np.testing.assert_array_equal(data, state[name])
    state["first.scale"] += 1
    assert tree.first.scale.data[0] == 11


def test_load_state_dict_keeps_the_parameters_themselves_and_the_models_dtype(tree):
    identities = [(id(p), id(p.data)) for p in tree.parameters()]
    tree.load_state_dict({k: v.astype(np.float64) for k, v in Tree().state_dict().items()})
    assert [(id(p), id(p.data)) for p in tree.parameters()] == identities
    assert {p.dtype for p in tree.parameters()} == {np.dtype(np.float32)}


def test_load_state_dict_does_not_broadcast(tree):
    state = tree.state_dict()
    state["first.scale"] = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match=re.escape("first.scale is (1,) where the model has (3,)")):
        tree.load_state_dict(state)


def test_load_state_dict_does_not_take_pytorchs_transposed_weight(rng):
    layer = Linear(2, 3, rng=rng)
    state = layer.state_dict()
    state["weight"] = state["weight"].T
    with pytest.raises(ValueError, match=re.escape("weight is (3, 2) where the model has (2, 3)")):
        layer.load_state_dict(state)


def test_load_state_dict_names_everything_that_is_wrong_and_changes_nothing(tree):
    state = {k: v + 1 for k, v in tree.state_dict().items()}
    del state["own"], state["items.0.scale"]
    state["extra"], state["items.2.scale"] = np.zeros(1), np.zeros(3)
    state["first.scale"], state["table.b"] = np.zeros(4), np.zeros((2, 3))
    before = tree.state_dict()
    with pytest.raises(ValueError, match="do not fit") as error:
        tree.load_state_dict(state)
    wrong = str(error.value).removeprefix("these weights do not fit the model: ").split("; ")
    assert wrong == [
        "missing own",
        "missing items.0.scale",
        "unexpected extra",
        "unexpected items.2.scale",
        "table.b is (2, 3) where the model has (2, 2)",
        "first.scale is (4,) where the model has (3,)",
    ]
    for name, data in arrays_of(tree).items():
        np.testing.assert_array_equal(data, before[name])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.pop("own"),
        lambda state: state.update(extra=np.zeros(1)),
        lambda state: state.update({"table.a.scale": np.zeros(4)}),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_one_fault_of_any_kind_is_enough_to_load_nothing(tree, spoil):
    state = {k: v + 1 for k, v in tree.state_dict().items()}
    before = tree.state_dict()
    spoil(state)
    with pytest.raises(ValueError, match="do not fit"):
        tree.load_state_dict(state)
    for name, data in arrays_of(tree).items():
        np.testing.assert_array_equal(data, before[name])


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5), (2, 0, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_x_times_w_plus_b(rng, shape, bias):
    layer = Linear(5, 3, bias, rng=rng).to(np.float64)
    expected = (x := rng.standard_normal(shape)) @ layer.weight.data
    if bias:
        layer.bias.data[...] = rng.standard_normal(3)
        expected = expected + layer.bias.data
    y = layer(Tensor(x))
    assert y.shape == (*shape[:-1], 3)
    np.testing.assert_allclose(y.data, expected, rtol=1e-13, atol=1e-13)


def test_linear_without_bias_has_one_parameter(rng):
    assert [name for name, _ in Linear(2, 3, False, rng=rng).named_parameters()] == ["weight"]
    assert [name for name, _ in Linear(2, 3, rng=rng).named_parameters()] == ["weight", "bias"]


def test_linear_takes_arrays_in_its_own_dtype(rng):
    layer = Linear(4, 2, rng=rng)
    assert layer(np.ones((3, 4))).dtype == np.float32
    assert layer.to(np.float64)(np.ones((3, 4), np.float32)).dtype == np.float64


def test_linear_names_the_width_it_wants(rng):
    with pytest.raises(ValueError, match=r"x has 5 features, the weight \(4, 2\)"):
        Linear(4, 2, rng=rng)(np.ones((3, 5), np.float32))


def test_linear_ignores_a_generator(rng):
    layer, other = Linear(4, 2, rng=rng), np.random.default_rng(3)
    np.testing.assert_array_equal(layer(np.eye(4)).data, layer(np.eye(4), other).data)
    assert other.random() == np.random.default_rng(3).random()


def test_embedding_picks_rows_and_repeated_ids_collect_every_gradient(rng):
    table = Embedding(6, 3, rng=rng)
    ids = np.array([[1, 4, 1], [0, 1, 5]])
    y = table(ids)
    np.testing.assert_array_equal(y.data, table.weight.data[ids])
    g = rng.standard_normal(y.shape).astype(np.float32)
    y.backward(g)
    expected = np.zeros((6, 3), np.float32)
    np.add.at(expected, ids, g)
    np.testing.assert_allclose(table.weight.grad, expected, rtol=1e-6)


def test_embedding_says_which_ids_it_has(rng):
    for bad in (-1, 6):
        with pytest.raises(IndexError, match=r"0\.\.5"):
            Embedding(6, 3, rng=rng)(np.array([0, bad]))


@pytest.mark.parametrize("eps", [1e-5, 1.0])
def test_layer_norm_is_centred_and_scaled_by_the_biased_variance_plus_eps(rng, eps):
    norm = LayerNorm(7, eps).to(np.float64)
    for p in norm.parameters():
        p.data[...] = rng.standard_normal(7)
    x = rng.standard_normal((2, 3, 7)) * 3 + 1
    centred = x - x.mean(-1, keepdims=True)
    expected = centred / np.sqrt(x.var(-1, keepdims=True) + eps)
    expected = expected * norm.weight.data + norm.bias.data
    np.testing.assert_allclose(norm(Tensor(x)).data, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("eps", [1e-5, 1.0])
def test_rms_norm_divides_by_the_root_mean_square_and_does_not_centre(rng, eps):
    norm = RMSNorm(7, eps).to(np.float64)
    norm.weight.data[...] = rng.standard_normal(7)
    x = rng.standard_normal((2, 3, 7)) * 3 + 1
    expected = x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * norm.weight.data
    np.testing.assert_allclose(norm(Tensor(x)).data, expected, rtol=1e-12, atol=1e-12)


def test_norms_start_as_the_identity_after_normalising():
    np.testing.assert_array_equal(LayerNorm(4).weight.data, np.ones(4))
    np.testing.assert_array_equal(LayerNorm(4).bias.data, np.zeros(4))
    assert [name for name, _ in RMSNorm(4).named_parameters()] == ["weight"]
    np.testing.assert_array_equal(RMSNorm(4).weight.data, np.ones(4))
    assert LayerNorm(4).eps == RMSNorm(4).eps == 1e-5


@pytest.mark.parametrize(
    ("make", "std"),
    [
        (lambda rng: Linear(400, 300, rng=rng), 1 / math.sqrt(400)),
        (lambda rng: Linear(400, 300, rng=rng, std=0.3), 0.3),
        (lambda rng: Embedding(400, 300, rng=rng), 0.02),
        (lambda rng: Embedding(400, 300, rng=rng, std=1.5), 1.5),
    ],
    ids=["Linear", "Linear std", "Embedding", "Embedding std"],
)
def test_weights_start_normal_with_the_stated_std_in_float32(rng, make, std):
    weight = make(rng).weight.data
    assert weight.shape == (400, 300) and weight.dtype == np.float32
    z = weight / std
    assert abs(z.mean()) < 0.015 and abs(z.std() - 1) < 0.01  # 4-5 standard errors each
    assert abs((z**4).mean() - 3) < 0.1  # the fourth moment of a normal, not of a uniform (1.8)


def test_biases_start_at_zero_and_the_same_seed_gives_the_same_layer():
    a, b = (Linear(5, 4, rng=np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(a.bias.data, np.zeros(4))
    np.testing.assert_array_equal(a.weight.data, b.weight.data)
    other = Linear(5, 4, rng=np.random.default_rng(8))
    assert not np.array_equal(a.weight.data, other.weight.data)
